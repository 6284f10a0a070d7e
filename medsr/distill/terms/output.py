"""Teacher output: the student learns the teacher's answer as if it were a second truth."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medsr.distill.taps import Activations, Tap
from medsr.errors import UsageError
from medsr.losses import build_loss


class OutputTerm(nn.Module):
    """Loss between the student's and the teacher's output.

    Args:
        loss: Name of a loss in :data:`medsr.losses.LOSSES`.
        self_ensemble: Ask the teacher about ``flips`` flipped copies of the scan too, and learn
            from the mean of its un-flipped answers. Costs ``flips`` more teacher passes.
        flips: Flipped copies, 1 to 7: first along X, Y and Z alone, then along pairs, then all.
        **options: Arguments of the loss.

    Raises:
        UsageError: If the loss is unknown or ``flips`` is out of range.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, with a
        regression loss; self-ensemble: Timofte et al., "Seven ways to improve example-based
        single image super resolution", CVPR 2016, section 3.
    """

    name = "output"

    def __init__(
        self, loss: str = "l1", self_ensemble: bool = False, flips: int = 3, **options: Any
    ) -> None:
        super().__init__()
        if not 1 <= flips <= 7:
            raise UsageError(f"output term: flips is {flips}; give 1 to 7")
        self.loss = build_loss(loss, **options)
        self.teacher_flips = flips if self_ensemble else 0

    @property
    def needs(self) -> tuple[Tap, ...]:
        """No taps: outputs are enough."""
        return ()

    def forward(self, student: Activations, teacher: Activations, hr: Tensor) -> Tensor:
        """Compare the outputs.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            hr: True volume; not used.

        Returns:
            A float32 scalar, zero when the outputs are equal.
        """
        loss: Tensor = self.loss(student.output, teacher.output)
        return loss

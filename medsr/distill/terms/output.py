"""Teacher output: the student learns the teacher's answer as if it were a second truth."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.errors import UsageError
from medsr.losses import build_loss


class OutputTerm(nn.Module):
    """Loss between the student's and the teacher's output.

    Args:
        loss: Name of a loss in :data:`medsr.losses.LOSSES`.
        views: About how many views of the scan the teacher is asked; from 2 on it learns from the
            mean of the un-flipped answers. Each view costs a pass of the teacher. Flips along X,
            Y, Z come first, then along pairs, then all three, then the same transposed; 8 views for
            three different factors, 16 where two are equal, 48 where all are.
        temperature: Refused: a temperature softens a soft-max, and an output is an intensity.
        **options: Arguments of the loss.

    Raises:
        UsageError: If the loss is unknown, ``views`` is below 1, or a temperature is given.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, with a
        regression loss; self-ensemble: Timofte et al., "Seven ways to improve example-based
        single image super resolution", CVPR 2016, section 3.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import OutputTerm
        >>> lr, hr = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)
        >>> term = OutputTerm(loss="l1", views=8)  # the mean of eight flips of the scan
        >>> round(float(term(Activations(hr + 0.1), Activations(hr), Batch(lr, hr))), 4)
        0.1
    """

    name = "output"

    def __init__(
        self, loss: str = "l1", views: int = 1, temperature: float | None = None, **options: Any
    ) -> None:
        super().__init__()
        if temperature is not None:
            raise UsageError(
                "output term: a temperature softens a soft-max and has no meaning for intensities; "
                "leave it out, or take the term soft_label with networks of head: bins"
            )
        if views < 1:
            raise UsageError(f"output term: views is {views}; give 1 (the scan itself) or more")
        self.loss = build_loss(loss, **options)
        self.teacher_views = views

    @property
    def needs(self) -> tuple[Tap, ...]:
        """No taps: outputs are enough."""
        return ()

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the outputs.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs; not used.

        Returns:
            A float32 scalar, zero when the outputs are equal.
        """
        loss: Tensor = self.loss(student.output, teacher.output)
        return loss

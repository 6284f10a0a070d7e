"""Confidence: the student imitates the teacher's output most where the teacher is sure of it."""

from __future__ import annotations

from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._confidence import TeacherSigma
from medsr.errors import UsageError


@TERMS.register(
    "confidence",
    recipe="configs/distill/confidence.yaml",
)
class ConfidenceTerm(Term):
    """Mean absolute difference to the teacher's output, weighted by its confidence in each voxel.

    The weight is ``exp(-sharpness · sigma / mean sigma)``, divided by its own mean, so that the
    loss is as large as without weights and only moves from doubtful voxels to sure ones.

    Args:
        sigma: Where the teacher's comes from, see ``TeacherSigma``: ``"head"``, ``"error"`` or
            ``"views"``.
        sharpness: How much more a sure voxel counts; 0 for an even weight.
        window: For ``"error"``, the edge of its cube in output voxels, odd.
        views: For ``"views"``, about how many the teacher is asked; each costs a pass. Their mean
            is then what is imitated.

    Raises:
        UsageError: If an argument is out of its range, or the teacher's head gives values and
            ``sigma`` is ``"head"``.

    Source: Saputra et al., "Distilling knowledge from a deep pose regressor network", ICCV 2019
        (attentive imitation: weights from the teacher's error), with an exponential weight.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import ConfidenceTerm
        >>> term = ConfidenceTerm(sigma="error", sharpness=2.0, window=1)
        >>> hr = torch.zeros(1, 1, 4, 4, 8)
        >>> answer = hr.clone()
        >>> answer[..., 4:] = 0.2  # the teacher errs in the upper half
        >>> teacher, batch = Activations(answer), Batch(hr[..., ::4], hr)
        >>> lower, upper = answer.clone(), answer.clone()
        >>> lower[..., :4] += 0.1
        >>> upper[..., 4:] += 0.1
        >>> losses = [term(Activations(student), teacher, batch) for student in (lower, upper)]
        >>> bool(losses[0] > losses[1])  # differing costs more where the teacher is right
        True
    """

    name = "confidence"

    def __init__(
        self, sigma: str = "error", sharpness: float = 1.0, window: int = 5, views: int = 8
    ) -> None:
        super().__init__()
        if not 0 <= sharpness < float("inf"):
            raise UsageError(f"confidence term: sharpness is {sharpness}; give 0 or more")
        self.sharpness = float(sharpness)
        self._sigma = TeacherSigma(self.name, sigma, window, views)
        self.teacher_views = self._sigma.views

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The teacher's distribution where it is asked for."""
        return (Tap(student="", teacher=self._sigma.tap),) if self._sigma.tap else ()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        """Take note of the teacher's head.

        Raises:
            UsageError: If it gives values and should give a distribution.
        """
        self._sigma.bind(teacher)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the outputs.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs; the truth is used where ``sigma`` is ``"error"``.

        Returns:
            A float32 scalar, zero when the outputs are equal.
        """
        sigma = self._sigma(teacher, batch)
        weight = (-self.sharpness * sigma / sigma.mean()).exp()
        difference = (student.output.float() - teacher.output.float()).abs()
        return (weight / weight.mean() * difference).mean()

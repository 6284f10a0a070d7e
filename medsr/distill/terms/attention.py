"""Attention transfer: the student is active where the teacher is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import paired
from medsr.errors import UsageError

# Squared distance of the teacher's map from an even one below which it says nothing.
_FLOOR = 1e-2


@TERMS.register(
    "attention",
    small={"student": "body.1", "teacher": "body.2"},
    recipe="configs/distill/attention.yaml",
)
class AttentionTerm(Term):
    """Squared distance between the attention maps of student and teacher.

    The map of a sample is the sum of its squared features over the channels, divided by its norm
    over space. Each sample is normalised by itself; normalising over the batch would let a sample's
    loss depend on its neighbours. Where the networks work on different grids, the finer map is
    averaged over the cells of the coarser grid; the maps of different widths need no projection.

    The distance is given as a share of the distance of an even map from the teacher's: 1 means "no
    better than looking everywhere alike".

    Args:
        student: Submodule of the student whose output is taken, for example ``"body.5"``.
        teacher: Submodule of the teacher.
        power: Exponent of the features, positive; the higher, the more the strongest count.

    Raises:
        UsageError: If ``power`` is not positive.

    Source: Zagoruyko and Komodakis, "Paying more attention to attention: improving the performance
        of convolutional neural networks via attention transfer", ICLR 2017, equation 2, with the
        squared norm.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import AttentionTerm
        >>> term = AttentionTerm(student="body.5", teacher="body.9")
        >>> hr, features = torch.zeros(1, 1, 4, 4, 16), torch.rand(1, 16, 4, 4, 4)
        >>> student = Activations(hr, {"body.5": features})
        >>> teacher = Activations(hr, {"body.9": 3 * features})
        >>> loss = term(student, teacher, Batch(hr[..., ::4], hr))
        >>> round(loss.item(), 4)  # louder, but with the same attention
        0.0
    """

    name = "attention"

    def __init__(self, student: str, teacher: str, power: float = 2.0) -> None:
        super().__init__()
        if not power > 0:
            raise UsageError(f"attention term: power is {power}; it must be positive")
        self.tap = Tap(student=student, teacher=teacher)
        self.power = power

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules that is compared."""
        return (self.tap,)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the maps at the tap.

        Returns:
            A float32 scalar, zero when the maps are proportional in every sample.

        Raises:
            ValueError: If one grid is not a whole multiple of the other.
        """
        student_maps, teacher_maps = paired(self._maps(student), self._maps(teacher), self.tap)
        student_maps, teacher_maps = (
            functional.normalize(each.flatten(1), dim=1) for each in (student_maps, teacher_maps)
        )
        even = functional.normalize(torch.ones_like(teacher_maps), dim=1)
        distance = (student_maps - teacher_maps).square().sum(dim=1).mean()
        reference = (even - teacher_maps).square().sum(dim=1).mean()
        return distance / reference.clamp(min=_FLOOR)

    def _maps(self, activations: Activations) -> Activations:
        """Put the sum over the channels, (B, 1, X, Y, Z), in the place of the features."""
        features = {
            name: value.float().abs().pow(self.power).sum(dim=1, keepdim=True)
            for name, value in activations.features.items()
            if name in (self.tap.student, self.tap.teacher)
        }
        return Activations(activations.output, features)

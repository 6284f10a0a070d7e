"""Feature affinity: which places of a volume the teacher finds alike, the student finds alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import paired, pool_to
from medsr.errors import UsageError

# Affinities of the teacher that differ by less than this are no pattern to be learned.
_FLOOR = 0.05


@TERMS.register(
    "affinity",
    small={"student": "body.1", "teacher": "body.2"},
    recipe="configs/distill/affinity.yaml",
)
class AffinityTerm(Term):
    """Distance between the affinities of all pairs of places, student against teacher.

    The affinity of two places is the cosine between their feature vectors, so that networks of
    different widths are compared without a projection. A volume of N places has N² affinities:
    features are averaged over cells first, and where the networks work on different grids, over
    the cells of the coarser one.

    The mean absolute difference is given as a share of the teacher's own mean absolute deviation
    from its mean affinity: 1 means "no better than the same affinity everywhere". With a
    ``temperature`` each row becomes a distribution over places by a soft-max, and the divergence
    of the student's from the teacher's is given as a share of that of an even distribution.

    Args:
        student: Submodule of the student whose output is taken, for example ``"body.5"``.
        teacher: Submodule of the teacher.
        cells: The most cells per patch whose affinities are compared, from 2.
        temperature: Of the soft-max, positive; low values look at the nearest relatives alone.
            None compares the affinities themselves.

    Raises:
        UsageError: If ``cells`` or ``temperature`` is out of range.

    Source: He et al., "FAKD: feature-affinity based knowledge distillation for efficient image
        super-resolution", ICIP 2020, equations 1 and 2; the soft-max form follows Passalis and
        Tefas, "Learning deep representations with probabilistic knowledge transfer", ECCV 2018.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import AffinityTerm
        >>> term = AffinityTerm(student="body.5", teacher="body.9", cells=64)
        >>> hr, features = torch.zeros(1, 1, 4, 4, 16), torch.rand(1, 16, 4, 4, 4)
        >>> student = Activations(hr, {"body.5": features})
        >>> teacher = Activations(hr, {"body.9": torch.cat([features, features], dim=1)})
        >>> loss = term(student, teacher, Batch(hr[..., ::4], hr))
        >>> round(loss.item(), 4)  # twice the width, but the same places are alike
        0.0
    """

    name = "affinity"

    def __init__(
        self, student: str, teacher: str, cells: int = 512, temperature: float | None = None
    ) -> None:
        super().__init__()
        if cells < 2:
            raise UsageError(f"affinity term: cells is {cells}; give 2 or more")
        if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
            raise UsageError(f"affinity term: temperature is {temperature}; it must be positive")
        self.tap = Tap(student=student, teacher=teacher)
        self.cells = cells
        self.temperature = temperature

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules that is compared."""
        return (self.tap,)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the affinities at the tap.

        Returns:
            A float32 scalar, zero when all affinities are equal.

        Raises:
            ValueError: If one grid is not a whole multiple of the other.
        """
        source, target = paired(student, teacher, self.tap)
        with torch.autocast(source.device.type, enabled=False):
            student_affinity = _affinity(pool_to(source, self.cells))
            teacher_affinity = _affinity(pool_to(target, self.cells))
            if self.temperature is not None:
                return _divergence(student_affinity, teacher_affinity, self.temperature)
            spread = (
                (teacher_affinity - teacher_affinity.mean(dim=(1, 2), keepdim=True)).abs().mean()
            )
            error: Tensor = (student_affinity - teacher_affinity).abs().mean() / spread.clamp(
                min=_FLOOR
            )
            return error


def _affinity(features: Tensor) -> Tensor:
    """Cosines between the feature vectors of all places, (B, N, N)."""
    vectors = functional.normalize(features.flatten(2), dim=1)
    return vectors.transpose(1, 2) @ vectors


def _divergence(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of our rows from theirs, over that of even rows."""
    log_ours = functional.log_softmax(ours / temperature, dim=-1)
    log_theirs = functional.log_softmax(theirs / temperature, dim=-1)
    probability = log_theirs.exp()
    divergence = (probability * (log_theirs - log_ours)).sum(dim=-1).mean()
    even = (probability * log_theirs).sum(dim=-1).mean() + math.log(theirs.shape[-1])
    # Half the variance over the squared temperature is what the divergence is for small spreads.
    error: Tensor = divergence / even.clamp(min=0.5 * (_FLOOR / temperature) ** 2)
    return error

"""Variational information: the student's features tell as much as can be about the teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations
from medsr.distill.terms import TERMS
from medsr.distill.terms._features import ProjectedTerm, paired, projection, standardise
from medsr.errors import UsageError

DISTRIBUTIONS = ("gaussian", "laplace")
"""Of the teacher's features, given the student's."""


@TERMS.register(
    "vid",
    small={"student": "body.1", "teacher": "body.2"},
    recipe="configs/distill/vid.yaml",
)
class VariationalTerm(ProjectedTerm):
    """Negative log-likelihood of the teacher's features under a prediction from the student's.

    It bounds the mutual information between both from below. The prediction has a mean, which 1³
    convolutions make of the student's features, and a spread for each channel of the teacher,
    which is learned with it: channels that the student cannot predict are given up.

    Both sides are standardised first, each channel to mean zero and variance one over batch and
    voxels, and all spreads start at 1. What is returned is counted from the least value there can
    be (a perfect prediction at the smallest spread), in nats per voxel and channel: it is never
    negative, and 0 is out of reach. A start at about 3 is usual.

    With equal channel counts and no hidden layer the mean starts as the student's features.

    Args:
        student: Submodule of the student whose output is taken, for example ``"body.5"``.
        teacher: Submodule of the teacher.
        distribution: ``"gaussian"`` or ``"laplace"``, which forgives single voxels more.
        hidden: Channels of a hidden layer between the student's features and the mean; None for
            none.
        epsilon: Smallest spread, between 0 and 1: what is added to the Laplace scale, and in
            square to the Gaussian variance.
        student_channels: Channels of the student's features; found by :meth:`setup` if not given.
        teacher_channels: Channels of the teacher's features; likewise.

    Raises:
        UsageError: If an option is out of range, or only one of the channel counts is given.

    Source: Ahn et al., "Variational information distillation for knowledge transfer", CVPR 2019,
        equations 5 and 6; Laplace: Lee et al., "Learning with privileged information for efficient
        image super-resolution" (PISR), ECCV 2020, section 3.3.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import VariationalTerm
        >>> term = VariationalTerm("body.5", "body.9", student_channels=16, teacher_channels=16)
        >>> hr, features = torch.zeros(1, 1, 4, 4, 16), torch.rand(1, 16, 4, 4, 4)
        >>> batch, student = Batch(hr[..., ::4], hr), Activations(hr, {"body.5": features})
        >>> teacher = Activations(hr, {"body.9": features})
        >>> stranger = Activations(hr, {"body.9": torch.rand(1, 16, 4, 4, 4)})
        >>> bool(term(student, teacher, batch) < term(student, stranger, batch))
        True
    """

    name = "vid"

    def __init__(
        self,
        student: str,
        teacher: str,
        distribution: str = "gaussian",
        hidden: int | None = None,
        epsilon: float = 0.1,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
    ) -> None:
        super().__init__(student, teacher)
        if distribution not in DISTRIBUTIONS:
            raise UsageError(
                f"vid term: distribution {distribution!r} is none of {', '.join(DISTRIBUTIONS)}"
            )
        if hidden is not None and hidden < 1:
            raise UsageError(f"vid term: hidden is {hidden}; give 1 or more, or null for none")
        if not 0 < epsilon < 1:
            raise UsageError(f"vid term: epsilon is {epsilon}; it must lie between 0 and 1")
        self.distribution = distribution
        self.hidden = hidden
        self.epsilon = epsilon
        self.raw_spread: nn.Parameter | None = None
        self._create_given(student_channels, teacher_channels)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Predict the teacher's features at the tap from the student's.

        Returns:
            A float32 scalar from 0, least for the same spreads when the prediction is exact.

        Raises:
            RuntimeError: If :meth:`setup` was not called.
            ValueError: If one grid is not a whole multiple of the other.
        """
        if self.projection is None or self.raw_spread is None:
            raise RuntimeError("vid term: setup() must run before the first step")
        source, target = paired(student, teacher, self.tap)
        mean = self.projection(standardise(source)).float()
        error = mean - standardise(target)
        positive = functional.softplus(self.raw_spread.float())[:, None, None, None]
        if self.distribution == "gaussian":
            variance = positive + self.epsilon**2
            nats = 0.5 * (error.square() / variance + variance.log())
        else:
            scale = positive + self.epsilon
            nats = error.abs() / scale + scale.log()
        loss: Tensor = nats.mean() - math.log(self.epsilon)
        return loss

    def _create(self, student_channels: int, teacher_channels: int) -> None:
        if self.hidden is None:
            self.projection = projection(student_channels, teacher_channels)
        else:
            self.projection = nn.Sequential(
                nn.Conv3d(student_channels, self.hidden, kernel_size=1),
                nn.LeakyReLU(0.1),
                nn.Conv3d(self.hidden, teacher_channels, kernel_size=1),
            )
        least = self.epsilon**2 if self.distribution == "gaussian" else self.epsilon
        # The inverse of the soft-plus: variance or scale are exactly 1 at first.
        self.raw_spread = nn.Parameter(
            torch.full((teacher_channels,), math.log(math.expm1(1.0 - least)))
        )

"""Projected features: the student's features, linearly mapped, imitate the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.batch import Batch
from medsr.distill.taps import Activations, Tap
from medsr.errors import UsageError

# Channels quieter than this fraction of the mean variance are not amplified any further.
_VARIANCE_FLOOR = 1e-2
_TINY = 1e-8


class FeatureTerm(nn.Module):
    """Mean squared error between projected student features and the teacher's.

    Both sides are standardised first, each channel to mean zero and variance one over batch and
    voxels; then a 1³ convolution maps the student's channels onto the teacher's. So the loss is
    about 1 at the start whatever the networks' scales are (a raw projection, still random, would
    drown every other loss), loud channels do not drown quiet ones, and 1 means "no better than
    the teacher's mean". Where the networks work on different grids (one folds voxels into
    channels), the finer features are averaged over the cells of the coarser grid.

    With equal channel counts the projection starts as the identity.

    Args:
        student: Submodule of the student whose output is taken, for example ``"body.5"``.
        teacher: Submodule of the teacher.
        student_channels: Channels of the student's features; found by :meth:`setup` if not given.
        teacher_channels: Channels of the teacher's features; likewise.

    Raises:
        UsageError: If only one of the channel counts is given.

    Source: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation 3.
    """

    name = "feature"

    def __init__(
        self,
        student: str,
        teacher: str,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.tap = Tap(student=student, teacher=teacher)
        self.projection: nn.Conv3d | None = None
        if student_channels is not None and teacher_channels is not None:
            self.projection = _projection(student_channels, teacher_channels)
        elif student_channels is not None or teacher_channels is not None:
            raise UsageError("feature term: give both student_channels and teacher_channels")

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules that is compared."""
        return (self.tap,)

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create the projection for these networks, unless it is there already.

        Args:
            student: The student's activations for a scan of any size.
            teacher: The teacher's activations for the same scan.
        """
        if self.projection is None:
            source = student.features[self.tap.student]
            target = teacher.features[self.tap.teacher]
            self.projection = _projection(source.shape[1], target.shape[1]).to(source.device)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        """Compare the features at the tap.

        Args:
            student: The student's activations.
            teacher: The teacher's activations, without gradient.
            batch: The training pairs; not used.

        Returns:
            A float32 scalar, zero when the projected features equal the teacher's.

        Raises:
            RuntimeError: If :meth:`setup` was not called.
            ValueError: If one grid is not a whole multiple of the other.
        """
        if self.projection is None:
            raise RuntimeError("feature term: setup() must run before the first step")
        source = student.features[self.tap.student]
        target = teacher.features[self.tap.teacher].detach().float()
        grid = [min(sizes) for sizes in zip(source.shape[2:], target.shape[2:], strict=True)]
        projected = self.projection(_standardise(_pool(source.float(), grid)))
        error: Tensor = (projected.float() - _standardise(_pool(target, grid))).square()
        return error.mean()


def _standardise(features: Tensor) -> Tensor:
    """Bring each channel of (B, C, X, Y, Z) to mean zero and variance one."""
    axes = (0, 2, 3, 4)
    mean = features.mean(dim=axes, keepdim=True)
    variance = features.var(dim=axes, correction=0, keepdim=True)
    # The second part keeps a patch of air, where all channels are constant, from exploding.
    floor = _VARIANCE_FLOOR * (variance.mean() + _VARIANCE_FLOOR * features.square().mean())
    return (features - mean) / torch.maximum(variance, floor + _TINY).sqrt()


def _projection(student_channels: int, teacher_channels: int) -> nn.Conv3d:
    """A 1³ convolution with zero bias; the identity where the channel counts agree."""
    projection = nn.Conv3d(student_channels, teacher_channels, kernel_size=1)
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
    if student_channels == teacher_channels:
        nn.init.dirac_(projection.weight)
    return projection


def _pool(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Average (B, C, X, Y, Z) over the cells of a coarser grid."""
    sizes = tuple(features.shape[2:])
    if any(size % cells for size, cells in zip(sizes, grid, strict=True)):
        raise ValueError(
            f"feature term: features of {sizes} voxels do not divide into {tuple(grid)} cells; "
            "use patches whose size is a multiple of the networks' fold"
        )
    kernel = [size // cells for size, cells in zip(sizes, grid, strict=True)]
    return features if max(kernel) == 1 else functional.avg_pool3d(features, kernel)

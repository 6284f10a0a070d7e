"""What terms do to features before they compare them: bring to one grid, standardise, project.

What is compared lives in the terms' own files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.distill.taps import Activations, Tap
from medsr.distill.term import Term
from medsr.errors import UsageError

# Channels quieter than this fraction of the mean variance are not amplified any further.
_VARIANCE_FLOOR = 1e-2
_TINY = 1e-8


class ProjectedTerm(Term):
    """A term that maps the student's features at a tap onto the teacher's channels.

    Subclasses say by :meth:`_create` what maps them; it happens as soon as both channel counts are
    known.

    Args:
        student: Submodule of the student whose output is taken.
        teacher: Submodule of the teacher.
    """

    def __init__(self, student: str, teacher: str) -> None:
        super().__init__()
        self.tap = Tap(student=student, teacher=teacher)
        self.projection: nn.Module | None = None

    @property
    def needs(self) -> tuple[Tap, ...]:
        """The one pair of submodules that is compared."""
        return (self.tap,)

    def setup(self, student: Activations, teacher: Activations) -> None:
        """Create the projection for these networks, unless it is there already."""
        if self.projection is None:
            source = student.features[self.tap.student]
            target = teacher.features[self.tap.teacher]
            self._create(source.shape[1], target.shape[1])
            self.to(source.device)

    def _create_given(self, student_channels: int | None, teacher_channels: int | None) -> None:
        """Create the projection at once where the channel counts were given.

        Raises:
            UsageError: If only one of them was.
        """
        if student_channels is not None and teacher_channels is not None:
            self._create(student_channels, teacher_channels)
        elif student_channels is not None or teacher_channels is not None:
            raise UsageError(f"{self.name} term: give both student_channels and teacher_channels")

    def _create(self, student_channels: int, teacher_channels: int) -> None:
        raise NotImplementedError(f"{type(self).__name__} must implement _create()")


def paired(student: Activations, teacher: Activations, tap: Tap) -> tuple[Tensor, Tensor]:
    """Return both networks' features at a tap, in float32 and on one grid.

    Where the networks work on different grids (one folds voxels into channels), the finer features
    are averaged over the cells of the coarser grid.

    Args:
        student: The student's activations.
        teacher: The teacher's activations.
        tap: Where to look.

    Returns:
        The student's features (B, C, X, Y, Z) and the teacher's (B, C', X, Y, Z), these detached.

    Raises:
        ValueError: If one grid is not a whole multiple of the other.
    """
    source = student.features[tap.student].float()
    target = teacher.features[tap.teacher].detach().float()
    grid = [min(sizes) for sizes in zip(source.shape[2:], target.shape[2:], strict=True)]
    return pool(source, grid), pool(target, grid)


def pool(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Average (B, C, X, Y, Z) over the cells of a coarser grid.

    Raises:
        ValueError: If the sizes are no multiples of the grid's.
    """
    sizes = tuple(features.shape[2:])
    if any(size % cells for size, cells in zip(sizes, grid, strict=True)):
        raise ValueError(
            f"features of {sizes} voxels do not divide into {tuple(grid)} cells; "
            "use patches whose size is a multiple of the networks' fold"
        )
    kernel = [size // cells for size, cells in zip(sizes, grid, strict=True)]
    return features if max(kernel) == 1 else functional.avg_pool3d(features, kernel)


def pool_to(features: Tensor, cells: int) -> Tensor:
    """Average (B, C, X, Y, Z) over cells as cubic as can be, at most so many of them.

    The axis with the most cells is made coarser first. Where a size is no multiple of the cell's,
    the last cell is smaller.

    Args:
        features: Tensor (B, C, X, Y, Z).
        cells: The most cells that may stay, from 1.
    """
    sizes = tuple(features.shape[2:])
    kernel = [1, 1, 1]
    while math.prod(grid := _cells(sizes, kernel)) > cells:
        kernel[grid.index(max(grid))] += 1
    if max(kernel) == 1:
        return features
    return functional.avg_pool3d(features, kernel, ceil_mode=True, count_include_pad=False)


def standardise(features: Tensor) -> Tensor:
    """Bring each channel of (B, C, X, Y, Z) to mean zero and variance one over batch and voxels."""
    axes = (0, 2, 3, 4)
    mean = features.mean(dim=axes, keepdim=True)
    variance = features.var(dim=axes, correction=0, keepdim=True)
    # The second part keeps a patch of air, where all channels are constant, from exploding.
    floor = _VARIANCE_FLOOR * (variance.mean() + _VARIANCE_FLOOR * features.square().mean())
    return (features - mean) / torch.maximum(variance, floor + _TINY).sqrt()


def projection(student_channels: int, teacher_channels: int) -> nn.Conv3d:
    """Return a 1³ convolution with zero bias; the identity where the channel counts agree."""
    layer = nn.Conv3d(student_channels, teacher_channels, kernel_size=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if student_channels == teacher_channels:
        nn.init.dirac_(layer.weight)
    return layer


def _cells(sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Cells along each axis, the last one possibly smaller."""
    return [-(-size // step) for size, step in zip(sizes, kernel, strict=True)]

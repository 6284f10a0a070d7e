"""What every degradation offers, and the separable linear operators they share.

A degradation is split in two: ``sample`` draws parameters, ``apply`` is deterministic in them, so
that a degradation can be stored, replayed and tested. All operators keep the physical extent: the
low-resolution grid is ``Geometry.coarsen(factor)`` of the high-resolution one, voxel ``k`` being
centred at ``s·k + (s − 1)/2``.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from medsr.types import Triple

Operators = tuple[Tensor | None, Tensor | None, Tensor | None]
"""A matrix ``(coarse, fine)`` for each axis; None leaves an axis as it is."""
P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


class Degradation(Protocol[P]):
    """A model of how a scanner loses resolution.

    Attributes:
        factor: Integer factors along X, Y and Z.
        margin: High-resolution voxels, a multiple of ``factor``, that a patch needs on every side
            for its interior to equal the same part of the degraded whole scan.

    Examples:
        >>> import torch
        >>> from medsr.degrade import Degradation, build_degradation
        >>> thicker: Degradation = build_degradation(
        ...     "slice_profile", (1, 1, 4), thickness=(0.8, 1.2), noise=0.02
        ... )
        >>> hr = torch.rand(64, 64, 32, generator=torch.Generator().manual_seed(0))
        >>> drawn = thicker.sample(torch.Generator().manual_seed(1))
        >>> lr = thicker.apply(hr, drawn)
        >>> lr.shape
        torch.Size([64, 64, 8])
        >>> torch.equal(lr, thicker.apply(hr, drawn))  # the noise too can be replayed
        True
    """

    @property
    def factor(self) -> Triple:
        """Integer factors along X, Y and Z."""
        ...

    @property
    def margin(self) -> Triple:
        """High-resolution voxels that a patch needs on every side."""
        ...

    def for_patches(self) -> Degradation[P]:
        """Return the same degradation for patches, where the scan goes on beyond the borders."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> P:
        """Draw parameters."""
        ...

    def nominal(self) -> P:
        """Return the central parameters, without noise."""
        ...

    def apply(self, hr: Tensor, params: P) -> Tensor:
        """Degrade ``(…, X, Y, Z)`` to ``(…, X//fx, Y//fy, Z//fz)``, deterministically."""
        ...


@runtime_checkable
class Separable(Protocol[P_contra]):
    """A degradation that, noise apart, is one matrix along each axis.

    Data consistency (``medsr.infer.consistency.project``) asks for it; a degradation without it can
    be used for everything else.

    Examples:
        >>> from medsr.degrade import Separable, SliceProfile
        >>> profile = SliceProfile(factor=(1, 1, 4))
        >>> isinstance(profile, Separable)
        True
        >>> x, y, z = profile.operators((64, 64, 32), (64, 64, 8), profile.nominal())
        >>> x is None, z.shape  # in plane nothing changes; each thick slice is a row of weights
        (True, torch.Size([8, 32]))
    """

    def operators(self, fine: Triple, coarse: Triple, params: P_contra) -> Operators:
        """Return the matrices between two grids of the same physical extent, noise left out.

        Args:
            fine: Voxels along X, Y and Z before.
            coarse: Voxels after, nowhere more. The ratio need not be whole; where it is the
                degradation's factor, the matrices do what ``apply`` does.
            params: As for ``apply``.
        """
        ...


def centres_between(fine: int, coarse: int) -> Tensor:
    """Return the centres of coarse voxels in fine indices, edges shared, float64 ``(coarse,)``.

    The same as :func:`coarse_centres` where ``fine`` is a multiple of ``coarse``.

    Examples:
        >>> from medsr.degrade.base import centres_between
        >>> centres_between(9, 2).tolist()  # 4.5 fine voxels for each coarse one
        [1.75, 6.25]
    """
    return (torch.arange(coarse, dtype=torch.float64) + 0.5) * (fine / coarse) - 0.5


def coarse_centres(size: int, factor: int) -> Tensor:
    """Return the centres of the coarse voxels in fine indices, float64 ``(size//factor,)``.

    Examples:
        >>> from medsr.degrade.base import coarse_centres
        >>> coarse_centres(8, 4).tolist()
        [1.5, 5.5]
    """
    return torch.arange(size // factor, dtype=torch.float64) * factor + (factor - 1) / 2


def normalise_rows(weights: Tensor) -> Tensor:
    """Scale each row to sum one, so that constants survive, also where a border cuts a row.

    Examples:
        >>> import torch
        >>> from medsr.degrade.base import normalise_rows
        >>> normalise_rows(torch.tensor([[1.0, 2.0, 1.0], [0.0, 1.0, 3.0]])).tolist()
        [[0.25, 0.5, 0.25], [0.0, 0.25, 0.75]]
    """
    return weights / weights.sum(dim=1, keepdim=True)


def along_axis(x: Tensor, operator: Tensor, axis: int) -> Tensor:
    """Apply a matrix along one of the three spatial axes.

    Args:
        x: Tensor ``(…, X, Y, Z)``.
        operator: Matrix ``(n_out, n_in)``.
        axis: 0, 1 or 2 for X, Y or Z.

    Returns:
        Tensor with ``n_out`` in place of ``n_in``, of ``x``'s type.

    Examples:
        >>> import torch
        >>> from medsr.degrade.base import along_axis
        >>> mean_of_two = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
        >>> along_axis(torch.rand(1, 1, 8, 8, 4), mean_of_two, axis=2).shape
        torch.Size([1, 1, 8, 8, 2])
    """
    matrix = operator.to(device=x.device, dtype=x.dtype)
    moved = x.movedim(axis - 3, -1)
    return torch.matmul(moved, matrix.T).movedim(-1, axis - 3)


def uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    """Draw one number from ``[low, high]``.

    Examples:
        >>> import torch
        >>> from medsr.degrade.base import uniform
        >>> 0.8 <= uniform(0.8, 1.2, torch.Generator().manual_seed(0)) <= 1.2
        True
    """
    return low + (high - low) * float(torch.rand((), generator=generator))


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed for noise that ``apply`` makes, so that it can be replayed.

    Examples:
        >>> import torch
        >>> from medsr.degrade.base import draw_seed
        >>> seeds = [draw_seed(torch.Generator().manual_seed(0)) for _ in range(2)]
        >>> seeds[0] == seeds[1]  # the same generator, the same noise
        True
    """
    return int(torch.randint(2**31 - 1, (), generator=generator))


def as_triple(value: Triple) -> Triple:
    """Check three positive integer factors (lists from recipes are welcome).

    Raises:
        ValueError: If they are not three integers from 1.

    Examples:
        >>> from medsr.degrade.base import as_triple
        >>> as_triple([1, 1, 4])  # a list, as recipes have it
        (1, 1, 4)
    """
    x, y, z = (int(v) for v in value)
    if min(x, y, z) < 1 or (x, y, z) != tuple(value):
        raise ValueError(f"factor is {tuple(value)}; it must be three integers from 1")
    return (x, y, z)


def as_range(value: float | tuple[float, float], name: str) -> tuple[float, float]:
    """Read a number as a range of no width, and check the order of a pair.

    Raises:
        ValueError: If the range is negative or the wrong way round.

    Examples:
        >>> from medsr.degrade.base import as_range
        >>> as_range(0.9, "thickness"), as_range((0.8, 1.0), "thickness")
        ((0.9, 0.9), (0.8, 1.0))
    """
    low, high = (value, value) if isinstance(value, int | float) else value
    if not 0 <= low <= high:
        raise ValueError(f"{name} is {value}; it must be a number or [low, high], from 0")
    return (float(low), float(high))

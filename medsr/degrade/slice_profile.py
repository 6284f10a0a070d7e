"""2D multi-slice MR: every slice integrates the object over a slice profile.

Thickness (the profile's full width at half maximum) and separation (the distance between slice
centres, given by ``factor``) are two parameters: a thickness below the separation leaves a gap,
one above makes slices overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medsr.degrade import DEGRADATIONS
from medsr.degrade.base import (
    Operators,
    along_axis,
    as_range,
    as_triple,
    centres_between,
    coarse_centres,
    draw_seed,
    normalise_rows,
    uniform,
)
from medsr.degrade.noise import add_rician
from medsr.types import Triple

__all__ = ["SliceProfile", "SliceProfileParams"]

FWHM_PER_SIGMA = 2.354820045
REACH_SIGMAS = 3.0


@dataclass(frozen=True)
class SliceProfileParams:
    """Drawn parameters: ``thickness`` over the separation, noise ``sigma`` and its ``seed``.

    Examples:
        >>> from medsr.degrade import SliceProfileParams
        >>> SliceProfileParams(thickness=0.9)  # slices of 4.5 mm, 5 mm apart
        SliceProfileParams(thickness=0.9, sigma=0.0, seed=0)
    """

    thickness: float
    sigma: float = 0.0
    seed: int = 0


def profile_matrix(size: int, separation: int, thickness_voxels: float) -> Tensor:
    """Return the rows of Gaussian slice profiles, float64 ``(size//separation, size)``.

    Args:
        size: Fine voxels along the slice axis.
        separation: Fine voxels from slice centre to slice centre.
        thickness_voxels: Full width at half maximum in fine voxels.
    """
    return profile_rows(size, coarse_centres(size, separation), thickness_voxels)


def profile_rows(size: int, centres: Tensor, thickness_voxels: float) -> Tensor:
    """Return :func:`profile_matrix` for slices that are centred anywhere.

    Args:
        size: Fine voxels along the slice axis.
        centres: Centres of the slices in fine indices, float64 ``(slices,)``.
        thickness_voxels: Full width at half maximum in fine voxels.
    """
    offset = torch.arange(size, dtype=torch.float64)[None, :] - centres[:, None]
    sigma = thickness_voxels / FWHM_PER_SIGMA
    weights = torch.exp(-0.5 * (offset / sigma) ** 2)
    nearest = offset.abs().amin(dim=1, keepdim=True)
    weights[offset.abs() > (nearest + 1e-6).clamp_min(REACH_SIGMAS * sigma)] = 0
    return normalise_rows(weights)


@DEGRADATIONS.register(
    "slice_profile",
    recipe="configs/students/mr-z4-start.yaml",
    draws=("thickness", "noise"),
)
class SliceProfile:
    """Gaussian slice profile along one or more axes, then Rician noise.

    Args:
        factor: Separation of slices in fine voxels along X, Y and Z; 1 leaves an axis alone.
        thickness: FWHM over separation, one number or ``[low, high]`` to draw from. 1 is a stack
            without gap.
        noise: Standard deviation of the noise in units of the scan (normalised in training),
            one number or ``[low, high]``.

    Source: σ = FWHM / 2.355 of a Gaussian profile; Zhao et al. 2021 (SMORE) use the same model.

    Examples:
        >>> import torch
        >>> from medsr.degrade import SliceProfile
        >>> profile = SliceProfile(factor=(1, 1, 4), thickness=(0.8, 1.0), noise=(0.0, 0.03))
        >>> drawn = profile.sample(torch.Generator().manual_seed(0))
        >>> 0.8 <= drawn.thickness <= 1.0, 0.0 <= drawn.sigma <= 0.03
        (True, True)
        >>> profile.apply(torch.rand(1, 1, 64, 64, 32), drawn).shape
        torch.Size([1, 1, 64, 64, 8])
    """

    def __init__(
        self,
        factor: Triple = (1, 1, 4),
        thickness: float | tuple[float, float] = 1.0,
        noise: float | tuple[float, float] = 0.0,
    ):
        self.factor = as_triple(factor)
        self.thickness = as_range(thickness, "thickness")
        self.noise = as_range(noise, "noise")
        if self.thickness[0] <= 0:
            raise ValueError("thickness must be above 0")

    @property
    def margin(self) -> Triple:
        """High-resolution voxels that the widest profile reaches beyond a slice, rounded up."""
        x, y, z = (self._reach(f) for f in self.factor)
        return (x, y, z)

    def _reach(self, factor: int) -> int:
        if factor == 1:
            return 0
        half_width = REACH_SIGMAS * self.thickness[1] * factor / FWHM_PER_SIGMA
        return factor * int(-(-half_width // factor))

    def for_patches(self) -> SliceProfile:
        """Return itself: beyond the margin, borders play no part."""
        return self

    def sample(self, generator: torch.Generator | None = None) -> SliceProfileParams:
        """Draw thickness, noise level and noise seed."""
        return SliceProfileParams(
            thickness=uniform(*self.thickness, generator),
            sigma=uniform(*self.noise, generator),
            seed=draw_seed(generator),
        )

    def nominal(self) -> SliceProfileParams:
        """Return the thickness nearest to the separation that the range allows, without noise."""
        low, high = self.thickness
        return SliceProfileParams(thickness=min(max(1.0, low), high))

    def operators(self, fine: Triple, coarse: Triple, params: SliceProfileParams) -> Operators:
        """Return the matrix along each axis; see :class:`medsr.degrade.base.Separable`."""
        x, y, z = (
            None if n == m else profile_rows(n, centres_between(n, m), params.thickness * n / m)
            for n, m in zip(fine, coarse, strict=True)
        )
        return (x, y, z)

    def apply(self, hr: Tensor, params: SliceProfileParams) -> Tensor:
        """Degrade ``(…, X, Y, Z)``; the remainder of a size that is no multiple is dropped."""
        lr = hr
        for axis, factor in enumerate(self.factor):
            if factor > 1:
                size = hr.shape[axis - 3]
                operator = profile_matrix(size, factor, params.thickness * factor)
                lr = along_axis(lr, operator, axis)
        return add_rician(lr, params.sigma, params.seed)

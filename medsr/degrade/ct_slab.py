"""CT: a thick slice is the mean of the thin slices it covers.

Optionally a softer in-plane kernel (PSF) and noise that is correlated in plane. Intensities are
linear in HU throughout and never clipped.
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
from medsr.degrade.noise import add_correlated, gaussian_matrix, smooth_in_plane
from medsr.degrade.slice_profile import FWHM_PER_SIGMA
from medsr.types import Triple

__all__ = ["CTSlab", "CTSlabParams"]


@dataclass(frozen=True)
class CTSlabParams:
    """Drawn parameters.

    Attributes:
        thickness: Slab thickness over slice separation.
        psf_voxels: In-plane FWHM in voxels.
        sigma: Noise level in units of the scan.
        correlation_voxels: Standard deviation of the noise's in-plane filter.
        seed: Seed of the noise.

    Examples:
        >>> from medsr.degrade import CTSlabParams
        >>> CTSlabParams(thickness=1.0, sigma=15.0, correlation_voxels=0.8, seed=1)  # 15 HU
        CTSlabParams(thickness=1.0, psf_voxels=0.0, sigma=15.0, correlation_voxels=0.8, seed=1)
    """

    thickness: float
    psf_voxels: float = 0.0
    sigma: float = 0.0
    correlation_voxels: float = 0.0
    seed: int = 0


def slab_matrix(size: int, separation: int, thickness_voxels: float) -> Tensor:
    """Return the rows of box profiles, float64 ``(size//separation, size)``.

    A fine slice that a slab covers in part counts by the covered part.
    """
    return slab_rows(size, coarse_centres(size, separation), thickness_voxels)


def slab_rows(size: int, centres: Tensor, thickness_voxels: float) -> Tensor:
    """Return :func:`slab_matrix` for slabs that are centred anywhere.

    Args:
        size: Fine slices along the axis.
        centres: Centres of the slabs in fine indices, float64 ``(slabs,)``.
        thickness_voxels: Thickness of a slab in fine slices.
    """
    fine = torch.arange(size, dtype=torch.float64)
    upper = torch.minimum(fine[None, :] + 0.5, centres[:, None] + thickness_voxels / 2)
    lower = torch.maximum(fine[None, :] - 0.5, centres[:, None] - thickness_voxels / 2)
    return normalise_rows((upper - lower).clamp_min(0))


@DEGRADATIONS.register(
    "ct_slab",
    recipe="configs/students/ct-z4-start.yaml",
    draws=("thickness", "noise"),
)
class CTSlab:
    """Slab mean along one or more axes, in-plane PSF, correlated noise.

    Args:
        factor: Separation of thick slices in fine slices along X, Y and Z.
        thickness: Slab thickness over separation (above 1 overlaps), one number or a range.
        psf_voxels: In-plane FWHM of an extra Gaussian kernel in voxels, one number or a range.
        noise: Standard deviation in units of the scan (HU, or normalised in training).
        correlation_voxels: In-plane correlation of the noise.

    Examples:
        >>> import torch
        >>> from medsr.degrade import CTSlab
        >>> thin = torch.full((1, 1, 8), -1000.0)  # HU, 1 mm slices
        >>> thin[..., 3] = 1000.0  # one slice of bone
        >>> slab = CTSlab(factor=(1, 1, 4))  # 4 mm slices, side by side
        >>> slab.apply(thin, slab.nominal()).flatten().tolist()
        [-500.0, -1000.0]
    """

    def __init__(
        self,
        factor: Triple = (1, 1, 4),
        thickness: float | tuple[float, float] = 1.0,
        psf_voxels: float | tuple[float, float] = 0.0,
        noise: float | tuple[float, float] = 0.0,
        correlation_voxels: float = 0.8,
    ):
        self.factor = as_triple(factor)
        self.thickness = as_range(thickness, "thickness")
        self.psf_voxels = as_range(psf_voxels, "psf_voxels")
        self.noise = as_range(noise, "noise")
        self.correlation_voxels = correlation_voxels
        if self.thickness[0] <= 0:
            raise ValueError("thickness must be above 0")

    @property
    def margin(self) -> Triple:
        """High-resolution voxels that slab or PSF (4 σ of it) reach beyond a patch, rounded up."""
        psf = 4 * self.psf_voxels[1] / FWHM_PER_SIGMA
        reach = []
        for axis, factor in enumerate(self.factor):
            slab = (self.thickness[1] - 1) / 2 * factor if factor > 1 else 0.0
            widest = max(slab, psf if axis < 2 else 0.0)
            reach.append(factor * int(-(-widest // factor)))
        return (reach[0], reach[1], reach[2])

    def for_patches(self) -> CTSlab:
        """Return itself: beyond the margin, borders play no part."""
        return self

    def sample(self, generator: torch.Generator | None = None) -> CTSlabParams:
        """Draw thickness, PSF, noise level and noise seed."""
        return CTSlabParams(
            thickness=uniform(*self.thickness, generator),
            psf_voxels=uniform(*self.psf_voxels, generator),
            sigma=uniform(*self.noise, generator),
            correlation_voxels=self.correlation_voxels,
            seed=draw_seed(generator),
        )

    def nominal(self) -> CTSlabParams:
        """Return the plain slab mean, as near to it as the ranges allow, without noise."""
        low, high = self.thickness
        return CTSlabParams(
            thickness=min(max(1.0, low), high),
            psf_voxels=self.psf_voxels[0],
            correlation_voxels=self.correlation_voxels,
        )

    def operators(self, fine: Triple, coarse: Triple, params: CTSlabParams) -> Operators:
        """Return the matrix along each axis; see :class:`medsr.degrade.base.Separable`.

        On a grid that is not ``factor`` times finer, the PSF keeps its width in coarse voxels.
        """
        matrices: list[Tensor | None] = []
        for axis, (n, m) in enumerate(zip(fine, coarse, strict=True)):
            ratio = n / m
            own = None
            if n != m:
                own = slab_rows(n, centres_between(n, m), params.thickness * ratio)
            sigma = params.psf_voxels / FWHM_PER_SIGMA * ratio / self.factor[axis]
            if axis < 2 and sigma > 0:
                psf = gaussian_matrix(n, sigma)
                own = psf if own is None else own @ psf
            matrices.append(own)
        return (matrices[0], matrices[1], matrices[2])

    def apply(self, hr: Tensor, params: CTSlabParams) -> Tensor:
        """Degrade ``(…, X, Y, Z)``; the remainder of a size that is no multiple is dropped."""
        lr = smooth_in_plane(hr, params.psf_voxels / FWHM_PER_SIGMA)
        for axis, factor in enumerate(self.factor):
            if factor > 1:
                size = hr.shape[axis - 3]
                operator = slab_matrix(size, factor, params.thickness * factor)
                lr = along_axis(lr, operator, axis)
        return add_correlated(lr, params.sigma, params.correlation_voxels, params.seed)

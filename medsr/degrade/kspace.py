"""3D MR: the scanner stops sampling k-space earlier, so the image has fewer, larger voxels.

The crop is a linear operator along each axis and is applied as a matrix: discrete Fourier
transform, keep the central frequencies (times a window), transform back on the coarse centres. The
half-voxel phase between the two grids is part of the matrix, so that edges stay where they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from medsr.degrade import DEGRADATIONS
from medsr.degrade.base import (
    Operators,
    along_axis,
    as_range,
    as_triple,
    centres_between,
    draw_seed,
    normalise_rows,
    uniform,
)
from medsr.degrade.noise import add_rician
from medsr.types import Triple

__all__ = ["KSpaceCrop", "KSpaceParams"]

WINDOWS = ("none", "hamming", "tukey")
TUKEY_TAPER = 0.5


@dataclass(frozen=True)
class KSpaceParams:
    """Drawn parameters: noise ``sigma`` and its ``seed``.

    Examples:
        >>> from medsr.degrade import KSpaceParams
        >>> KSpaceParams(sigma=0.02, seed=7)  # 2 % of the normalised signal
        KSpaceParams(sigma=0.02, seed=7)
    """

    sigma: float = 0.0
    seed: int = 0


def window_weights(frequency: Tensor, window: str) -> Tensor:
    """Return the window over frequencies given as fractions of the crop's edge, 0 to 1.

    Raises:
        ValueError: If the window is unknown.
    """
    if window == "none":
        return torch.ones_like(frequency)
    if window == "hamming":
        return 0.54 + 0.46 * torch.cos(math.pi * frequency)
    if window == "tukey":
        ramp = ((frequency - (1 - TUKEY_TAPER)) / TUKEY_TAPER).clamp(0, 1)
        return 0.5 * (1 + torch.cos(math.pi * ramp))
    raise ValueError(f"window {window!r} is none of {', '.join(WINDOWS)}")


@lru_cache(maxsize=64)
def crop_matrix(size: int, factor: int, window: str, mirror: bool) -> Tensor:
    """Return the k-space crop as a matrix, float64 ``(size//factor, size)``.

    Args:
        size: Fine voxels along the axis.
        factor: Fine voxels per coarse voxel.
        window: One of :data:`WINDOWS`.
        mirror: Extend the object by its mirror image instead of periodically. The transform then
            is a cosine transform, which has no jump at the borders of a patch.

    Returns:
        Rows that sum to one, so that constants survive.
    """
    coarse_size = size // factor
    full = torch.zeros(coarse_size, size, dtype=torch.float64)
    full[:, : coarse_size * factor] = crop_rows(coarse_size * factor, coarse_size, window, mirror)
    return full


@lru_cache(maxsize=64)
def crop_rows(size: int, kept: int, window: str, mirror: bool) -> Tensor:
    """Return the crop of ``size`` voxels to the ``kept`` ones of the same extent, float64.

    Args:
        size: Fine voxels along the axis, any number from ``kept`` up.
        kept: Coarse voxels.
        window: As for :func:`crop_matrix`.
        mirror: As for :func:`crop_matrix`.
    """
    fine = torch.arange(size, dtype=torch.float64)
    coarse = centres_between(size, kept)
    period = size * (2 if mirror else 1)
    bandwidth = kept * (2 if mirror else 1)
    # Harmonics |k| <= bandwidth/2; the Nyquist pair of an even band counts half at either end.
    harmonics = torch.arange(bandwidth // 2 + 1, dtype=torch.float64)
    weights = window_weights(harmonics / (bandwidth / 2), window)
    weights[1:] *= 2
    if bandwidth % 2 == 0:
        weights[-1] /= 2
    angle = 2 * math.pi / period

    def response(distance: Tensor) -> Tensor:
        return (torch.cos(angle * distance[..., None] * harmonics) * weights).sum(-1) / period

    matrix = response(coarse[:, None] - fine[None, :])
    if mirror:
        matrix = matrix + response(coarse[:, None] + fine[None, :] + 1)
    return normalise_rows(matrix)


@DEGRADATIONS.register(
    "kspace",
    recipe="configs/students/mr-iso2-start.yaml",
    draws=("noise",),
)
class KSpaceCrop:
    """Crop k-space to the coarse grid, then Rician noise.

    Args:
        factor: Fine voxels per coarse voxel along X, Y and Z.
        window: ``"none"``, ``"hamming"`` or ``"tukey"``, along each cropped axis.
        noise: Standard deviation of the real and the imaginary part in units of the scan, one
            number or ``[low, high]``.
        mirror: See :func:`crop_matrix`; for patches, where a periodic object would jump.
        reach: Coarse voxels around a training patch that are thrown away. The response falls as
            one over the distance, so no number makes a patch equal to its scan; fewer let
            smaller scans take part.

    Examples:
        >>> import torch
        >>> from medsr.degrade import KSpaceCrop
        >>> crop = KSpaceCrop(factor=(2, 2, 2), window="hamming")
        >>> hr = torch.ones(32, 32, 16)
        >>> lr = crop.apply(hr, crop.nominal())
        >>> lr.shape, round(float(lr.mean()), 6)  # a constant stays the same constant
        (torch.Size([16, 16, 8]), 1.0)
    """

    def __init__(
        self,
        factor: Triple = (2, 2, 2),
        window: str = "none",
        noise: float | tuple[float, float] = 0.0,
        mirror: bool = False,
        reach: int = 8,
    ):
        if reach < 0 or int(reach) != reach:
            raise ValueError(f"reach is {reach}; it must be a whole number from 0")
        self.reach = int(reach)
        self.factor = as_triple(factor)
        self.noise = as_range(noise, "noise")
        self.window = window
        self.mirror = mirror
        window_weights(torch.zeros(1), window)

    @property
    def margin(self) -> Triple:
        """The ``reach``; beyond eight coarse voxels a mirrored patch is close to its scan."""
        x, y, z = (self.reach * f if f > 1 else 0 for f in self.factor)
        return (x, y, z)

    def for_patches(self) -> KSpaceCrop:
        """Return the same degradation with mirrored borders."""
        return KSpaceCrop(self.factor, self.window, self.noise, mirror=True, reach=self.reach)

    def sample(self, generator: torch.Generator | None = None) -> KSpaceParams:
        """Draw noise level and noise seed."""
        return KSpaceParams(sigma=uniform(*self.noise, generator), seed=draw_seed(generator))

    def nominal(self) -> KSpaceParams:
        """Return parameters without noise."""
        return KSpaceParams()

    def operators(self, fine: Triple, coarse: Triple, params: KSpaceParams) -> Operators:
        """Return the matrix along each axis; see :class:`medsr.degrade.base.Separable`."""
        del params  # noise alone
        x, y, z = (
            None if n == m else crop_rows(n, m, self.window, self.mirror)
            for n, m in zip(fine, coarse, strict=True)
        )
        return (x, y, z)

    def apply(self, hr: Tensor, params: KSpaceParams) -> Tensor:
        """Degrade ``(…, X, Y, Z)``; the remainder of a size that is no multiple is dropped."""
        lr = hr
        for axis, factor in enumerate(self.factor):
            if factor > 1:
                operator = crop_matrix(hr.shape[axis - 3], factor, self.window, self.mirror)
                lr = along_axis(lr, operator, axis)
        return add_rician(lr, params.sigma, params.seed)

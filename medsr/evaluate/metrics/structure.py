"""Structure beside its truth: SSIM over several scales, and the error of fine detail (HFEN).

Both keep what belongs to the truth alone, so that many results are scored at little cost. SSIM at
one scale is in ``basic``. MONAI and torchmetrics have multi-scale SSIM, too, and the tests compare
with both; they convolve with the whole window (1331 products a voxel instead of 33) and average
over the image, air included, where this averages inside the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medsr.evaluate.metrics.basic import SSIM_SIGMA, SSIM_WINDOW
from medsr.evaluate.metrics.box import in_chunks
from medsr.types import BoolArray, Float32Array

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, finest first (Wang et al. 2003, section 3.2)."""

K1, K2 = 0.01, 0.03

HFEN_SIGMA = 1.5
HFEN_RADIUS = 7
"""Voxels: the 15 x 15 window of the paper, in 3D."""

_RADIUS = SSIM_WINDOW // 2


def scales_for(shape: Sequence[int]) -> int:
    """How many of the five scales keep at least one whole window; below two there is no MS-SSIM."""
    return sum(min(shape) // 2**scale >= SSIM_WINDOW for scale in range(len(WEIGHTS)))


def halve(volume: Float32Array) -> Float32Array:
    """Average over blocks of 2 x 2 x 2 voxels; an odd last plane is left out."""
    x, y, z = (size // 2 * 2 for size in volume.shape)
    even = volume[:x, :y, :z]
    along_x = even[0::2] + even[1::2]
    along_y = along_x[:, 0::2] + along_x[:, 1::2]
    return np.asarray((along_y[..., 0::2] + along_y[..., 1::2]) * np.float32(0.125), np.float32)


def mask_pyramid(mask: BoolArray, scales: int) -> list[BoolArray]:
    """The mask at every scale: blocks of which at least half counts.

    Args:
        mask: (X, Y, Z) at the finest scale.
        scales: How many, the finest included.
    """
    share = mask.astype(np.float32)
    masks = [mask]
    for _ in range(scales - 1):
        share = halve(share)
        masks.append(share >= 0.5)
    return masks


class MultiScaleSSIM:
    """SSIM of one truth over several scales, averaged in a mask at each.

    The mean contrast-structure term of every scale and the mean SSIM of the coarsest, each not
    below zero, are multiplied as powers. With as many scales as fit, up to five, the weights of
    those used are rescaled to a sum of one. Window and constants are those of SSIM: Gaussian of
    sigma 1.5 over 11 voxels, K1 0.01, K2 0.03, mirrored at the ends.

    Source: Wang, Simoncelli and Bovik 2003, eq. 7, with all exponents of a scale equal.

    Args:
        hr: (X, Y, Z) truth, float32; its zero should mean nothing (air), since SSIM's luminance
            compares ratios.
        masks: What counts at each scale, finest first (:func:`mask_pyramid`); their number is the
            number of scales.
        data_range: Full range, above zero.
    """

    def __init__(self, hr: Float32Array, masks: Sequence[BoolArray], data_range: float) -> None:
        self.scales = len(masks)
        self._c1, self._c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        self._levels: list[_Level] = []
        weights = np.asarray(WEIGHTS[: self.scales])
        self._weights = weights / weights.sum() if self.scales else weights
        for mask in masks:
            mean = _window(hr)
            self._levels.append(_Level(hr, mean, _window(hr * hr) - mean * mean, mask))
            hr = halve(hr)

    def score(self, sr: Float32Array) -> float:
        """MS-SSIM of a result on the truth's grid.

        Args:
            sr: (X, Y, Z), float32, with the truth's zero.

        Returns:
            At most 1; NaN where fewer than two scales fit or nothing counts at one of them.
        """
        if self.scales < 2 or not all(level.mask.any() for level in self._levels):
            return float("nan")
        value = 1.0
        for number, (level, weight) in enumerate(zip(self._levels, self._weights, strict=True)):
            mean = _window(sr)
            both = level.mean * mean
            covariance = _window(level.hr * sr) - both
            squares = mean * mean
            spread = _window(sr * sr) - squares
            similar = (2 * covariance + self._c2) / (level.variance + spread + self._c2)
            if number == self.scales - 1:
                similar *= (2 * both + self._c1) / (level.mean**2 + squares + self._c1)
            level_mean = float(np.mean(similar[level.mask], dtype=np.float64))
            value *= max(level_mean, 0.0) ** float(weight)
            sr = halve(sr)
        return value


@dataclass(frozen=True)
class _Level:
    """A truth at one scale with its local moments."""

    hr: Float32Array
    mean: Float32Array
    variance: Float32Array
    mask: BoolArray


class HighFrequencyError:
    """HFEN of one truth: the error after a Laplacian of Gaussian, over the truth's own response.

    Source: Ravishankar and Bresler 2011, section IV-A (there 15 x 15 pixels with sigma 1.5; here
    15 voxels along each axis), normalised by the norm of the truth's response.

    Args:
        hr: (X, Y, Z) truth, float32.
        mask: Voxels that count.
    """

    def __init__(self, hr: Float32Array, mask: BoolArray) -> None:
        self._hr = hr
        self._mask = mask
        self._norm = self._of(hr)

    def score(self, sr: Float32Array) -> float:
        """HFEN of a result: 0 where fine detail is equal, 1 where it is lost; NaN for a flat truth.

        Args:
            sr: (X, Y, Z), float32, native units.
        """
        return self._of(sr - self._hr) / self._norm if self._norm > 0 else float("nan")

    def _of(self, volume: Float32Array) -> float:
        response = in_chunks(_laplacian, volume, margin=HFEN_RADIUS)
        return float(np.sqrt(np.sum(np.square(response[self._mask]), dtype=np.float64)))


def _laplacian(volume: Float32Array) -> Float32Array:
    filtered: Float32Array = ndimage.gaussian_laplace(
        volume, HFEN_SIGMA, output=np.float32, mode="nearest", radius=HFEN_RADIUS
    )
    return filtered


def _gaussian(volume: Float32Array) -> Float32Array:
    blurred: Float32Array = ndimage.gaussian_filter(
        volume, SSIM_SIGMA, output=np.float32, mode="reflect", radius=_RADIUS
    )
    return blurred


def _window(volume: Float32Array) -> Float32Array:
    return in_chunks(_gaussian, volume, margin=_RADIUS)

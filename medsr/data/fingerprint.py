"""What a scan looks like, in a few hundred kilobytes, and whether two scans are one acquisition.

A fingerprint is the scan's detail of some 5 to 20 mm, in canonical orientation on a grid of fixed
millimetres, with contrast made even from place to place. Storage order, voxel size, intensity
scale, slight noise and cropping hardly change it, while the folds and vessels of two people differ
in it. Any two are compared at all shifts on a coarse grid, which takes a fraction of a millisecond,
and the few that look alike again on a finer one. ``leaks`` decides which pairs are compared and
what is reported of them; no patient is known here.

Source: Kuglin & Hines 1975 (phase correlation); Jarrett et al. 2009 (local contrast normalisation);
Guizar-Sicairos et al. 2008 (registration to a fraction of a voxel, in scikit-image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medsr.types import Float32Array

if TYPE_CHECKING:
    from medsr.volume import Volume

FINE_MM = 3.0
"""Grid of the second comparison."""
COARSE_MM = 5.0
"""Grid of the first comparison."""
TORUS = 24
"""Coarse voxels along each axis that a scan is folded into: shifts wrap around after 120 mm."""
SMALLEST_OVERLAP = 0.2
"""Share of the smaller scan that two scans must have in common to be likened."""

_SMOOTH = 0.6  # standard deviation of the smoothing, in steps of the grid
_WIDE = {FINE_MM: 1.2, COARSE_MM: 1.0}  # of what is taken away as no detail, in steps
_AROUND = 2.0  # of the neighbourhood in which contrast is made even, in steps
_FLOOR = 0.1  # share of the mean energy below which contrast is left faint
_ROUNDING = 1e-4  # share of the largest value that may be rounding and no detail
_LEVELS = 32.0  # stored integers per unit of detail, which is about -1 to 1
_ROUGHLY = 1.5  # voxels that the rest of a shift may have

Spectrum = npt.NDArray[np.complex64]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of a scan.

    Attributes:
        fine: (X, Y, Z) detail on a grid of ``FINE_MM`` in RAS order, in 32nds.
        coarse: (TORUS, TORUS, TORUS / 2 + 1) spectrum of the detail on a grid of ``COARSE_MM``,
            folded and whitened, of unit energy; zero for a scan without any detail.
    """

    fine: npt.NDArray[np.int8]
    coarse: Spectrum


def fingerprint(volume: Volume) -> Fingerprint:
    """Take a scan's fingerprint.

    Args:
        volume: A scan of either modality, its array axes in any order and direction.
    """
    volume = _canonical(volume)
    fine, coarse = _detail(volume, FINE_MM), _detail(volume, COARSE_MM)
    return Fingerprint(fine.astype(np.int8), _spectrum(coarse))


def coarse_likeness(one: Spectrum, others: Spectrum, *, workers: int = 1) -> Float32Array:
    """Compare a scan with many at all shifts.

    Args:
        one: ``coarse`` of a fingerprint.
        others: (N, ...) those of others.
        workers: Threads.

    Returns:
        (N,) largest correlation of each, 1 for the same scan.
    """
    from scipy.fft import irfftn

    correlations = irfftn(np.conj(one) * others, s=(TORUS,) * 3, axes=(1, 2, 3), workers=workers)
    return np.asarray(correlations.max(axis=(1, 2, 3)), dtype=np.float32)


def fine_likeness(one: Fingerprint, other: Fingerprint) -> float:
    """Compare two scans where they overlap best.

    Returns:
        The correlation of their detail over the overlap, registered to a fraction of a voxel: near
        1 for the same acquisition; 0 where they hardly overlap.
    """
    from scipy.ndimage import shift as moved
    from skimage.registration import phase_cross_correlation

    a, b = one.fine.astype(np.float32), other.fine.astype(np.float32)
    parts = _overlap(a, b, _best_offset(a, b))
    if parts is None or not (parts[0].any() and parts[1].any()):
        return 0.0
    first, second = parts
    likeness = _correlation(first, second)
    register: Any = phase_cross_correlation  # scikit-image states no types
    rest, _, _ = register(first, second, upsample_factor=8, normalization=None)
    if 0 < np.abs(rest).max() <= _ROUGHLY:
        # The origin may have been lost, and then the two grids do not meet.
        likeness = max(likeness, _correlation(first, moved(second, rest, mode="nearest")))
    return likeness


def _canonical(volume: Volume) -> Volume:
    """The same voxels with array axes that run nearest to right, anterior, superior."""
    codes = volume.geometry.axcodes
    order = [next(i for i, code in enumerate(codes) if code in pair) for pair in ("RL", "AP", "SI")]
    volume = volume.permute(order)
    return volume.flip([i for i, code in enumerate(volume.geometry.axcodes) if code in "LPI"])


def _detail(volume: Volume, step_mm: float) -> Float32Array:
    """Detail at multiples of ``step_mm`` from the world's origin, of even contrast, in 32nds."""
    from scipy.ndimage import gaussian_filter

    small = np.asarray(volume.data, dtype=np.float32)
    for axis in range(3):
        weights = _weights(volume, axis, step_mm)
        small = np.moveaxis(np.tensordot(weights, small, (1, axis)), 0, axis)
    band = small - gaussian_filter(small, _WIDE[step_mm], mode="nearest")
    energy = gaussian_filter(band * band, _AROUND, mode="nearest")
    rounding = _ROUNDING * float(np.abs(small).max())
    floor = _FLOOR * float(energy.mean()) + rounding**2 + 1e-30
    levels = np.rint(_LEVELS * band / np.sqrt(energy + floor))
    return np.asarray(np.clip(levels, -127, 127), dtype=np.float32)


def _weights(volume: Volume, axis: int, step_mm: float) -> Float32Array:
    """Gaussian weights (new, old) that bring the voxels of one axis to a grid of ``step_mm``."""
    spacing, size = volume.spacing[axis], volume.shape[axis]
    first = volume.geometry.origin[axis]
    last = first + spacing * (size - 1)
    start, stop = np.ceil(first / step_mm), np.floor(last / step_mm)
    at = np.arange(start, max(start, stop) + 1) * step_mm
    places = first + spacing * np.arange(size)
    sigma = max(_SMOOTH * step_mm, 0.5 * spacing)
    distance = (at[:, None] - places[None, :]) / sigma
    weights = np.exp(-0.5 * distance**2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _spectrum(detail: Float32Array) -> Spectrum:
    """The whitened spectrum of detail that is folded into ``TORUS`` voxels along each axis.

    Folding leaves every shift its peak; whitening makes the peak of an equal scan sharp, where
    people of one protocol, whose brains have one shape, give a broad one.
    """
    from scipy.fft import rfftn

    whole = np.pad(detail, [(0, -size % TORUS) for size in detail.shape])
    folds = [part for size in whole.shape for part in (size // TORUS, TORUS)]
    spectrum = rfftn(whole.reshape(folds).sum(axis=(0, 2, 4)))
    size = np.abs(spectrum)
    white = spectrum / (size + max(float(np.median(size)), 1e-6))
    # Of a half spectrum every column but the first and the last stands for two.
    twice = np.full(white.shape[-1], 2.0)
    twice[[0, -1]] = 1.0
    energy = float((np.abs(white) ** 2 * twice).sum()) / TORUS**3
    return np.asarray(white / np.sqrt(energy) if energy > 0 else white, dtype=np.complex64)


def _best_offset(a: Float32Array, b: Float32Array) -> tuple[int, int, int]:
    """How far ``b`` must be moved, in voxels, to lie on ``a`` best."""
    from scipy.fft import irfftn, next_fast_len, rfftn

    lengths = zip(a.shape, b.shape, strict=True)
    shape = [int(next_fast_len(m + n - 1, real=True)) for m, n in lengths]
    correlation = irfftn(rfftn(a, shape) * np.conj(rfftn(b, shape)), shape)
    peak = np.unravel_index(int(correlation.argmax()), correlation.shape)
    x, y, z = (
        int(at) if at < size else int(at) - length
        for at, size, length in zip(peak, a.shape, shape, strict=True)
    )
    return x, y, z


def _overlap(
    a: Float32Array, b: Float32Array, offset: Sequence[int]
) -> tuple[Float32Array, Float32Array] | None:
    """What lies on each other once ``b`` is moved; None where that is little."""
    low = [max(0, o) for o in offset]
    high = [min(m, n + o) for m, n, o in zip(a.shape, b.shape, offset, strict=True)]
    first = a[tuple(slice(s, e) for s, e in zip(low, high, strict=True))]
    second = b[tuple(slice(s - o, e - o) for s, e, o in zip(low, high, offset, strict=True))]
    if first.size < SMALLEST_OVERLAP * min(a.size, b.size) or min(first.shape) < 2:
        return None
    return first, second


def _correlation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Pearson's correlation, 0 where one of both is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0

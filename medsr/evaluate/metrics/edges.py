"""Sharpness in millimetres: how far the truth's strong edges take to rise, in any result.

The gradients of a truth, the places where it has clean steps along an axis, and the fit of a rise
at those places. ``resolution`` measures whether detail is true at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from medsr.types import BoolArray, Float32Array, Float64Array, Int64Array

STRONG_PERCENTILE = 90.0
"""Of the gradient's length in the mask: what is above it is an edge."""

RISE = 2.563103131089201
"""From 10 % to 90 % of an error function, in its standard deviations."""

HALF_WINDOW_MM = 8.0
ALIGNED = 0.9
"""Least share of the gradient's length along the axis: at most 26 degrees off."""

LEAST_FIT = 0.95
"""Share of the truth's variance that a step must explain for a place to be used."""

LEAST_STEP = 0.1
"""Least height of a step, as a share of the data range."""

CANDIDATES, SITES, LEAST_SITES = 20000, 4000, 20
SEED = 0

_WIDTHS, _SHIFTS_PER_VOXEL = 80, 4


def gradients(hr: Float32Array, spacing_mm: Sequence[float]) -> tuple[Float32Array, ...]:
    """Derivatives along X, Y, Z of a truth smoothed by a Gaussian of one voxel, units per mm."""
    smooth = ndimage.gaussian_filter(hr, 1.0, output=np.float32)
    return tuple(
        np.asarray(np.gradient(smooth, step, axis=axis), dtype=np.float32)
        for axis, step in enumerate(spacing_mm)
    )


def strong_edges(parts: Sequence[Float32Array], mask: BoolArray) -> BoolArray:
    """Where the gradient is among the longest tenth of those in the mask.

    Args:
        parts: What :func:`gradients` returns.
        mask: (X, Y, Z) voxels that count.
    """
    squared = parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2
    least = np.percentile(squared[mask], STRONG_PERCENTILE) if mask.any() else np.inf
    return np.asarray(mask & (squared > least))


@dataclass(frozen=True)
class _Sites:
    """Clean steps of a truth along one axis."""

    lines: Int64Array
    """(N, K) places in the flattened volume, along the axis, the step in the middle."""
    sign: Float64Array
    """(N,) 1 where the truth rises along the axis, -1 where it falls."""
    model: _StepModel


class EdgeWidths:
    """The 10 to 90 % rise distance of many results at the clean steps of one truth.

    A place is used where the truth has a strong edge across the axis, a local maximum of the
    derivative along it, and where an error function between two plateaus explains 95 % of the
    truth's variance within 8 mm on both sides (6 to 20 voxels; weights fall off as a Gaussian of
    4 mm). Thin sheets and noisy edges drop out so. At the same places an error function with free
    position, height and width is fitted to the result; the median of the widths is told. Where a
    result has no such edge the widest width of the search counts.

    Args:
        hr: (X, Y, Z) truth, float32.
        parts: Its :func:`gradients`.
        edges: Its :func:`strong_edges`.
        spacing_mm: Voxel size along each axis.
        data_range: Full range, native units.
    """

    def __init__(
        self,
        hr: Float32Array,
        parts: Sequence[Float32Array],
        edges: BoolArray,
        spacing_mm: tuple[float, float, float],
        data_range: float,
    ) -> None:
        generator = np.random.default_rng(SEED)
        self._shape = hr.shape
        self._sites = [
            _find(hr, parts, edges, axis, spacing_mm[axis], LEAST_STEP * data_range, generator)
            for axis in range(3)
        ]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Places used along X, Y and Z."""
        x, y, z = (len(sites.sign) for sites in self._sites)
        return x, y, z

    def widths_mm(self, sr: Float32Array) -> tuple[float, float, float]:
        """The median rise distance along X, Y and Z.

        Args:
            sr: (X, Y, Z) result on the truth's grid.

        Returns:
            Millimetres; NaN along axes with fewer than 20 places.

        Raises:
            ValueError: Shapes differ.
        """
        if sr.shape != self._shape:
            raise ValueError(f"shapes differ: restored {sr.shape}, truth {self._shape}")
        flat = sr.reshape(-1)
        widths = []
        for sites in self._sites:
            if len(sites.sign) < LEAST_SITES:
                widths.append(float("nan"))
                continue
            profiles = flat[sites.lines] * sites.sign[:, None]
            widths.append(float(np.median(sites.model.fit(profiles).sigma_mm)) * RISE)
        return widths[0], widths[1], widths[2]


@dataclass(frozen=True)
class _Fit:
    sigma_mm: Float64Array
    shift_mm: Float64Array
    height: Float64Array
    explained: Float64Array
    """Share of each profile's weighted variance."""


class _StepModel:
    """Least squares of ``a + b erf((x - c) / (sigma sqrt 2))`` with b above zero, many at once.

    For every (c, sigma) of a grid the best a and b are linear, so that all profiles are fitted by
    one matrix product; the width is then refined by a parabola through its neighbours.
    """

    def __init__(self, half: int, spacing_mm: float) -> None:
        x = np.arange(-half, half + 1) * spacing_mm
        reach = half * spacing_mm
        weight = np.exp(-0.5 * (x / (reach / 2)) ** 2)
        self._share: Float64Array = weight / weight.sum()
        self.sigmas: Float64Array = np.geomspace(0.2 * spacing_mm, reach / 1.5, _WIDTHS)
        steps = np.arange(-half * _SHIFTS_PER_VOXEL // 2, half * _SHIFTS_PER_VOXEL // 2 + 1)
        self._shifts: Float64Array = steps * spacing_mm / _SHIFTS_PER_VOXEL
        basis = special.erf((x - self._shifts[:, None, None]) / (self.sigmas[:, None] * np.sqrt(2)))
        basis -= (basis @ self._share)[..., None]
        self._norms: Float64Array = np.sqrt(np.square(basis) @ self._share)
        # Weighted inner products with unit steps, (K, shifts * widths).
        scaled = basis * self._share / self._norms[..., None]
        self._steps: Float64Array = scaled.reshape(-1, x.size).T

    def fit(self, profiles: npt.NDArray[np.floating], block: int = 500) -> _Fit:
        """Fit rising steps to (N, K) profiles."""
        parts = [
            self._fit(np.asarray(profiles[start : start + block], dtype=np.float64))
            for start in range(0, len(profiles), block)
        ]
        fields = zip(*parts, strict=True)
        sigma, shift, height, explained = (np.concatenate(field) for field in fields)
        return _Fit(sigma, shift, height, explained)

    def _fit(
        self, profiles: Float64Array
    ) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
        centred = profiles - (profiles @ self._share)[:, None]
        fits = centred @ self._steps
        rows = np.arange(len(fits))
        best = fits.argmax(axis=1)
        shift, width = np.divmod(best, _WIDTHS)
        gain = fits.reshape(len(fits), -1, _WIDTHS)
        inner = np.clip(width, 1, _WIDTHS - 2)
        low, mid, high = (gain[rows, shift, inner + step] for step in (-1, 0, 1))
        bend = low - 2 * mid + high
        move = np.divide(0.5 * (low - high), bend, out=np.zeros_like(bend), where=bend < 0)
        move = np.where(inner == width, np.clip(move, -0.5, 0.5), 0.0)
        ratio = self.sigmas[1] / self.sigmas[0]
        peak = fits[rows, best]
        sigma = np.where(peak > 0, self.sigmas[width] * ratio**move, self.sigmas[-1])
        total = np.square(centred) @ self._share
        explained = np.divide(peak**2, total, out=np.zeros_like(total), where=total > 0)
        return sigma, self._shifts[shift], 2 * peak / self._norms[shift, width], explained


def _find(
    hr: Float32Array,
    parts: Sequence[Float32Array],
    edges: BoolArray,
    axis: int,
    spacing_mm: float,
    least_step: float,
    generator: np.random.Generator,
) -> _Sites:
    """Choose the places where the truth is a clean step along an axis."""
    half = int(np.clip(round(HALF_WINDOW_MM / spacing_mm), 6, 20))
    model = _StepModel(half, spacing_mm)
    places = np.argwhere(edges)
    size = hr.shape[axis]
    places = places[(places[:, axis] >= half) & (places[:, axis] < size - half)]
    flat = np.ravel_multi_index(tuple(places.T), hr.shape)
    step = int(np.prod(hr.shape[axis + 1 :]))
    slopes = [part.reshape(-1) for part in parts]
    along = np.abs(slopes[axis][flat])
    length = np.sqrt(sum(slope[flat] ** 2 for slope in slopes))
    peak = (along >= np.abs(slopes[axis][flat - step])) & (
        along >= np.abs(slopes[axis][flat + step])
    )
    flat = flat[peak & (along >= ALIGNED * length)]
    flat = generator.permutation(flat)[:CANDIDATES]
    lines = flat[:, None] + step * np.arange(-half, half + 1)
    sign = np.sign(slopes[axis][flat]).astype(np.float64)
    if not len(flat):
        return _Sites(lines, sign, model)
    truth = model.fit(hr.reshape(-1)[lines] * sign[:, None])
    good = (
        (truth.explained >= LEAST_FIT)
        & (np.abs(truth.shift_mm) <= spacing_mm)
        & (truth.height >= least_step)
        & (truth.sigma_mm <= half * spacing_mm / 4)
    )
    return _Sites(lines[good][:SITES], sign[good][:SITES], model)

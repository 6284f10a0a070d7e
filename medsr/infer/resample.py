"""Resampling to an exact grid over the same physical extent, by B-splines, cubic unless asked.

This brings a network's output to a grid that no whole factor reaches, and makes the B-spline that
pictures compare against. It works on arrays; which grid to take is said by ``medsr.geometry``.

One-dimensional B-spline interpolation is linear, so along each axis it is one small matrix
(new size x old size). The matrices come from SciPy's spline code applied to the unit vectors, and
are applied by matrix products, which is exact, several times faster than resampling the volume
point by point, and lets some planes be had without the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.types import Float32Array, Shape

NEGLIGIBLE = 1e-9
"""Weights below this (of rows that sum to 1) change no float32 result."""


@lru_cache(maxsize=64)
def operator(old: int, new: int, order: int = 3) -> Float32Array:
    """Return the matrix ``(new, old)`` that resamples one axis, edges kept in place.

    Args:
        old: Voxels before, at least 1.
        new: Voxels after, at least 1.
        order: 3 for cubic, 1 for linear, whose weights are nowhere negative.

    Returns:
        Rows of interpolation weights that each sum to 1. Going to fewer voxels, a Gaussian of
        standard deviation ``(old / new - 1) / 2`` voxels comes first, against aliasing; beyond
        the edges the axis is mirrored. The array is shared and read-only.

    Source: Unser 1999, "Splines: a perfect fit for signal and image processing"; the Gaussian is
    the one of ``skimage.transform.resize``.
    """
    from scipy import ndimage  # takes longer to import than a small scan to write

    matrix: NDArray[np.float64] = np.eye(old)
    if old > new:
        sigma = (old / new - 1.0) / 2.0
        matrix = ndimage.gaussian_filter1d(matrix, sigma, axis=0, mode="reflect")
    if 1 < old != new:
        # Along the second axis, a list of unit vectors, nothing changes.
        zoom = (new / old, 1.0)
        matrix = ndimage.zoom(matrix, zoom, order=order, mode="reflect", grid_mode=True)
    elif old != new:
        matrix = np.ones((new, 1))
    # SciPy's spline filter is inexact by 1e-4 on axes of two or three voxels; constants must stay.
    matrix = matrix / matrix.sum(axis=1, keepdims=True)
    result = np.ascontiguousarray(matrix, dtype=np.float32)
    result.flags.writeable = False
    return result


def resample(data: NDArray[Any], shape: Shape, order: int = 3) -> Float32Array:
    """Resample a volume to ``shape`` over the same physical extent (``Geometry.resize``).

    Args:
        data: ``(X, Y, Z)`` of any real type.
        shape: Wanted voxels per axis, at least 1.
        order: See :func:`operator`.

    Returns:
        Float32 array of ``shape``. Nothing is clipped; cubic splines overshoot at sharp edges.
    """
    pairs = zip(data.shape, shape, strict=True)
    return apply_rows(
        data, [operator(old, new, order) if old != new else None for old, new in pairs]
    )


def apply_rows(data: NDArray[Any], rows: Sequence[Float32Array | None]) -> Float32Array:
    """Multiply each axis by its matrix, those that shrink the volume first.

    Args:
        data: ``(X, Y, Z)`` of any real type.
        rows: For each axis rows of :func:`operator`, of as many columns as the axis has voxels;
            None leaves an axis as it is.

    Returns:
        Float32 array with one voxel per row along each axis, contiguous.
    """
    result = np.asarray(data, dtype=np.float32)
    given = [(axis, matrix) for axis, matrix in enumerate(rows) if matrix is not None]
    for axis, matrix in sorted(given, key=lambda pair: pair[1].shape[0] / pair[1].shape[1]):
        if axis == 0:
            result = np.tensordot(matrix, result, axes=1)
        elif axis == 1:
            result = matrix @ result
        else:
            flat = result.reshape(-1, matrix.shape[1]) @ matrix.T
            result = flat.reshape(*result.shape[:2], -1)
    return np.ascontiguousarray(result)


class RollingRows:
    """Multiplies the last axis of a volume by a matrix while its planes come in order.

    Rows of :func:`operator` and of slice profiles fade within some planes, so a plane of the result
    needs only the planes around it.

    Args:
        rows: Matrix (planes wanted, planes that will come); None leaves the axis as it is.
    """

    def __init__(self, rows: Float32Array | None) -> None:
        self._rows = rows
        self._spans = [] if rows is None else [_span(row) for row in rows]
        self._held: Float32Array | None = None
        self._first = 0
        self._next = 0

    @classmethod
    def resampling(
        cls, old: int, new: int, order: int = 3, *, flipped: bool = False
    ) -> RollingRows:
        """Resample ``old`` planes to ``new``.

        Args:
            old: Planes that will come.
            new: Planes wanted.
            order: See :func:`operator`.
            flipped: Whether the last plane comes first.
        """
        step = -1 if flipped else 1
        return cls(operator(old, new, order)[::step, ::step] if old != new else None)

    @property
    def reach(self) -> int:
        """Most planes that one plane of the result needs; 0 where nothing is resampled."""
        return max((stop - start for start, stop in self._spans), default=0)

    def push(self, planes: Float32Array) -> Float32Array | None:
        """Take the next planes ``(X, Y, planes)`` and return those of the result that are ready."""
        if self._rows is None:
            return planes
        held = planes if self._held is None else np.concatenate([self._held, planes], axis=2)
        end = self._first + held.shape[2]
        stop = self._next
        while stop < len(self._spans) and self._spans[stop][1] <= end:
            stop += 1
        ready = None
        if stop > self._next:
            low = min(span[0] for span in self._spans[self._next : stop]) - self._first
            high = max(span[1] for span in self._spans[self._next : stop]) - self._first
            window = slice(self._first + low, self._first + high)
            rows = self._rows[self._next : stop, window]
            ready = apply_rows(held[:, :, low:high], [None, None, rows])
            self._next = stop
        remaining = [span[0] for span in self._spans[self._next :]]
        keep = min(remaining, default=end)
        self._held, self._first = held[:, :, keep - self._first :].copy(), keep
        return ready


def _span(row: Float32Array) -> tuple[int, int]:
    """First and last-plus-one place of a row whose weight is not negligible."""
    (heavy,) = np.nonzero(np.abs(row) > NEGLIGIBLE)
    return (int(heavy[0]), int(heavy[-1]) + 1) if heavy.size else (0, 1)

"""Resampling to an exact grid over the same physical extent, by B-splines, cubic unless asked.

This brings a network's output to a grid that no whole factor reaches, and makes the B-spline that
pictures compare against. It works on arrays; which grid to take is said by ``medsr.geometry``.

One-dimensional B-spline interpolation is linear, so along each axis it is one small matrix
(new size x old size). The matrices come from SciPy's spline code applied to the unit vectors, and
are applied by matrix products, which is exact, several times faster than resampling the volume
point by point, and lets one plane be had without the rest.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]
Shape = tuple[int, int, int]


@lru_cache(maxsize=64)
def operator(old: int, new: int, order: int = 3) -> FloatArray:
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


def resample(data: NDArray[Any], shape: Shape, order: int = 3) -> FloatArray:
    """Resample a volume to ``shape`` over the same physical extent (``Geometry.resize``).

    Args:
        data: ``(X, Y, Z)`` of any real type.
        shape: Wanted voxels per axis, at least 1.
        order: See :func:`operator`.

    Returns:
        Float32 array of ``shape``. Nothing is clipped; cubic splines overshoot at sharp edges.
    """
    rows = [operator(old, new, order) for old, new in zip(data.shape, shape, strict=True)]
    return _apply(data, rows)


def resample_plane(data: NDArray[Any], shape: Shape, axis: int, index: int) -> FloatArray:
    """Return ``numpy.take(resample(data, shape), index, axis)`` without computing the rest.

    Args:
        data: ``(X, Y, Z)`` of any real type.
        shape: Voxels per axis of the grid that the plane is taken from.
        axis: Axis that the plane stands on.
        index: Position of the plane along ``axis`` of that grid.

    Returns:
        Float32 array with the two other axes.
    """
    rows = [operator(old, new) for old, new in zip(data.shape, shape, strict=True)]
    rows[axis] = rows[axis][index : index + 1]
    return np.squeeze(_apply(data, rows), axis=axis)


def _apply(data: NDArray[Any], rows: list[FloatArray]) -> FloatArray:
    """Multiply each axis by its matrix, those that shrink the volume first."""
    result = np.asarray(data, dtype=np.float32)
    for axis in sorted(range(3), key=lambda i: rows[i].shape[0] / rows[i].shape[1]):
        matrix = rows[axis]
        if matrix.shape[0] == matrix.shape[1]:
            continue  # the sizes are equal, so this is the identity
        if axis == 0:
            result = np.tensordot(matrix, result, axes=1)
        elif axis == 1:
            result = matrix @ result
        else:
            flat = result.reshape(-1, matrix.shape[1]) @ matrix.T
            result = flat.reshape(*result.shape[:2], -1)
    return np.ascontiguousarray(result)

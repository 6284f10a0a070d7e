"""Lanczos interpolation between grids whose axes are parallel.

A windowed sinc acts along one axis after the other, so it is applied as one small matrix an axis.
SimpleITK has the same kernel for grids that are turned against each other and sums all thousand
neighbours of every voxel, which takes minutes for a scan. Other interpolations are in
``baselines``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medsr.geometry import Geometry
from medsr.types import Float64Array

RADIUS = 5
"""Neighbours on either side along an axis, as in SimpleITK's ``sitkLanczosWindowedSinc``."""

# Axes count as parallel where no voxel of the result strays by more than this, in voxels.
_ASTRAY = 1e-2


def lanczos(
    data: npt.NDArray[np.float32], source: Geometry, target: Geometry
) -> npt.NDArray[np.float32] | None:
    """Interpolate by a Lanczos-windowed sinc.

    Args:
        data: (X, Y, Z) on ``source``, any unit.
        source: Grid of ``data``.
        target: Grid wanted; outside ``source`` the outermost voxels go on.

    Returns:
        Values on ``target``; None where the axes of the two grids are not parallel.

    Source: Duchon 1979, "Lanczos filtering in one and two dimensions". The weights of a point are
    scaled to sum one (a windowed sinc's own are off by up to 0.1 %), so that constants survive.
    """
    matrices = _along_axes(source, target)
    if matrices is None:
        return None
    axes, steps, offsets = matrices
    result = np.asarray(data, dtype=np.float32)
    for axis in range(3):
        size = target.shape[axes.index(axis)]
        positions = offsets[axis] + steps[axis] * np.arange(size)
        weights = lanczos_matrix(positions, result.shape[axis]).astype(np.float32)
        if weights.shape[0] == weights.shape[1] and np.allclose(weights, np.eye(size), atol=1e-6):
            continue
        result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result.transpose(axes), dtype=np.float32)


def lanczos_matrix(positions: Float64Array, size: int, radius: int = RADIUS) -> Float64Array:
    """Return the weights of Lanczos interpolation along one axis, rows summing to one.

    Args:
        positions: Where to interpolate, in voxels; (n,).
        size: Voxels along the axis; the outermost go on beyond the border.
        radius: Half the width of the window, in voxels.

    Returns:
        (n, size) weights.
    """
    outside = (positions < -0.5) | (positions > size - 0.5)
    centres = np.where(outside, np.clip(positions, 0, size - 1), positions)
    taps = np.floor(centres).astype(np.int64)[:, None] + np.arange(1 - radius, radius + 1)[None, :]
    distance = centres[:, None] - taps
    weights = np.sinc(distance) * np.sinc(distance / radius)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(positions), size))
    rows = np.broadcast_to(np.arange(len(positions))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, size - 1)), weights)
    return matrix


def _along_axes(
    source: Geometry, target: Geometry
) -> tuple[tuple[int, ...], Float64Array, Float64Array] | None:
    """Which source axis each target axis runs along, with step and offset by source axis."""
    origin = source.world_to_voxel(target.origin)
    steps = np.stack(
        [
            source.world_to_voxel(target.voxel_to_world(np.eye(3)[axis])) - origin
            for axis in range(3)
        ]
    )
    axes = tuple(int(axis) for axis in np.abs(steps).argmax(axis=1))
    if sorted(axes) != [0, 1, 2]:
        return None
    main = np.zeros_like(steps)
    main[range(3), axes] = steps[range(3), axes]
    astray = np.abs(steps - main) * (np.asarray(target.shape) - 1)[:, None]
    if astray.max() > _ASTRAY:
        return None
    order = [axes.index(axis) for axis in range(3)]
    return axes, np.asarray([steps[order[i], i] for i in range(3)]), np.asarray(origin)

"""Spheres on voxel grids, each voxel filled by the share of it that lies inside.

Pure geometry in millimetres, for grids of any spacing and direction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medsr.errors import UsageError
from medsr.geometry import Geometry
from medsr.types import Float64Array
from medsr.volume import Volume

if TYPE_CHECKING:
    from medsr.evaluate.lesions.place import Lesion

Window = tuple[slice, slice, slice]

_STEPS_PER_DIAMETER = 32
_FEWEST_STEPS = 4  # along each axis of a voxel
_ROUNDS = 10


def distances_mm(geometry: Geometry, offsets: Sequence[Float64Array]) -> Float64Array:
    """Length of index offsets in space.

    Args:
        geometry: The grid whose voxels the offsets count.
        offsets: Along each axis, ``(nx,)``, ``(ny,)`` and ``(nz,)``, fractions allowed.

    Returns:
        ``(nx, ny, nz)``, mm.
    """
    metric = geometry.affine[:3, :3].T @ geometry.affine[:3, :3]
    grids = np.meshgrid(*offsets, indexing="ij", sparse=True)
    squared = np.zeros([len(offset) for offset in offsets])
    for i, j in itertools.product(range(3), repeat=2):
        if metric[i, j]:
            squared += metric[i, j] * grids[i] * grids[j]
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)), dtype=np.float64)


def window(geometry: Geometry, centre_mm: Sequence[float], radius_mm: float) -> Window:
    """The voxels that a ball may touch, cut at the borders of the grid.

    Args:
        geometry: The grid.
        centre_mm: RAS+.
        radius_mm: Above zero.
    """
    centre = geometry.world_to_voxel(centre_mm)
    # Half the extent of a ball along an index axis, whatever the grid's direction.
    reach = radius_mm * np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1)
    low = np.maximum(np.floor(centre - reach + 0.5), 0).astype(int)
    high = np.minimum(np.floor(centre + reach + 0.5) + 1, geometry.shape).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (x, y, z)


def occupancy(
    geometry: Geometry, centre_mm: Sequence[float], diameter_mm: float
) -> tuple[Window, Float64Array]:
    """Share of every voxel that lies inside a sphere.

    Args:
        geometry: The grid.
        centre_mm: RAS+.
        diameter_mm: Above zero.

    Returns:
        The window of voxels and their shares, from 0 to 1. They add up to the sphere's volume:
        voxels are divided finely, and those at the surface are scaled by what that misses.

    Raises:
        UsageError: The sphere reaches beyond the grid.
    """
    radius = diameter_mm / 2
    box = window(geometry, centre_mm, radius)
    centre = geometry.world_to_voxel(centre_mm)
    reach = radius * np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1)
    if (centre - reach < -0.5).any() or (centre + reach > np.array(geometry.shape) - 0.5).any():
        raise UsageError(f"a lesion {diameter_mm:g} mm across reaches beyond the scan")
    step = diameter_mm / _STEPS_PER_DIAMETER
    counts = [max(_FEWEST_STEPS, math.ceil(s / step)) for s in geometry.spacing]
    offsets = []
    for part, middle, count in zip(box, centre, counts, strict=True):
        points = np.arange((part.stop - part.start) * count) + 0.5
        offsets.append(points / count - 0.5 + part.start - middle)
    inside = distances_mm(geometry, offsets) <= radius
    shape = [n for part, c in zip(box, counts, strict=True) for n in (part.stop - part.start, c)]
    share = inside.reshape(shape).mean(axis=(1, 3, 5))
    volume = math.pi / 6 * diameter_mm**3 / abs(np.linalg.det(geometry.affine[:3, :3]))
    for _ in range(_ROUNDS):
        whole = share >= 1.0
        share[~whole] *= (volume - whole.sum()) / share[~whole].sum()
        # A voxel that is all but inside may be full now, and the others take what is over.
        if share.max() <= 1.0:
            break
        share = np.minimum(share, 1.0)
    return box, share


def insert(hr: Volume, lesions: Iterable[Lesion]) -> Volume:
    """Put lesions into a sharp scan.

    Args:
        hr: The scan, native units.
        lesions: What :func:`~medsr.evaluate.lesions.place.plan_lesions` gave for it.

    Returns:
        A float32 copy; a voxel changes by the lesion's contrast times the share inside it.

    Raises:
        UsageError: A lesion reaches beyond the scan.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.lesions import Lesion, insert
        >>> grid = Geometry((24, 24, 24), np.eye(4))
        >>> scan = Volume(np.full(grid.shape, 40, dtype=np.float32), grid, "CT", "HU")
        >>> nodule = Lesion((12.0, 12.0, 12.0), 6.0, "+60 HU", contrast_native=60.0, tissue="soft")
        >>> changed = insert(scan, [nodule]).data - scan.data
        >>> float(changed.max()), round(float(changed.sum()) / 60.0, 2)  # HU, mm³: a sphere of 6 mm
        (60.0, 113.1)
    """
    data = np.array(hr.data, dtype=np.float32)
    for lesion in lesions:
        where, share = occupancy(hr.geometry, lesion.centre_mm, lesion.diameter_mm)
        data[where] += (lesion.contrast_native * share).astype(np.float32)
    return hr.replace(data=data)

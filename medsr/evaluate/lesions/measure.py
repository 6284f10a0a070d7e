"""What a method made of each lesion, from its results with and without.

The difference of the two is taken for the lesion's response. It is sampled on a fine lattice around
the lesion, and compared with the lesion itself sampled in the same way, so that a perfect method
scores exactly 1 however coarse the voxels are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.errors import UsageError
from medsr.evaluate.lesions.place import GAP_MM, Lesion
from medsr.evaluate.lesions.spheres import Window, distances_mm, occupancy, window
from medsr.geometry import Geometry
from medsr.types import Float64Array
from medsr.volume import Volume

REACH_MM = GAP_MM / 2
"""What lies this far around a lesion's surface counts as its response."""

SEEN = 0.1
"""Below this share of its contrast, a lesion has neither extent nor place."""

_STEPS_PER_DIAMETER = 16
_SHELL_MM = (1.5, 4.5)  # from the lesion's surface


@dataclass(frozen=True)
class LesionResult:
    """One lesion in one method's result; 1 is the truth where not said otherwise.

    Attributes:
        diameter_mm: True diameter.
        contrast: Name of the true contrast.
        tissue: Where it lies.
        contrast_native: True contrast, native units.
        contrast_kept: Mean response in the inner half of the radius over that of the truth.
        volume_kept: Volume above half of the true contrast over that of the truth; NaN where voxels
            are so coarse that the truth itself has none.
        extent_kept: Volume above half of the response's own mean in the inner half of the radius,
            over the truth's above half of its own: how large it looks, whatever its contrast; NaN
            where it is not seen (:data:`SEEN`).
        shift_mm: Distance between the centroids of these two volumes; 0 is the truth, NaN where
            it is not seen.
        false_response: Energy (sum of squares) of the response outside the lesion, within
            :data:`REACH_MM`, over the energy of the lesion; 0 is the truth.
        plain_contrast: Mean in the inner half of the radius minus mean of a shell around, in the
            result with lesions alone, over the true contrast. What a reader sees, anatomy included.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.lesions import Lesion, insert, measure
        >>> grid = Geometry((32, 32, 32), np.eye(4))
        >>> scan = Volume(np.full(grid.shape, 40, dtype=np.float32), grid, "CT", "HU")
        >>> nodule = Lesion((15.0, 15.0, 15.0), 8.0, "+60 HU", contrast_native=60.0, tissue="soft")
        >>> (perfect,) = measure(insert(scan, [nodule]), scan, grid, [nodule])
        >>> round(perfect.contrast_kept, 3), round(perfect.volume_kept, 3)
        (1.0, 1.0)
    """

    diameter_mm: float
    contrast: str
    tissue: str
    contrast_native: float
    contrast_kept: float
    volume_kept: float
    extent_kept: float
    shift_mm: float
    false_response: float
    plain_contrast: float


def measure(
    sr_with: Volume | NDArray[Any],
    sr_without: Volume | NDArray[Any],
    grid: Geometry,
    lesions: Iterable[Lesion],
) -> list[LesionResult]:
    """Measure every lesion in a method's results.

    Args:
        sr_with: Result for the scan with lesions, (X, Y, Z), native units.
        sr_without: Result for the scan without, alike.
        grid: The grid of both.
        lesions: What was put into the truth.

    Returns:
        One result a lesion, in their order.

    Raises:
        UsageError: The results do not lie on the grid.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.lesions import Lesion, insert, measure
        >>> grid = Geometry((32, 32, 32), np.eye(4))
        >>> scan = Volume(np.full(grid.shape, 40, dtype=np.float32), grid, "CT", "HU")
        >>> nodule = Lesion((15.0, 15.0, 15.0), 8.0, "+60 HU", contrast_native=60.0, tissue="soft")
        >>> marked = insert(scan, [nodule])
        >>> half = scan.data + 0.5 * (marked.data - scan.data)  # a method that halves the contrast
        >>> (found,) = measure(half, scan.data, grid, [nodule])
        >>> round(found.contrast_kept, 3), round(found.extent_kept, 3)
        (0.5, 1.0)
    """
    changed, plain = _array(sr_with), _array(sr_without)
    if not changed.shape == plain.shape == grid.shape:
        raise UsageError(
            f"results of shapes {changed.shape} and {plain.shape} do not lie on a grid of "
            f"{grid.shape}"
        )
    return [_measure(changed, plain, grid, lesion) for lesion in lesions]


def _measure(
    changed: NDArray[Any], plain: NDArray[Any], grid: Geometry, lesion: Lesion
) -> LesionResult:
    radius, contrast = lesion.diameter_mm / 2, lesion.contrast_native
    where = window(grid, lesion.centre_mm, radius + REACH_MM + max(grid.spacing))
    with_lesion = np.asarray(changed[where], dtype=np.float64)
    lattice = _Lattice(grid, lesion, where)
    response = lattice.sample((with_lesion - plain[where]) / contrast)
    truth = lattice.sample(_share(grid, lesion, where))
    r = lattice.r
    core, reach = r <= radius / 2, r <= radius + REACH_MM
    shell = (r >= radius + _SHELL_MM[0]) & (r <= radius + _SHELL_MM[1])
    response, truth = np.where(reach, response, 0.0), np.where(reach, truth, 0.0)
    true_half = truth > 0.5
    height, true_height = float(response[core].mean()), float(truth[core].mean())
    half, true_own = response > height / 2, truth > true_height / 2
    seen = height >= SEEN * true_height
    looks = lattice.sample(with_lesion)
    return LesionResult(
        diameter_mm=lesion.diameter_mm,
        contrast=lesion.contrast,
        tissue=lesion.tissue,
        contrast_native=contrast,
        contrast_kept=height / true_height,
        volume_kept=float((response > 0.5).sum() / true_half.sum())
        if true_half.any()
        else math.nan,
        extent_kept=float(half.sum() / true_own.sum()) if seen else math.nan,
        shift_mm=lattice.distance_mm(half, true_own) if seen else math.nan,
        false_response=float(np.square(response[truth == 0]).sum() / np.square(truth).sum()),
        plain_contrast=float((looks[core].mean() - looks[shell].mean()) / contrast),
    )


def _share(grid: Geometry, lesion: Lesion, where: Window) -> Float64Array:
    """The lesion's share of the voxels of a window."""
    inner, share = occupancy(grid, lesion.centre_mm, lesion.diameter_mm)
    whole = np.zeros([part.stop - part.start for part in where])
    x, y, z = (
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, where, strict=True)
    )
    whole[x, y, z] = share
    return whole


class _Lattice:
    """Evenly spaced points around a lesion, along the axes of the grid.

    Attributes:
        r: Distance of each point from the lesion's centre, mm.
    """

    def __init__(self, grid: Geometry, lesion: Lesion, where: Window) -> None:
        step = lesion.diameter_mm / _STEPS_PER_DIAMETER
        count = math.ceil((lesion.diameter_mm / 2 + REACH_MM) / step)
        offsets_mm = step * np.arange(-count, count + 1)
        self._grid = grid
        self._offsets = [np.asarray(offsets_mm / spacing, np.float64) for spacing in grid.spacing]
        self.r = distances_mm(grid, self._offsets)
        centre = grid.world_to_voxel(lesion.centre_mm)
        self._places = [
            offset + middle - part.start
            for offset, middle, part in zip(self._offsets, centre, where, strict=True)
        ]

    def sample(self, values: Float64Array) -> Float64Array:
        """Interpolate voxels of the window linearly, which never overshoots."""
        for axis, places in enumerate(self._places):
            inside = np.clip(places, 0, values.shape[axis] - 1)
            low = np.minimum(inside.astype(np.intp), max(values.shape[axis] - 2, 0))
            high = np.minimum(low + 1, values.shape[axis] - 1)
            shape = [1, 1, 1]
            shape[axis] = -1
            part = (inside - low).reshape(shape)
            values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
        return values

    def distance_mm(self, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
        """Distance between the centroids of two sets of points."""
        between = [
            float(self._offsets[axis][a].mean() - self._offsets[axis][b].mean())
            for axis, (a, b) in enumerate(zip(np.nonzero(first), np.nonzero(second), strict=True))
        ]
        return float(np.linalg.norm(self._grid.affine[:3, :3] @ between))


def _array(volume: Volume | NDArray[Any]) -> NDArray[Any]:
    return volume.data if isinstance(volume, Volume) else volume

"""Slices that lie unevenly or drift sideways, brought onto a regular grid with right angles.

Each slice is first moved within its own plane to where its positions say that it lies (gantry
tilt), then planes between two slices are interpolated linearly (gaps). Nothing is extrapolated: a
voxel that is not surrounded by measured ones is filled like padding. When this may be done is
decided in ``stack``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medsr.types import Float64Array

_NEXT_TO_NOTHING = 1e-3  # of a pixel or a step: taken as none, so that exact values stay exact


@dataclass(frozen=True, eq=False)
class Regridding:
    """How the planes of a regular grid come from slices.

    Args:
        shape: pixels of a plane, (X, Y).
        places: (planes,) where each plane lies, in slices: 2.25 is a quarter of the way from
            slice 2 to slice 3. Whole numbers are slices as they are.
        shifts: (slices, 2) index (x, y) on the grid of each slice's first pixel, in pixels.
    """

    shape: tuple[int, int]
    places: Float64Array
    shifts: Float64Array

    @property
    def sources(self) -> list[tuple[int, ...]]:
        """The slice that each plane is, or the two that it is interpolated between."""
        return [
            tuple(dict.fromkeys((math.floor(place), math.ceil(place)))) for place in self.places
        ]

    def needed(self, start: int, stop: int) -> tuple[int, int]:
        """The range of slices that planes ``start`` to ``stop`` come from."""
        wanted = self.places[start:stop]
        return math.floor(wanted[0]), math.ceil(wanted[-1]) + 1

    def planes(
        self, slices: Iterable[Float64Array], start: int, stop: int
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Compute planes ``start`` to ``stop``.

        Args:
            slices: those of :meth:`needed`, in order; (X, Y) native values, NaN for padding.
            start: first plane.
            stop: plane behind the last.

        Yields:
            (X, Y) planes of the grid, NaN where nothing was measured.
        """
        first, _ = self.needed(start, stop)
        moved = (
            (index, place_slice(plane, tuple(self.shifts[index]), self.shape))
            for index, plane in enumerate(slices, start=first)
        )
        below, lower = next(moved)
        above, upper = below, lower
        for place in self.places[start:stop]:
            while above < math.ceil(place):
                below, lower = above, upper
                above, upper = next(moved)
            share = place - below
            if share < _NEXT_TO_NOTHING:
                plane = lower
            elif share > 1.0 - _NEXT_TO_NOTHING:
                plane = upper
            else:
                plane = lower * (1.0 - share) + upper * share
            yield plane.astype(np.float32)


def place_slice(
    plane: Float64Array, shift: tuple[float, float], shape: tuple[int, int]
) -> Float64Array:
    """Move a slice within its plane by linear interpolation.

    Args:
        plane: (X, Y) values; NaN spreads to all pixels that it takes part in.
        shift: index of its first pixel on the grid, at least 0.
        shape: pixels of the grid.

    Returns:
        The slice on the grid, NaN outside.
    """
    moved = _shifted(_shifted(plane, shift[0], shape[0]).T, shift[1], shape[1]).T
    return np.asarray(moved)


def _shifted(plane: Float64Array, shift: float, size: int) -> Float64Array:
    """Move along the first axis."""
    whole = math.floor(shift + _NEXT_TO_NOTHING)
    part = max(shift - whole, 0.0)
    result = np.full((size, plane.shape[1]), np.nan)
    count = plane.shape[0]
    if part < _NEXT_TO_NOTHING:
        result[whole : whole + count] = plane
    else:
        result[whole + 1 : whole + count] = plane[1:] * (1.0 - part) + plane[:-1] * part
    return result


def even_places(along_mm: Float64Array, usual_mm: float) -> Float64Array:
    """Places of evenly spaced planes from the first slice to the last.

    Args:
        along_mm: places of the slices along the normal, rising.
        usual_mm: the spacing wanted; it gives way so that both ends are slices.

    Returns:
        The planes' places in slices, as for :class:`Regridding`.
    """
    steps = max(1, round(float(along_mm[-1] - along_mm[0]) / usual_mm))
    wanted = np.linspace(along_mm[0], along_mm[-1], steps + 1)
    places = np.interp(wanted, along_mm, np.arange(len(along_mm), dtype=np.float64))
    # A slice within a hundredth of a step is taken as it is, since positions are rounded.
    nearest = np.rint(places)
    off_mm = np.abs(wanted - along_mm[nearest.astype(int)])
    tolerance_mm = 0.01 * float(wanted[1] - wanted[0])
    return np.where(off_mm <= tolerance_mm, nearest, places)

"""Slices that hold one value alone amid slices that do not: lost, and filled by somebody.

A transfer or conversion that loses a slice often leaves zeros in its place. Such a scan is
computed, since a mask may leave a slice empty too, but not silently. Nothing is read here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.geometry import Geometry

_MOST_NAMED = 3


class EmptySlices:
    """Which slices of a scan hold one value alone; blocks of its voxels are added in any order.

    Args:
        geometry: Of the scan; without a slice axis its last axis counts.
    """

    def __init__(self, geometry: Geometry) -> None:
        found = geometry.slice_axis()
        self._axis = 2 if found is None else found
        self._count = geometry.shape[self._axis]
        self._left = set(range(self._count))
        self._values: dict[int, Any] = {}

    def add(self, start: int, block: NDArray[Any]) -> None:
        """Look at planes ``(X, Y, planes)``, ``start`` being the place of the first."""
        slices = np.moveaxis(block, self._axis, 0)
        first = start if self._axis == 2 else 0
        for place in self._left.intersection(range(first, first + len(slices))):
            plane = slices[place - first]
            value = self._values.setdefault(place, plane[0, 0])
            # Most slices of a scan differ in a line already.
            if not ((plane[0] == value).all() and (plane == value).all()):
                self._left.discard(place)

    def note(self) -> str | None:
        """A warning on those between others; None where there are none."""
        full = sorted(set(range(self._count)) - self._left)
        empty = [place for place in sorted(self._left) if full and full[0] < place < full[-1]]
        if not empty:
            return None
        named = ", ".join(str(place + 1) for place in empty[:_MOST_NAMED])
        more = f" and {len(empty) - _MOST_NAMED} more" if len(empty) > _MOST_NAMED else ""
        return (
            f"slice {named}{more} of {self._count} holds one value alone "
            f"({self._values[empty[0]]:.6g}), amid slices that do not; if it was lost, the result "
            "around it is not to be trusted"
        )

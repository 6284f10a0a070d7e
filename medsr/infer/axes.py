"""The canonical order of a scan's axes, in which networks run, and the way back.

Nothing is resampled here: axes are permuted and flipped, as views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.geometry import Geometry


@dataclass(frozen=True)
class AxisOrder:
    """How a scan is turned into canonical order and back.

    In canonical order the slice axis is last, the two in-plane axes stand in anatomical order
    (right, anterior, superior) and all three run towards right, anterior, superior. So a scan gives
    the same result in space however its file orders its voxels.

    Args:
        axes: Array axes in canonical order.
        flips: Canonical axes that run the other way in the array.
    """

    axes: tuple[int, int, int]
    flips: tuple[int, ...]

    @classmethod
    def of(cls, geometry: Geometry) -> AxisOrder:
        """Find the order; the slice axis is clearly the longest, without one the array's last."""
        thick_axis = geometry.slice_axis()
        slice_axis = 2 if thick_axis is None else thick_axis
        codes = geometry.axcodes
        plane = [axis for axis in range(3) if axis != slice_axis]
        plane.sort(key=lambda axis: "RLAPSI".index(codes[axis]))
        axes = (plane[0], plane[1], slice_axis)
        return cls(axes, tuple(k for k, axis in enumerate(axes) if codes[axis] in "LPI"))

    def canonical_geometry(self, geometry: Geometry) -> Geometry:
        """The scan's grid in canonical order."""
        return geometry.permute(self.axes).flip(self.flips)

    def canonical_data(self, data: NDArray[Any]) -> NDArray[Any]:
        """A view of the array in canonical order."""
        return np.flip(np.transpose(data, self.axes), self.flips)

    def canonical_values(self, values: Sequence[float]) -> list[float]:
        """One value per array axis, in canonical order."""
        return [values[axis] for axis in self.axes]

    def canonical_scale(self, scale: Sequence[float]) -> list[float]:
        """(In-plane, in-plane, slice), the plane in the array's order, in canonical order."""
        return [*(scale[:2] if self.axes[0] < self.axes[1] else scale[1::-1]), *scale[2:]]

    def array_data(self, data: NDArray[Any]) -> NDArray[Any]:
        """A view in the array's order of data in canonical order."""
        return np.transpose(np.flip(data, self.flips), [self.axes.index(i) for i in range(3)])

    def array_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """A canonical shape in the array's order."""
        x, y, z = (shape[self.axes.index(i)] for i in range(3))
        return (x, y, z)

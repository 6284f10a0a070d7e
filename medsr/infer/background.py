"""What surrounds a body where it is exactly one value: the zeros around a skull-stripped brain.

A network answers such surroundings with small values of either sign, which spoils masks and
inflates files. Here they are found in the scan; ``medsr.infer.limits`` gives them to the result.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medsr.io.planes import PlaneSource
from medsr.types import BoolArray

if TYPE_CHECKING:
    from medsr.infer.padding import Padding

LEAST_SHARE = 0.01
"""Of the voxels on a scan's faces, so many lie amid 3 x 3 voxels of one value where there is a
background. On scans whose surroundings were masked it was at least 0.015, where they are noise or
body 0.001 and less."""


def running(array: NDArray[Any], better: np.ufunc, axis: int) -> NDArray[Any]:
    """Reduce every voxel and its two neighbours along an axis to one; none lie beyond the edges.

    Args:
        array: Any shape.
        better: ``np.minimum``, ``np.maximum``, ``np.logical_and`` or ``np.logical_or``.
        axis: Which axis.
    """
    result = array.copy()
    ahead, behind = [slice(None)] * array.ndim, [slice(None)] * array.ndim
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    for place, neighbour in ((tuple(ahead), tuple(behind)), (tuple(behind), tuple(ahead))):
        better(result[place], array[neighbour], out=result[place])
    return result


def in_patches(equal: BoolArray, at: int) -> BoolArray:
    """Tell which pixels of a plane lie in a patch of 3 x 3, along any two axes, that is all True.

    So a single value that noise happens to share with the background does not count, a background
    of one slice or beside a hollow does, and the order of the axes changes nothing.

    Args:
        equal: ``(planes, X, Y)``, with two planes on either side of ``at`` where the scan has them.
        at: Which plane.

    Returns:
        ``(X, Y)``.
    """
    mask = np.zeros(equal.shape[1:], dtype=np.bool_)
    if not equal[at].any():
        return mask
    for axes in combinations(range(3), 2):
        opened = equal
        for better in (np.logical_and, np.logical_or):
            for axis in axes:
                opened = running(opened, better, axis)
        mask |= opened[at]
    return mask


class Faces:
    """The outermost voxels of a scan whose planes come in order.

    Args:
        count: Planes that will come.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._ends: list[NDArray[Any]] = []
        self._sides: list[list[NDArray[Any]]] = [[], [], [], []]

    @classmethod
    def of(cls, data: NDArray[Any]) -> Faces:
        """Those of a volume ``(X, Y, Z)``."""
        faces = cls(data.shape[2])
        faces.add(0, data)
        return faces

    def add(self, start: int, planes: NDArray[Any]) -> None:
        """Look at planes ``(X, Y, planes)``, ``start`` being the place of the first."""
        sides = planes[0], planes[-1], planes[:, 0], planes[:, -1]
        for parts, side in zip(self._sides, sides, strict=True):
            parts.append(side.copy())
        for place in {0, self._count - 1}:
            if start <= place < start + planes.shape[2]:
                self._ends.append(planes[:, :, place - start].copy())

    def background(self, padding: Padding | None = None) -> float | None:
        """The value that the scan's surroundings are exactly equal to; None where there is none.

        It is the most frequent of the values that fill patches of 3 x 3 voxels on the faces, so
        that the noise of a scan stored as whole numbers is not taken for one.

        Args:
            padding: Of the scan; it counts as what the network sees in its place.
        """
        flat, total = [], 0
        for face in [*self._ends, *(np.concatenate(parts, axis=1) for parts in self._sides)]:
            seen = np.asarray(face if padding is None else padding.removed(face), np.float32)
            low = running(running(seen, np.minimum, 0), np.minimum, 1)
            high = running(running(seen, np.maximum, 0), np.maximum, 1)
            flat.append(seen[low == high])
            total += seen.size
        values, counts = np.unique(np.concatenate(flat), return_counts=True)
        if not values.size or counts.max() < LEAST_SHARE * total:
            return None
        return float(values[counts.argmax()]) + 0.0  # never a negative zero


class FacesRecorder(PlaneSource):
    """A source of planes whose faces are kept; see :class:`medsr.io.planes.PlaneSource`."""

    def __init__(self, source: PlaneSource) -> None:
        self._source = source
        self.header = source.header
        self.faces = Faces(source.header.shape[2])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return planes ``start`` to ``stop``, which must come in order and once."""
        planes = self._source.read(start, stop)
        self.faces.add(start, planes)
        return planes

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

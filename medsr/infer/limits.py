"""Limits of a result: what its scan supports, some planes at a time, so that it streams.

Three rules, in the scan's units. Surroundings of exactly one value keep it (``background``). No
value lies below the scan's least or beyond what a scanner gives (:class:`Limits`). And no value
overshoots the 3 x 3 x 3 voxels of the scan around it by more than :data:`REACH` times their range.
Adding a constant to a scan, or multiplying it by one, does the same to all limits of an MR result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.infer.axes import AxisOrder
from medsr.infer.background import in_patches, running
from medsr.infer.padding import nearest
from medsr.types import BoolArray, Float32Array
from medsr.volume import Modality

REACH = 1.0
"""How far a result may overshoot its neighbourhood, of the neighbourhood's range. A structure
thinner than a slice is fainter in the scan than in truth, so it must be some."""

SCANNER_HU = (-1024.0, 3071.0)
"""The 12 bits that CT scanners store. A scan with values beyond them may have such in its result,
up to its own."""

AROUND = 2
"""Planes of the scan on either side that the limits of one depend on."""


@dataclass(frozen=True)
class Limits:
    """Of the result of one scan, native units.

    Args:
        floor: Nothing is below.
        ceiling: Nothing is above.
        background: Value of the scan's surroundings, where they are exactly constant.
        reach: See :data:`REACH`.
    """

    floor: float
    ceiling: float
    background: float | None
    reach: float = REACH

    @classmethod
    def of(cls, low: float, high: float, modality: Modality, background: float | None) -> Limits:
        """Settle the limits of a result.

        Args:
            low: Least value of the scan, without padding.
            high: Its largest.
            modality: CT has :data:`SCANNER_HU` at the least. MR has a floor, since magnitudes have
                one, and no ceiling, since brightness has none.
            background: What :meth:`medsr.infer.background.Faces.background` found.
        """
        if modality == "CT":
            return cls(min(low, SCANNER_HU[0]), max(high, SCANNER_HU[1]), background)
        return cls(low, np.inf, background)


class Limiter:
    """Applies limits to planes of a result, along the last axis, as the scan's planes come.

    Args:
        limits: What to hold to.
        before: Shape of the scan.
        after: Shape of the result, axes as in the scan.
        frame: Of the scan. A voxel of the result that lies midway between two of the scan takes
            the one further to the right, front or top, so that mirrored files say the same.
    """

    def __init__(
        self, limits: Limits, before: Sequence[int], after: Sequence[int], frame: AxisOrder
    ) -> None:
        self.limits = limits
        places = [nearest(n, m) for n, m in zip(before, after, strict=True)]
        for axis in (frame.axes[k] for k in frame.flips):
            places[axis] = before[axis] - 1 - places[axis][::-1]
        self._x, self._y, self._z = places
        self._same = tuple(before[:2]) == tuple(after[:2])
        self._count = int(before[2])
        self._planes: dict[int, NDArray[Any]] = {}
        self._settled: tuple[int, _Local] | None = None
        self._set = self._cut = 0
        self._voxels = int(np.prod(after))

    def note(self, start: int, planes: NDArray[Any]) -> None:
        """Take note of planes of the scan ``(X, Y, planes)``, without padding."""
        for k in range(planes.shape[2]):
            self._planes[start + k] = planes[:, :, k]

    def forget(self, written: int) -> None:
        """Let go of what no plane of the result from ``written`` on needs."""
        if written < len(self._z):
            first = int(self._z[written]) - AROUND
            for plane in [plane for plane in self._planes if plane < first]:
                del self._planes[plane]

    def apply(self, start: int, planes: Float32Array, *, near: bool = True) -> None:
        """Hold planes of the result, from plane ``start`` on, to the limits, in place.

        Args:
            start: Place of the first plane.
            planes: ``(X, Y, planes)``, native units.
            near: Whether the overshoot is limited too, and what is done counts for
                :meth:`described`. Without it background, floor and ceiling are seen to again.
        """
        for local, part in self._parts(start, planes):
            # In the result's own order a run of planes is the shortest axis: slow to go along.
            values = np.ascontiguousarray(np.moveaxis(part, 2, 0))
            if near:
                held = np.clip(values, local.low, local.high)
                changed = np.not_equal(held, values)
                if local.background is not None:
                    self._set += len(values) * int(np.count_nonzero(local.background))
                    changed &= ~local.background
                self._cut += int(np.count_nonzero(changed))
            else:
                held = np.clip(values, self.limits.floor, self.limits.ceiling)
            value = self.limits.background
            if local.background is not None and value is not None:
                np.copyto(held, value, where=local.background)
            part[:] = np.moveaxis(held, 0, 2)

    def clear(self, start: int, planes: Float32Array) -> None:
        """Set background to zero in planes of a map of uncertainty, in place."""
        for local, part in self._parts(start, planes):
            if local.background is not None:
                part[local.background] = 0.0

    def described(self) -> dict[str, Any]:
        """What was done, for the report: limits in native units, shares of the result's voxels."""
        return {
            "background": self.limits.background,
            "background_share": round(self._set / self._voxels, 6),
            "floor": self.limits.floor,
            "ceiling": self.limits.ceiling if np.isfinite(self.limits.ceiling) else None,
            "reach": self.limits.reach,
            "limited_share": round(self._cut / self._voxels, 6),
        }

    def _parts(self, start: int, planes: Float32Array) -> Iterator[tuple[_Local, Float32Array]]:
        """Runs of planes whose nearest plane of the scan is the same, with its bounds."""
        sources = self._z[start : start + planes.shape[2]]
        cuts = [0, *(np.flatnonzero(np.diff(sources)) + 1), len(sources)]
        for low, high in pairwise(cuts):
            yield self._local(int(sources[low])), planes[:, :, low:high]

    def _local(self, source: int) -> _Local:
        """Bounds beside one plane of the scan; the last ones are kept."""
        if self._settled is None or self._settled[0] != source:
            first = max(source - AROUND, 0)
            last = min(source + AROUND, self._count - 1)
            around = [self._planes[k] for k in range(first, last + 1)]
            stack = np.stack(around, dtype=np.float32, casting="unsafe")
            local = _local(stack, source - first, self.limits)
            self._settled = (source, local if self._same else local.spread(self._x, self._y))
        return self._settled[1]


@dataclass(frozen=True)
class _Local:
    """Bounds beside one plane of the scan.

    Args:
        low: ``(X, Y)``, nothing is below.
        high: ``(X, Y)``, nothing is above.
        background: ``(X, Y)``, where there is any.
    """

    low: Float32Array
    high: Float32Array
    background: BoolArray | None

    def spread(self, x: NDArray[np.intp], y: NDArray[np.intp]) -> _Local:
        """The same for voxels whose nearest ones are these."""
        found, place = self.background, np.ix_(x, y)
        return _Local(self.low[place], self.high[place], None if found is None else found[place])


def _local(stack: Float32Array, at: int, limits: Limits) -> _Local:
    """Find the bounds beside plane ``at`` of some planes ``(planes, X, Y)`` of the scan."""
    near = stack[max(at - 1, 0) : at + 2]
    low, high = near.min(axis=0), near.max(axis=0)
    for axis in range(2):
        low, high = running(low, np.minimum, axis), running(high, np.maximum, axis)
    with np.errstate(over="ignore"):  # values near the largest float have no limit then
        slack = np.float32(limits.reach) * (high - low)
        low, high = low - slack, high + slack
    np.maximum(low, np.float32(limits.floor), out=low)
    np.minimum(high, np.float32(limits.ceiling), out=high)
    background = None
    if limits.background is not None:
        is_background = in_patches(stack == np.float32(limits.background), at)
        background = is_background if is_background.any() else None
    return _Local(low, high, background)

"""What must be known of all voxels of a scan before the first is computed, found by chunks.

One pass tells the range, whether all values can be computed with, whether they look like CT or MR,
and a coarse sample. :class:`PlaneValues` answers what the rules ask of all values, from counts,
without holding them; so ``Intensity.fit_values`` finds the map that ``Intensity.fit`` would.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.geometry import Geometry
from medsr.io.checks import check_integers, first_unusable, unusable
from medsr.io.labels import Levels
from medsr.io.modality import Judgement, Tally, judge
from medsr.io.planes import PlaneSource, chunks
from medsr.types import Array
from medsr.values import (
    DIGITS,
    Counts,
    count_between,
    count_keys,
    keys_of,
    nearest_of,
    recurring,
    value_of,
)

_MOST_NAMED = 3


@dataclass(frozen=True)
class Survey:
    """What one pass over a scan tells.

    Args:
        low: Smallest value.
        high: Largest value.
        judgement: What the values look like.
        sample: Every so many voxels along each axis, in the scan's axes.
        counts: How often each value occurs, from the smallest that the type can hold, where
            the type has at most 16 bits; else None.
        levels: Which values there are, and in how large patches.
        empty: A warning on slices that hold one value alone.
    """

    low: float
    high: float
    judgement: Judgement
    sample: Array
    counts: Counts | None
    levels: Levels
    empty: str | None


def sample_step(shape: tuple[int, int, int]) -> int:
    """Take every so many voxels along each axis of a scan as the sample of a survey."""
    return max(1, round(float(np.cbrt(math.prod(shape) / 2e6))))


def survey(reader: PlaneSource, where: str, *, step: int = 1) -> Survey:
    """Look through a scan once.

    Args:
        reader: The scan.
        where: What a message calls it.
        step: Every so many voxels go into the sample, along each axis.

    Raises:
        NonFiniteError: Some voxels are not finite, or too large to compute with.
        CorruptFileError: The voxels cannot be read.
        WideIntegerError: They are integers too large for float32.
    """
    dtype = reader.header.data.dtype
    short = dtype.kind in "iu" and dtype.itemsize <= 2
    counts = np.zeros(_values_of(dtype), dtype=np.int64) if short else None
    looked, levels, empty = Tally(), Levels(), EmptySlices(reader.header.geometry)
    low, high = np.inf, -np.inf
    bad: tuple[int, tuple[int, int, int], float] | None = None
    samples = []
    for start, block in chunks(reader):
        wrong = first_unusable(block)
        if wrong is not None:
            count, (x, y, z), value = wrong
            bad = (count, (x, y, z + start), value) if bad is None else (bad[0] + count, *bad[1:])
            continue
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        levels.add(block)
        empty.add(start, block)
        looked.add(block[::2, ::2, start % 2 :: 2])
        samples.append(block[::step, ::step, -start % step :: step].copy())
        if counts is not None:
            counts += count_keys(block.astype(np.int64) - np.iinfo(dtype).min, counts.size)
    if bad is not None:
        raise unusable(*bad, math.prod(reader.header.shape), where)
    check_integers(low, high, dtype, where)
    sample = np.concatenate(samples, axis=2)
    return Survey(low, high, judge(looked), sample, counts, levels, empty.note())


class EmptySlices:
    """Which slices of a scan hold one value alone; blocks of its voxels are added in any order.

    A transfer or conversion that loses a slice often leaves zeros in its place. Such a scan is
    computed, since a mask may leave a slice empty too, but not silently.

    Args:
        geometry: Of the scan; without a slice axis its last axis counts.
    """

    def __init__(self, geometry: Geometry) -> None:
        axis = geometry.slice_axis()
        self._axis = 2 if axis is None else axis
        self._count = geometry.shape[self._axis]
        self._left = set(range(self._count))
        self._values: dict[int, Any] = {}

    def add(self, start: int, block: Array) -> None:
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


class PlaneValues:
    """The values of a scan that is read by chunks; see :class:`medsr.values.Values`.

    Args:
        reader: The scan; read again only where its type has more than 16 bits.
        found: What is known of it, of its measured voxels alone where some hold no data.
        without: Native value of voxels that hold no data.
    """

    def __init__(self, reader: PlaneSource, survey: Survey, without: float | None = None) -> None:
        self._reader, self._counts, self._without = reader, survey.counts, without
        self.low, self.high = survey.low, survey.high
        self._dtype = reader.header.data.dtype
        if self._counts is not None:
            smallest = np.iinfo(self._dtype).min
            self._there = np.flatnonzero(self._counts)
            self._values = self._there.astype(np.float64) + smallest
            self._counts = self._counts[self._there]
        self.size = self.count(-np.inf, np.inf)

    def count(self, low: float, high: float) -> int:
        """See :class:`medsr.values.Values`."""
        if self._counts is not None:
            return int(self._counts[(self._values >= low) & (self._values <= high)].sum())
        return sum(count_between(block, low, high) for block in self._blocks())

    def percentile(self, percent: float, above: float = -np.inf) -> float | None:
        """See :class:`medsr.values.Values`."""
        if self._counts is not None:
            counts = np.where(self._values > above, self._counts, 0)
            return _percentile(counts, self._values, percent)
        return self._percentile_by_passes(percent, above)

    def around(self, value: float) -> tuple[float | None, float | None]:
        """See :class:`medsr.values.Values`."""
        if self._counts is not None:
            return nearest_of(self._values, value)
        sides = [nearest_of(block, value) for block in self._blocks()]
        below = [side[0] for side in sides if side[0] is not None]
        above = [side[1] for side in sides if side[1] is not None]
        return max(below, default=None), min(above, default=None)

    def frequent(self, share: float) -> list[tuple[float, int]]:
        """See :class:`medsr.values.Values`."""
        least = share * self.size
        if self._counts is not None:
            often = np.flatnonzero(self._counts >= max(least, 1))
            pairs = [(float(self._values[i]), int(self._counts[i])) for i in often]
        else:
            upper = self._upper(-np.inf)
            places = [int(place) for place in np.flatnonzero(upper >= least)]
            lower = self._lower(places, -np.inf)
            pairs = [pair for p in places for pair in recurring(p, lower[p], least, self._dtype)]
        return sorted(pairs, key=lambda pair: -pair[1])

    def _blocks(self) -> Iterator[Array]:
        for _, block in chunks(self._reader):
            yield block if self._without is None else block[block != self._without]

    def _upper(self, above: float) -> Counts:
        """How often the keys of values above a bound have each of their upper 16 bits."""
        upper = np.zeros(DIGITS, dtype=np.int64)
        for block in self._blocks():
            upper += count_keys(keys_of(block[block > above]) >> 16, DIGITS)
        return upper

    def _lower(self, places: Collection[int], above: float) -> dict[int, Counts]:
        """The same for the lower 16 bits, where the upper ones are one of some."""
        lower = {place: np.zeros(DIGITS, dtype=np.int64) for place in places}
        for block in self._blocks():
            keys = keys_of(block[block > above])
            for place, counts in lower.items():
                counts += count_keys(keys[keys >> 16 == place] & (DIGITS - 1), DIGITS)
        return lower

    def _percentile_by_passes(self, percent: float, above: float) -> float | None:
        """The percentile of the values above a bound, in two passes: high digits, then low ones.

        Every value has a 32-bit key of the same order; a count by its upper 16 bits tells where
        the two values lie between which the percentile is, a count by the lower 16 which they are.
        """
        upper = self._upper(above)
        total = int(upper.sum())
        if total == 0:
            return None
        low_rank, high_rank, share = _ranks(total, percent)
        cumulated = np.cumsum(upper)
        places = [int(np.searchsorted(cumulated, r, "right")) for r in (low_rank, high_rank)]
        lower = self._lower(places, above)
        repeated = []
        for rank, place in zip((low_rank, high_rank), places, strict=True):
            inside = rank - int(cumulated[place] - upper[place])
            digit = int(np.searchsorted(np.cumsum(lower[place]), inside, "right"))
            repeated.append(value_of((place << 16) + digit, self._dtype))
        # In the values' own precision, as NumPy computes.
        kind = np.float32 if self._dtype.kind == "f" else np.float64
        return _between(kind(repeated[0]), kind(repeated[1]), share)


def _values_of(dtype: np.dtype[Any]) -> int:
    return 1 << (8 * dtype.itemsize)


def _percentile(counts: Counts, values: npt.NDArray[np.float64], percent: float) -> float | None:
    """The percentile of values that occur so often, interpolated as NumPy does; None of none."""
    total = int(counts.sum())
    if total == 0:
        return None
    low_rank, high_rank, share = _ranks(total, percent)
    cumulated = np.cumsum(counts)
    low, high = (values[np.searchsorted(cumulated, r, "right")] for r in (low_rank, high_rank))
    return _between(low, high, share)


def _ranks(total: int, percent: float) -> tuple[int, int, float]:
    """Ranks (from 0) of the two values around a percentile, and the share of the second."""
    position = (total - 1) * (percent / 100.0)
    low = int(np.floor(position))
    return low, min(low + 1, total - 1), position - low


def _between(low: np.floating[Any], high: np.floating[Any], share: float) -> float:
    # From the nearer end, as NumPy does, so that the last bit agrees too.
    step = high - low
    return float(low + step * share if share < 0.5 else high - step * (1.0 - share))

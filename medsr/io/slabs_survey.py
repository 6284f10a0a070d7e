"""What must be known of all voxels of a scan before the first is computed, found by slabs.

One pass tells the range, whether all values are finite, what ``guess_modality`` would say, and a
coarse sample. :func:`fit_intensity` finds the normalisation that ``Intensity.fit`` would, from
counts of values, without holding them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import NonFiniteError
from medsr.intensity import Intensity, Normaliser
from medsr.io.checks import AIR_HU, HIGHEST_HU, LOWEST_HU, check_integers, looks_like_ct
from medsr.io.labels import Levels
from medsr.io.slabs import MemorySlabs, SlabReader, chunks
from medsr.volume import Modality, Volume

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

_DIGITS = 1 << 16


@dataclass(frozen=True)
class Survey:
    """What one pass over a scan tells.

    Args:
        low: Smallest value.
        high: Largest value.
        modality: What the values look like.
        sample: Every so many voxels along each axis, in the scan's axes.
        counts: How often each value occurs, from the smallest that the type can hold, where
            the type has at most 16 bits; else None.
        levels: Which values there are, and in how large patches.
    """

    low: float
    high: float
    modality: Modality
    sample: Array
    counts: Counts | None
    levels: Levels


def survey(reader: SlabReader, where: str, *, step: int = 1) -> Survey:
    """Look through a scan once.

    Args:
        reader: The scan.
        where: What a message calls it.
        step: Every so many voxels go into the sample, along each axis.

    Raises:
        NonFiniteError: Some voxels are NaN or infinite.
        CorruptFileError: The voxels cannot be read.
        WideIntegerError: They are integers too large for float32.
    """
    dtype = reader.outline.data.dtype
    short = dtype.kind in "iu" and dtype.itemsize <= 2
    counts = np.zeros(_values_of(dtype), dtype=np.int64) if short else None
    guess, levels = _Guess(), Levels()
    low, high = np.inf, -np.inf
    bad, first_bad = 0, (0, 0, 0)
    samples = []
    for start, block in chunks(reader):
        if dtype.kind == "f" and not np.isfinite(block).all():
            wrong = ~np.isfinite(block)
            if not bad:
                x, y, z = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
                first_bad = (int(x), int(y), int(z) + start)
            bad += int(np.count_nonzero(wrong))
            continue
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        levels.add(block)
        guess.add(block[::2, ::2, start % 2 :: 2])
        samples.append(block[::step, ::step, -start % step :: step].copy())
        if counts is not None:
            counts += _count(block.astype(np.int64) - np.iinfo(dtype).min, counts.size)
    if bad:
        total = reader.outline.geometry.shape
        raise NonFiniteError(
            f"{where}: {bad} of {int(np.prod(total))} voxels are NaN or infinite, one at index "
            f"{first_bad}; replace them by finite values"
        )
    check_integers(low, high, dtype, where)
    return Survey(low, high, guess.modality, np.concatenate(samples, axis=2), counts, levels)


def levels_of(volume: Volume) -> Levels:
    """Learn of a volume in memory what a survey learns of values, by the same blocks."""
    levels = Levels()
    for _, block in chunks(MemorySlabs(volume)):
        levels.add(block)
    return levels


def fit_intensity(intensity: Intensity, reader: SlabReader, found: Survey) -> Normaliser:
    """Fit the map that :meth:`Intensity.fit` fits to the whole scan.

    Args:
        intensity: How the model normalises.
        reader: The scan; read again only where its type has more than 16 bits.
        found: What :func:`survey` told of it.
    """
    if intensity.kind == "linear":
        return Normaliser(intensity.offset, intensity.divisor)
    threshold = intensity.threshold(found.high)
    if found.counts is not None:
        smallest = np.iinfo(reader.outline.data.dtype).min
        values = np.arange(found.counts.size, dtype=np.float64) + smallest
        above = np.where(values > threshold, found.counts, 0)
        percentile = _percentile(above, values, intensity.percentile)
    else:
        percentile = _percentile_by_passes(reader, threshold, intensity.percentile)
    return intensity.normaliser(percentile)


class _Guess:
    """Counts what :func:`medsr.io.checks.guess_modality` looks at."""

    def __init__(self) -> None:
        self.size = self.below_air = self.plausible = self.at_lowest = 0
        self.lowest = np.inf

    def add(self, block: Array) -> None:
        """Take note of every second voxel of a slab."""
        if not block.size:
            return
        sample = np.asarray(block, dtype=np.float32).ravel()
        lowest = float(sample.min())
        if lowest < self.lowest:
            self.lowest, self.at_lowest = lowest, 0
        self.at_lowest += int(np.count_nonzero(sample == self.lowest))
        self.size += sample.size
        self.below_air += int(np.count_nonzero(sample < AIR_HU))
        inside = (sample >= LOWEST_HU) & (sample <= HIGHEST_HU)
        self.plausible += int(np.count_nonzero(inside))

    @property
    def modality(self) -> Modality:
        """What the values look like."""
        return looks_like_ct(self.lowest, self.size, self.below_air, self.plausible, self.at_lowest)


def _values_of(dtype: np.dtype[Any]) -> int:
    return 1 << (8 * dtype.itemsize)


def _count(keys: npt.NDArray[Any], size: int) -> Counts:
    return np.bincount(keys.ravel(), minlength=size)


def _percentile(counts: Counts, values: npt.NDArray[np.float64], percent: float) -> float | None:
    """The percentile of values that occur so often, interpolated as NumPy does; None of none."""
    total = int(counts.sum())
    if total == 0:
        return None
    low_rank, high_rank, share = _ranks(total, percent)
    cumulated = np.cumsum(counts)
    low, high = (values[np.searchsorted(cumulated, r, "right")] for r in (low_rank, high_rank))
    return _between(float(low), float(high), share)


def _percentile_by_passes(reader: SlabReader, threshold: float, percent: float) -> float | None:
    """The percentile of the values above a threshold, in two passes: high digits, then low ones.

    Every value has a 32-bit key of the same order; a count by its upper 16 bits tells where the
    two values lie between which the percentile is, a count by the lower 16 which they are.
    """
    upper = np.zeros(_DIGITS, dtype=np.int64)
    for _, block in chunks(reader):
        upper += _count(_keys(block[block > threshold]) >> 16, _DIGITS)
    total = int(upper.sum())
    if total == 0:
        return None
    low_rank, high_rank, share = _ranks(total, percent)
    cumulated = np.cumsum(upper)
    places = [int(np.searchsorted(cumulated, r, "right")) for r in (low_rank, high_rank)]
    lower = {place: np.zeros(_DIGITS, dtype=np.int64) for place in places}
    for _, block in chunks(reader):
        keys = _keys(block[block > threshold])
        for place, counts in lower.items():
            counts += _count(keys[keys >> 16 == place] & (_DIGITS - 1), _DIGITS)
    found = []
    for rank, place in zip((low_rank, high_rank), places, strict=True):
        inside = rank - int(cumulated[place] - upper[place])
        digit = int(np.searchsorted(np.cumsum(lower[place]), inside, "right"))
        found.append(_value((place << 16) + digit, reader.outline.data.dtype))
    return _between(found[0], found[1], share)


def _ranks(total: int, percent: float) -> tuple[int, int, float]:
    """Ranks (from 0) of the two values around a percentile, and the share of the second."""
    position = (total - 1) * (percent / 100.0)
    low = int(np.floor(position))
    return low, min(low + 1, total - 1), position - low


def _between(low: float, high: float, share: float) -> float:
    # From the nearer end, as NumPy does, so that the last bit agrees too.
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1.0 - share)


def _keys(values: Array) -> npt.NDArray[np.uint32]:
    """Unsigned numbers in the order of the values; what has no 32 bits is rounded to float32."""
    if values.dtype == np.int32:
        return values.view(np.uint32) ^ np.uint32(1 << 31)
    if values.dtype == np.uint32:
        return values
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(1 << 31))


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """The value of a key."""
    bits = np.array([key], dtype=np.uint32)
    if dtype == np.int32:
        return float((bits ^ np.uint32(1 << 31)).view(np.int32)[0])
    if dtype == np.uint32:
        return float(bits[0])
    positive = key >> 31
    plain = bits & np.uint32((1 << 31) - 1) if positive else ~bits
    return float(plain.view(np.float32)[0])

"""Voxels without data (outside a scanner's field of view): kept from the network, given back after.

A fill value such as -3024 HU is no tissue: inside a network it rings at its edge, and it spoils a
fitted normalisation. So padding is replaced by something harmless before, and the same region of
the result has the fill value again, exactly. What a file says of padding is read in ``medsr.io``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.io.checks import LOWEST_HU
from medsr.io.slabs import SlabReader, chunks
from medsr.io.slabs_survey import Survey
from medsr.volume import Modality, Volume

FloatArray = NDArray[np.float32]

AIR_HU = -1024.0
"""What padding of a CT looks like to the network: the air that every model was trained with."""

_FEWEST_FILLED = 1e-3  # share of voxels at one value that makes it a fill value
_CLEARLY_OUTSIDE = 0.02  # of the width of the measured values


@dataclass(frozen=True)
class Padding:
    """Padding of one scan.

    Args:
        value: Native value of voxels without data.
        harmless: Native value that the network sees instead.
    """

    value: float
    harmless: float

    def mask(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which voxels hold no data."""
        return np.asarray(data == self.value)

    def measured(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return the voxels that hold data, as one row."""
        return np.asarray(data[~self.mask(data)])

    def removed(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return the array with padding replaced; the array itself where there is none."""
        mask = self.mask(data)
        return np.where(mask, data.dtype.type(self.harmless), data) if mask.any() else data

    def give_back(self, before: NDArray[Any], after: NDArray[Any], value: float) -> None:
        """Fill the region of padding in a result, in place.

        Args:
            before: The scan's voxels (X, Y, Z).
            after: Voxels over the same extent, axes as in ``before``.
            value: What they become where the nearest voxel of the scan is padding.
        """
        x, y, z = (nearest(n, m) for n, m in zip(before.shape, after.shape, strict=True))
        for k, source in enumerate(z):
            plane = self.mask(before[:, :, source])
            if plane.any():
                after[:, :, k][plane[np.ix_(x, y)]] = value


class PaddingMemory:
    """Which voxels of the last planes hold no data, one bit each, for work by slabs.

    Args:
        padding: Of the scan.
        before: Shape of the scan.
        after: Shape of the result, axes as in the scan.
    """

    def __init__(self, padding: Padding, before: Sequence[int], after: Sequence[int]) -> None:
        self.padding = padding
        self._shape = (before[0], before[1])
        self._x, self._y, self._z = (nearest(n, m) for n, m in zip(before, after, strict=True))
        self._bits: dict[int, NDArray[np.uint8]] = {}

    def note(self, start: int, planes: NDArray[Any]) -> NDArray[Any]:
        """Take note of planes that were read; return them without padding."""
        for k in range(planes.shape[2]):
            self._bits[start + k] = np.packbits(self.padding.mask(planes[:, :, k]))
        return self.padding.removed(planes)

    def give_back(self, start: int, planes: FloatArray, value: float) -> FloatArray:
        """Fill the region of padding in planes of the result, from plane ``start`` on."""
        filled = planes
        for k in range(planes.shape[2]):
            bits = self._bits[int(self._z[start + k])]
            if not bits.any():
                continue
            if filled is planes:
                filled = planes.copy()
            count = self._shape[0] * self._shape[1]
            mask = np.unpackbits(bits, count=count).reshape(self._shape).astype(bool)
            filled[:, :, k][mask[np.ix_(self._x, self._y)]] = value
        return filled

    def forget(self, written: int) -> None:
        """Let go of what no plane of the result from ``written`` on needs."""
        if written < len(self._z):
            first = int(self._z[written])
            for plane in [plane for plane in self._bits if plane < first]:
                del self._bits[plane]


class WithoutPadding:
    """A scan read by slabs with its padding replaced; see :class:`medsr.io.slabs.SlabReader`."""

    def __init__(self, slabs: SlabReader, padding: Padding) -> None:
        self._slabs, self._padding = slabs, padding
        self.outline = slabs.outline

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return planes ``start`` to ``stop`` without padding."""
        return self._padding.removed(self._slabs.read(start, stop))

    def close(self) -> None:
        """Let go of the file."""
        self._slabs.close()


def nearest(before: int, after: int) -> NDArray[np.intp]:
    """Index of the voxel whose centre is nearest, along an axis that keeps its extent."""
    places = (np.arange(after) + 0.5) * (before / after)
    return np.minimum(places.astype(np.intp), before - 1)


def find_padding(volume: Volume, modality: Modality) -> Padding | None:
    """Find the padding of a scan: what its file states, or a fill value far below air in CT.

    Returns:
        None where there is no padding, or where it lies among the measured values or next to them
        (0 in MR, -1024 HU in CT), so that it does no harm as it is.
    """
    data = volume.data
    value = None if volume.source is None else volume.source.padding
    if value is None and modality == "CT":
        lowest = float(data.min())
        filled = lowest < LOWEST_HU and np.count_nonzero(data == lowest)
        value = lowest if filled >= _FEWEST_FILLED * data.size else None
    if value is None:
        return None
    measured = data != value
    if measured.all() or not measured.any():
        return None
    info = np.iinfo(data.dtype) if data.dtype.kind in "iu" else np.finfo(data.dtype)
    low = float(np.min(data, where=measured, initial=info.max))
    high = float(np.max(data, where=measured, initial=info.min))
    return _judged(value, low, high, modality)


def find_padding_by_slabs(
    slabs: SlabReader, found: Survey, modality: Modality
) -> tuple[Padding | None, Survey]:
    """Find the padding of a scan that is read by slabs, and what is known of its other voxels.

    Args:
        slabs: The scan; looked through again only where there may be padding and its type has
            more than 16 bits.
        found: What is known of all voxels.
        modality: What the scan is.
    """
    source = slabs.outline.source
    value = None if source is None else source.padding
    if value is None and modality == "CT" and found.low < LOWEST_HU:
        filled = np.count_nonzero(found.sample == found.low)
        value = found.low if filled >= _FEWEST_FILLED * found.sample.size else None
    if value is None:
        return None, found
    if found.counts is None:
        counts, (low, high) = None, _measured_range(slabs, value)
    else:
        counts, smallest = found.counts.copy(), int(np.iinfo(slabs.outline.data.dtype).min)
        if float(value).is_integer() and 0 <= int(value) - smallest < counts.size:
            counts[int(value) - smallest] = 0
        there = np.flatnonzero(counts) + smallest
        low, high = (float(there[0]), float(there[-1])) if there.size else (np.inf, -np.inf)
    if low > high or (low, high) == (found.low, found.high):
        return None, found
    padding = _judged(value, low, high, modality)
    return padding, found if padding is None else replace(found, low=low, high=high, counts=counts)


def _measured_range(slabs: SlabReader, value: float) -> tuple[float, float]:
    """The smallest and the largest value other than ``value``; the wrong way round for none."""
    low, high = np.inf, -np.inf
    for _, block in chunks(slabs):
        measured = block[block != value]
        if measured.size:
            low, high = min(low, float(measured.min())), max(high, float(measured.max()))
    return low, high


def _judged(value: float, low: float, high: float, modality: Modality) -> Padding | None:
    """Padding, if its value lies clearly outside the measured ones from ``low`` to ``high``."""
    room = _CLEARLY_OUTSIDE * (high - low)
    if low - room <= value <= high + room:
        return None
    return Padding(value, AIR_HU if modality == "CT" else low)

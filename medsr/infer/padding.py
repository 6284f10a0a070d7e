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

from medsr.hu import AIR_HU
from medsr.intensity import COMMON, LOWEST
from medsr.io.modality import LOWEST_HU
from medsr.io.planes import PlaneSource
from medsr.io.survey import PlaneValues, Survey
from medsr.types import BoolArray, Float32Array
from medsr.values import Values
from medsr.volume import Modality, Volume

_FEWEST_FILLED = 1e-3  # share of voxels at one value that makes it a fill value
_CLEARLY_OUTSIDE = 0.02  # of the width of the measured values
_FAR = 20  # widths of the measured values from a fill value in MR to the lowest of them
_USUAL_FILLS = (-9999.0, -(2.0**15), -(2.0**31))
_CLEARLY_AMID = 0.2  # how far values reach below 0, of how far above
_SAME = 1e-5  # share of voxels that have one value by chance


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

    def removed(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return the array with padding replaced; the array itself where there is none."""
        mask = self.mask(data)
        return np.where(mask, data.dtype.type(self.harmless), data) if mask.any() else data


class PaddingMemory:
    """Which voxels of the last planes hold no data, one bit each, while planes come in order.

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

    def note(self, start: int, planes: NDArray[Any]) -> tuple[NDArray[Any], BoolArray]:
        """Take note of planes that were read.

        Returns:
            The planes with padding replaced, and which voxels hold data.
        """
        mask = self.padding.mask(planes)
        for k in range(planes.shape[2]):
            self._bits[start + k] = np.packbits(mask[:, :, k])
        return self.padding.removed(planes), ~mask

    def give_back(self, start: int, planes: Float32Array, value: float) -> None:
        """Fill the region of padding in planes of the result, from plane ``start`` on, in place."""
        for k in range(planes.shape[2]):
            bits = self._bits[int(self._z[start + k])]
            if bits.any():
                count = self._shape[0] * self._shape[1]
                mask = np.unpackbits(bits, count=count).reshape(self._shape).astype(bool)
                planes[:, :, k][mask[np.ix_(self._x, self._y)]] = value

    def forget(self, written: int) -> None:
        """Let go of what no plane of the result from ``written`` on needs."""
        if written < len(self._z):
            first = int(self._z[written])
            for plane in [plane for plane in self._bits if plane < first]:
                del self._bits[plane]


def nearest(before: int, after: int) -> NDArray[np.intp]:
    """Index of the voxel whose centre is nearest, along an axis that keeps its extent."""
    places = (np.arange(after) + 0.5) * (before / after)
    return np.minimum(places.astype(np.intp), before - 1)


def find_padding(
    source: PlaneSource, survey: Survey, modality: Modality
) -> tuple[Padding | None, Survey]:
    """Find the padding of a scan: what its file states, or a fill value that its values show.

    In CT that is the lowest value, where it is far below air; in MR the lowest, where it is below
    zero and twenty times as far from the others as those reach (once for -32768), or an exact 0
    amid values that lie around it (a scan normalised within a mask).

    Args:
        source: The scan; read again only where there may be padding and its type has more than
            16 bits.
        survey: What is known of all voxels.
        modality: What the scan is.

    Returns:
        The padding, and what is known of the other voxels. None where there is no padding, or
        where it lies among the measured values or next to them (0 in MR, -1024 HU in CT), so that
        it does no harm as it is.
    """
    detected = _find(PlaneValues(source, survey), source.header, modality)
    if detected is None:
        return None, survey
    padding, low, high = detected
    counts = None
    if survey.counts is not None:
        counts, smallest = survey.counts.copy(), int(np.iinfo(source.header.data.dtype).min)
        counts[int(padding.value) - smallest] = 0
    return padding, replace(survey, low=low, high=high, counts=counts)


def _find(
    values: Values, volume: Volume, modality: Modality
) -> tuple[Padding, float, float] | None:
    """The padding, and the lowest and the highest of the other values."""
    value = None if volume.source is None else volume.source.padding
    if value is None and modality == "CT" and values.low < LOWEST_HU:
        value = values.low
    elif value is None and modality == "MR" and values.low < 0:
        value = values.low
        _, following = values.around(value)
        if following is None or following - value < _far(value) * (values.high - following):
            return _masked(values) if volume.data.dtype.kind == "f" else None
    stated = volume.source is not None and volume.source.padding is not None
    least = 1 if stated else _FEWEST_FILLED * values.size
    if value is None or values.count(value, value) < least:
        return None
    below, above = values.around(value)
    if below is not None and above is not None:
        return None
    low = above if values.low == value else values.low
    high = below if values.high == value else values.high
    if low is None or high is None:
        return None
    room = _CLEARLY_OUTSIDE * (high - low)
    if low - room <= value <= high + room:
        return None
    return Padding(value, AIR_HU if modality == "CT" else low), low, high


def _far(value: float) -> float:
    """How many widths below the others a value in MR is a fill and no background."""
    return 1 if value in _USUAL_FILLS else _FAR


def _masked(values: Values) -> tuple[Padding, float, float] | None:
    """Zeros around a mask, within which values were shifted to lie around zero."""
    zeros = values.count(0.0, 0.0)
    inside = values.size - zeros
    if zeros < COMMON * values.size or _is_a_step(values):
        return None
    low, high = (values.percentile(percent) for percent in (LOWEST * inside / values.size, 99.5))
    if low is None or high is None or -low < _CLEARLY_AMID * high:
        return None
    return Padding(0.0, low), values.low, values.high


def _is_a_step(values: Values) -> bool:
    """Whether values come in steps of which 0 is one, so that some of tissue are exactly 0 too."""
    below, above = values.around(0.0)
    if below is None or above is None:
        return True
    before, after = values.around(below)[0], values.around(above)[1]
    if before is None or after is None:
        return True
    many = max(values.count(below, below), values.count(above, above)) > _SAME * values.size
    return many and above - below > 1.5 * min(below - before, after - above)

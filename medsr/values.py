"""What is asked of all voxel values of a scan: range, counts, percentiles, values that recur.

Here they are asked of an array; ``medsr.io.survey`` asks the same of a scan that is read by
chunks. The rules that ask are elsewhere (``medsr.intensity``, ``medsr.infer.padding``), so that
arrays and files give one answer.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medsr.types import Array

Counts = NDArray[np.int64]

DIGITS = 1 << 16


class Values(Protocol):
    """The finite values of a scan, in whatever way they are held.

    Attributes:
        size: How many there are.
        low: The smallest.
        high: The largest.
    """

    size: int
    low: float
    high: float

    def count(self, low: float, high: float) -> int:
        """Number of values from ``low`` to ``high``, both included."""

    def percentile(self, percent: float, above: float = -np.inf) -> float | None:
        """Percentile, in 0 to 100, of the values above a bound, between ranks; None of none."""

    def around(self, value: float) -> tuple[float | None, float | None]:
        """The nearest values below and above one that there are."""

    def frequent(self, share: float) -> list[tuple[float, int]]:
        """Values that this share of all have, exactly, and how many each; the most frequent first.

        Args:
            share: In (0, 1].
        """


class ArrayValues:
    """The values of an array of any shape; see :class:`Values`."""

    def __init__(self, data: Array) -> None:
        self._data = data
        self.size = int(data.size)
        self.low, self.high = float(data.min()), float(data.max())

    def count(self, low: float, high: float) -> int:
        """See :class:`Values`."""
        return count_between(self._data, low, high)

    def percentile(self, percent: float, above: float = -np.inf) -> float | None:
        """See :class:`Values`."""
        chosen = self._data if above < self.low else self._data[self._data > above]
        return float(np.percentile(chosen, percent)) if chosen.size else None

    def around(self, value: float) -> tuple[float | None, float | None]:
        """See :class:`Values`."""
        return nearest_of(self._data, value)

    def frequent(self, share: float) -> list[tuple[float, int]]:
        """See :class:`Values`."""
        keys = keys_of(self._data)
        upper = count_keys(keys >> 16, DIGITS)
        differences = []
        for place in np.flatnonzero(upper >= share * self.size):
            lower = count_keys(keys[keys >> 16 == place] & (DIGITS - 1), DIGITS)
            differences += recurring(int(place), lower, share * self.size, self._data.dtype)
        return sorted(differences, key=lambda pair: -pair[1])


def count_between(data: Array, low: float, high: float) -> int:
    """Number of values from ``low`` to ``high`` in an array."""
    if low == -np.inf:
        return int(np.count_nonzero(data <= high))
    if high == np.inf:
        return int(np.count_nonzero(data >= low))
    return int(np.count_nonzero((data >= low) & (data <= high)))


def nearest_of(data: Array, value: float) -> tuple[float | None, float | None]:
    """The values of an array that are nearest to one from below and from above; None of none."""
    smaller, larger = data[data < value], data[data > value]
    return (
        float(smaller.max()) if smaller.size else None,
        float(larger.min()) if larger.size else None,
    )


def count_keys(keys: Array, size: int) -> Counts:
    """How often each number below ``size`` occurs."""
    return np.bincount(keys.ravel(), minlength=size)


def recurring(
    place: int, lower: Counts, least: float, dtype: np.dtype[Any]
) -> list[tuple[float, int]]:
    """Values whose keys share their upper digits and that occur often enough.

    Args:
        place: The upper 16 bits of their keys.
        lower: How often each number of the lower 16 bits occurs.
        least: How often is enough.
        dtype: Of the values.
    """
    return [
        (value_of((place << 16) + int(digit), dtype), int(lower[digit]))
        for digit in np.flatnonzero(lower >= max(least, 1))
    ]


def keys_of(values: Array) -> NDArray[np.uint32]:
    """Unsigned numbers in the order of the values; what has no 32 bits is rounded to float32."""
    if values.dtype == np.int32:
        return np.ascontiguousarray(values).view(np.uint32) ^ np.uint32(1 << 31)
    if values.dtype == np.uint32:
        return values
    # Zero has one sign.
    bits = (np.ascontiguousarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, ~bits, bits | np.uint32(1 << 31))


def value_of(key: int, dtype: np.dtype[Any]) -> float:
    """The value of a key."""
    bits = np.array([key], dtype=np.uint32)
    if dtype == np.int32:
        return float((bits ^ np.uint32(1 << 31)).view(np.int32)[0])
    if dtype == np.uint32:
        return float(bits[0])
    positive = key >> 31
    plain = bits & np.uint32((1 << 31) - 1) if positive else ~bits
    return float(plain.view(np.float32)[0])

"""From native values back to stored numbers: round half to even, saturate, never wrap.

The writers decide which type a format can hold; the arithmetic is here. No file is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.volume import Source, Volume

__all__ = ["Scaling", "dequantise", "find_scaling", "type_without_slope"]


@dataclass(frozen=True)
class Scaling:
    """How native values become stored numbers: native = stored * slope + intercept.

    Args:
        dtype: type to store. A floating type is stored as it is and takes no slope.
        slope: see above.
        intercept: see above, in native units.
        notes: sentences on what differs from the source.

    Examples:
        >>> import numpy as np
        >>> from medsr.io.scaling import Scaling
        >>> values = np.array([[[0.2, 0.75, 1e9]]])
        >>> Scaling(np.dtype(np.uint8), slope=0.5).stored(values).tolist()
        [[[0, 2, 255]]]
    """

    dtype: np.dtype[Any]
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()

    def stored(self, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Round (X, Y, Z) finite native values half to even; what is out of range saturates."""
        if self.dtype.kind == "f":
            return np.asarray(data, dtype=self.dtype)
        if self.slope == 1.0 and self.intercept == 0.0 and data.dtype.kind in "iu":
            return _saturated_integers(data, self.dtype)
        stored = np.empty(data.shape, dtype=self.dtype, order="F")
        low_limit, high_limit = _float_limits(self.dtype)
        for k in range(data.shape[2]):
            values = np.asarray(data[..., k], dtype=np.float64)
            values = np.rint((values - self.intercept) / self.slope)
            stored[..., k] = np.clip(values, low_limit, high_limit).astype(self.dtype)
        return stored


ValueRange = Callable[[], tuple[float, float]]
"""Gives the smallest and the largest native value; called only where they decide something."""


def range_of(data: npt.NDArray[Any]) -> ValueRange:
    """The range of values of an array, found when it is asked for."""
    return lambda: (float(data.min()), float(data.max()))


def find_scaling(
    value_range: ValueRange,
    dtype: npt.DTypeLike,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> Scaling:
    """Choose slope and intercept for values that will be stored.

    Args:
        value_range: of the native values.
        dtype: type to store. A floating type is stored as it is and takes no slope.
        slope: of the source. With slope 1 and intercept 0 values outside the type's range
            saturate. With others the source used them to cover a range, so where the data need
            more of it, a wider slope for the same type is chosen and noted.
        intercept: of the source, in native units.

    Examples:
        >>> from medsr.io.scaling import find_scaling
        >>> find_scaling(lambda: (0, 100), "int16", slope=0.5).slope
        0.5
        >>> find_scaling(lambda: (0, 100_000), "int16", slope=0.5).slope > 1  # it does not fit
        True
    """
    target = np.dtype(dtype)
    if target.kind == "f":
        return Scaling(target)
    if slope == 1.0 and intercept == 0.0:
        return Scaling(target)
    info = np.iinfo(target)
    low, high = value_range()
    ends = sorted(((low - intercept) / slope, (high - intercept) / slope))
    if ends[0] >= info.min - 0.5 and ends[1] <= info.max + 0.5:
        return Scaling(target, slope, intercept)
    slope, intercept = _covering(low, high, info)
    notes = (
        f"the result leaves the range of the source's scaling; {target} is now scaled by "
        f"slope {slope:.6g} and intercept {intercept:.6g}",
    )
    return Scaling(target, slope, intercept, notes)


def dequantise(raw: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    """Native values of stored numbers: the integer type itself where unscaled, else float32.

    Examples:
        >>> import numpy as np
        >>> from medsr.io.scaling import dequantise
        >>> raw = np.full((1, 1, 1), 1024, dtype=">u2")
        >>> dequantise(raw, 1.0, 0.0).dtype, float(dequantise(raw, 1.0, -1024.0)[0, 0, 0])
        (dtype('uint16'), 0.0)
    """
    native = raw.dtype.newbyteorder("=")
    if slope == 1.0 and intercept == 0.0:
        dtype = np.dtype(np.float32) if native.kind == "f" else native
        with np.errstate(over="ignore"):
            return np.array(raw, dtype=dtype, order="K")
    values = np.empty(raw.shape, dtype=np.float32, order="F")
    for k in range(raw.shape[2]):
        values[..., k] = np.asarray(raw[..., k], dtype=np.float64) * slope + intercept
    return values


def type_without_slope(source: Source, value_range: ValueRange) -> np.dtype[Any]:
    """The type that holds native values in a format of another kind than their source.

    The source's own type where it was stored without slope and intercept; the smallest signed
    type where only a whole number was added (CT stored from 0 up); float32 otherwise.

    Examples:
        >>> import numpy as np
        >>> from medsr.io.scaling import type_without_slope
        >>> from medsr.volume import Source
        >>> ct = Source("dicom", dtype=np.dtype("uint16"), intercept=-1024.0)
        >>> type_without_slope(ct, lambda: (-1024, 3071))
        dtype('int16')
    """
    if source.dtype.kind == "f" or (source.slope == 1.0 and source.intercept == 0.0):
        return np.dtype(source.dtype).newbyteorder("=")
    if source.slope == 1.0 and float(source.intercept).is_integer():
        low, high = value_range()
        for candidate in (np.int16, np.int32):
            info = np.iinfo(candidate)
            if info.min <= round(low) and round(high) <= info.max:
                return np.dtype(candidate)
    return np.dtype(np.float32)


def source_of(volume: Volume) -> Source:
    """The volume's source, or one that says what its array holds."""
    return volume.source or Source("array", dtype=volume.data.dtype)


def _covering(low: float, high: float, info: np.iinfo[Any]) -> tuple[float, float]:
    """Slope and intercept that spread ``low``...``high`` over a type, exact in float32."""
    if high == low:
        return 1.0, float(np.float32(low))
    steps = float(info.max) - float(info.min)
    # A hair wider than needed, so that rounding to float32 (as NIfTI-1 stores it) loses no end.
    slope = float(np.float32((high - low) / steps * (1.0 + 1e-5)))
    middle = (high + low) / 2.0 - slope * (float(info.max) + float(info.min)) / 2.0
    return slope, float(np.float32(middle))


def _float_limits(target: np.dtype[Any]) -> tuple[float, float]:
    """The type's range in float64, rounded inwards where float64 cannot hold it (64 bit)."""
    info = np.iinfo(target)
    high = float(info.max)
    if int(high) > info.max:
        high = float(np.nextafter(high, 0.0))
    return float(info.min), high


def _saturated_integers(data: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    """Integer to integer without a detour through floating point."""
    have, want = np.iinfo(data.dtype), np.iinfo(target)
    limits = max(have.min, want.min), min(have.max, want.max)
    return np.asarray(np.clip(data, *limits).astype(target))

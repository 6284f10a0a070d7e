"""Which stored numbers of a DICOM image mean "no data", whatever its writer did with their sign.

Scanners mark what lies outside the field of view by PixelPaddingValue (-2000 in many CT), which
must be told apart from tissue before anything is computed. Here is the reading of the attributes
and the marking of pixels; decoding is in ``pixels``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medsr.types import Array

_SIGN_BIT_16 = 1 << 15


@dataclass(frozen=True)
class PaddingRule:
    """Which stored numbers are padding, and the one that stands for all of them.

    Args:
        value: the stored number that padding is given, in the sign that it was meant in.
        low: smallest number that is padding.
        high: largest number that is padding.
        raw: whether ``low`` and ``high`` hold before unused bits are cleared: the value does not
            fit into the bits stored, and writers then fill the whole word.
    """

    value: int
    low: int
    high: int
    raw: bool = False

    def mark(self, used: Array, raw: Array) -> Array:
        """Give all padding the one value.

        Args:
            used: pixels with unused bits cleared; changed in place where its type can hold it.
            raw: the same pixels as stored.
        """
        pixels = raw if self.raw else used
        mask = pixels == self.low
        if self.high > self.low:
            mask = (pixels >= self.low) & (pixels <= self.high)
        if (self.low == self.high == self.value and not self.raw) or not mask.any():
            return used
        if not np.iinfo(used.dtype).min <= self.value <= np.iinfo(used.dtype).max:
            used = used.astype(np.int32)
        elif not used.flags.writeable:
            used = used.copy()
        used[mask] = self.value
        return used


def padding_rule(
    number: Callable[[str], int | None], *, modality: str, dtype: str
) -> PaddingRule | None:
    """Read PixelPaddingValue and PixelPaddingRangeLimit.

    Args:
        number: gives an attribute of the file as a number, None where it is absent.
        modality: "CT" or "MR".
        dtype: type of the stored pixels, such as "int16".

    Returns:
        None where the file states no padding.

    Source: DICOM PS3.3 C.7.5.1.1.2; PS3.5 8.1.1.
    """
    value = number("PixelPaddingValue")
    if value is None or dtype[0] not in "iu":
        return None
    limit = number("PixelPaddingRangeLimit")
    signed, width = dtype.startswith("int"), int(dtype.lstrip("uint"))
    stored = number("BitsStored") or width
    values = (value, value if limit is None else limit)
    ends = [_as_stored(each, signed, width, stored) for each in values]
    (first, first_fits), (other, other_fits) = ends
    raw = not (first_fits and other_fits)
    meant = first
    if not signed and modality == "CT" and width == 16 and first >= _SIGN_BIT_16:
        # 63536 means -2000: no CT number is that high.
        meant = first - (1 << 16)
    return PaddingRule(meant, min(first, other), max(first, other), raw)


def _as_stored(value: int, signed: bool, width: int, stored: int) -> tuple[int, bool]:
    """A value as the pixels hold it, and whether it fits into the bits stored.

    Its VR may claim the other sign (US beside signed pixels), and a negative number may be given
    by its bits stored alone.
    """
    word = value & ((1 << width) - 1)
    if not signed:
        return word, word < 1 << stored
    half = 1 << (stored - 1)
    whole_word = word - (1 << width) if word >= 1 << (width - 1) else word
    if -half <= whole_word < half:
        return whole_word, True
    if word < 1 << stored:
        return word - (1 << stored), True
    return whole_word, False

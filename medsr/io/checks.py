"""Checks on voxels and grids that every reader shares.

No file is opened here; the readers call these once they have an array and a grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import CorruptFileError, NonFiniteError, TooFewSlicesError, WideIntegerError
from medsr.geometry import Geometry

__all__ = ["check_claimed_bytes"]

MIN_SLICES = 4
"""The smallest number of voxels along any axis that counts as a volume."""

Index = tuple[int, int, int]

_EXACT_IN_FLOAT32 = 1 << 24
DEFLATE = 1100
"""Deflate cannot expand beyond 1032:1 (zlib technical details); some room for the header."""
BZIP2 = 50_000
"""Bzip2 reaches some 45,000:1 on zeros."""
LARGEST = 1e16
"""Sums of squares of a volume whose voxels lie within this overflow no float32."""
FINITE = float(np.finfo(np.float32).max)
"""What a file may hold."""


def check_slices(geometry: Geometry, where: str, *, few: bool = False) -> None:
    """Refuse a stack too thin to be a volume.

    Args:
        geometry: its grid.
        where: what a message calls it.
        few: accept two or three slices.

    Raises:
        TooFewSlicesError: if any axis has fewer than ``MIN_SLICES`` voxels.
    """
    count = min(geometry.shape)
    if count < (2 if few else MIN_SLICES):
        size = " x ".join(map(str, geometry.shape))
        raise TooFewSlicesError(
            f"{where}: {count} slice(s) along one axis ({size} voxels); at least {MIN_SLICES} "
            "are needed, or two with --allow-few-slices"
        )


def check_finite(data: npt.NDArray[Any], where: str, *, largest: float = LARGEST) -> None:
    """Refuse NaN, infinity, and numbers such as 3e38 with which float32 cannot compute.

    Args:
        data: (X, Y, Z) array.
        where: what a message calls it.
        largest: what values may reach.

    Raises:
        NonFiniteError: saying how many there are and where the first one is.
    """
    first_bad = first_unusable(data, largest)
    if first_bad is not None:
        raise unusable(*first_bad, data.size, where)


def first_unusable(
    data: npt.NDArray[Any], largest: float = LARGEST
) -> tuple[int, Index, float] | None:
    """Count voxels that are not finite or beyond ``largest``.

    Args:
        data: (X, Y, Z) array.
        largest: what values may reach.

    Returns:
        How many there are, index and value of the first; None of none.
    """
    if data.dtype.kind != "f":
        return None
    # Comparisons with NaN are false.
    bad = ~(np.abs(data) <= largest)
    count = int(np.count_nonzero(bad))
    if not count:
        return None
    x, y, z = (int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    return count, (x, y, z), float(data[x, y, z])


def unusable(count: int, index: Index, value: float, size: int, where: str) -> NonFiniteError:
    """Say which voxels cannot be computed with; see :func:`first_unusable`.

    Args:
        count: how many.
        index: of the first.
        value: of that one.
        size: voxels in all.
        where: what the message calls the scan.
    """
    if np.isfinite(value):
        return NonFiniteError(
            f"{where}: value {value:.6g} at index {index}, {count} of {size} voxels beyond "
            f"{LARGEST:g} or not finite: a fill value, which overflows float32; replace it, for "
            "instance by that of the background"
        )
    return NonFiniteError(
        f"{where}: {count} of {size} voxels are NaN, infinite or beyond {LARGEST:g}, the first at "
        f"index {index}; replace them by finite values"
    )


def check_integers(low: float, high: float, dtype: np.dtype[Any], where: str) -> None:
    """Refuse 64-bit integers that float32, which networks compute in, cannot tell apart.

    Such numbers are identifiers, labels or damage, not intensities. Smaller types and float64 are
    taken: their rounding to 24 bits is finer than any scanner's noise.

    Args:
        low: the smallest voxel.
        high: the largest one.
        dtype: type of the voxels.
        where: what a message calls them.

    Raises:
        WideIntegerError: if a 64-bit integer lies beyond 2^24.
    """
    if dtype.kind in "iu" and dtype.itemsize == 8 and max(high, -low) > _EXACT_IN_FLOAT32:
        raise WideIntegerError(
            f"{where}: 64-bit integers from {low:.17g} to {high:.17g} are too large for float32, "
            f"which is exact to {_EXACT_IN_FLOAT32}; scale them to a smaller type"
        )


def check_claimed_bytes(
    claimed_bytes: int, file_bytes: int, where: str, *, inflation: int = 1
) -> None:
    """Refuse a header that promises more voxels than the file can hold, before memory is taken.

    Args:
        claimed_bytes: what the header promises.
        file_bytes: size of the file.
        where: what a message calls it.
        inflation: how far it may be compressed: 1, ``DEFLATE`` or ``BZIP2``.

    Raises:
        CorruptFileError: if the file is too small even at the highest compression possible.

    Examples:
        >>> from medsr.errors import CorruptFileError
        >>> from medsr.io.checks import check_claimed_bytes
        >>> check_claimed_bytes(1000, 1200, "brain.plain")
        >>> try:
        ...     check_claimed_bytes(10**15, 1200, "brain.plain")
        ... except CorruptFileError as error:
        ...     print(error.exit_code)
        13
    """
    if claimed_bytes > file_bytes * inflation:
        raise CorruptFileError(
            f"{where}: the header promises {claimed_bytes} bytes but the file has {file_bytes}; "
            "it is truncated or damaged"
        )

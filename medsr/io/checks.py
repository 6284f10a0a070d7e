"""Checks on voxels and grids that every reader shares, and the guess whether a scan is CT.

No file is opened here; the readers call these once they have an array and a grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import CorruptFileError, NonFiniteError, TooFewSlicesError, WideIntegerError
from medsr.geometry import Geometry
from medsr.volume import Modality

MIN_SLICES = 4
"""The smallest number of voxels along any axis that counts as a volume."""

_EXACT_IN_FLOAT32 = 1 << 24
DEFLATE = 1100
"""Deflate cannot expand beyond 1032:1 (zlib technical details); some room for the header."""
BZIP2 = 50_000
"""Bzip2 reaches some 45,000:1 on zeros."""
# Air is -1000 HU and dense bone or enamel below 3100; fill values outside the circular field of
# view (-2000, -2048, -3024) lie under the former.
AIR_HU, LOWEST_HU, HIGHEST_HU = -500.0, -1100.0, 3100.0


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


def check_finite(data: npt.NDArray[Any], where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        NonFiniteError: saying how many there are and where the first one is.
    """
    if data.dtype.kind != "f":
        return
    bad = ~np.isfinite(data)
    count = int(np.count_nonzero(bad))
    if count:
        first = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
        raise NonFiniteError(
            f"{where}: {count} of {bad.size} voxels are NaN or infinite, the first at index "
            f"{first}; replace them by finite values"
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
    """
    if claimed_bytes > file_bytes * inflation:
        raise CorruptFileError(
            f"{where}: the header promises {claimed_bytes} bytes but the file has {file_bytes}; "
            "it is truncated or damaged"
        )


def guess_modality(data: npt.NDArray[Any]) -> Modality:
    """CT where the values look like Hounsfield units, MR otherwise.

    Looks like CT: at least one voxel in a thousand below -500, and of all voxels that are not the
    fill value, 95 % between -1100 and 3100. Judged on every second voxel along each axis.
    """
    sample = np.asarray(data[::2, ::2, ::2], dtype=np.float32).ravel()
    inside = (sample >= LOWEST_HU) & (sample <= HIGHEST_HU)
    lowest = float(sample.min())
    return looks_like_ct(
        lowest,
        sample.size,
        int(np.count_nonzero(sample < AIR_HU)),
        int(np.count_nonzero(inside)),
        int(np.count_nonzero(sample == lowest)),
    )


def looks_like_ct(
    lowest: float, size: int, below_air: int, plausible: int, at_lowest: int
) -> Modality:
    """Judge by counts of voxels; see :func:`guess_modality`.

    Args:
        lowest: the smallest value.
        size: all voxels looked at.
        below_air: those below ``AIR_HU``.
        plausible: those between ``LOWEST_HU`` and ``HIGHEST_HU``.
        at_lowest: those of the smallest value, the fill value where it is below ``LOWEST_HU``.
    """
    if lowest > AIR_HU or below_air < 1e-3 * size:
        return "MR"
    filled = size - at_lowest if lowest < LOWEST_HU else size
    return "CT" if filled and plausible >= 0.95 * filled else "MR"

"""Label images, masks and constant volumes, which hold no intensities that could be restored.

A network blends what it is given, and the mean of two labels is a third one. Three things tell:
the name (BIDS's suffixes, Slicer's ``.seg.nrrd``), what the header declares, and the values: whole
numbers, few of them, in patches. DICOM's segmentations are told by their class in
``dicom.read.files``. Nothing is read here; names, headers and blocks of voxels are judged.

Source: BIDS specification 1.10, "Imaging derivatives"; NIfTI-1 standard, ``intent_code``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import LabelsError
from medsr.io.bids import BidsName
from medsr.io.nrrd import SEGMENTS
from medsr.volume import Source

BIDS_SUFFIXES = frozenset({"dseg", "probseg", "mask", "roi"})
"""What BIDS's derivatives call segmentations."""

FEW, MANY = 8, 64
"""So many values at most are few, and so many are no longer few for a scan."""

PATCHY = {"few": 0.5, "some": 0.75, "many": 0.6}
"""Share of neighbours that are equal from which voxels count as patches of one label each, by how
many values there are. Scans have a share below 0.25 as stored, below 0.35 with 256 values, 0.65
with 64 and 0.7 with 32, which no scanner stores; segmentations of organs have 0.75 to 0.98, and
those of thin parts such as the cortex 0.6."""

POINTS = 0.01
"""With few values, where less than this share of the voxels differs from the commonest one, the
others are points or small parts that somebody marked."""

_KEYS = 1 << 16
_NOT_WHOLE = 1e-3  # scaled integers come back from a file as good as whole
_LOWEST_LABEL = -1.0  # what some call "unknown"
_SURE_PAIRS, _SURE_SHARE = 1 << 18, 0.3
_SEGMENTATION_WORD = re.compile(r"([a-z]*seg|mask|roi|labels?|lesions?)(-[a-z0-9]+)*", re.I)
_INTENTS = {
    1002: "labels",
    1004: "a matrix",
    1005: "labels",
    1006: "displacements",
    1007: "a vector",
    1008: "points",
    1009: "triangles",
    1010: "quaternions",
    **dict.fromkeys(range(2, 25), "a statistic"),
}
"""NIFTI_INTENT_* that speak of no intensities."""


def told_by_name(path: Path) -> str | None:
    """Say what in a name tells of a segmentation; None where nothing does.

    Args:
        path: a file; of its folders only ``derivatives`` is looked for, where more names count.

    Example:
        >>> told_by_name(Path("sub-01_desc-brain_mask.nii.gz"))
        'its name (..._mask)'
        >>> told_by_name(Path("brainmask.mgz"))
    """
    name = path.name.lower()
    if re.search(r"\.seg\.n(rrd|hdr)$", name):
        return "its name (.seg.nrrd)"
    parsed = BidsName.parse(path.name)
    if parsed is not None and parsed.is_scan and parsed.suffix.lower() in BIDS_SUFFIXES:
        return f"its name (..._{parsed.suffix})"
    last = re.split(r"\.", name)[0].rsplit("_", 1)[-1]
    below = any(part.lower() == "derivatives" for part in path.parts[:-1])
    if below and name.startswith("sub-") and _SEGMENTATION_WORD.fullmatch(last):
        return f"its name (..._{last}, below derivatives)"
    return None


def told_by_header(source: Source | None) -> str | None:
    """Say what in a header tells of something else than intensities; None where nothing does."""
    if source is None:
        return None
    if SEGMENTS in source.notes:
        return "its header (segments)"
    header: Any = source.header
    intent = int(header["intent_code"]) if source.format == "nifti" and header is not None else 0
    return f"its header ({_INTENTS[intent]}, NIfTI intent {intent})" if intent in _INTENTS else None


class Levels:
    """Which values a scan has, and in how large patches; blocks of voxels are added one by one."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self._scan = False  # whether it is certain that these are no labels
        self._counts = np.zeros(_KEYS, dtype=np.int64)
        self._pairs = np.zeros((3, _KEYS), dtype=np.int64)
        self._equal = np.zeros((3, _KEYS), dtype=np.int64)

    def add(self, block: npt.NDArray[Any]) -> None:
        """Take note of some planes, (X, Y, planes) in native units, finite."""
        if not block.size:
            return
        self.low = min(self.low, float(block.min()))
        self.high = max(self.high, float(block.max()))
        if self._scan or self.low < _LOWEST_LABEL or self.high >= 1 << 53:
            self._scan = True
            return
        if block.dtype.kind == "f":
            whole = np.rint(block)
            if float(np.abs(block - whole).max()) > _NOT_WHOLE:
                self._scan = True
                return
            block = whole
        # Large numbers may share a key; that hides a label at worst.
        keys = block.astype(np.int64).astype(np.uint16)
        counts = _count(keys)
        self._counts += counts
        for axis in range(3):
            first = np.moveaxis(keys, axis, 0)
            self._pairs[axis] += counts - _count(first[-1])
            self._equal[axis] += _count(first[:-1][first[:-1] == first[1:]])
        pairs, share = self._patches()
        self._scan = pairs > _SURE_PAIRS and share < _SURE_SHARE and self.count > FEW

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(np.count_nonzero(self._counts))

    def told(self) -> str | None:
        """Say what in the values tells of labels; None where nothing does."""
        if self._scan or self.count < 2:  # values that only rounding makes alike are a scan's
            return None
        shown = f"{self.low:.6g} to {self.high:.6g}"
        if self.count <= 2:
            return f"its values ({self.low:.6g} and {self.high:.6g} alone)"
        kind = "few" if self.count <= FEW else "some" if self.count <= MANY else "many"
        if self._patches()[1] >= PATCHY[kind]:
            return f"its values ({self.count} whole numbers from {shown}, in patches)"
        total, commonest = int(self._counts.sum()), int(self._counts.max())
        if kind != "many" and total - commonest < POINTS * total:
            return f"its values ({self.count} whole numbers from {shown}, almost all the same)"
        return None

    def _patches(self) -> tuple[int, float]:
        """Pairs of neighbours along an axis, and the share of equal ones: the axis between.

        The smallest and the largest value do not count: a scan is cut off there.
        """
        between = np.ones(_KEYS, dtype=bool)
        between[[round(self.low) % _KEYS, round(self.high) % _KEYS]] = False
        pairs = self._pairs[:, between].sum(axis=1)
        shares = self._equal[:, between].sum(axis=1) / np.maximum(pairs, 1)
        axis = int(np.argsort(shares)[1])
        return int(pairs[axis]), float(shares[axis])


def check(
    where: str,
    *,
    path: Path | None = None,
    source: Source | None = None,
    levels: Levels | None = None,
) -> None:
    """Refuse what holds no intensities, by whatever is known of it.

    Args:
        where: what a message calls it.
        path: its file.
        source: what its header said.
        levels: its values.

    Raises:
        LabelsError: it is a label image or a mask, or all voxels are the same.
    """
    if levels is not None and levels.low == levels.high:
        raise LabelsError(
            f"{where}: every voxel is {levels.low:.6g}; there is nothing to restore "
            "(--allow-labels lets it pass)"
        )
    for told in _evidence(path, source, levels):
        if told is not None:
            raise LabelsError(
                f"{where}: a label image or mask by {told}; a network would blend its labels, "
                "which are no intensities; --allow-labels upscales it all the same"
            )


def _evidence(
    path: Path | None, source: Source | None, levels: Levels | None
) -> Iterator[str | None]:
    yield None if path is None else told_by_name(path)
    yield told_by_header(source)
    yield None if levels is None else levels.told()


def _count(keys: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    return np.bincount(keys.ravel(), minlength=_KEYS)

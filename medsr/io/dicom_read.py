"""DICOM CT and MR series as volumes: read_dicom, inspect_dicom, is_dicom.

Here lives the choice of one volume among what a folder holds. Headers are read in ``dicom_files``,
stacks are judged in ``dicom_stack``, values are decoded in ``dicom_pixels``. Messages never hold a
name, an identifier of a patient, or a date.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medsr.errors import (
    CorruptFileError,
    DuplicateSlicesError,
    GeometryError,
    InputError,
    OrientationError,
    SeveralSeriesError,
)
from medsr.io.dicom_files import find_slices, is_dicom
from medsr.io.dicom_header import SliceHeader
from medsr.io.dicom_pixels import native_plane, read_values
from medsr.io.dicom_quiet import quiet
from medsr.io.dicom_reference import CommonAttributes
from medsr.io.dicom_stack import (
    MINIMUM_SLICES,
    Stack,
    contrast_groups,
    place_groups,
    plane_groups,
    regular_stack,
)
from medsr.io.inspect import Inspection, describe
from medsr.volume import Source, Volume, units_of

__all__ = ["inspect_dicom", "is_dicom", "read_dicom"]

logger = logging.getLogger(__name__)
_LISTED_VOLUMES = 20


@dataclass(frozen=True)
class _Candidate:
    """One volume that a path may hold: the name that picks it, its slices, what marks it."""

    key: str
    slices: tuple[SliceHeader, ...]
    mark: str

    @property
    def line(self) -> str:
        """What it is, without its name."""
        first = self.slices[0]
        kind = "" if first.kind == "slice" else f" ({first.kind})"
        mark = f" ({self.mark})" if self.mark else ""
        return (
            f"{first.modality}, {len(self.slices)} slices of "
            f"{first.columns}x{first.rows}{kind}{mark}"
        )

    @property
    def usable(self) -> bool:
        """Whether it could be a volume at all."""
        return len(self.slices) >= MINIMUM_SLICES and self.slices[0].kind == "slice"


@quiet
def read_dicom(path: Path, *, series: str | None = None) -> Volume:
    """Read one CT or MR volume from a folder of DICOM files or from one of its files.

    Args:
        path: a folder, searched at every depth, or a file, whose series is read from its folder.
        series: Series Instance UID (or the name that the refusal of several volumes lists) of the
            volume to take.

    Returns:
        The volume: array axes are columns, rows, slices; CT in HU. Its ``source.header`` is a
        :class:`medsr.io.dicom_reference.DicomReference`.

    Raises:
        SeveralSeriesError: if there are several volumes and none was picked, or not this one.
        InputError: one subclass for each fault; see ``medsr.errors``.

    Source: DICOM PS3.3 C.7.6.2.1.1 (plane), C.11.1 (modality LUT).
    """
    stack, notes = choose_stack(Path(path), series)
    return read_stack(stack, notes, Path(path))


def read_stack(stack: Stack, notes: tuple[str, ...], path: Path) -> Volume:
    """Read the voxels of a stack that was chosen; see :func:`read_dicom`."""
    first = stack.slices[0]
    common = CommonAttributes(stack)
    values = read_values(stack, common.visit)
    source = Source(
        format="dicom",
        path=path,
        dtype=values.stored,
        slope=values.slope,
        intercept=values.intercept,
        header=common.reference(signed=values.stored.kind == "i"),
        notes=notes,
    )
    return Volume(
        data=values.data,
        geometry=stack.geometry,
        modality=first.modality,
        units=units_of(first.modality),
        source=source,
    )


@quiet
def inspect_dicom(path: Path) -> Inspection:
    """Describe the volume that :func:`read_dicom` would read, from its headers alone.

    Args:
        path: a folder or a file, as for :func:`read_dicom`.

    Returns:
        The description; two or three slices are described too, with a warning.

    Raises:
        InputError: as :func:`read_dicom`, but for what only the pixel data tell.
    """
    stack, notes = choose_stack(Path(path), None, minimum=2)
    first = stack.slices[0]
    return describe(
        stack.geometry,
        format="dicom",
        dtype=first.dtype,
        modality=first.modality,
        warnings=notes,
    )


def choose_stack(
    path: Path, series: str | None, *, minimum: int = MINIMUM_SLICES
) -> tuple[Stack, tuple[str, ...]]:
    """The stack to read, from headers alone, and sentences about what was decided on the way.

    Args:
        path: as for :func:`read_dicom`.
        series: as for :func:`read_dicom`.
        minimum: fewest slices to accept.

    Raises:
        InputError: one subclass for each fault.
    """
    found = find_slices(path)
    notes = list(found.notes)
    by_series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in found.slices:
        by_series[header.series].append(header)
    wanted = None if series is None else series.partition(":")[0]
    if wanted is not None and wanted not in by_series:
        raise SeveralSeriesError(
            f"no series {series} here; there are "
            + "; ".join(f"{uid}: {len(group)} slices" for uid, group in by_series.items())
        )
    candidates: list[_Candidate] = []
    refusals: dict[str, InputError] = {}
    for uid, slices in by_series.items():
        if wanted is not None and uid != wanted:
            continue
        try:
            candidates.extend(_volumes_of(uid, slices, notes, picked=series))
        except InputError as error:
            # A bad series beside good ones must not bar the good ones.
            refusals[uid] = error
    chosen = _pick(candidates, refusals, series, notes)
    if chosen.slices[0].modality == "CT" and not all(h.has_rescale for h in chosen.slices):
        raise CorruptFileError(
            "CT slices without RescaleSlope and RescaleIntercept have no Hounsfield values; "
            "export the series again"
        )
    stack = regular_stack(chosen.slices, minimum=minimum)
    paddings = {h.padding * h.slope + h.intercept for h in stack.slices if h.padding is not None}
    if paddings:
        listed = ", ".join(f"{value:g}" for value in sorted(paddings))
        notes.append(f"PixelPaddingValue {listed} (native units) is kept as a value")
    return stack, tuple(notes)


def _pick(
    candidates: list[_Candidate],
    refusals: dict[str, InputError],
    series: str | None,
    notes: list[str],
) -> _Candidate:
    named = [candidate for candidate in candidates if candidate.key == series]
    if named:
        return named[0]
    usable = [candidate for candidate in candidates if candidate.usable]
    if len(usable) == 1 and not refusals:
        for other in candidates:
            if other is not usable[0]:
                notes.append(f"passed over {other.line}, which is no volume")
                logger.warning("%s", notes[-1])
        return usable[0]
    if len(candidates) == 1 and not refusals:
        return candidates[0]
    if len(refusals) == 1 and not candidates:
        raise next(iter(refusals.values()))
    lines = [f"{c.key}: {c.line}" for c in candidates[:_LISTED_VOLUMES]]
    lines += [f"{uid}: refused ({error})" for uid, error in refusals.items()][:_LISTED_VOLUMES]
    total = len(candidates) + len(refusals)
    more = f"; and {total - len(lines)} more" if total > len(lines) else ""
    raise SeveralSeriesError(
        f"{total} volumes here; pick one as `series`: " + "; ".join(lines) + more
    )


def _volumes_of(
    uid: str, slices: list[SliceHeader], notes: list[str], *, picked: str | None
) -> list[_Candidate]:
    """Split one series into volumes.

    Raises:
        OrientationError, GeometryError: if planes are mixed and some are too few for a volume.
        DuplicateSlicesError: if slices conflict.
    """
    groups = plane_groups(slices)
    images = [group for group in groups if group[0].kind == "slice"]
    if len(images) > 1 and min(map(len, images)) < MINIMUM_SLICES and picked in (None, uid):
        _refuse_mixed(images)
    volumes = [
        (mark, part)
        for group in groups
        for mark, part in (
            contrast_groups(_without_copies(group, notes))
            if group[0].kind == "slice"
            else [("", group)]
        )
    ]
    return [
        _Candidate(uid if len(volumes) == 1 else f"{uid}:{number}", tuple(part), mark)
        for number, (mark, part) in enumerate(volumes, start=1)
    ]


def _refuse_mixed(groups: list[list[SliceHeader]]) -> None:
    counts = " + ".join(str(len(group)) for group in groups)
    orientations = [group[0].orientation for group in groups]
    first = orientations[0]
    turned = any(
        (first is None) != (other is None)
        or (first and other and float(np.abs(np.subtract(first, other)).max()) > 1e-2)
        for other in orientations
    )
    if turned:
        raise OrientationError(
            f"one series holds slices of {len(groups)} orientations ({counts} slices); "
            "give one stack at a time"
        )
    raise GeometryError(
        f"one series holds slices of {len(groups)} matrix sizes, pixel spacings or kinds "
        f"({counts} slices); give one stack at a time"
    )


def _without_copies(slices: list[SliceHeader], notes: list[str]) -> list[SliceHeader]:
    """Drop slices that repeat another in place, contrast and every pixel.

    Raises:
        DuplicateSlicesError: if two slices share place and contrast, or identity, but not pixels.
    """
    kept: list[SliceHeader] = []
    for group in place_groups(slices):
        originals: list[SliceHeader] = []
        for header in group:
            twin = next((o for o in originals if _same_image(o, header)), None)
            if twin is None:
                originals.append(header)
            elif not np.array_equal(native_plane(twin), native_plane(header)):
                raise DuplicateSlicesError(
                    f"{twin.label} and {header.label} claim one position and differ in their "
                    "pixels; give one volume, not a mixture"
                )
        kept.extend(originals)
    dropped = len(slices) - len(kept)
    if dropped:
        notes.append(f"dropped {dropped} slice(s) that are identical copies of others")
        logger.warning("%s", notes[-1])
    return kept


def _same_image(first: SliceHeader, other: SliceHeader) -> bool:
    if first.sop_instance == other.sop_instance and first.frame == other.frame:
        return True
    return first.contrast == other.contrast and first.position is not None

"""Which volume of what a folder or archive holds: found, listed, picked by name or number.

Headers are read in ``dicom_files``, sorted in ``dicom_groups`` and judged in ``dicom_stack``;
voxels are read in ``dicom_read``. Messages name series by UID and numbers; no description is shown,
since people write names and dates into them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medsr.errors import (
    DuplicateSlicesError,
    GeometryError,
    InputError,
    OrientationError,
    SeveralSeriesError,
    TimeSeriesError,
)
from medsr.io.allow import NOTHING, Allowance
from medsr.io.dicom_damage import damage_of_series, left_out_note, refusal
from medsr.io.dicom_files import FoundSlices, find_slices
from medsr.io.dicom_groups import (
    MINIMUM_SLICES,
    contrast_groups,
    first_of_each_place,
    natural,
    place_groups,
    plane_groups,
    rank,
)
from medsr.io.dicom_header import SliceHeader
from medsr.io.dicom_pixels import native_padding, native_plane
from medsr.io.dicom_scaling import hounsfield_notes, on_one_scale
from medsr.io.dicom_stack import Stack, regular_stack

logger = logging.getLogger(__name__)

_LISTED_VOLUMES = 20


@dataclass(frozen=True)
class Candidate:
    """One volume that a path may hold.

    Args:
        key: the name that picks it: the SeriesInstanceUID, with ":2" for a second volume of it.
        slices: its slices, in any order.
        mark: what tells it from other volumes of its series.
        number: its place in the list, from 1, which picks it too.
        fault: why its series cannot be sorted into volumes; None if it can.
        notes: sentences on what was dropped from its series.
    """

    key: str
    slices: tuple[SliceHeader, ...]
    mark: str = ""
    number: int = 0
    fault: InputError | None = None
    notes: tuple[str, ...] = ()

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


def choose_stack(
    path: Path, series: str | None, *, allow: frozenset[Allowance] = NOTHING
) -> tuple[Stack, tuple[str, ...]]:
    """The stack to read, from headers alone, and sentences about what was decided on the way.

    Args:
        path: as for :func:`medsr.io.dicom_read.read_dicom`.
        series: the key or number of a volume, or the UID of a series with one volume.
        allow: what may be done to a series that is refused otherwise.

    Raises:
        SeveralSeriesError: if there are several volumes and none was picked, or not this one.
        InputError: one subclass for each fault.
    """
    found = find_slices(path)
    notes = list(found.notes)
    candidates = list_candidates(found.slices, allow, picked=series)
    chosen = _pick(candidates, series, notes, found)
    if found.damaged and series is None:
        raise refusal(found.damaged, chosen.slices, found.slices)
    for note in check_damage(chosen, found):
        notes.append(note)
        logger.warning("%s", note)
    return stack_of(chosen, notes, allow)


def check_damage(chosen: Candidate, found: FoundSlices) -> tuple[str, ...]:
    """Refuse a volume that a damaged file may belong to; a sentence on those that do not.

    Raises:
        InputError: the first one's fault.
    """
    may_be, cannot = damage_of_series(found.damaged, chosen.slices, found.slices)
    if may_be:
        raise may_be[0].error
    return (left_out_note(cannot),) if cannot else ()


def list_candidates(
    slices: Sequence[SliceHeader],
    allow: frozenset[Allowance] = NOTHING,
    *,
    picked: str | None = None,
) -> list[Candidate]:
    """All volumes among slices, numbered by rising SeriesInstanceUID.

    Args:
        slices: what :func:`find_slices` found.
        allow: as for :func:`choose_stack`.
        picked: as ``series`` of :func:`choose_stack`; one that names a volume of a series bears
            with what would bar the series as a whole.
    """
    by_series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in slices:
        by_series[header.series].append(header)
    by_name = picked is not None and (picked.isdecimal() or ":" in picked)
    found: list[Candidate] = []
    for uid, group in sorted(by_series.items(), key=lambda item: natural(item[0])):
        try:
            found.extend(_volumes_of(uid, group, allow, mixed=by_name))
        except InputError as error:
            # A bad series beside good ones must not bar the good ones.
            found.append(Candidate(uid, tuple(group), fault=error))
    return [replace(each, number=number) for number, each in enumerate(found, start=1)]


def stack_of(
    chosen: Candidate, notes: Sequence[str], allow: frozenset[Allowance] = NOTHING
) -> tuple[Stack, tuple[str, ...]]:
    """Judge one volume; arguments and errors as for :func:`choose_stack`."""
    if chosen.fault is not None:
        raise chosen.fault
    first = chosen.slices[0]
    said, slices = [*notes, *chosen.notes], chosen.slices
    if first.modality == "CT" and first.kind == "slice":
        for note in hounsfield_notes([header.rescale for header in slices]):
            said.append(note)
            logger.warning("%s", note)
    scalings = on_one_scale([header.rescale for header in slices])
    if any(new != header.rescale for new, header in zip(scalings, slices, strict=True)):
        slices = tuple(replace(h, rescale=new) for h, new in zip(slices, scalings, strict=True))
        said.append("slices with different private scale slopes were brought to one scale")
        logger.warning("%s", said[-1])
    stack = regular_stack(slices, allow=allow)
    for note in (*chosen.notes, *stack.notes):
        logger.warning("%s", note)
    said.extend(stack.notes)
    padding = native_padding(stack.slices)
    if padding is not None:
        said.append(f"PixelPaddingValue {padding:g} (native units) marks voxels without data")
    return stack, tuple(said)


def _pick(
    candidates: list[Candidate], series: str | None, notes: list[str], found: FoundSlices
) -> Candidate:
    if series is not None:
        return _named(candidates, series, found)
    sound = [each for each in candidates if each.fault is None]
    usable = [each for each in sound if each.usable]
    if len(usable) == 1 and len(sound) == len(candidates):
        for other in candidates:
            if other is not usable[0]:
                notes.append(f"passed over {other.line}, which is no volume")
                logger.warning("%s", notes[-1])
        return usable[0]
    if len(candidates) == 1:
        return candidates[0]
    raise _several(candidates)


def _named(candidates: list[Candidate], series: str, found: FoundSlices) -> Candidate:
    """The volume of a key, of a number, or the only one of a series."""
    named = [each for each in candidates if series in (each.key, str(each.number))]
    if named:
        return named[0]
    same = [each for each in candidates if each.key.partition(":")[0] == series]
    usable = [each for each in same if each.usable]
    if len(usable) == 1:
        return usable[0]
    if same:
        raise _several(same)
    for each in found.damaged:
        if each.series == series:
            raise each.error
    raise SeveralSeriesError(
        f"no series {series} here; there are "
        + "; ".join(f"{each.key}: {each.line}" for each in candidates[:_LISTED_VOLUMES])
    )


def _several(candidates: list[Candidate]) -> SeveralSeriesError:
    lines = [
        f"{each.number}. {each.key}: "
        + (each.line if each.fault is None else f"refused ({each.fault})")
        for each in candidates[:_LISTED_VOLUMES]
    ]
    more = f"; and {len(candidates) - len(lines)} more" if len(candidates) > len(lines) else ""
    series = {each.key.partition(":")[0] for each in candidates}
    overlap = len(series) == 1 and all(each.mark for each in candidates)
    kind = TimeSeriesError if overlap else SeveralSeriesError
    return kind(
        f"{len(candidates)} volumes here; pick one with --series and its UID or number: "
        + "; ".join(lines)
        + more
    )


def _volumes_of(
    uid: str,
    slices: list[SliceHeader],
    allow: frozenset[Allowance],
    *,
    mixed: bool,
) -> list[Candidate]:
    """Split one series into volumes.

    Raises:
        OrientationError, GeometryError: if planes are mixed and some are too few for a volume.
        DuplicateSlicesError: if slices conflict.
    """
    groups, notes = plane_groups(slices), list[str]()
    images = [group for group in groups if group[0].kind == "slice"]
    if len(images) > 1 and min(map(len, images)) < MINIMUM_SLICES and not mixed:
        _refuse_mixed(images)
    volumes = [
        (mark, part)
        for group in groups
        for mark, part in (
            _by_contrast(group, notes, allow) if group[0].kind == "slice" else [("", group)]
        )
    ]
    return [
        Candidate(
            uid if len(volumes) == 1 else f"{uid}:{number}", tuple(part), mark, notes=tuple(notes)
        )
        for number, (mark, part) in enumerate(volumes, start=1)
    ]


def _by_contrast(
    slices: list[SliceHeader], notes: list[str], allow: frozenset[Allowance]
) -> list[tuple[str, list[SliceHeader]]]:
    """Volumes of one plane group, without copies."""
    lenient = "duplicates" in allow
    single = _without_copies(slices, notes, lenient=lenient)
    try:
        return contrast_groups(single)
    except (DuplicateSlicesError, TimeSeriesError):
        if not lenient:
            raise
    kept = first_of_each_place(single)
    _note_dropped(len(single) - len(kept), notes)
    return [("", kept)]


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


def _without_copies(
    slices: list[SliceHeader], notes: list[str], *, lenient: bool
) -> list[SliceHeader]:
    """Drop slices that repeat another in place, contrast and every pixel.

    Raises:
        DuplicateSlicesError: if two slices share place and contrast, or identity, but not pixels,
            unless ``lenient``, which keeps the first of them.
    """
    kept: list[SliceHeader] = []
    copies = conflicts = 0
    places = place_groups(slices)
    for group in places:
        originals: list[SliceHeader] = []
        # In an order that no file name decides, so that "the first" is always the same.
        for header in group if len(group) == 1 else sorted(group, key=rank):
            twin = next((o for o in originals if _same_image(o, header)), None)
            if twin is None:
                originals.append(header)
            elif np.array_equal(native_plane(twin), native_plane(header)):
                copies += 1
            elif lenient:
                conflicts += 1
            else:
                way_out = ", or pass --allow-duplicates to take the first"
                raise DuplicateSlicesError(
                    f"{twin.label} and {header.label} claim one position and differ in their "
                    "pixels; give one volume, not a mixture" + (way_out if len(places) > 1 else "")
                )
        kept.extend(originals)
    if copies:
        notes.append(f"dropped {copies} slice(s) that are identical copies of others")
    _note_dropped(conflicts, notes)
    return kept


def _note_dropped(count: int, notes: list[str]) -> None:
    if count:
        notes.append(
            f"dropped {count} slice(s) that claim the place of another and differ from it; of each "
            "place the one with the lowest InstanceNumber was taken, then SOPInstanceUID"
        )


def _same_image(first: SliceHeader, other: SliceHeader) -> bool:
    if first.sop_instance == other.sop_instance and first.frame == other.frame:
        return True
    return first.contrast == other.contrast and first.position is not None

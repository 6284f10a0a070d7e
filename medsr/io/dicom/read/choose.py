"""Which volume of what a folder or archive holds: found, listed, picked by name or number.

Headers are read in ``files``, sorted in ``groups`` and judged in ``stack``;
voxels are read in ``series``. Messages name series by UID and numbers; no description is shown,
since people write names and dates into them.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
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
from medsr.io.dicom.read.damage import damage_of_series, left_out_note, refusal
from medsr.io.dicom.read.files import FoundSlices, find_slices
from medsr.io.dicom.read.groups import (
    MINIMUM_SLICES,
    first_of_each_place,
    natural,
    place_groups,
    plane_groups,
    rank,
    same_plane,
)
from medsr.io.dicom.read.header import SliceHeader
from medsr.io.dicom.read.pixels import native_padding, native_plane
from medsr.io.dicom.read.scaling import hounsfield_notes, on_one_scale
from medsr.io.dicom.read.split import contrast_groups, interleaved_groups, joined_contrasts
from medsr.io.dicom.read.stack import Stack, regular_stack

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
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.slices[0].series

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
        path: as for :func:`medsr.io.dicom.read.series.open_dicom`.
        series: the key or number of a volume, or the UID of a series with one volume.
        allow: what may be done to a series that is refused otherwise.

    Raises:
        SeveralSeriesError: if there are several volumes and none was picked, or not this one.
        InputError: one subclass for each fault.
    """
    contents = find_slices(path)
    notes = list(contents.notes)
    candidates = list_candidates(contents.slices, allow)
    chosen = _pick(candidates, series, notes, contents)
    if contents.damaged and series is None:
        raise refusal(contents.damaged, chosen.slices, contents.slices)
    for note in check_damage(chosen, contents):
        notes.append(note)
        logger.warning("%s", note)
    return stack_of(chosen, notes, allow)


def check_damage(chosen: Candidate, contents: FoundSlices) -> tuple[str, ...]:
    """Refuse a volume that a damaged file may belong to; a sentence on those that do not.

    Raises:
        InputError: the first one's fault.
    """
    may_be, cannot = damage_of_series(contents.damaged, chosen.slices, contents.slices)
    if may_be:
        raise may_be[0].error
    return (left_out_note(cannot),) if cannot else ()


def list_candidates(
    slices: Sequence[SliceHeader], allow: frozenset[Allowance] = NOTHING
) -> list[Candidate]:
    """All volumes among slices, numbered by rising SeriesInstanceUID.

    Args:
        slices: what :func:`find_slices` found.
        allow: as for :func:`choose_stack`.
    """
    by_series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in slices:
        by_series[header.series].append(header)
    candidates = [
        volume
        for uid, group in sorted(by_series.items(), key=lambda item: natural(item[0]))
        for volume in _volumes_of(uid, group, allow)
    ]
    return [replace(each, number=number) for number, each in enumerate(candidates, start=1)]


def stack_of(
    chosen: Candidate, notes: Sequence[str], allow: frozenset[Allowance] = NOTHING
) -> tuple[Stack, tuple[str, ...]]:
    """Judge one volume; arguments and errors as for :func:`choose_stack`."""
    if chosen.fault is not None:
        raise chosen.fault
    first = chosen.slices[0]
    remarks, slices = [*notes, *chosen.notes], chosen.slices
    if first.modality == "CT" and first.kind == "slice":
        for note in hounsfield_notes([header.rescale for header in slices]):
            remarks.append(note)
            logger.warning("%s", note)
    scalings = on_one_scale([header.rescale for header in slices])
    if any(new != header.rescale for new, header in zip(scalings, slices, strict=True)):
        slices = tuple(replace(h, rescale=new) for h, new in zip(slices, scalings, strict=True))
        remarks.append("slices with different private scale slopes were brought to one scale")
        logger.warning("%s", remarks[-1])
    stack = regular_stack(slices, allow=allow)
    if joined := joined_contrasts(slices):
        remarks.append(f"several acquisitions side by side: slices differ in {', '.join(joined)}")
        logger.warning("%s", remarks[-1])
    for note in (*chosen.notes, *stack.notes):
        logger.warning("%s", note)
    remarks.extend(stack.notes)
    padding = native_padding(stack.slices)
    if padding is not None:
        remarks.append(f"PixelPaddingValue {padding:g} (native units) marks voxels without data")
    return stack, tuple(remarks)


def _pick(
    candidates: list[Candidate], series: str | None, notes: list[str], contents: FoundSlices
) -> Candidate:
    if series is not None:
        return _named(candidates, series, contents)
    if len(candidates) == 1:
        return candidates[0]
    if len({each.uid for each in candidates}) == 1:
        _refuse_mixed(candidates)
    usable = [each for each in candidates if each.usable]
    sound = all(each.fault is None for each in candidates)
    if len(usable) == 1 and sound and not _strays(usable[0], candidates):
        for other in candidates:
            if other is not usable[0]:
                notes.append(f"passed over {other.line}, which is no volume")
                logger.warning("%s", notes[-1])
        return usable[0]
    raise _several(candidates)


def _strays(chosen: Candidate, candidates: Sequence[Candidate]) -> bool:
    """Whether images of a volume's own series were left aside."""
    return any(
        each is not chosen and each.uid == chosen.uid and each.slices[0].kind == "slice"
        for each in candidates
    )


def _named(candidates: list[Candidate], series: str, contents: FoundSlices) -> Candidate:
    """The volume of a key, of a number, or the only one of a series."""
    named = [each for each in candidates if series in (each.key, str(each.number))]
    if named:
        return named[0]
    same = [each for each in candidates if each.uid == series]
    if same:
        _refuse_mixed(same)
        usable = [each for each in same if each.usable]
        if len(usable) == 1 and not _strays(usable[0], same):
            return usable[0]
        raise _several(same)
    for each in contents.damaged:
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
    series = {each.uid for each in candidates}
    overlap = len(series) == 1 and all(each.mark for each in candidates)
    kind = TimeSeriesError if overlap else SeveralSeriesError
    return kind(
        f"{len(candidates)} volumes here; pick one with --series and its UID or number: "
        + "; ".join(lines)
        + more
    )


def _volumes_of(
    uid: str, slices: list[SliceHeader], allow: frozenset[Allowance]
) -> list[Candidate]:
    """Split one series into volumes; a plane that cannot be sorted is one with its fault."""
    volumes: list[Candidate] = []
    for group in plane_groups(slices):
        notes: list[str] = []
        parts, fault = [("", group)], None
        if group[0].kind == "slice":
            try:
                parts = _by_contrast(group, notes, allow)
            except InputError as error:
                # Bad images beside good ones must not bar the good ones.
                fault = error
        volumes += [
            Candidate(uid, tuple(part), mark, fault=fault, notes=tuple(notes))
            for mark, part in parts
        ]
    if len(volumes) == 1:
        return volumes
    return [replace(each, key=f"{uid}:{number}") for number, each in enumerate(volumes, start=1)]


def _by_contrast(
    slices: list[SliceHeader], notes: list[str], allow: frozenset[Allowance]
) -> list[tuple[str, list[SliceHeader]]]:
    """Volumes of one plane group, without copies."""
    lenient = "duplicates" in allow
    single = _without_copies(slices, notes, lenient=lenient)
    try:
        return contrast_groups(single, lenient=lenient)
    except (DuplicateSlicesError, TimeSeriesError):
        if not lenient:
            raise
    first_slices = first_of_each_place(single)
    _note_dropped(len(single) - len(first_slices), notes)
    return interleaved_groups(first_slices)


def _refuse_mixed(candidates: Sequence[Candidate]) -> None:
    """Refuse a series with images in several planes, in one of which they are too few.

    Raises:
        OrientationError, GeometryError: where they differ in orientation, or in something else.
    """
    planes: list[list[Candidate]] = []
    for each in candidates:
        if each.slices[0].kind != "slice":
            continue
        for plane in planes:
            if same_plane(plane[0].slices[0], each.slices[0]):
                plane.append(each)
                break
        else:
            planes.append([each])
    sizes = [sum(len(each.slices) for each in plane) for plane in planes]
    if len(planes) < 2 or min(sizes) >= MINIMUM_SLICES:
        return
    counts = " + ".join(map(str, sizes))
    usable = [f"--series {each.number} ({each.line})" for each in candidates if each.usable]
    way_out = "give one stack at a time"
    if usable:
        way_out += f", or pass {' or '.join(usable[:_LISTED_VOLUMES])}"
    orientations = [plane[0].slices[0].orientation for plane in planes]
    first = orientations[0]
    turned = any(
        (first is None) != (other is None)
        or (first and other and float(np.abs(np.subtract(first, other)).max()) > 1e-2)
        for other in orientations
    )
    if turned:
        raise OrientationError(
            f"one series holds slices of {len(planes)} orientations ({counts} slices); {way_out}"
        )
    raise GeometryError(
        f"one series holds slices of {len(planes)} matrix sizes, pixel spacings or kinds "
        f"({counts} slices); {way_out}"
    )


def _without_copies(
    slices: list[SliceHeader], notes: list[str], *, lenient: bool
) -> list[SliceHeader]:
    """Drop slices that repeat another in place, contrast and every pixel.

    Raises:
        DuplicateSlicesError: if two slices share place and contrast, or identity, but not pixels,
            unless ``lenient``, which keeps the first of them.
    """
    unique: list[SliceHeader] = []
    copies = conflicts = 0
    places = place_groups(slices)
    for group in places:
        originals: list[SliceHeader] = []
        pixels = lru_cache(maxsize=None)(_fingerprint)
        # In an order that no file name decides, so that "the first" is always the same.
        for header in group if len(group) == 1 else sorted(group, key=rank):
            twins = [other for other in originals if _same_image(other, header)]
            if not twins:
                originals.append(header)
            elif any(pixels(twin) == pixels(header) for twin in twins):
                copies += 1
            elif lenient:
                conflicts += 1
            elif all(_at_other_times(twin, header) for twin in twins):
                originals.append(header)
            else:
                way_out = ", or pass --allow-duplicates to take the first"
                raise DuplicateSlicesError(
                    f"{twins[0].label} and {header.label} claim one position and differ in their "
                    "pixels; give one volume, not a mixture" + (way_out if len(places) > 1 else "")
                )
        unique.extend(originals)
    if copies:
        notes.append(f"dropped {copies} slice(s) that are identical copies of others")
    _note_dropped(conflicts, notes)
    return unique


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


def _fingerprint(header: SliceHeader) -> bytes:
    plane = native_plane(header) + 0.0  # no negative zeros
    return hashlib.sha256(str(plane.shape).encode() + plane.tobytes()).digest()


def _at_other_times(first: SliceHeader, other: SliceHeader) -> bool:
    """Whether the clocks of two images say that neither can be a copy of the other."""
    return first.sop_instance != other.sop_instance and first.times != other.times

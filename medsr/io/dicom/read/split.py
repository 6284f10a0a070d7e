"""The volumes of one plane: told apart by echo, kernel, b value, acquisition, time and the like.

Slices that differ in these make several volumes where they lie at the same places or between each
other's; they never become one stack of alternating images. Which attributes count is in
``contrast``. No file is opened here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np

from medsr.errors import DuplicateSlicesError, TimeSeriesError
from medsr.io.dicom.read.contrast import COUNTERS, UNQUOTED
from medsr.io.dicom.read.groups import (
    MINIMUM_SLICES,
    SAME_PLACE_MM,
    Slices,
    heights,
    natural,
    place_groups,
    uneven_gaps,
)
from medsr.io.dicom.read.header import SliceHeader

Part = tuple[str, list[SliceHeader]]  # what tells it apart, its slices

_MOST_TOGETHER = 3  # attributes that are tried together
_ALIKE = 0.01  # relative; numbers that differ by less do not make another contrast
_OVERLAP = (
    1.5  # thickness over spacing: beyond it slices of one acquisition would lie in each other
)
_TELLING = (
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "InversionTime",
    "InversionTimes",
    "FlipAngle",
    "KVP",
    "ConvolutionKernel",
    "RescaleType",
)
_HEARTBEATS = ("TriggerTime", "NominalCardiacTriggerDelayTime")
_NUMBERED = ("AcquisitionNumber", "TemporalPositionIdentifier")


def contrast_groups(slices: Slices, *, lenient: bool = False) -> list[Part]:
    """Split slices of one plane by what tells them apart where they overlap or interleave.

    A stack whose slices lie side by side stays whole whatever its headers say. The fewest
    attributes that sort the slices into whole volumes are taken: some, such as trigger times,
    differ from slice to slice too.

    Args:
        slices: one plane group without identical copies.
        lenient: do not sort by time alone and leave no stray image aside.

    Returns:
        (what tells it apart, slices) per volume, by rising values; the text is empty for a single
        volume.

    Raises:
        DuplicateSlicesError: if different slices claim one place and nothing sorts them into
            whole volumes.
        TimeSeriesError: likewise, where every place has several of them.
    """
    return [
        (", ".join(filter(None, (mark, finer))), part)
        for mark, volume in _overlapping(slices, lenient=lenient)
        for finer, part in interleaved_groups(volume)
    ]


def interleaved_groups(slices: Slices) -> list[Part]:
    """Split slices without a common place that are several stacks between each other.

    A split by contrast must not leave more uneven gaps than there were; one by counters (of
    acquisitions, times) must leave fewer, or part slices so thick that they lie in each other.
    Packages of one acquisition thus stay one volume, and so does a stack of which no part is even.
    """
    at = _heights_by_id(slices)
    if len(at) < 2 * MINIMUM_SLICES:
        return [("", list(slices))]
    before = _faults(slices, at)
    varying = sorted(_varying(slices), key=COUNTERS.__contains__)
    for names, parts in _partitions(slices, varying, alike=True):
        if not _few_strays(parts):
            continue
        after = sum(_faults(part, at) for _, part in parts)
        worth = after < before or (
            after == before
            and (not set(names) & set(COUNTERS) or _lie_in_each_other(names, slices, at))
        )
        if worth and 2 * after < len(slices) and _interleave(parts, at):
            break
    else:
        parts = _in_turn(slices, at) if before else []
    if not parts:
        return [("", list(slices))]
    return [
        (", ".join(filter(None, (mark, finer))), volume)
        for mark, part in parts
        for finer, volume in interleaved_groups(part)
    ]


def joined_contrasts(slices: Slices) -> list[str]:
    """Contrasts in which a volume's lower and upper part differ: stacks joined end to end."""
    at = _heights_by_id(slices)
    return [
        names[0]
        for names, parts in _partitions(slices, _varying(slices), alike=True)
        if at
        and len(names) == 1
        and names[0] in _TELLING
        and min(len(part) for _, part in parts) >= MINIMUM_SLICES
        and not _interleave(parts, at)
    ]


def _overlapping(slices: Slices, *, lenient: bool) -> list[Part]:
    """Volumes among slices that share places; errors as for :func:`contrast_groups`."""
    overlaps = [group for group in place_groups(slices) if len(group) > 1]
    if not overlaps:
        return [("", list(slices))]
    names = [name for name in _varying(slices) if any(_differ(name, group) for group in overlaps)]

    place = {id(h): index for index, group in enumerate(place_groups(slices)) for h in group}

    def sorted_out() -> Iterator[list[Part]]:
        for _, parts in _partitions(slices, names):
            if all(len({place[id(header)] for header in part}) == len(part) for _, part in parts):
                yield parts

    for parts in sorted_out():
        if all(len(part) >= MINIMUM_SLICES for _, part in parts):
            return parts
    if not lenient:
        for parts in sorted_out():
            if _few_strays(parts):
                return parts
        if parts := _by_time(slices):
            return parts
        for _, parts in _partitions(slices, [name for name in names if name not in COUNTERS]):
            timed = [(mark, _by_time(part)) for mark, part in parts]
            if all(volumes for _, volumes in timed):
                return [(f"{mark}, {when}", v) for mark, volumes in timed for when, v in volumes]
    raise _unsorted(slices, overlaps, names)


def _unsorted(
    slices: Slices, overlaps: Sequence[Slices], names: Sequence[str]
) -> TimeSeriesError | DuplicateSlicesError:
    places = place_groups(slices)
    counts = sorted({len(group) for group in places})
    if counts[0] > 1 and len(places) >= MINIMUM_SLICES:
        return TimeSeriesError(
            f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} images at each of "
            f"{len(places)} positions (4D), and no attribute that sorts them into volumes; "
            "split the series first, or pass --allow-duplicates to take the first image of each "
            "position"
        )
    worst = max(overlaps, key=len)
    way_out = ", or pass --allow-duplicates to take the first slice of each position"
    return DuplicateSlicesError(
        f"{len(worst)} different slices claim one position ({worst[0].label} and "
        f"{worst[1].label}; {len(overlaps)} such position(s) among {len(slices)} slices); "
        + (f"they differ in {', '.join(names)}; " if names else "")
        + "give one volume, not a time series or a mixture"
        + (way_out if len(places) > 1 else "")
    )


def _varying(slices: Slices) -> list[str]:
    """Attributes in which slices differ."""
    names = dict.fromkeys(name for header in slices for name, _ in header.contrast)
    return [name for name in names if _differ(name, slices)]


def _differ(name: str, slices: Slices) -> bool:
    return len({dict(header.contrast).get(name) for header in slices}) > 1


def _partitions(
    slices: Slices, names: Sequence[str], *, alike: bool = False
) -> Iterator[tuple[tuple[str, ...], list[Part]]]:
    """Ways to part slices: by few attributes, then by more; of one number the first named first.

    Args:
        slices: what is parted.
        names: attributes that differ among them.
        alike: numbers that hardly differ count as one.
    """
    contrasts = [dict(header.contrast) for header in slices]
    columns: dict[str, list[str | None]] = {}
    for name in names:
        column = [values.get(name) for values in contrasts]
        same = _representatives(column) if alike and name not in COUNTERS else {}
        columns[name] = [same.get(value, value) for value in column]
    texts = {name: _texts(name, column) for name, column in columns.items()}
    for chosen in _choices(names):
        volumes: dict[tuple[str | None, ...], list[SliceHeader]] = defaultdict(list)
        for header, *key in zip(slices, *(columns[name] for name in chosen), strict=True):
            volumes[tuple(key)].append(header)
        # More could not be volumes with hardly a stray.
        if 1 < len(volumes) < len(slices) / MINIMUM_SLICES + MINIMUM_SLICES:
            keys = sorted(volumes, key=lambda key: [natural(value or "") for value in key])
            yield (
                chosen,
                [
                    (
                        ", ".join(texts[n][v] for n, v in zip(chosen, key, strict=True)),
                        volumes[key],
                    )
                    for key in keys
                ],
            )


def _choices(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Sets of attributes from small to large; of one size the better known ones first."""
    for size in range(1, min(len(names), _MOST_TOGETHER) + 1):
        yield from combinations(names, size)
    if len(names) > _MOST_TOGETHER:
        yield tuple(names)


def _representatives(values: Sequence[str | None]) -> dict[str | None, str | None]:
    """The lowest of those numbers that each lies close to."""
    numbers = {}
    for value in set(values):
        try:
            numbers[value] = float(value or "")
        except ValueError:
            continue
    lowest_of: dict[str | None, str | None] = {}
    lowest: str | None = None
    for value in sorted(numbers, key=lambda value: numbers[value]):
        if not lowest_of or numbers[value] - numbers[lowest] > _ALIKE * abs(numbers[value]):
            lowest = value
        lowest_of[value] = lowest
    return lowest_of


def _texts(name: str, values: Sequence[str | None]) -> dict[str | None, str]:
    """How a message names the values of an attribute."""
    stated = sorted({value for value in values if value is not None}, key=natural)
    texts: dict[str | None, str] = {None: f"no {name}"}
    for index, value in enumerate(stated, start=1):
        shown = f"{index} of {len(stated)}" if name in UNQUOTED else value
        texts[value] = f"{name} {shown}"
    return texts


def _few_strays(parts: Sequence[Part]) -> bool:
    """Whether there is a volume among parts, and hardly an image that is of none."""
    sizes = [len(part) for _, part in parts]
    strays = sum(size for size in sizes if size < MINIMUM_SLICES)
    return max(sizes) >= MINIMUM_SLICES > strays


def _heights_by_id(slices: Slices) -> dict[int, float]:
    """Where each slice lies along the normal in mm; empty where a header does not tell."""
    along = heights(slices)
    return {} if along is None else dict(zip(map(id, slices), along.tolist(), strict=True))


def _faults(slices: Slices, at: dict[int, float]) -> int:
    """How many gaps of a stack are uneven; of too few slices for one, their number."""
    if len(slices) < MINIMUM_SLICES:
        return len(slices)
    return len(uneven_gaps(np.diff(np.sort([at[id(header)] for header in slices]))))


def _interleave(parts: Sequence[Part], at: dict[int, float]) -> bool:
    """Whether any two parts reach into each other."""
    spans = sorted(
        (min(places), max(places))
        for places in ([at[id(header)] for header in part] for _, part in parts)
    )
    reached = spans[0][1]
    for low, high in spans[1:]:
        if low < reached - SAME_PLACE_MM:
            return True
        reached = max(reached, high)
    return False


def _lie_in_each_other(names: Sequence[str], slices: Slices, at: dict[int, float]) -> bool:
    """Whether slices are too thick for their steps to be of one acquisition."""
    thickness = dict(slices[0].contrast).get("SliceThickness")
    if thickness is None or not set(names) & set(COUNTERS) <= set(_NUMBERED):
        return False
    usual = float(np.median(np.diff(np.sort([at[id(header)] for header in slices]))))
    try:
        return float(thickness) >= _OVERLAP * usual
    except ValueError:
        return False


def _by_time(slices: Slices) -> list[Part]:
    """Volumes of a 4D series that only times tell apart: the first images of all places, and so on.

    Heartbeats time each place by itself; by any other clock one volume ends before the next begins.
    """
    places = place_groups(slices)
    if len({len(group) for group in places}) > 1 or len(places) < MINIMUM_SLICES:
        return []
    for name, when in _clocks(slices):
        ranked = [sorted(group, key=lambda header: when[id(header)]) for group in places]
        volumes = [list(volume) for volume in zip(*ranked, strict=True)]
        apart = all(len({when[id(header)] for header in group}) == len(group) for group in places)
        if apart and (name in _HEARTBEATS or _one_after_the_other(volumes, when)):
            return _timed(volumes)
    return []


def _in_turn(slices: Slices, at: dict[int, float]) -> list[Part]:
    """Regular stacks between each other that were taken one after the other."""
    count = len(slices)
    cuts = [
        list(range(0, count + 1, count // parts))
        for parts in range(2, count // MINIMUM_SLICES + 1)
        if count % parts == 0
    ]
    cuts += [[0, cut, count] for cut in range(MINIMUM_SLICES, count - MINIMUM_SLICES + 1)]
    for name, when in _clocks(slices):
        if name in _HEARTBEATS:
            continue
        ordered = sorted(slices, key=lambda header: when[id(header)])
        times = [when[id(header)] for header in ordered]
        for cut in cuts:
            if all(times[start - 1] < times[start] for start in cut[1:-1]):
                volumes = _timed([ordered[start:stop] for start, stop in pairwise(cut)])
                if _interleave(volumes, at) and not any(_faults(part, at) for _, part in volumes):
                    return volumes
    return []


def _clocks(slices: Slices) -> Iterator[tuple[str, dict[int, tuple[int, float]]]]:
    """Each clock that all slices have: its name, and the time of each slice by its id."""
    stated: list[dict[str, tuple[int, float]]] = []
    for header in slices:
        beats = [(name, value) for name, value in header.contrast if name in _HEARTBEATS]
        beat = {n: (0, float(v)) for n, v in beats if v.replace(".", "", 1).isdecimal()}
        stated.append(beat | dict(header.times))
    for name in stated[0]:
        if all(name in times for times in stated):
            yield name, {id(h): times[name] for h, times in zip(slices, stated, strict=True)}


def _one_after_the_other(volumes: Sequence[Slices], when: dict[int, tuple[int, float]]) -> bool:
    spans = [sorted(when[id(header)] for header in volume) for volume in volumes]
    return all(first[-1] < second[0] for first, second in pairwise(spans))


def _timed(volumes: Sequence[list[SliceHeader]]) -> list[Part]:
    return [(f"time {k} of {len(volumes)}", part) for k, part in enumerate(volumes, start=1)]

"""Loose slices sorted into volumes: by plane, by place, and by what tells images of a place apart.

Whether the slices of one volume make a regular stack is judged in ``dicom_stack``. No file is
opened here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from medsr.errors import (
    ColourError,
    DuplicateSlicesError,
    LocalizerError,
    MosaicError,
    TimeSeriesError,
)
from medsr.io.dicom_header import SliceHeader

Slices = Sequence[SliceHeader]

MINIMUM_SLICES = 4
SAME_PLACE_MM = 1e-3
PLANE_TOLERANCE = 2e-3  # cosines written with three decimals
_MOST_TOGETHER = 3  # attributes that are tried together


def plane_groups(slices: Slices) -> list[list[SliceHeader]]:
    """Split by SOP class, matrix, pixel spacing, kind and orientation; order is kept."""
    groups: list[list[SliceHeader]] = []
    for header in slices:
        # Slices of one plane mostly follow each other.
        for group in reversed(groups):
            if _same_plane(group[0], header):
                group.append(header)
                break
        else:
            groups.append([header])
    return groups


def place_groups(slices: Slices) -> list[list[SliceHeader]]:
    """Slices that lie at one position together; slices without a position stay alone."""
    places: dict[tuple[int, ...] | int, list[SliceHeader]] = defaultdict(list)
    for index, header in enumerate(slices):
        if header.position is None or not np.isfinite(header.position).all():
            places[index].append(header)
        else:
            key = tuple(round(value / SAME_PLACE_MM) for value in header.position)
            places[key].append(header)
    return list(places.values())


def contrast_groups(slices: Slices) -> list[tuple[str, list[SliceHeader]]]:
    """Split slices that overlap in space by what tells them apart (echo, time, image type).

    Only attributes that differ between slices of one place count; a series without overlap stays
    whole whatever its headers say. The fewest attributes that sort the slices into whole volumes
    are taken: some, such as trigger times, differ from slice to slice too.

    Args:
        slices: one plane group without identical copies.

    Returns:
        (what tells it apart, slices) per volume, by rising values; the text is empty for a single
        volume.

    Raises:
        DuplicateSlicesError: if different slices claim one place and no attribute sorts them into
            whole volumes.
        TimeSeriesError: likewise, where every place has as many of them.
    """
    overlaps = [group for group in place_groups(slices) if len(group) > 1]
    if not overlaps:
        return [("", list(slices))]
    known = {id(header): dict(header.contrast) for header in slices}
    names = [
        name
        for name in dict(pair for header in slices for pair in header.contrast)
        if any(len({known[id(h)].get(name) for h in group}) > 1 for group in overlaps)
    ]
    for chosen in _choices(names):
        volumes: dict[tuple[str | None, ...], list[SliceHeader]] = defaultdict(list)
        for header in slices:
            volumes[tuple(known[id(header)].get(name) for name in chosen)].append(header)
        if all(
            len(group) >= MINIMUM_SLICES and len(place_groups(group)) == len(group)
            for group in volumes.values()
        ):
            keys = sorted(volumes, key=lambda key: [natural(value or "") for value in key])
            return [(_mark(chosen, key), volumes[key]) for key in keys]
    places = place_groups(slices)
    counts = {len(group) for group in places}
    if len(counts) == 1 and len(places) >= MINIMUM_SLICES:
        raise TimeSeriesError(
            f"{counts.pop()} images at each of {len(places)} positions (4D), and no attribute that "
            "sorts them into volumes; split the series first, or pass --allow-duplicates to take "
            "the first image of each position"
        )
    worst = max(overlaps, key=len)
    way_out = ", or pass --allow-duplicates to take the first slice of each position"
    raise DuplicateSlicesError(
        f"{len(worst)} different slices claim one position ({worst[0].label} and "
        f"{worst[1].label}; {len(overlaps)} such position(s) among {len(slices)} slices); "
        + (f"they differ in {', '.join(names)}; " if names else "")
        + "give one volume, not a time series or a mixture"
        + (way_out if len(places) > 1 else "")
    )


def first_of_each_place(slices: Slices) -> list[SliceHeader]:
    """The slice of each position that :func:`rank` puts first."""
    return [min(group, key=rank) for group in place_groups(slices)]


def refuse_kind(header: SliceHeader) -> None:
    """Refuse images that are no slices: colour, mosaics, localizers.

    Raises:
        ColourError, MosaicError, LocalizerError: one for each.
    """
    if header.kind == "colour":
        raise ColourError("the images hold colour; give the series of grey-level images")
    if header.kind == "mosaic":
        raise MosaicError(
            "the images are mosaics (many slices tiled in one picture); split them first, "
            "for example with dcm2niix"
        )
    if header.kind == "localizer":
        raise LocalizerError(
            "the images are localizers (scouts), not the slices of a volume; give another series"
        )


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key that sorts "9" before "10", and UIDs by their components."""
    parts = re.split(r"(\d+)", text)
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in parts]


def _choices(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Sets of attributes from small to large; of one size the better known ones first."""
    for size in range(1, min(len(names), _MOST_TOGETHER) + 1):
        yield from combinations(names, size)
    if len(names) > _MOST_TOGETHER:
        yield tuple(names)


def _mark(names: Sequence[str], values: Sequence[str | None]) -> str:
    return ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True) if v is not None)


def rank(header: SliceHeader) -> tuple[bool, int, str, int]:
    """InstanceNumber, then SOPInstanceUID, then frame: no file name and no order of files."""
    return header.number is None, header.number or 0, header.sop_instance, header.frame or 0


def _same_plane(first: SliceHeader, other: SliceHeader) -> bool:
    def key(header: SliceHeader) -> tuple[object, ...]:
        return header.sop_class, header.rows, header.columns, header.kind

    return (
        key(first) == key(other)
        and _close(first.orientation, other.orientation, PLANE_TOLERANCE)
        and _close(first.pixel_spacing, other.pixel_spacing, 1e-4)
    )


def _close(first: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if first is None or other is None:
        return first is other
    return max(abs(a - b) for a, b in zip(first, other, strict=True)) <= tolerance

"""Loose slices sorted by plane and by place, and what is no slice refused.

What tells images of one plane apart is in ``split``; whether the slices of one volume make a
regular stack is judged in ``stack``. No file is opened here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medsr.errors import ColourError, LocalizerError, MosaicError
from medsr.io.dicom.read.header import SliceHeader
from medsr.types import Float64Array

Slices = Sequence[SliceHeader]

MINIMUM_SLICES = 4
SAME_PLACE_MM = 1e-3
PLANE_TOLERANCE = 2e-3  # cosines written with three decimals
SPACING_TOLERANCE = 0.01  # of the spacing
ROUNDING_MM = 0.0101  # two positions written with two decimals


def plane_groups(slices: Slices) -> list[list[SliceHeader]]:
    """Split by SOP class, matrix, pixel spacing, kind and orientation; order is kept."""
    groups: list[list[SliceHeader]] = []
    for header in slices:
        # Slices of one plane mostly follow each other.
        for group in reversed(groups):
            if same_plane(group[0], header):
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


def heights(slices: Slices) -> Float64Array | None:
    """Places in mm along the normal of slices of one plane; None where a header does not tell."""
    orientation = slices[0].orientation
    positions = [header.position for header in slices]
    if orientation is None or any(position is None for position in positions):
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    along = np.array(positions, dtype=np.float64) @ normal
    return along if np.isfinite(along).all() else None


def uneven_gaps(gaps: Float64Array) -> npt.NDArray[np.intp]:
    """Indices of the gaps in mm that differ from the usual one."""
    usual = float(np.median(gaps))
    return np.flatnonzero(np.abs(gaps - usual) > max(SPACING_TOLERANCE * usual, ROUNDING_MM))


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


def rank(header: SliceHeader) -> tuple[bool, int, str, int]:
    """InstanceNumber, then SOPInstanceUID, then frame: no file name and no order of files."""
    return header.number is None, header.number or 0, header.sop_instance, header.frame or 0


def same_plane(first: SliceHeader, other: SliceHeader) -> bool:
    """Whether two slices agree in SOP class, matrix, pixel spacing, kind and orientation."""

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

"""From loose slices to regular stacks: grouping, order, spacing, and every refusal of a bad stack.

All geometry comes from ImagePositionPatient and ImageOrientationPatient; InstanceNumber,
SliceLocation and SliceThickness decide nothing. No file is opened here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medsr.errors import (
    ColourError,
    DimensionError,
    DuplicateSlicesError,
    GantryTiltError,
    GeometryError,
    MosaicError,
    OrientationError,
    SliceSpacingError,
    TooFewSlicesError,
)
from medsr.geometry import Geometry
from medsr.io.dicom_header import SliceHeader

Slices = Sequence[SliceHeader]
FloatArray = npt.NDArray[np.float64]

MINIMUM_SLICES = 4
SPACING_TOLERANCE = 0.01  # of the spacing
_ROUNDING_MM = 0.0101  # two positions written with two decimals
_SAME_PLACE_MM = 1e-3
_COSINE_TOLERANCE = 2e-3  # cosines written with three decimals
_PLANE_TOLERANCE = 2e-3
_SHIFT_TOLERANCE_PIXELS = 0.25
_TILT_TOLERANCE_DEGREES = 0.05
_LISTED_GAPS = 6


@dataclass(frozen=True)
class Stack:
    """Slices in array order with the grid that they span.

    Args:
        slices: in the order of array axis 2, along the slice normal (row x column cosine).
        geometry: grid of (columns, rows, slices).
    """

    slices: tuple[SliceHeader, ...]
    geometry: Geometry


def plane_groups(slices: Slices) -> list[list[SliceHeader]]:
    """Split by SOP class, matrix, pixel spacing, kind and orientation; order is kept."""
    groups: list[list[SliceHeader]] = []
    for header in slices:
        for group in groups:
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
        if header.position is None:
            places[index].append(header)
        else:
            key = tuple(round(value / _SAME_PLACE_MM) for value in header.position)
            places[key].append(header)
    return list(places.values())


def contrast_groups(slices: Slices) -> list[tuple[str, list[SliceHeader]]]:
    """Split slices that overlap in space by what tells them apart (echo, time, image type).

    Only attributes that differ between slices of one place count; a series without overlap stays
    whole whatever its headers say.

    Args:
        slices: one plane group without identical copies.

    Returns:
        (what tells it apart, slices) per volume; the text is empty for a single volume.

    Raises:
        DuplicateSlicesError: if different slices claim one place and no attribute sorts them into
            whole volumes.
    """
    overlaps = [group for group in place_groups(slices) if len(group) > 1]
    if not overlaps:
        return [("", list(slices))]
    names = [
        name
        for name in dict(pair for header in slices for pair in header.contrast)
        if any(len({dict(h.contrast).get(name) for h in group}) > 1 for group in overlaps)
    ]
    volumes: dict[tuple[str | None, ...], list[SliceHeader]] = defaultdict(list)
    for header in slices:
        volumes[tuple(dict(header.contrast).get(name) for name in names)].append(header)
    whole = all(
        len(group) >= MINIMUM_SLICES and len(place_groups(group)) == len(group)
        for group in volumes.values()
    )
    if not whole:
        worst = max(overlaps, key=len)
        raise DuplicateSlicesError(
            f"{len(worst)} different slices claim one position ({worst[0].label} and "
            f"{worst[1].label}; {len(overlaps)} such position(s) among {len(slices)} slices); "
            + (f"they differ in {', '.join(names)}; " if names else "")
            + "give one volume, not a time series or a mixture"
        )
    return [
        (", ".join(f"{n} {v}" for n, v in zip(names, key, strict=True) if v is not None), group)
        for key, group in volumes.items()
    ]


def refuse_kind(header: SliceHeader) -> None:
    """Refuse images that are no slices: colour, mosaics, localizers.

    Raises:
        ColourError, MosaicError, DimensionError: one for each.
    """
    if header.kind == "colour":
        raise ColourError("the images hold colour; give the series of grey-level images")
    if header.kind == "mosaic":
        raise MosaicError(
            "the images are mosaics (many slices tiled in one picture); split them first, "
            "for example with dcm2niix"
        )
    if header.kind == "localizer":
        raise DimensionError(
            "the images are localizers (scouts), not the slices of a volume; give another series"
        )


def regular_stack(slices: Slices, *, minimum: int = MINIMUM_SLICES) -> Stack:
    """Check that slices of one plane group make one regular volume, and order them.

    Args:
        slices: one volume's slices, in any order.
        minimum: fewest slices to accept, at least two.

    Returns:
        The ordered slices and their grid.

    Raises:
        OrientationError: orientation missing, mixed, or cosines not orthogonal.
        GeometryError: position or pixel spacing missing, or slices shifted sideways.
        TooFewSlicesError: fewer than ``minimum`` slices.
        DuplicateSlicesError: two slices at one position.
        GantryTiltError: the stack is sheared.
        SliceSpacingError: uneven gaps or missing slices.
    """
    for header in slices:
        refuse_kind(header)
    row, column, normal = _axes(slices)
    spacing = _pixel_spacing(slices)
    positions = _positions(slices)
    if len(slices) < minimum:
        raise TooFewSlicesError(f"{len(slices)} slice(s); a volume needs at least {MINIMUM_SLICES}")
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    ordered = tuple(slices[index] for index in order)
    along, positions = along[order], positions[order]
    gaps = np.diff(along)
    if gaps.min() <= _SAME_PLACE_MM:
        twin = int(gaps.argmin())
        raise DuplicateSlicesError(
            f"{ordered[twin].label} and {ordered[twin + 1].label} lie in one plane; "
            "give one volume, not a mixture"
        )
    uneven = _uneven_gaps(ordered, along, gaps)
    _refuse_tilt(ordered, positions, along, normal, min(spacing), uneven)
    if uneven:
        raise SliceSpacingError(f"{uneven}; give a complete, evenly spaced series")
    geometry = Geometry.from_lps(
        (ordered[0].columns, ordered[0].rows, len(ordered)),
        origin=tuple(positions[0]),
        spacing=(spacing[1], spacing[0], float((along[-1] - along[0]) / (len(along) - 1))),
        direction=np.column_stack([row, column, normal]),
    )
    return Stack(ordered, geometry)


def _same_plane(first: SliceHeader, other: SliceHeader) -> bool:
    def key(header: SliceHeader) -> tuple[object, ...]:
        return header.sop_class, header.rows, header.columns, header.kind

    return (
        key(first) == key(other)
        and _close(first.orientation, other.orientation, _PLANE_TOLERANCE)
        and _close(first.pixel_spacing, other.pixel_spacing, 1e-4)
    )


def _close(first: Sequence[float] | None, other: Sequence[float] | None, tolerance: float) -> bool:
    if first is None or other is None:
        return first is other
    return bool(np.allclose(first, other, rtol=0.0, atol=tolerance))


def _axes(slices: Slices) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Orthonormal row, column and normal directions, LPS+."""
    if any(header.orientation is None for header in slices):
        count = sum(header.orientation is None for header in slices)
        raise OrientationError(
            f"{count} of {len(slices)} slices have no ImageOrientationPatient; "
            "export the series from its scanner or archive again"
        )
    cosines = np.array([header.orientation for header in slices], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > _PLANE_TOLERANCE:
        raise OrientationError("the slices have several orientations; give one stack at a time")
    row, column = cosines.mean(axis=0).reshape(2, 3)
    lengths = np.linalg.norm([row, column], axis=1)
    if not np.isfinite(lengths).all() or np.abs(lengths - 1.0).max() > _COSINE_TOLERANCE:
        raise OrientationError(
            f"the direction cosines have lengths {lengths[0]:.4f} and {lengths[1]:.4f}, not 1; "
            "export the series again"
        )
    if abs(float(row @ column)) > _COSINE_TOLERANCE:
        degrees = float(np.degrees(np.arccos(np.clip(row @ column, -1.0, 1.0))))
        raise OrientationError(
            f"rows and columns meet at {degrees:.2f} degrees, not 90; export the series again"
        )
    row = row / np.linalg.norm(row)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return row, np.cross(normal, row), normal


def _pixel_spacing(slices: Slices) -> tuple[float, float]:
    spacing = slices[0].pixel_spacing
    if spacing is None or not all(np.isfinite(spacing)) or min(spacing) <= 0.0:
        raise GeometryError("PixelSpacing is missing or not above zero; export the series again")
    return spacing[0], spacing[1]


def _positions(slices: Slices) -> FloatArray:
    missing = sum(header.position is None for header in slices)
    if missing:
        raise GeometryError(
            f"{missing} of {len(slices)} slices have no ImagePositionPatient; "
            "export the series from its scanner or archive again"
        )
    positions = np.array([header.position for header in slices], dtype=np.float64)
    if not np.isfinite(positions).all():
        raise GeometryError("an ImagePositionPatient is not finite; export the series again")
    return positions


def _uneven_gaps(slices: Slices, along: FloatArray, gaps: FloatArray) -> str:
    """A sentence that lists the gaps that are off; empty if all are even."""
    usual = float(np.median(gaps))
    off = np.flatnonzero(np.abs(gaps - usual) > max(SPACING_TOLERANCE * usual, _ROUNDING_MM))
    if not off.size:
        return ""
    runs: list[tuple[int, int]] = []  # first and last gap of neighbours that are alike
    for gap in map(int, off):
        if runs and runs[-1][1] == gap - 1 and abs(gaps[gap] - gaps[gap - 1]) <= _ROUNDING_MM:
            runs[-1] = (runs[-1][0], gap)
        else:
            runs.append((gap, gap))
    listed = ", ".join(
        f"{gaps[first]:.2f} mm from {slices[first].label} to {slices[last + 1].label} "
        f"({along[first]:.1f} to {along[last + 1]:.1f} mm along the normal)"
        for first, last in runs[:_LISTED_GAPS]
    )
    more = f" and {len(runs) - _LISTED_GAPS} more" if len(runs) > _LISTED_GAPS else ""
    multiples = np.rint(gaps[off] / usual)
    whole = np.abs(gaps[off] - multiples * usual) <= 2.0 * SPACING_TOLERANCE * usual * multiples
    if (multiples >= 2).all() and whole.all():
        missing = int((multiples - 1).sum())
        return f"{missing} slice(s) missing: slices are {usual:.2f} mm apart, but {listed}{more}"
    return f"slices are unevenly spaced: {usual:.2f} mm apart, but {listed}{more}"


def _refuse_tilt(
    slices: Slices,
    positions: FloatArray,
    along: FloatArray,
    normal: FloatArray,
    pixel_mm: float,
    uneven: str,
) -> None:
    """Refuse a stack whose slices drift or jump sideways as they advance."""
    lateral = positions - np.outer(along, normal)
    lateral -= lateral.mean(axis=0)
    centred = along - along.mean()
    drift = centred @ lateral / float(centred @ centred)  # mm sideways per mm along the normal
    degrees = float(np.degrees(np.arctan(np.linalg.norm(drift))))
    shift_mm = float(np.linalg.norm(drift) * (along[-1] - along[0]))
    allowed_mm = _SHIFT_TOLERANCE_PIXELS * pixel_mm
    residual = np.linalg.norm(lateral - np.outer(centred, drift), axis=1)
    if residual.max() > allowed_mm:
        worst = slices[int(residual.argmax())]
        raise GeometryError(
            f"{worst.label} lies {residual.max():.2f} mm sideways of the stack's line; "
            "give slices that lie over each other"
        )
    if degrees > _TILT_TOLERANCE_DEGREES and shift_mm > allowed_mm:
        stated = slices[0].tilt_degrees
        raise GantryTiltError(
            f"the gantry was tilted by {degrees:.1f} degrees (from the slice positions; the header "
            + ("states none)" if stated is None else f"states {stated:+.1f})")
            + (f", and {uneven}" if uneven else "")
            + "; correct the tilt by resampling first, for example with dcm2niix"
        )

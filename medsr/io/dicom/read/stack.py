"""From the slices of one volume to a regular stack: order, spacing, and every refusal of a bad one.

All geometry comes from ImagePositionPatient and ImageOrientationPatient; InstanceNumber,
SliceLocation and SliceThickness decide nothing. No file is opened here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medsr.errors import (
    DuplicateSlicesError,
    GantryTiltError,
    GeometryError,
    MissingGeometryError,
    MissingSlicesError,
    NotOrthogonalError,
    OrientationError,
    SliceSpacingError,
    TooFewSlicesError,
)
from medsr.geometry import Geometry
from medsr.io.allow import NOTHING, Allowance
from medsr.io.dicom.read.groups import (
    MINIMUM_SLICES,
    PLANE_TOLERANCE,
    ROUNDING_MM,
    SAME_PLACE_MM,
    SPACING_TOLERANCE,
    refuse_kind,
    uneven_gaps,
)
from medsr.io.dicom.read.header import SliceHeader
from medsr.io.dicom.read.regular import Regridding, even_places
from medsr.types import Float64Array

logger = logging.getLogger(__name__)

Slices = Sequence[SliceHeader]

_COSINE_TOLERANCE = 2e-3  # cosines written with three decimals
_SHIFT_TOLERANCE_PIXELS = 0.25
_TILT_TOLERANCE_DEGREES = 0.05
_LISTED_GAPS = 6
_MOST_PLANES_PER_SLICE = 8
_MOST_SHIFT = 4  # times the matrix
_FEWEST_SLICES = 2


@dataclass(frozen=True)
class Stack:
    """Slices in array order with the grid that they span.

    Args:
        slices: along the slice normal (row x column cosine); in the order of array axis 2.
        geometry: grid of (columns, rows, planes).
        regridding: how the grid's planes come from the slices; None where they are the slices.
        notes: sentences on what was done to irregular slices.
    """

    slices: tuple[SliceHeader, ...]
    geometry: Geometry
    regridding: Regridding | None = None
    notes: tuple[str, ...] = ()

    @property
    def planes(self) -> tuple[tuple[SliceHeader, ...], ...]:
        """The slice that each plane along array axis 2 is, or the two that it lies between."""
        if self.regridding is None:
            return tuple((header,) for header in self.slices)
        return tuple(
            tuple(self.slices[index] for index in indices) for indices in self.regridding.sources
        )


def regular_stack(slices: Slices, *, allow: frozenset[Allowance] = NOTHING) -> Stack:
    """Check that slices of one plane group make one regular volume, and order them.

    Args:
        slices: one volume's slices, in any order.
        allow: "few-slices" accepts two or three slices; "tilt" and "gaps" accept a sheared and an
            uneven stack, which the result's ``regridding`` brings onto a regular grid.

    Returns:
        The ordered slices and their grid.

    Raises:
        OrientationError: mixed orientations.
        NotOrthogonalError: cosines that are no unit vectors at right angles.
        MissingGeometryError: orientation, position or pixel spacing missing.
        GeometryError: slices shifted sideways.
        TooFewSlicesError: fewer than four slices.
        DuplicateSlicesError: two slices at one position.
        GantryTiltError: the stack is sheared.
        SliceSpacingError: uneven gaps; MissingSlicesError where slices are missing.
    """
    for header in slices:
        refuse_kind(header)
    row, column, normal = _axes(slices)
    spacing = _pixel_spacing(slices)
    positions = _positions(slices)
    _refuse_few(len(slices), allow)
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = tuple(slices[index] for index in order), positions[order]
    along = positions @ normal
    gaps = np.diff(along)
    if gaps.min() <= SAME_PLACE_MM:
        twin = int(gaps.argmin())
        raise DuplicateSlicesError(
            f"{ordered[twin].label} and {ordered[twin + 1].label} lie in one plane; "
            "give one volume, not a mixture"
        )
    uneven = _uneven_gaps(ordered, along, gaps)
    degrees = _tilt(ordered, positions, along, normal, min(spacing))
    if degrees and "tilt" not in allow:
        raise GantryTiltError(_tilt_message(ordered[0], degrees, uneven))
    if uneven and "gaps" not in allow:
        raise uneven
    grid = _Grid(row, column, normal, spacing)
    if not uneven and not degrees:
        return Stack(ordered, grid.straight(ordered, positions))
    return grid.regridded(ordered, positions, degrees, None if uneven is None else gaps)


@dataclass(frozen=True)
class _Grid:
    """Makes the grid of ordered slices: unit axes in LPS+, and mm between (rows, columns)."""

    row: Float64Array
    column: Float64Array
    normal: Float64Array
    spacing: tuple[float, float]

    def straight(self, slices: tuple[SliceHeader, ...], positions: Float64Array) -> Geometry:
        """The grid of slices as they are."""
        shape = (slices[0].columns, slices[0].rows, len(slices))
        return self._geometry(shape, positions[0], positions @ self.normal)

    def regridded(
        self,
        slices: tuple[SliceHeader, ...],
        positions: Float64Array,
        degrees: float,
        gaps: Float64Array | None,
    ) -> Stack:
        """A stack on a regular grid that holds all of every slice, from the first to the last.

        Args:
            slices: ordered.
            positions: LPS+ mm of their first pixels.
            degrees: the tilt to be undone, 0 for none.
            gaps: mm between neighbours where they are uneven.

        Raises:
            SliceSpacingError, GantryTiltError: if that grid would be much larger than the slices.
        """
        along = positions @ self.normal
        first = slices[0]
        places = np.arange(len(slices), dtype=np.float64)
        if gaps is not None:
            usual = float(np.median(gaps))
            if (along[-1] - along[0]) / usual > _MOST_PLANES_PER_SLICE * len(slices):
                raise SliceSpacingError(
                    f"{len(slices)} slices, {usual:.2f} mm apart at most places, are spread over "
                    f"{along[-1] - along[0]:.0f} mm; too much would have to be made up"
                )
            places = even_places(along, usual)
        # Where the first pixel of each slice lies in the plane, in pixels.
        pixel_mm = np.array([self.spacing[1], self.spacing[0]])
        inside = positions @ np.column_stack([self.row, self.column]) / pixel_mm
        shifts = inside - inside.min(axis=0) if degrees else np.zeros_like(inside)
        if shifts.max() > _MOST_SHIFT * max(first.columns, first.rows):
            raise GantryTiltError(
                f"the slices drift sideways by {shifts.max():.0f} pixels; "
                "too much for one volume, give another series"
            )
        extra_x, extra_y = np.ceil(shifts.max(axis=0) - 1e-3).astype(int).tolist()
        shape = (first.columns + extra_x, first.rows + extra_y)
        back = shifts[0] * pixel_mm @ np.vstack([self.row, self.column])
        geometry = self._geometry((*shape, places.size), positions[0] - back, along)
        notes = _regridding_notes(slices, along, places, degrees, gaps is not None)
        return Stack(slices, geometry, Regridding(shape, places, shifts), notes)

    def _geometry(
        self, shape: tuple[int, int, int], origin: Float64Array, along: Float64Array
    ) -> Geometry:
        step = float((along[-1] - along[0]) / (shape[2] - 1))
        return Geometry.from_lps(
            shape,
            origin=tuple(origin),
            spacing=(self.spacing[1], self.spacing[0], step),
            direction=np.column_stack([self.row, self.column, self.normal]),
        )


def _refuse_few(count: int, allow: frozenset[Allowance]) -> None:
    if count >= MINIMUM_SLICES:
        return
    message = f"{count} slice(s); a volume needs at least {MINIMUM_SLICES}"
    if count < _FEWEST_SLICES:
        raise TooFewSlicesError(f"{message}, and of a single slice the spacing is not known")
    if "few-slices" not in allow:
        raise TooFewSlicesError(f"{message}; pass --allow-few-slices to go on with fewer")


def _regridding_notes(
    slices: Slices, along: Float64Array, places: Float64Array, degrees: float, uneven: bool
) -> tuple[str, ...]:
    notes = []
    if degrees:
        notes.append(
            f"the gantry tilt of {degrees:.1f} degrees was undone: each slice was moved within its "
            "plane by linear interpolation"
        )
    if uneven:
        between = int(np.count_nonzero(places != np.rint(places)))
        gaps = np.diff(along)
        widest = int(gaps.argmax())
        step = float(along[-1] - along[0]) / (places.size - 1)
        notes.append(
            f"{len(slices)} uneven slices were resampled to {places.size} planes {step:.2f} mm "
            f"apart, {between} of them linearly between two slices; the widest gap bridged is "
            f"{gaps[widest]:.2f} mm, from {slices[widest].label} to {slices[widest + 1].label}"
        )
    return tuple(notes)


def _axes(slices: Slices) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Orthonormal row, column and normal directions, LPS+."""
    if any(header.orientation is None for header in slices):
        count = sum(header.orientation is None for header in slices)
        raise MissingGeometryError(
            f"{count} of {len(slices)} slices have no ImageOrientationPatient; "
            "export the series from its scanner or archive again"
        )
    cosines = np.array([header.orientation for header in slices], dtype=np.float64)
    if np.abs(cosines - cosines[0]).max() > PLANE_TOLERANCE:
        raise OrientationError("the slices have several orientations; give one stack at a time")
    row, column = cosines.mean(axis=0).reshape(2, 3)
    lengths = np.linalg.norm([row, column], axis=1)
    if not np.isfinite(lengths).all() or np.abs(lengths - 1.0).max() > _COSINE_TOLERANCE:
        raise NotOrthogonalError(
            f"the direction cosines have lengths {lengths[0]:.4f} and {lengths[1]:.4f}, not 1; "
            "export the series again"
        )
    if abs(float(row @ column)) > _COSINE_TOLERANCE:
        degrees = float(np.degrees(np.arccos(np.clip(row @ column, -1.0, 1.0))))
        raise NotOrthogonalError(
            f"rows and columns meet at {degrees:.2f} degrees, not 90; export the series again"
        )
    row = row / np.linalg.norm(row)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    return row, np.cross(normal, row), normal


def _pixel_spacing(slices: Slices) -> tuple[float, float]:
    spacing = slices[0].pixel_spacing
    if spacing is None or not all(np.isfinite(spacing)) or min(spacing) <= 0.0:
        raise MissingGeometryError(
            "PixelSpacing is missing or not above zero; export the series again"
        )
    return spacing[0], spacing[1]


def _positions(slices: Slices) -> Float64Array:
    missing = sum(header.position is None for header in slices)
    if missing:
        raise MissingGeometryError(
            f"{missing} of {len(slices)} slices have no ImagePositionPatient; "
            "export the series from its scanner or archive again"
        )
    positions = np.array([header.position for header in slices], dtype=np.float64)
    if not np.isfinite(positions).all():
        raise GeometryError("an ImagePositionPatient is not finite; export the series again")
    return positions


def _uneven_gaps(
    slices: Slices, along: Float64Array, gaps: Float64Array
) -> SliceSpacingError | None:
    """A refusal that lists the gaps that are off; None if all are even."""
    usual = float(np.median(gaps))
    off = uneven_gaps(gaps)
    if not off.size:
        return None
    runs: list[tuple[int, int]] = []  # first and last gap of neighbours that are alike
    for gap in map(int, off):
        if runs and runs[-1][1] == gap - 1 and abs(gaps[gap] - gaps[gap - 1]) <= ROUNDING_MM:
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
        return MissingSlicesError(
            f"{missing} slice(s) missing: slices are {usual:.2f} mm apart, but {listed}{more}; "
            "give the complete series, or pass --allow-gaps to resample"
        )
    return SliceSpacingError(
        f"slices are unevenly spaced: {usual:.2f} mm apart, but {listed}{more}; "
        "give an evenly spaced series, or pass --allow-gaps to resample"
    )


def _tilt(
    slices: Slices,
    positions: Float64Array,
    along: Float64Array,
    normal: Float64Array,
    pixel_mm: float,
) -> float:
    """The angle in degrees by which slices drift sideways as they advance; 0 for a straight stack.

    Raises:
        GeometryError: if a slice jumps sideways.
    """
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
    return degrees if degrees > _TILT_TOLERANCE_DEGREES and shift_mm > allowed_mm else 0.0


def _tilt_message(first: SliceHeader, degrees: float, uneven: SliceSpacingError | None) -> str:
    stated = first.tilt_degrees
    return (
        f"the gantry was tilted by {degrees:.1f} degrees (from the slice positions; the header "
        + ("states none)" if stated is None else f"states {stated:+.1f})")
        + ("" if uneven is None else f", and {str(uneven).rpartition('; ')[0]}")
        + "; pass --allow-tilt"
        + ("" if uneven is None else " and --allow-gaps")
        + " to resample"
    )

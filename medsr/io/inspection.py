"""What ``inspect`` and ``list_volumes`` tell of a scan, without its path, names or identifiers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from medsr.errors import TooFewSlicesError
from medsr.geometry import Geometry
from medsr.io.checks import MIN_SLICES
from medsr.io.planes import PlaneSource
from medsr.volume import Modality, SourceFormat, Units, units_of


@dataclass(frozen=True)
class Inspection:
    """A scan described without its path, names or identifiers.

    Args:
        format: kind of file.
        modality: "MR", "CT", or None where only the voxels could tell.
        shape: voxels along the array axes (X, Y, Z).
        spacing_mm: mm between voxel centres.
        axcodes: anatomical direction of each array axis.
        dtype: type of the stored numbers, such as "int16".
        units: "HU" for CT, "arbitrary" for MR, None where the modality is not known.
        slice_axis: index of the through-plane axis, None if the grid has none.
        slice_ratio: largest spacing over the smallest.
        value_range: smallest and largest native value, if asked for.
        warnings: sentences about what may stand in the way of using the scan.

    Examples:
        >>> from medsr.io import Inspection
        >>> found = Inspection(
        ...     format="nifti",
        ...     modality=None,
        ...     shape=(256, 256, 30),
        ...     spacing_mm=(0.9, 0.9, 5.0),
        ...     axcodes=("R", "A", "S"),
        ...     dtype="int16",
        ...     units=None,
        ...     slice_axis=2,
        ...     slice_ratio=5.0 / 0.9,
        ... )
        >>> found.to_dict()["spacing_mm"]  # plain data, as ``medsr inspect --json`` prints it
        [0.9, 0.9, 5.0]
    """

    format: SourceFormat
    modality: Modality | None
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axcodes: tuple[str, str, str]
    dtype: str
    units: Units | None
    slice_axis: int | None
    slice_ratio: float
    value_range: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, ready for JSON."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


@dataclass(frozen=True)
class ListedVolume:
    """One volume among several in a DICOM source, described without names or descriptions.

    Args:
        number: its place in the list, from 1.
        series: the name that picks it: its SeriesInstanceUID, with ":2" for a second volume of it.
        modality: "MR" or "CT".
        shape: voxels along (X, Y, Z); of a volume that cannot be read, columns, rows and slices.
        spacing_mm: mm between voxel centres; None if it cannot be read.
        mark: what tells it from other volumes of its series.
        fault: why it cannot be read; None if it can.
        exit_code: what reading it would leave with; 0 if it can be read.

    Examples:
        >>> from medsr.io import ListedVolume
        >>> listed = ListedVolume(
        ...     number=2,
        ...     series="1.2.840.99.7:2",
        ...     modality="MR",
        ...     shape=(256, 256, 24),
        ...     spacing_mm=(0.9, 0.9, 5.0),
        ...     mark="EchoTime 90",
        ...     fault=None,
        ...     exit_code=0,
        ... )
        >>> listed.to_dict()["series"]  # what ``load(..., series=...)`` takes
        '1.2.840.99.7:2'
    """

    number: int
    series: str
    modality: Modality
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] | None
    mark: str
    fault: str | None
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, ready for JSON."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


def describe(
    geometry: Geometry,
    *,
    format: SourceFormat,
    dtype: str,
    modality: Modality | None,
    value_range: tuple[float, float] | None = None,
    warnings: tuple[str, ...] = (),
) -> Inspection:
    """Make an Inspection from a grid and what the header says beside it."""
    notes = list(warnings)
    if min(geometry.shape) < MIN_SLICES:
        unless = "" if min(geometry.shape) < 2 else " without --allow-few-slices"
        notes.append(
            f"fewer than {MIN_SLICES} voxels along one axis: too thin to be upscaled{unless} "
            f"(exit code {TooFewSlicesError.exit_code})"
        )
    if not geometry.is_orthogonal():
        notes.append("the axes are not at right angles (sheared)")
    return Inspection(
        format=format,
        modality=modality,
        shape=geometry.shape,
        spacing_mm=geometry.spacing,
        axcodes=geometry.axcodes,
        dtype=dtype,
        units=None if modality is None else units_of(modality),
        slice_axis=geometry.slice_axis(),
        slice_ratio=max(geometry.spacing) / min(geometry.spacing),
        value_range=value_range,
        warnings=tuple(notes),
    )


def describe_header(source: PlaneSource) -> Inspection:
    """Make an Inspection of an opened scan, whose voxels are not read."""
    header = source.header
    original = header.source
    return describe(
        header.geometry,
        format="array" if original is None else original.format,
        dtype=(header.data.dtype if original is None else original.dtype).name,
        modality=header.modality,
        warnings=() if original is None else original.notes,
    )

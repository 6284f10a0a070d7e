"""What a file is, told from its header: the format by its name, grid, type, and what is doubtful.

Voxels are read only when the value range is asked for. Neither torch nor MONAI is imported, and
SimpleITK and pydicom only for the files that need them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsr.errors import (
    InputNotFoundError,
    TooFewSlicesError,
    UnsupportedFormatError,
    UsageError,
)
from medsr.geometry import Geometry
from medsr.io.allow import parse_allowances
from medsr.io.checks import MIN_SLICES
from medsr.io.foreign import LOST_LINK, fault_of, is_lost_link
from medsr.volume import Modality, SourceFormat, Units, units_of

SUFFIXES: dict[str, SourceFormat] = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "mha",
    ".mhd": "mha",
    ".mgz": "mgz",
    ".mgh": "mgz",
}
_IN_TWO_FILES = (".hdr", ".img", ".hdr.gz", ".img.gz")
READABLE = ".nii, .nii.gz, .nrrd, .mha, .mgz, or a DICOM file, folder or zip archive"


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
    found = list(warnings)
    if min(geometry.shape) < MIN_SLICES:
        unless = "" if min(geometry.shape) < 2 else " without --allow-few-slices"
        found.append(
            f"fewer than {MIN_SLICES} voxels along one axis: too thin to be upscaled{unless} "
            f"(exit code {TooFewSlicesError.exit_code})"
        )
    if not geometry.is_orthogonal():
        found.append("the axes are not at right angles (sheared)")
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
        warnings=tuple(found),
    )


def suffix_of(path: Path) -> str | None:
    """The ending of a name that decides its format (lower case), or None for any other."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def format_of(path: Path) -> SourceFormat:
    """The format of an existing file or folder.

    Raises:
        InputNotFoundError: if there is nothing at ``path``.
        UnsupportedFormatError: if it is of no format that medsr reads.
    """
    if not path.exists():
        what = LOST_LINK if is_lost_link(path) else "no such file or folder"
        raise InputNotFoundError(f"{path}: {what}")
    if path.is_dir():
        return "dicom"
    suffix = suffix_of(path)
    if suffix is not None:
        return SUFFIXES[suffix]
    if path.name.lower().endswith(_IN_TWO_FILES):
        raise UnsupportedFormatError(
            f"{path}: Analyze or NIfTI in two files; convert both to one .nii.gz"
        )
    from medsr.io.dicom.read.files import is_dicom

    if is_dicom(path):
        return "dicom"
    with path.open("rb") as stream:
        what = fault_of(stream) or f"the format is not known; medsr reads {READABLE}"
    raise UnsupportedFormatError(f"{path}: {what}")


def inspect(
    path: str | Path,
    *,
    with_range: bool = False,
    series: str | None = None,
    allow: Collection[str] = (),
) -> Inspection:
    """Describe a scan from its header.

    Args:
        path: a file, or a folder or zip archive of DICOM files.
        with_range: also read the voxels, for the value range and the modality of formats that
            do not record it.
        series: which volume of a DICOM source, as for :func:`medsr.io.load`.
        allow: as for :func:`medsr.io.load`.

    Raises:
        InputError: one of its family, as :func:`medsr.io.load` does for a header it cannot take.
            A stack with too few slices is described, with a warning.
        UsageError: if ``series`` is given for another format than DICOM.
    """
    path = Path(path)
    allowed = parse_allowances(allow)
    kind = format_of(path)
    if kind == "dicom":
        from medsr.io.dicom.read.series import inspect_dicom

        inspection = inspect_dicom(path, series=series, allow=allowed)
    elif series is not None:
        raise UsageError(f"{path}: a series can be chosen in DICOM only, and this is {kind}")
    elif kind in ("nifti", "mgz"):
        from medsr.io.nifti import read_header

        info = read_header(path)
        inspection = describe(
            info.geometry,
            format=info.format,
            dtype=info.dtype.name,
            modality=None,
            warnings=info.notes,
        )
    else:
        from medsr.io import itk

        found = itk.read_header(path)
        inspection = describe(
            found.geometry,
            format=found.format,
            dtype=found.dtype.name,
            modality=None,
            warnings=found.notes,
        )
    return _with_range(inspection, path, series, allowed) if with_range else inspection


def list_volumes(path: str | Path, *, allow: Collection[str] = ()) -> tuple[ListedVolume, ...]:
    """List the volumes of a DICOM source, each with the name that picks it.

    Args:
        path: a folder, zip archive, DICOMDIR or file.
        allow: as for :func:`medsr.io.load`.

    Raises:
        InputError: if nothing there is a CT or MR slice.
        UsageError: if it is of another format.
    """
    path = Path(path)
    kind = format_of(path)
    if kind != "dicom":
        raise UsageError(f"{path}: only DICOM sources hold several volumes, and this is {kind}")
    from medsr.io.dicom.read.series import list_dicom

    return list_dicom(path, allow=parse_allowances(allow))


def _with_range(
    inspection: Inspection, path: Path, series: str | None, allow: Collection[str]
) -> Inspection:
    """Add what only the voxels tell."""
    from medsr.io import load
    from medsr.io.modality import judge, tally

    volume = load(path, series=series, allow=allow)
    doubt = () if volume.modality else (judge(tally(volume.data)).question(),)
    return dataclasses.replace(
        inspection,
        modality=volume.modality,
        units=volume.units if volume.modality else None,
        value_range=(float(volume.data.min()), float(volume.data.max())),
        warnings=(*inspection.warnings, *doubt),
    )

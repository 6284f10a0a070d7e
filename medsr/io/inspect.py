"""What a file is, told from its header: the format by its name, grid, type, and what is doubtful.

Voxels are read only when the value range is asked for. Neither torch nor MONAI is imported, and
SimpleITK and pydicom only for the files that need them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsr.errors import InputNotFoundError, UnsupportedFormatError
from medsr.geometry import Geometry
from medsr.io.checks import MIN_SLICES
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
READABLE = ".nii, .nii.gz, .nrrd, .mha, .mgz, or a DICOM file or folder"


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
        found.append(f"fewer than {MIN_SLICES} voxels along one axis: too thin to be upscaled")
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
        raise InputNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        return "dicom"
    suffix = suffix_of(path)
    if suffix is not None:
        return SUFFIXES[suffix]
    from medsr.io.dicom_read import is_dicom

    if is_dicom(path):
        return "dicom"
    raise UnsupportedFormatError(f"{path}: the format is not known; medsr reads {READABLE}")


def inspect(path: str | Path, *, with_range: bool = False) -> Inspection:
    """Describe a scan from its header.

    Args:
        path: a file, or a folder of DICOM files.
        with_range: also read the voxels, for the value range and the modality of formats that
            do not record it.

    Raises:
        InputError: one of its family, as :func:`medsr.io.load` does for a header it cannot take.
            A stack with too few slices is described, with a warning.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "dicom":
        from medsr.io.dicom_read import inspect_dicom

        inspection = inspect_dicom(path)
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
            found.geometry, format=found.format, dtype=found.dtype.name, modality=None
        )
    return _with_range(inspection, path) if with_range else inspection


def _with_range(inspection: Inspection, path: Path) -> Inspection:
    """Add what only the voxels tell."""
    from medsr.io import load

    volume = load(path)
    return dataclasses.replace(
        inspection,
        modality=volume.modality,
        units=volume.units,
        value_range=(float(volume.data.min()), float(volume.data.max())),
    )

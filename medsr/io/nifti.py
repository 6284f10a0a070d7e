"""NIfTI-1, NIfTI-2 and MGZ through nibabel: headers, voxels, and writing them back.

Array axes stay as the file stores them; the affine says what they mean. Nothing here guesses a
modality or counts slices: ``medsr.io.load`` does, the same for every format.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medsr.errors import (
    ColourError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    InputNotFoundError,
    OutputFormatError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry, format_mm
from medsr.io.checks import check_claimed_bytes
from medsr.io.quantise import Stored, dequantise, quantise, type_without_slope
from medsr.volume import Derivation, Source, SourceFormat, Volume

# A qform's quaternion in float32 can be off by 0.1 mm near half turns; a tenth of a voxel more or
# less moves no voxel to another place. Beyond both, two viewers disagree visibly.
_CONFLICT_MM, _CONFLICT_VOXELS = 0.2, 0.1
_DAMAGED = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    struct.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)
_HEADER_CLASSES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAX_NIFTI1_SIZE = 32767
_CHUNK_BYTES = 1 << 20
_ALIGNED, _SCANNER = 2, 1
_UNIT_NAMES = {1: "metres", 3: "micrometres"}


@dataclass(frozen=True)
class NiftiInfo:
    """What a header says, checked: grid, stored type, scaling, and what was doubtful."""

    format: SourceFormat
    geometry: Geometry
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    header: Any
    notes: tuple[str, ...]


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI or MGZ file.

    Args:
        path: a ``.nii``, ``.nii.gz``, ``.mgz`` or ``.mgh`` file with one 3D scalar image; a
            fourth axis of length one is dropped.

    Returns:
        The volume with its array axes as stored; modality unknown. Integers without slope and
        intercept keep their type, everything else is float32.

    Raises:
        InputNotFoundError, UnsupportedFormatError, CorruptFileError, DimensionError, ColourError,
        GeometryError: as :func:`read_header` does; CorruptFileError also for missing voxels.
    """
    info = read_header(path)
    claimed = math.prod(info.geometry.shape) * info.dtype.itemsize
    try:
        with ImageOpener(str(path), "rb") as file:
            file.seek(int(info.header.get_data_offset()))
            voxels = file.read(claimed)
            # Only the end of a gzip stream tells whether it is whole and its checksum right.
            while file.read(_CHUNK_BYTES):
                pass
    except (*_DAMAGED, OSError) as error:
        raise CorruptFileError(f"{path}: the voxels cannot be read ({_brief(error)})") from error
    if len(voxels) < claimed:
        raise CorruptFileError(
            f"{path}: {len(voxels)} of {claimed} bytes of voxels are there; it is truncated"
        )
    raw = np.frombuffer(voxels, info.dtype).reshape(info.geometry.shape, order="F")
    data = dequantise(raw, info.slope, info.intercept)
    source = Source(
        info.format, path, info.dtype, info.slope, info.intercept, info.header, info.notes
    )
    return Volume(data, info.geometry, source=source)


def read_header(path: Path) -> NiftiInfo:
    """Read and check the header alone.

    Raises:
        InputNotFoundError: if there is no such file or it may not be opened.
        UnsupportedFormatError: for Analyze, NIfTI in two files, and types nibabel cannot read.
        CorruptFileError: if the header is damaged or promises more than the file holds.
        DimensionError: for 2D, several frames, or complex numbers.
        ColourError: for RGB.
        GeometryError: for zero or negative spacing, a singular affine, or sform and qform that
            are both valid and lie apart.
    """
    is_mgh = path.name.lower().endswith((".mgz", ".mgh"))
    try:
        header: Any = _mgh_header(path) if is_mgh else _nifti_header(path)
        dtype = np.dtype(header.get_data_dtype())
        shape = tuple(int(n) for n in header.get_data_shape())
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputNotFoundError(f"{path}: {error.strerror or 'cannot be opened'}") from error
    except (HeaderDataError, KeyError) as error:
        raise UnsupportedFormatError(
            f"{path}: the header is of no kind that medsr reads ({_brief(error)})"
        ) from error
    except (*_DAMAGED, OSError, ValueError) as error:
        raise CorruptFileError(f"{path}: the header cannot be read ({_brief(error)})") from error
    _check_scalar(dtype, path)
    shape = _check_shape(shape, path)
    offset = int(header.get_data_offset())
    if offset < int(header.template_dtype.itemsize):
        raise CorruptFileError(f"{path}: the voxels are said to start inside the header ({offset})")
    claimed = offset + math.prod(shape) * dtype.itemsize
    compressed = path.name.lower().endswith((".gz", ".mgz"))
    check_claimed_bytes(claimed, path.stat().st_size, str(path), compressed=compressed)
    if is_mgh:
        geometry = _geometry(shape, header.get_affine(), path)
        return NiftiInfo("mgz", geometry, dtype, 1.0, 0.0, header, ())
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise CorruptFileError(f"{path}: {_brief(error)}") from error
    geometry, notes = _nifti_geometry(header, shape, path)
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept))
    return NiftiInfo("nifti", geometry, dtype, slope, intercept, header, notes)


def write_nifti(volume: Volume, path: Path, derivation: Derivation | None = None) -> Stored:
    """Write a NIfTI file in the source's type, with its codes in both sform and qform.

    Free text, extensions and slice timing of the source's header are not carried over.

    Args:
        volume: finite voxels.
        path: ends in ``.nii`` or ``.nii.gz``; written in place (see ``medsr.io.atomic``).
        derivation: its model and version go into the header's description.

    Returns:
        What was stored, with notes on a changed scaling.
    """
    source = volume.source
    original = source.header if source is not None and source.format == "nifti" else None
    if source is not None and original is not None:
        stored = quantise(
            volume.data,
            source.dtype.newbyteorder("="),
            slope=source.slope,
            intercept=source.intercept,
        )
    else:
        stored = quantise(volume.data, _supported(type_without_slope(volume)))
    large = max(volume.shape) > _MAX_NIFTI1_SIZE or isinstance(original, nib.Nifti2Header)
    image_class: Any = nib.Nifti2Image if large else nib.Nifti1Image
    header = _clean_header(original, image_class.header_class, derivation)
    header.set_data_dtype(stored.data.dtype)
    image = image_class(stored.data, volume.geometry.affine, header)
    _set_transforms(image, volume.geometry, original)
    image.header.set_slope_inter(stored.slope, stored.intercept)
    image.to_filename(path)
    return stored


def write_mgz(volume: Volume, path: Path) -> Stored:
    """Write an MGZ file in the source's type, or the nearest one that MGZ knows.

    Args:
        volume: finite voxels.
        path: ends in ``.mgz`` or ``.mgh``; written in place (see ``medsr.io.atomic``).
    """
    dtype = type_without_slope(volume)
    if dtype.kind == "f":
        dtype = np.dtype(np.float32)
    elif dtype not in (np.uint8, np.int16, np.uint16, np.int32):
        dtype = np.dtype(np.int16 if dtype.itemsize == 1 else np.int32)
    stored = quantise(volume.data, dtype)
    image = MGHImage(stored.data, volume.geometry.affine.astype(np.float64))  # type: ignore[no-untyped-call]
    image.set_data_dtype(dtype)
    image.to_filename(path)
    return stored


def _nifti_header(path: Path) -> Any:
    """The header as the file has it: nibabel's own loading would mend zero spacings silently."""
    with ImageOpener(str(path), "rb") as file:
        start = file.read(4)
        sizes = [int.from_bytes(start, order) for order in ("little", "big")]
        header_class: Any = next((c for s, c in _HEADER_CLASSES.items() if s in sizes), None)
        if header_class is None:
            raise CorruptFileError(f"{path}: this is no NIfTI file (its first bytes are {start!r})")
        file.seek(0)
        header = header_class.from_fileobj(file, check=False)
    if not header["magic"].item().startswith((b"n+1", b"n+2")):
        raise UnsupportedFormatError(
            f"{path}: Analyze or NIfTI in two files, whose orientation cannot be trusted; "
            "convert it to one .nii.gz"
        )
    return header


def _mgh_header(path: Path) -> Any:
    """The header of an MGZ file, its footer included."""
    return nib.load(path).header


def _check_scalar(dtype: np.dtype[Any], path: Path) -> None:
    """Refuse colour and complex numbers."""
    if dtype.kind == "V":
        raise ColourError(f"{path}: the voxels are colours (RGB); give one intensity per voxel")
    if dtype.kind == "c":
        raise DimensionError(f"{path}: the voxels are complex ({dtype}); give their magnitude")
    if dtype.kind not in "iuf":
        raise UnsupportedFormatError(f"{path}: voxels of type {dtype} are not supported")


def _check_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """The three spatial sizes, or a refusal."""
    size = " x ".join(map(str, shape))
    if any(n < 1 for n in shape):
        raise CorruptFileError(f"{path}: the header gives {size} voxels")
    if len(shape) < 3:
        raise DimensionError(f"{path}: {size} is no volume; three dimensions are needed")
    if any(n > 1 for n in shape[3:]):
        raise DimensionError(
            f"{path}: {size} holds {math.prod(shape[3:])} frames; split it and give one"
        )
    return shape[0], shape[1], shape[2]


def _geometry(shape: tuple[int, int, int], affine: npt.ArrayLike, path: Path) -> Geometry:
    """A Geometry whose refusal names the file."""
    try:
        return Geometry(shape, np.asarray(affine, dtype=np.float64))
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None


def _nifti_geometry(
    header: Any, shape: tuple[int, int, int], path: Path
) -> tuple[Geometry, tuple[str, ...]]:
    """The grid that the header's transforms agree on, and notes on what was doubtful."""
    zooms = [float(zoom) for zoom in header["pixdim"][1:4]]
    if not all(np.isfinite(zoom) and zoom > 0.0 for zoom in zooms):
        raise GeometryError(
            f"{path}: the voxel spacing (pixdim) is {format_mm(zooms)} mm; every axis needs more "
            "than zero"
        )
    notes: list[str] = []
    unit = _UNIT_NAMES.get(int(header["xyzt_units"]) & 7)
    if unit is not None:
        notes.append(f"the header gives lengths in {unit}; they were taken as mm")
    found: dict[str, Geometry] = {}
    if int(header["sform_code"]) > 0:
        found["sform"] = _geometry(shape, header.get_sform(), path)
    if int(header["qform_code"]) > 0:
        if float(header["pixdim"][0]) not in (-1.0, 1.0):
            header = header.copy()
            header["pixdim"][0] = 1.0  # NIfTI-1 standard: any other qfac counts as 1
        try:
            found["qform"] = _geometry(shape, header.get_qform(), path)
        except (HeaderDataError, ValueError) as error:
            raise GeometryError(f"{path}: invalid qform ({_brief(error)})") from error
    if len(found) == 2:
        _check_agreement(found["sform"], found["qform"], path)
    if not found:
        notes.append("neither sform nor qform is set; orientation and position are unknown")
        found["base"] = _geometry(shape, header.get_base_affine(), path)
    return next(iter(found.values())), tuple(notes)


def _check_agreement(sform: Geometry, qform: Geometry, path: Path) -> None:
    """Refuse two valid transforms that put the voxels in different places."""
    apart = sform.corner_distance_mm(qform)
    if apart > _conflict_mm(sform):
        raise GeometryError(
            f"{path}: sform and qform disagree by up to {apart:.4g} mm (spacing "
            f"{format_mm(sform.spacing)} against {format_mm(qform.spacing)} mm, origin "
            f"{format_mm(sform.origin)} against {format_mm(qform.origin)} mm); remove the wrong one"
        )


def _conflict_mm(geometry: Geometry) -> float:
    """How far sform and qform may lie apart, in mm."""
    return max(_CONFLICT_MM, _CONFLICT_VOXELS * min(geometry.spacing))


def _clean_header(original: object | None, header_class: Any, derivation: Derivation | None) -> Any:
    """A header that keeps the source's settings but nothing personal and nothing outdated."""
    if original is None:
        header = header_class()
        header.set_xyzt_units("mm")
    else:
        header = header_class.from_header(original, check=False)
    # Extensions may hold whole DICOM headers; free text may name people.
    header.extensions = type(header.extensions)()
    for field in ("descrip", "aux_file", "intent_name"):
        header[field] = b""
    if "db_name" in header.keys():  # noqa: SIM118 - a nibabel header is no dict
        header["db_name"] = b""
    for field in ("slice_start", "slice_end", "slice_duration", "slice_code"):
        header[field] = 0
    header["cal_min"] = header["cal_max"] = 0
    header.set_data_offset(0)
    made_by = "medsr" if derivation is None else f"medsr {derivation.version} {derivation.model}"
    header["descrip"] = made_by.encode("ascii", "replace")[:79]
    return header


def _set_transforms(image: Any, geometry: Geometry, original: Any) -> None:
    """Write the grid into sform and qform alike, so that every reader sees the same one."""
    codes = (
        (_SCANNER, _SCANNER)
        if original is None
        else (int(original["sform_code"]), int(original["qform_code"]))
    )
    known = [code for code in codes if code > 0]
    sform_code, qform_code = (code if code > 0 else (known or [_ALIGNED])[0] for code in codes)
    image.set_sform(geometry.affine, sform_code)
    image.set_qform(geometry.affine, qform_code)
    # A quaternion cannot express shear; a qform that is off is worse than none.
    written = Geometry(geometry.shape, image.header.get_qform())
    if geometry.corner_distance_mm(written) > 0.5 * _conflict_mm(geometry):
        image.set_qform(geometry.affine, 0)


def _supported(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type itself if NIfTI can hold it."""
    if dtype.kind in "iuf" and dtype.itemsize <= 8 and dtype != np.float16:
        return dtype
    raise OutputFormatError(f"NIfTI cannot hold voxels of type {dtype}")


def _brief(error: BaseException) -> str:
    """The first line of an error's text, for a one-line message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

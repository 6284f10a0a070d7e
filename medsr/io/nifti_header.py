"""Headers of NIfTI-1, NIfTI-2 and MGZ files through nibabel, checked.

Array axes stay as the file stores them; the affine says what they mean. Nothing here guesses a
modality or counts slices: ``medsr.io.load`` does, the same for every format. Voxels and writing are
in ``nifti``.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import (
    ColourError,
    ComplexError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    InputNotFoundError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry, format_mm
from medsr.io.checks import DEFLATE, check_claimed_bytes
from medsr.io.compressed import DAMAGED_STREAM, open_to_read
from medsr.io.deferred import deferred
from medsr.io.foreign import hint
from medsr.volume import SourceFormat

with deferred("pydicom", Dataset=object):  # nibabel names it for a kind of NIfTI extension
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.freesurfer.mghformat import MGHError, MGHImage
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

# A qform's quaternion in float32 can be off by 0.1 mm near half turns; a tenth of a voxel more or
# less moves no voxel to another place. Beyond both, two viewers disagree visibly.
_CONFLICT_MM, _CONFLICT_VOXELS = 0.2, 0.1
DAMAGED: tuple[type[Exception], ...] = (
    *DAMAGED_STREAM,
    OSError,
    struct.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)
"""What reading a file that is no such file, or not whole, raises."""

_UNREADABLE_HEADER: tuple[type[Exception], ...] = (*DAMAGED, ValueError, OverflowError)
_UNPLACED = "orientation and position are unknown"
_SPACING_TOLERANCE = 0.01
_HEADER_CLASSES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_COLOUR_CODES = (128, 2304)  # NIFTI_TYPE_RGB24, NIFTI_TYPE_RGBA32
_COMPLEX256 = 2048  # NIFTI_TYPE_COMPLEX256, which not every computer has a type for
_LABELS, _STATISTICS = 1002, range(2, 25)  # NIFTI_INTENT_*
_EOL_CHECKS = (b"\r\n\x1a\n", bytes(4))  # NIfTI-2 standard, eol_check
_MGH_FLAG_AT = 28  # bytes before goodRASFlag, a 16-bit integer
_SPACES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI 152", 5: "template"}
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


def read_header(path: Path) -> NiftiInfo:
    """Read and check the header alone.

    Raises:
        InputNotFoundError: if there is no such file or it may not be opened.
        UnsupportedFormatError: for Analyze, NIfTI in two files, and types nibabel cannot read.
        CorruptFileError: if the header is damaged or promises more than the file holds.
        DimensionError: for 2D or several frames.
        ComplexError: for complex numbers.
        ColourError: for RGB.
        GeometryError: for zero or negative spacing, a singular affine, or sform and qform that
            name the same space and lie apart.
    """
    is_mgh = path.name.lower().endswith((".mgz", ".mgh"))
    try:
        header: Any = _mgh_header(path) if is_mgh else _nifti_header(path)
        dtype = np.dtype(header.get_data_dtype())
        shape = tuple(int(n) for n in header.get_data_shape())
        offset = int(header.get_data_offset())
        doubts = _mgh_doubts(path) if is_mgh else ()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputNotFoundError(f"{path}: {error.strerror or 'cannot be opened'}") from error
    except (HeaderDataError, KeyError) as error:
        seems = hint(path) or "export it again"
        raise UnsupportedFormatError(
            f"{path}: the header is of no kind that medsr reads ({brief(error)}); {seems}"
        ) from error
    except _UNREADABLE_HEADER as error:
        raise CorruptFileError(_unreadable(path, error)) from error
    _check_scalar(dtype, None if is_mgh else int(header["datatype"]), path)
    shape = _check_shape(shape, path)
    if offset < int(header.template_dtype.itemsize):
        raise CorruptFileError(
            f"{path}: the voxels are said to start inside the header ({offset}); export it again"
        )
    claimed = offset + math.prod(shape) * dtype.itemsize
    compressed = path.name.lower().endswith((".gz", ".mgz"))
    inflation = DEFLATE if compressed else 1
    check_claimed_bytes(claimed, path.stat().st_size, str(path), inflation=inflation)
    if is_mgh:
        geometry = _geometry(shape, header.get_affine(), path)
        return NiftiInfo("mgz", geometry, dtype, 1.0, 0.0, header, doubts)
    slope, intercept, scaling_notes = _scaling(header, path)
    geometry, place_notes = _nifti_geometry(header, shape, path)
    notes = (*place_notes, *scaling_notes, *_intent_notes(header))
    return NiftiInfo("nifti", geometry, dtype, slope, intercept, header, notes)


def _scaling(header: Any, path: Path) -> tuple[float, float, tuple[str, ...]]:
    """Slope and intercept: none where the slope is 0 (NIfTI-1 standard) or NaN ("not set")."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 or math.isnan(slope):
        if intercept != 0.0 and not math.isnan(intercept):
            note = f"scl_slope is {slope:g}, so that scl_inter ({intercept:.6g}) does not count"
            return 1.0, 0.0, (note,)
        return 1.0, 0.0, ()
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise CorruptFileError(
            f"{path}: scl_slope is {slope:.6g} and scl_inter {intercept:.6g}; the values of the "
            "voxels cannot be told"
        )
    return slope, intercept, ()


def _intent_notes(header: Any) -> tuple[str, ...]:
    """What the header's intent says against upscaling the voxels as intensities."""
    intent = int(header["intent_code"])
    if intent == _LABELS:
        return ("the header says that the voxels are labels and no intensities",)
    if intent in _STATISTICS:
        return ("the header says that the voxels are a statistic and no intensities",)
    return ()


def _nifti_header(path: Path) -> Any:
    """The header as the file has it: nibabel's own loading would mend zero spacings silently."""
    with open_to_read(path) as file:
        start = file.read(4)
        sizes = [int.from_bytes(start, order) for order in ("little", "big")]
        header_class: Any = next((c for s, c in _HEADER_CLASSES.items() if s in sizes), None)
        if header_class is None:
            seems = hint(path)
            raise CorruptFileError(f"{path}: this is no NIfTI file{seems and f'; {seems}'}")
        file.seek(0)
        header = header_class.from_fileobj(file, check=False)
    if not header["magic"].item().startswith((b"n+1", b"n+2")):
        raise UnsupportedFormatError(
            f"{path}: Analyze or NIfTI in two files, whose orientation cannot be trusted; "
            "convert it to one .nii.gz"
        )
    if header_class is nib.Nifti2Header and bytes(header["eol_check"]) not in _EOL_CHECKS:
        raise CorruptFileError(
            f"{path}: the file was changed by a transfer that took it for text; copy it again"
        )
    return header


def _mgh_header(path: Path) -> Any:
    """The header of an MGZ file, its footer included."""
    try:
        return MGHImage.from_filename(path).header
    except (MGHError, TypeError) as error:
        raise CorruptFileError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path}: the header cannot be read ({brief(error)}); {hint(path) or 'export it again'}"


def _mgh_doubts(path: Path) -> tuple[str, ...]:
    """What an MGZ file does not say of its place; nibabel's header has forgotten that it does not.

    Without the flag it takes FreeSurfer's default: voxels of 1 mm, coronal slices, centred.
    """
    with open_to_read(path) as file:
        flag = file.read(_MGH_FLAG_AT + 2)[_MGH_FLAG_AT:]
    is_set = int.from_bytes(flag, "big", signed=True) == 1
    return () if is_set else (f"goodRASFlag is not set, so voxels of 1 mm were taken; {_UNPLACED}",)


def _check_scalar(dtype: np.dtype[Any], code: int | None, path: Path) -> None:
    """Refuse colour, complex numbers, and numbers that no computer agrees on (128-bit floats)."""
    if code in _COLOUR_CODES or dtype.names is not None:
        raise ColourError(f"{path}: the voxels are colours (RGB); give one intensity per voxel")
    if dtype.kind == "c" or code == _COMPLEX256:
        raise ComplexError(f"{path}: the voxels are complex; give their magnitude")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        kind = dtype if code is None else f"{dtype} (NIfTI code {code})"
        raise UnsupportedFormatError(f"{path}: voxels of type {kind} are not supported")


def _check_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """The three spatial sizes, or a refusal."""
    size = " x ".join(map(str, shape))
    if any(n < 1 for n in shape) or not 1 <= len(shape) <= 7:
        raise CorruptFileError(f"{path}: the header gives {size or 'no'} voxels")
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
        raise GeometryError(f"{path}: {error}; export it again") from None


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
    grids = transforms_of(header, shape, path)
    if len(grids) == 2:
        notes += _check_agreement(header, grids["sform"], grids["qform"], path)
    if not grids:
        notes.append(f"neither sform nor qform is set; {_UNPLACED}")
        grids["base"] = _geometry(shape, header.get_base_affine(), path)
    taken = next(iter(grids.values()))
    if not np.allclose(taken.spacing, zooms, rtol=_SPACING_TOLERANCE, atol=0.0):
        notes.append(
            f"pixdim says {format_mm(zooms)} mm and {next(iter(grids))} "
            f"{format_mm(taken.spacing)} mm; the latter was taken"
        )
    return taken, tuple(notes)


def transforms_of(header: Any, shape: tuple[int, int, int], path: Path) -> dict[str, Geometry]:
    """The grids by the transforms whose codes are set, the sform first, as nibabel takes it.

    Raises:
        GeometryError: One of them is none.
    """
    by_name: dict[str, Geometry] = {}
    if int(header["sform_code"]) > 0:
        by_name["sform"] = _geometry(shape, header.get_sform(), path)
    if int(header["qform_code"]) > 0:
        if float(header["pixdim"][0]) not in (-1.0, 1.0):
            header = header.copy()
            header["pixdim"][0] = 1.0  # NIfTI-1 standard: any other qfac counts as 1
        try:
            by_name["qform"] = _geometry(shape, header.get_qform(), path)
        except (HeaderDataError, ValueError) as error:
            raise GeometryError(
                f"{path}: invalid qform ({brief(error)}); export it again"
            ) from error
    return by_name


def _check_agreement(header: Any, sform: Geometry, qform: Geometry, path: Path) -> list[str]:
    """Refuse two transforms into one space that differ; note two into different spaces."""
    if are_one_place(sform, qform):
        return []
    apart = f"{sform.corner_distance_mm(qform):.4g} mm"
    spaces = [_SPACES.get(int(header[f"{kind}_code"]), "unknown") for kind in ("sform", "qform")]
    if int(header["sform_code"]) != int(header["qform_code"]):
        return [
            f"sform (code {int(header['sform_code'])}, {spaces[0]}) and qform (code "
            f"{int(header['qform_code'])}, {spaces[1]}) are in different spaces, up to {apart} "
            "apart; the sform was taken"
        ]
    raise GeometryError(
        f"{path}: sform and qform, both of code {int(header['sform_code'])} ({spaces[0]}), "
        f"disagree by up to {apart} (spacing "
        f"{format_mm(sform.spacing)} against {format_mm(qform.spacing)} mm, origin "
        f"{format_mm(sform.origin)} against {format_mm(qform.origin)} mm); remove the wrong one"
    )


def are_one_place(sform: Geometry, qform: Geometry) -> bool:
    """Whether no two viewers would show the voxels in visibly different places."""
    return sform.corner_distance_mm(qform) <= conflict_mm(sform)


def conflict_mm(geometry: Geometry) -> float:
    """How far sform and qform may lie apart, in mm."""
    return max(_CONFLICT_MM, _CONFLICT_VOXELS * min(geometry.spacing))


def brief(error: BaseException) -> str:
    """The first line of an error's text, for a one-line message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

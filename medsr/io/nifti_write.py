"""Writing NIfTI-1, NIfTI-2 and MGZ: headers by nibabel, planes one after the other.

A file is begun with its grid and takes its planes as they come, so a volume that does not fit into
memory is written by the same code as one that does. Reading is in ``nifti``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.freesurfer.mghformat import MGHImage

from medsr.errors import OutputFormatError
from medsr.geometry import Geometry
from medsr.io.compressed import open_to_write
from medsr.io.nifti import are_one_place, conflict_mm, transforms_of
from medsr.io.scaling import (
    Scaling,
    Stored,
    ValueRange,
    find_scaling,
    range_of,
    source_of,
    store,
    type_without_slope,
)
from medsr.volume import Derivation, Source, Volume

_MAX_NIFTI1_SIZE = 32767
_ALIGNED, _SCANNER = 2, 1
_KNOWN_CODES = range(1, 6)  # NIFTI_XFORM_*


def write_nifti(volume: Volume, path: Path, derivation: Derivation | None = None) -> Stored:
    """Write a NIfTI file in the source's type, with its codes in both sform and qform.

    Free text, extensions and slice timing of the source's header are not carried over.

    Args:
        volume: finite voxels.
        path: ends in ``.nii`` or ``.nii.gz``; written in place (see ``medsr.io.atomic``).
        derivation: its version, model and further processing go into the header's description.

    Returns:
        What was stored, with notes on a changed scaling.
    """
    stored = store(volume.data, nifti_scaling(source_of(volume), range_of(volume.data)))
    scaling = Scaling(stored.data.dtype, stored.slope, stored.intercept)
    with nifti_file(volume, path, scaling, derivation) as file:
        file.append(stored.data)
    return stored


def write_mgz(volume: Volume, path: Path) -> Stored:
    """Write an MGZ file in the source's type, or the nearest one that MGZ knows.

    Args:
        volume: finite voxels.
        path: ends in ``.mgz`` or ``.mgh``; written in place (see ``medsr.io.atomic``).
    """
    stored = store(volume.data, mgz_scaling(source_of(volume), range_of(volume.data)))
    with mgz_file(volume, path, Scaling(stored.data.dtype)) as file:
        file.append(stored.data)
    return stored


def nifti_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """How a NIfTI file holds the values: as its source does, where that was NIfTI too."""
    if source.format == "nifti" and source.header is not None:
        dtype = source.dtype.newbyteorder("=")
        return find_scaling(value_range, dtype, slope=source.slope, intercept=source.intercept)
    return find_scaling(value_range, _supported(type_without_slope(source, value_range)))


def mgz_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """How an MGZ file holds the values: in the source's type, or the nearest one that it knows."""
    dtype = type_without_slope(source, value_range)
    if dtype.kind == "f":
        dtype = np.dtype(np.float32)
    elif dtype not in (np.uint8, np.int16, np.uint16, np.int32):
        dtype = np.dtype(np.int16 if dtype.itemsize == 1 else np.int32)
    return find_scaling(value_range, dtype)


@dataclass(frozen=True)
class PlaneFile:
    """A file that takes stored planes one after the other, first axis fastest.

    Args:
        stream: where they go.
        dtype: type and byte order in the file.
    """

    stream: BinaryIO
    dtype: np.dtype[Any]

    def append(self, stored: npt.NDArray[Any]) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""
        for k in range(stored.shape[2]):
            self.stream.write(stored[:, :, k].astype(self.dtype, copy=False).tobytes(order="F"))


@contextmanager
def nifti_file(
    like: Volume, path: Path, scaling: Scaling, derivation: Derivation | None = None
) -> Iterator[PlaneFile]:
    """Begin a NIfTI file, whose planes follow.

    Args:
        like: grid and source of what will be written; its voxels are not looked at.
        path: ends in ``.nii`` or ``.nii.gz``; written in place.
        scaling: of the planes.
        derivation: see :func:`write_nifti`.
    """
    source = like.source
    original = source.header if source is not None and source.format == "nifti" else None
    large = max(like.shape) > _MAX_NIFTI1_SIZE or isinstance(original, nib.Nifti2Header)
    image_class: Any = nib.Nifti2Image if large else nib.Nifti1Image
    header = _clean_header(original, image_class.header_class, derivation)
    header.set_data_dtype(scaling.dtype)
    image = image_class(_no_voxels(like.shape, scaling), like.geometry.affine, header)
    _set_transforms(image, like.geometry, original)
    image.header.set_slope_inter(scaling.slope, scaling.intercept)
    image.update_header()
    with open_to_write(path) as stream:
        image.header.write_to(stream)
        yield PlaneFile(stream, image.header.get_data_dtype())


@contextmanager
def mgz_file(like: Volume, path: Path, scaling: Scaling) -> Iterator[PlaneFile]:
    """Begin an MGZ file, whose planes follow; arguments as for :func:`nifti_file`."""
    affine = like.geometry.affine.astype(np.float64)
    image: Any = MGHImage(_no_voxels(like.shape, scaling), affine)  # type: ignore[no-untyped-call]
    image.set_data_dtype(scaling.dtype)
    image.update_header()
    with open_to_write(path) as stream:
        image.header.writehdr_to(stream)
        stream.write(bytes(image.header.get_data_offset() - stream.tell()))
        yield PlaneFile(stream, image.header.get_data_dtype())
        image.header.writeftr_to(stream)


def _no_voxels(shape: tuple[int, int, int], scaling: Scaling) -> npt.NDArray[Any]:
    """An array of zeros without memory, for nibabel to take shape and type from."""
    return np.broadcast_to(np.zeros((), dtype=scaling.dtype), shape)


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
    made_by += f", {derivation.further}" if derivation is not None and derivation.further else ""
    header["descrip"] = made_by.encode("ascii", "replace")[:79]
    return header


def _set_transforms(image: Any, geometry: Geometry, original: Any) -> None:
    """Write the grid into sform and qform alike, so that every reader sees the same one.

    Where the source has a place in each of two spaces, so has the result, over the source in both.
    """
    codes = (
        (_SCANNER, _SCANNER)
        if original is None
        else (int(original["sform_code"]), int(original["qform_code"]))
    )
    known = [code for code in codes if code in _KNOWN_CODES]
    sform_code, qform_code = (
        code if code in _KNOWN_CODES else (known or [_ALIGNED])[0] for code in codes
    )
    second = geometry if sform_code == qform_code else _in_the_qforms_space(geometry, original)
    image.set_sform(geometry.affine, sform_code)
    image.set_qform(second.affine, qform_code)
    # A quaternion cannot express shear; a qform that is off is worse than none.
    written = Geometry(geometry.shape, image.header.get_qform())
    if second.corner_distance_mm(written) > 0.5 * conflict_mm(second):
        image.set_qform(second.affine, 0)


def _in_the_qforms_space(geometry: Geometry, original: Any) -> Geometry:
    """The grid of a result as its source's qform has it; the grid itself where it has but one."""
    x, y, z = original.get_data_shape()[:3]
    found = transforms_of(original, (x, y, z), Path())
    if len(found) < 2 or are_one_place(found["sform"], found["qform"]):
        return geometry
    there = found["qform"].affine @ np.linalg.inv(found["sform"].affine)
    return Geometry(geometry.shape, there @ geometry.affine)


def _supported(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type itself if NIfTI can hold it."""
    if dtype.kind in "iuf" and dtype.itemsize <= 8 and dtype != np.float16:
        return dtype
    raise OutputFormatError(f"NIfTI cannot hold voxels of type {dtype}")

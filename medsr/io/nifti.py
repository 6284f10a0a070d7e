"""NIfTI-1, NIfTI-2 and MGZ: voxels read and written plane by plane, with headers by nibabel.

A file is begun with its grid and takes its planes as they come, so a volume that does not fit into
memory is written by the same code as one that does. Headers are read in ``nifti_header``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medsr.errors import CorruptFileError, OutputFormatError
from medsr.geometry import Geometry
from medsr.io.allow import Allowance
from medsr.io.bids import sidecars_of
from medsr.io.compressed import check_end, open_to_read, open_to_write
from medsr.io.deferred import deferred
from medsr.io.dicom.options import DicomOptions
from medsr.io.nifti_header import (
    DAMAGED,
    NiftiInfo,
    are_one_place,
    brief,
    conflict_mm,
    read_header,
    transforms_of,
)
from medsr.io.planes import PlaneFile, PlaneSource, header_of
from medsr.io.scaling import Scaling, ValueRange, dequantise, find_scaling, type_without_slope
from medsr.types import Array
from medsr.volume import Derivation, Source, Volume

with deferred("pydicom", Dataset=object):  # as in nifti_header
    import nibabel as nib
    from nibabel.freesurfer.mghformat import MGHImage

_MAX_NIFTI1_SIZE = 32767
_ALIGNED, _SCANNER = 2, 1
_KNOWN_CODES = range(1, 6)  # NIFTI_XFORM_*


class NiftiPlanes(PlaneSource):
    """A NIfTI or MGZ file, compressed or not; see :class:`PlaneSource`.

    A compressed file is only ever read forward: planes before the last ones start it again. Once
    its last plane is read, the end of the stream is checked too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._info: NiftiInfo = read_header(path)
        info = self._info
        x, y, self._count = info.geometry.shape
        self._plane_bytes = x * y * info.dtype.itemsize
        self._offset = int(info.header.get_data_offset())
        self._stream: BinaryIO | None = None
        self._next = 0
        source = Source(
            info.format, path, info.dtype, info.slope, info.intercept, info.header, info.notes
        )
        native = dequantise(np.zeros((1, 1, 1), info.dtype), info.slope, info.intercept).dtype
        self.header = header_of(info.geometry, native, source=source)

    def read(self, start: int, stop: int) -> Array:
        """Read and scale planes ``start`` to ``stop``."""
        wanted = (stop - start) * self._plane_bytes
        try:
            stream = self._at(start)
            voxels = stream.read(wanted)
            if stop == self._count:
                check_end(stream, self._path)
                self.close()
        except DAMAGED as error:
            message = f"{self._path}: the voxels cannot be read ({brief(error)}); export it again"
            raise CorruptFileError(message) from error
        if len(voxels) < wanted:
            there, claimed = start * self._plane_bytes + len(voxels), self._count
            raise CorruptFileError(
                f"{self._path}: {there} of {claimed * self._plane_bytes} bytes of voxels are "
                "there; it is truncated"
            )
        self._next = stop
        shape = (*self.header.shape[:2], stop - start)
        raw = np.frombuffer(voxels, self._info.dtype).reshape(shape, order="F")
        return dequantise(raw, self._info.slope, self._info.intercept)

    def close(self) -> None:
        """Close the file; another read opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _at(self, plane: int) -> BinaryIO:
        """The stream, standing at a plane."""
        if self._stream is None or plane != self._next:
            if self._stream is None or plane < self._next:
                self.close()
                self._stream = open_to_read(self._path)
            self._stream.seek(self._offset + plane * self._plane_bytes)
        return self._stream


class NiftiCodec:
    """NIfTI; see :class:`medsr.io.formats.Codec`."""

    def open(
        self, path: Path, *, series: str | None, allow: frozenset[Allowance], whole: bool
    ) -> NiftiPlanes:
        """Open a file with one 3D scalar image; a fourth axis of length one is dropped."""
        return NiftiPlanes(path)

    def companions(self, path: Path) -> list[Path]:
        """The JSON sidecars of BIDS."""
        return sidecars_of(path)

    def scaling(self, source: Source, value_range: ValueRange) -> Scaling:
        """How a file holds the values: as its source does, where that was NIfTI too."""
        if source.format == "nifti" and source.header is not None:
            dtype = source.dtype.newbyteorder("=")
            return find_scaling(value_range, dtype, slope=source.slope, intercept=source.intercept)
        return find_scaling(value_range, _supported(type_without_slope(source, value_range)))

    def check_writable(self, volume: Volume, dicom: DicomOptions) -> None:
        """Any volume can be written."""

    def create(
        self,
        like: Volume,
        path: Path,
        scaling: Scaling,
        derivation: Derivation | None,
        dicom: DicomOptions,
    ) -> AbstractContextManager[PlaneFile]:
        """Begin a file in the source's type, with its codes in both sform and qform.

        Free text, extensions and slice timing of the source's header are not carried over;
        version, model and further processing of the derivation go into its description.
        """
        return _nifti_file(like, path, scaling, derivation)


class MgzCodec(NiftiCodec):
    """FreeSurfer's MGZ and MGH; see :class:`medsr.io.formats.Codec`."""

    def companions(self, path: Path) -> list[Path]:
        """There are none."""
        return []

    def scaling(self, source: Source, value_range: ValueRange) -> Scaling:
        """How a file holds the values: in the source's type, or the nearest that MGZ knows."""
        dtype = type_without_slope(source, value_range)
        if dtype.kind == "f":
            dtype = np.dtype(np.float32)
        elif dtype not in (np.uint8, np.int16, np.uint16, np.int32):
            dtype = np.dtype(np.int16 if dtype.itemsize == 1 else np.int32)
        return find_scaling(value_range, dtype)

    def create(
        self,
        like: Volume,
        path: Path,
        scaling: Scaling,
        derivation: Derivation | None,
        dicom: DicomOptions,
    ) -> AbstractContextManager[PlaneFile]:
        """Begin a file."""
        return _mgz_file(like, path, scaling)


NIFTI, MGZ = NiftiCodec(), MgzCodec()


@dataclass(frozen=True)
class StreamFile:
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
def _nifti_file(
    like: Volume, path: Path, scaling: Scaling, derivation: Derivation | None = None
) -> Iterator[StreamFile]:
    """Begin a NIfTI file, whose planes follow.

    Args:
        like: grid and source of what will be written; its voxels are not looked at.
        path: ends in ``.nii`` or ``.nii.gz``; written in place.
        scaling: of the planes.
        derivation: see :meth:`NiftiCodec.create`.
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
        yield StreamFile(stream, image.header.get_data_dtype())


@contextmanager
def _mgz_file(like: Volume, path: Path, scaling: Scaling) -> Iterator[StreamFile]:
    """Begin an MGZ file, whose planes follow; arguments as for :func:`_nifti_file`."""
    affine = like.geometry.affine.astype(np.float64)
    image: Any = MGHImage(_no_voxels(like.shape, scaling), affine)  # type: ignore[no-untyped-call]
    image.set_data_dtype(scaling.dtype)
    image.update_header()
    with open_to_write(path) as stream:
        image.header.writehdr_to(stream)
        stream.write(bytes(image.header.get_data_offset() - stream.tell()))
        yield StreamFile(stream, image.header.get_data_dtype())
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
    known_codes = [code for code in codes if code in _KNOWN_CODES]
    sform_code, qform_code = (
        code if code in _KNOWN_CODES else (known_codes or [_ALIGNED])[0] for code in codes
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
    transforms = transforms_of(original, (x, y, z), Path())
    if len(transforms) < 2 or are_one_place(transforms["sform"], transforms["qform"]):
        return geometry
    there = transforms["qform"].affine @ np.linalg.inv(transforms["sform"].affine)
    return Geometry(geometry.shape, there @ geometry.affine)


def _supported(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type itself if NIfTI can hold it."""
    if dtype.kind in "iuf" and dtype.itemsize <= 8 and dtype != np.float16:
        return dtype
    raise OutputFormatError(f"NIfTI cannot hold voxels of type {dtype}")

"""NRRD and MetaImage through SimpleITK; the only module of the package's readers that imports it.

ITK's arrays are (Z, Y, X) and its frame is LPS+; both are turned here, through
``Geometry.from_lps`` and ``to_lps``. Free text of the files is neither kept nor written, since it
may name people.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from medsr.errors import (
    ColourError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    InputNotFoundError,
)
from medsr.geometry import Geometry
from medsr.io.checks import check_claimed_bytes
from medsr.io.quantise import (
    Scaling,
    Stored,
    ValueRange,
    dequantise,
    find_scaling,
    range_of,
    source_of,
    store,
    type_without_slope,
)
from medsr.volume import Source, SourceFormat, Volume

# SimpleITK carries no types; this says so once.
sitk: Any = SimpleITK

_TYPES: dict[int, Any] = {
    sitk.sitkUInt8: np.uint8,
    sitk.sitkInt8: np.int8,
    sitk.sitkUInt16: np.uint16,
    sitk.sitkInt16: np.int16,
    sitk.sitkUInt32: np.uint32,
    sitk.sitkInt32: np.int32,
    sitk.sitkUInt64: np.uint64,
    sitk.sitkInt64: np.int64,
    sitk.sitkFloat32: np.float32,
    sitk.sitkFloat64: np.float64,
}
_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
# Headers whose voxels lie in another file: the header's own size says nothing.
_NRRD = (".nrrd", ".nhdr")
_DETACHED = (".mhd", ".nhdr")
# What says that the voxels follow as they are: NRRD's encoding, or MetaImage's lack of a flag.
_UNCOMPRESSED = re.compile(
    rb"\A(?:NRRD.*?^encoding: *raw|(?!NRRD)(?!.*CompressedData *= *True))", re.S | re.M | re.I
)
_START_BYTES = 1 << 16


@dataclass(frozen=True)
class ItkInfo:
    """What a header says, checked."""

    format: SourceFormat
    geometry: Geometry
    dtype: np.dtype[Any]
    frames: bool


def read_itk(path: Path) -> Volume:
    """Read an NRRD or MetaImage file.

    Args:
        path: ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` with one 3D scalar image; a fourth axis
            of length one is dropped.

    Returns:
        The volume with its array axes as stored; modality unknown. Integers keep their type,
        floating point becomes float32.

    Raises:
        InputNotFoundError, CorruptFileError, DimensionError, ColourError, GeometryError: as
            :func:`read_header` does; CorruptFileError also for missing voxels.
    """
    info = read_header(path)
    data = read_planes(path, info, 0, info.geometry.shape[2])
    return Volume(data, info.geometry, source=Source(info.format, path, info.dtype))


def read_planes(path: Path, info: ItkInfo, start: int, stop: int) -> npt.NDArray[Any]:
    """Read planes ``start`` to ``stop`` along the last axis, (X, Y, stop - start).

    Args:
        path: as for :func:`read_itk`.
        info: its header.
        start: first plane.
        stop: end of the planes.

    Raises:
        CorruptFileError: if voxels are missing.
    """
    reader = _reader(path)
    x, y, count = info.geometry.shape
    if info.frames or (start, stop) != (0, count):
        reader.ReadImageInformation()
        beyond = (0,) * (reader.GetDimension() - 3)
        reader.SetExtractIndex([0, 0, start, *beyond])
        reader.SetExtractSize([x, y, stop - start, *beyond])
    try:
        with _quiet():
            image = reader.Execute()
    except RuntimeError as error:
        raise CorruptFileError(f"{path}: the voxels cannot be read ({_brief(error)})") from error
    return dequantise(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), 1.0, 0.0)


def read_header(path: Path) -> ItkInfo:
    """Read and check the header alone.

    Raises:
        InputNotFoundError: if there is no such file.
        CorruptFileError: if ITK cannot make sense of it, or it promises more than the file holds.
        DimensionError: for 2D, several frames, vectors or complex numbers.
        ColourError: for three or four components a voxel.
        GeometryError: for zero or negative spacing and singular directions.
    """
    start = _start(path)
    reader = _reader(path)
    try:
        with _quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        text = _brief(error)
        if "spacing" in text.lower() or "direction" in text.lower():
            raise GeometryError(f"{path}: {text}") from error
        raise CorruptFileError(f"{path}: the header cannot be read ({text})") from error
    size = tuple(int(n) for n in reader.GetSize())
    dtype = _check_scalar(reader, size, path)
    if path.suffix.lower() not in _DETACHED:
        check_claimed_bytes(
            _header_bytes(start) + math.prod(size) * dtype.itemsize,
            path.stat().st_size,
            str(path),
            compressed=_UNCOMPRESSED.search(start) is None,
        )
    dimension = len(size)
    direction = np.asarray(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    try:
        geometry = Geometry.from_lps(
            size[:3], reader.GetOrigin()[:3], reader.GetSpacing()[:3], direction
        )
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    kind: SourceFormat = "nrrd" if path.suffix.lower() in _NRRD else "mha"
    return ItkInfo(kind, geometry, dtype, dimension > 3)


def write_itk(volume: Volume, path: Path) -> Stored:
    """Write an NRRD or MetaImage file, compressed, in the source's type.

    Args:
        volume: finite voxels.
        path: ends in ``.nrrd`` or ``.mha``; written in place (see ``medsr.io.atomic``).
    """
    stored = store(volume.data, itk_scaling(source_of(volume), range_of(volume.data)))
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored.data.transpose(2, 1, 0)))
    _place(image, volume.geometry)
    try:
        with _quiet():
            sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(_brief(error)) from error
    return stored


def header_for(geometry: Geometry, dtype: np.dtype[Any], path: Path) -> str:
    """The header that ITK writes before uncompressed voxels of this grid and type.

    Args:
        geometry: the grid.
        dtype: type of the voxels, native byte order.
        path: ends in ``.nrrd`` or ``.mha``; a small file is there for a moment.
    """
    small = np.zeros((1, 1, 1), dtype=dtype)
    image = sitk.GetImageFromArray(small)
    _place(image, geometry)
    try:
        with _quiet():
            sitk.WriteImage(image, str(path), useCompression=False)
        written = path.read_bytes()[: -small.nbytes]
    except RuntimeError as error:
        raise OSError(_brief(error)) from error
    finally:
        path.unlink(missing_ok=True)
    size = "{} {} {}".format(*geometry.shape)
    return re.sub(r"(?m)^(sizes:|DimSize =) 1 1 1$", rf"\1 {size}", written.decode("ascii"))


def is_readable_in_parts(path: Path) -> bool:
    """Whether ITK reads a region of the file without the rest: uncompressed MetaImage."""
    return path.suffix.lower() == ".mha" and _UNCOMPRESSED.search(_start(path)) is not None


def itk_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """How an NRRD or MetaImage file holds the values; neither format has slope and intercept."""
    return find_scaling(value_range, type_without_slope(source, value_range))


def _place(image: Any, geometry: Geometry) -> None:
    """Lay an ITK image in space."""
    origin, spacing, direction = geometry.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())


def _reader(path: Path) -> Any:
    """A reader bound to the format's own reader class, whatever the file claims to be."""
    reader = sitk.ImageFileReader()
    is_nrrd = path.suffix.lower() in _NRRD
    reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _start(path: Path) -> bytes:
    """The text at the start of the file; a refusal where it is none of the two formats'."""
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror or 'cannot be opened'}") from error
    mark, name = (b"NRRD", "NRRD") if path.suffix.lower() in _NRRD else (b"NDims", "MetaImage")
    if mark not in start:
        raise CorruptFileError(f"{path}: this is no {name} file (it has no {mark.decode()})")
    # The voxels may hold any bytes; the header ends before the first zero byte.
    return start.split(b"\0", 1)[0]


def _header_bytes(start: bytes) -> int:
    """Length of the header: an NRRD's ends with an empty line, a MetaImage's with LOCAL."""
    match = re.search(rb"\n\r?\n" if start.startswith(b"NRRD") else rb"LOCAL\s*?\n", start)
    return match.end() if match else 0


def _check_scalar(reader: Any, size: tuple[int, ...], path: Path) -> np.dtype[Any]:
    """The stored type of one 3D scalar image, or a refusal."""
    components = int(reader.GetNumberOfComponents())
    if reader.GetPixelID() in _COMPLEX:
        raise DimensionError(f"{path}: the voxels are complex; give their magnitude")
    if components in (3, 4):
        raise ColourError(
            f"{path}: {components} components a voxel (colour); give one intensity per voxel"
        )
    if components != 1:
        raise DimensionError(f"{path}: {components} components a voxel; give one")
    text = " x ".join(map(str, size))
    if len(size) < 3:
        raise DimensionError(f"{path}: {text} is no volume; three dimensions are needed")
    if any(n > 1 for n in size[3:]):
        raise DimensionError(
            f"{path}: {text} holds {math.prod(size[3:])} frames; split it and give one"
        )
    if reader.GetPixelID() not in _TYPES:
        raise DimensionError(f"{path}: voxels of type {reader.GetPixelIDValue()} are not supported")
    dtype: np.dtype[Any] = np.dtype(_TYPES[reader.GetPixelID()])
    return dtype


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK's own warnings off the terminal; what matters is raised."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _brief(error: RuntimeError) -> str:
    """What ITK complains about: the last line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split("): ")[-1] if lines else type(error).__name__

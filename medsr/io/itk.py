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
    ComplexError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry
from medsr.io.checks import check_claimed_bytes
from medsr.io.itk_header import NRRD_SUFFIXES, read_text_header
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
_OF_VECTORS = {
    sitk.sitkVectorUInt8: sitk.sitkUInt8,
    sitk.sitkVectorInt8: sitk.sitkInt8,
    sitk.sitkVectorUInt16: sitk.sitkUInt16,
    sitk.sitkVectorInt16: sitk.sitkInt16,
    sitk.sitkVectorUInt32: sitk.sitkUInt32,
    sitk.sitkVectorInt32: sitk.sitkInt32,
    sitk.sitkVectorUInt64: sitk.sitkUInt64,
    sitk.sitkVectorInt64: sitk.sitkInt64,
    sitk.sitkVectorFloat32: sitk.sitkFloat32,
    sitk.sitkVectorFloat64: sitk.sitkFloat64,
}
_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)


@dataclass(frozen=True)
class ItkInfo:
    """What a header says, checked.

    Args:
        format: kind of file.
        geometry: the grid.
        dtype: type of the stored numbers.
        frames: whether there is a fourth axis, of length one.
        notes: sentences about what is doubtful.
    """

    format: SourceFormat
    geometry: Geometry
    dtype: np.dtype[Any]
    frames: bool
    notes: tuple[str, ...] = ()


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
    return Volume(data, info.geometry, source=source_at(path, info))


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
    voxels = sitk.GetArrayViewFromImage(image)
    if voxels.ndim > 3:  # vectors of one component
        voxels = voxels[..., 0]
    if voxels.shape != (stop - start, y, x):
        raise CorruptFileError(f"{path}: the voxels are no {x} x {y} x {stop - start}")
    return dequantise(voxels.transpose(2, 1, 0), 1.0, 0.0)


def read_header(path: Path) -> ItkInfo:
    """Read and check the header alone.

    Raises:
        InputError: as :func:`medsr.io.itk_header.read_text_header` does.
        CorruptFileError: if ITK cannot make sense of it, or it promises more than the file holds.
        DimensionError: for 2D, several frames or vectors.
        ComplexError: for complex numbers.
        ColourError: for three or four components a voxel.
        GeometryError: for zero or negative spacing and singular directions.
    """
    text = read_text_header(path)
    reader = _reader(path)
    try:
        with _quiet():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise CorruptFileError(f"{path}: the header cannot be read ({_brief(error)})") from error
    size = tuple(int(n) for n in reader.GetSize())
    dtype = _check_scalar(reader, size, path)
    check_claimed_bytes(
        text.header_bytes + math.prod(size) * dtype.itemsize,
        text.data_file.stat().st_size,
        str(path),
        compressed=text.compressed,
    )
    dimension = len(size)
    direction = np.asarray(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    try:
        geometry = Geometry.from_lps(
            size[:3], reader.GetOrigin()[:3], reader.GetSpacing()[:3], direction
        )
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from None
    kind: SourceFormat = "nrrd" if path.suffix.lower() in NRRD_SUFFIXES else "mha"
    return ItkInfo(kind, geometry, dtype, dimension > 3, text.notes)


def source_at(path: Path, info: ItkInfo) -> Source:
    """What is kept of a file to write the same kind back."""
    return Source(info.format, path, info.dtype, notes=info.notes)


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
    return path.suffix.lower() == ".mha" and not read_text_header(path).compressed


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
    is_nrrd = path.suffix.lower() in NRRD_SUFFIXES
    reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    return reader


def _check_scalar(reader: Any, size: tuple[int, ...], path: Path) -> np.dtype[Any]:
    """The stored type of one 3D scalar image, or a refusal."""
    components = int(reader.GetNumberOfComponents())
    if reader.GetPixelID() in _COMPLEX:
        raise ComplexError(f"{path}: the voxels are complex; give their magnitude")
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
    # A vector of one component is a number.
    pixel = _OF_VECTORS.get(reader.GetPixelID(), reader.GetPixelID())
    if pixel not in _TYPES:
        raise UnsupportedFormatError(f"{path}: voxels of this type are not supported")
    dtype: np.dtype[Any] = np.dtype(_TYPES[pixel])
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
    text = lines[-1].split("): ")[-1] if lines else type(error).__name__
    # What it quotes is text of the file, and may name people.
    return re.sub(r'"[^"]*"', '"..."', text)

"""Voxels of NRRD and MetaImage files; written by SimpleITK, which this module alone imports.

ITK's arrays are (Z, Y, X) and its frame is LPS+; both are turned here, through
``Geometry.to_lps``. Headers are parsed in ``itk_header``, which says why not by ITK. Free text of
the files is neither kept nor written, since it may name people.
"""

from __future__ import annotations

import binascii
import bz2
import contextlib
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from medsr.errors import CorruptFileError
from medsr.geometry import Geometry
from medsr.io.checks import BZIP2, DEFLATE, check_claimed_bytes
from medsr.io.itk_fields import TextHeader
from medsr.io.itk_header import NRRD_SUFFIXES, read_text_header
from medsr.io.scaling import (
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

_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_STEP_BYTES = 1 << 20
_START_OF_STREAM = {"deflate": b"\x1f\x8b", "bzip2": b"BZh"}


@dataclass(frozen=True)
class ItkInfo:
    """What a header says, checked.

    Args:
        format: kind of file.
        text: its header.
    """

    format: SourceFormat
    text: TextHeader

    @property
    def geometry(self) -> Geometry:
        """The grid."""
        return self.text.geometry

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        return self.text.dtype

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what is doubtful."""
        return self.text.notes


def read_itk(path: Path) -> Volume:
    """Read an NRRD or MetaImage file.

    Args:
        path: ``.nrrd``, ``.nhdr``, ``.mha`` or ``.mhd`` with one 3D scalar image; a fourth axis
            of length one is dropped. The voxels may lie in another file of the same folder.

    Returns:
        The volume with its array axes as stored; modality unknown. Integers keep their type,
        floating point becomes float32.

    Raises:
        InputError: as :func:`read_header` does; CorruptFileError also for missing voxels.
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
    x, y, _ = info.geometry.shape
    plane_bytes = x * y * info.dtype.itemsize
    wanted = (stop - start) * plane_bytes
    try:
        voxels = _voxel_bytes(info.text, start * plane_bytes, wanted)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CorruptFileError(
            f"{path}: the voxels cannot be read ({error}); export it again"
        ) from error
    if len(voxels) < wanted:
        raise CorruptFileError(
            f"{path}: {len(voxels)} of {wanted} bytes of voxels are there; it is truncated"
        )
    raw = np.frombuffer(voxels, info.dtype).reshape((x, y, stop - start), order="F")
    return dequantise(raw, 1.0, 0.0)


def _voxel_bytes(text: TextHeader, start: int, count: int) -> bytes | memoryview:
    """So many bytes of the voxels, or as many as there are."""
    with text.data_file.open("rb") as file:
        if text.encoding == "raw":
            end = text.data_file.stat().st_size
            first = end - text.voxel_bytes if text.offset is None else text.offset
            file.seek(first + start)
            return file.read(count)
        file.seek(text.offset or 0)
        if text.encoding in ("text", "hex"):
            unpack = _from_text if text.encoding == "text" else _from_hex
            return unpack(file.read(), text)[start : start + count]
        start_of = _START_OF_STREAM[text.encoding]
        packed, found = _unpacker(text), bytearray()
        # What goes before is unpacked too; some more shows whether the checksum is right.
        limit = start + count + (_STEP_BYTES if start + count == text.voxel_bytes else 0)
        while len(found) < limit:
            if packed.eof:
                # Parallel compressors write several streams, one behind the other.
                block = packed.unused_data
                block += file.read(_STEP_BYTES) if len(block) < len(start_of) else b""
                if len(found) >= text.voxel_bytes or not block.startswith(start_of):
                    break
                packed = _unpacker(text)
            else:
                block = getattr(packed, "unconsumed_tail", b"")
                block = block or (file.read(_STEP_BYTES) if _is_hungry(packed) else b"")
            unpacked = packed.decompress(block, limit - len(found))
            if not block and not unpacked:
                break
            found += unpacked
        if len(found) == text.voxel_bytes and not packed.eof:
            raise EOFError("the compressed stream has no end")
        return memoryview(found)[start : start + count]


def _unpacker(text: TextHeader) -> Any:
    """What unpacks one stream."""
    return (
        zlib.decompressobj(_ZLIB_OR_GZIP) if text.encoding == "deflate" else bz2.BZ2Decompressor()
    )


def _from_text(written: bytes, text: TextHeader) -> bytes:
    """Numbers that are written as words, as the bytes that they stand for."""
    words = written.replace(b",", b" ").split()[: math.prod(text.geometry.shape)]
    if text.dtype.kind == "f":
        return np.array(words, dtype=np.float64).astype(text.dtype).tobytes()
    numbers = [int(word) for word in words]
    limits = np.iinfo(text.dtype)
    if numbers and not limits.min <= min(numbers) <= max(numbers) <= limits.max:
        raise ValueError(f"a number is none of {text.dtype.name}")
    return np.array(numbers, dtype=text.dtype).tobytes()


def _from_hex(written: bytes, text: TextHeader) -> bytes:
    """Bytes that are written as pairs of hexadecimal digits."""
    digits = b"".join(written.split())[: 2 * text.voxel_bytes]
    return binascii.unhexlify(digits)


def _is_hungry(packed: Any) -> bool:
    """Whether a decompressor wants more of the file."""
    return bool(getattr(packed, "needs_input", True))


def read_header(path: Path) -> ItkInfo:
    """Read and check the header alone.

    Raises:
        InputError: as :func:`medsr.io.itk_header.read_text_header` does.
        CorruptFileError: if it promises more than the file holds.
    """
    text = read_text_header(path)
    check_claimed_bytes(
        (text.offset or 0) + text.voxel_bytes,
        text.data_file.stat().st_size,
        str(path),
        # A number takes two characters at least, but for the last one.
        inflation={"deflate": DEFLATE, "bzip2": BZIP2, "text": 8}.get(text.encoding, 1),
    )
    return ItkInfo("nrrd" if path.suffix.lower() in NRRD_SUFFIXES else "mha", text)


def source_at(path: Path, info: ItkInfo) -> Source:
    """What is kept of a file to write the same kind back."""
    return Source(info.format, path, info.dtype.newbyteorder("="), notes=info.notes)


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
    """Whether planes can be read without the rest: the voxels are not compressed."""
    return read_text_header(path).encoding == "raw"


def itk_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """How an NRRD or MetaImage file holds the values; neither format has slope and intercept."""
    return find_scaling(value_range, type_without_slope(source, value_range))


def _place(image: Any, geometry: Geometry) -> None:
    """Lay an ITK image in space."""
    origin, spacing, direction = geometry.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())


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

"""Voxels of files whose header is text (NRRD, MetaImage): read and written plane by plane.

ITK's own readers were written for files of friends: damaged headers make them overrun a buffer,
take 1 mm for a spacing that is not there, or hand out memory without voxels (the fuzz tests keep
examples). So headers are parsed here, in ``nrrd`` and ``metaimage``, and voxels by this module.
What both mean is as in ITK, and tested against it. Free text of the files is neither kept nor
written, since it may name people.
"""

from __future__ import annotations

import binascii
import bz2
import math
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from medsr.errors import CorruptFileError, InputError, InputNotFoundError
from medsr.io.allow import Allowance
from medsr.io.checks import BZIP2, DEFLATE, check_claimed_bytes
from medsr.io.compressed import Compressor
from medsr.io.dicom.options import DicomOptions
from medsr.io.planes import PlaneFile, PlaneSource, header_of
from medsr.io.scaling import Scaling, ValueRange, dequantise, find_scaling, type_without_slope
from medsr.io.text_header import TextHeader
from medsr.types import Array
from medsr.volume import Derivation, Source, SourceFormat, Volume

_START_BYTES = 1 << 20
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_STEP_BYTES = 1 << 20
_START_OF_STREAM = {"deflate": b"\x1f\x8b", "bzip2": b"BZh"}


class TextPlanes(PlaneSource):
    """An NRRD or MetaImage file; see :class:`medsr.io.planes.PlaneSource`.

    Planes of packed voxels cannot be had without those before, so all are unpacked at the first
    read and kept.

    Args:
        path: The file with the header.
        text: Its header.
        format: Kind of file.
    """

    def __init__(self, path: Path, text: TextHeader, format: SourceFormat) -> None:
        self._path, self._text = path, text
        self._kept: Array | None = None
        native = np.dtype(np.float32) if text.dtype.kind == "f" else text.dtype.newbyteorder("=")
        source = Source(format, path, text.dtype.newbyteorder("="), notes=text.notes)
        self.header = header_of(text.geometry, native, source=source)

    def read(self, start: int, stop: int) -> Array:
        """Read planes ``start`` to ``stop``."""
        if self._text.encoding == "raw":
            return self._planes(start, stop)
        if self._kept is None:
            self._kept = self._planes(0, self.header.shape[2])
        return self._kept[:, :, start:stop]

    def close(self) -> None:
        """Let go of what was kept."""
        self._kept = None

    def _planes(self, start: int, stop: int) -> Array:
        x, y, _ = self.header.shape
        plane_bytes = x * y * self._text.dtype.itemsize
        wanted = (stop - start) * plane_bytes
        try:
            voxels = _voxel_bytes(self._text, start * plane_bytes, wanted)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise CorruptFileError(
                f"{self._path}: the voxels cannot be read ({error}); export it again"
            ) from error
        if len(voxels) < wanted:
            raise CorruptFileError(
                f"{self._path}: {len(voxels)} of {wanted} bytes of voxels are there; it is "
                "truncated"
            )
        raw = np.frombuffer(voxels, self._text.dtype).reshape((x, y, stop - start), order="F")
        return dequantise(raw, 1.0, 0.0)


class Create(Protocol):
    """Begins a file; see :meth:`TextCodec.create`."""

    def __call__(
        self, like: Volume, path: Path, dtype: np.dtype[Any]
    ) -> AbstractContextManager[StreamFile]:
        """Write the header; the planes follow."""


@dataclass(frozen=True)
class TextCodec:
    """NRRD or MetaImage; see :class:`medsr.io.formats.Codec`.

    Args:
        format: Which.
        parse: Turns the bytes at the start of a file into its header, or refuses them.
        begin: Begins a file.
    """

    format: SourceFormat
    parse: Callable[[Path, bytes], TextHeader]
    begin: Create

    def open(
        self, path: Path, *, series: str | None, allow: frozenset[Allowance], whole: bool
    ) -> TextPlanes:
        """Open a file with one 3D scalar image; a fourth axis of length one is dropped.

        Raises:
            InputNotFoundError: There is no such file.
            CorruptFileError: It is no such file, a field is damaged or missing, or it promises
                more than the file holds.
            UnsupportedFormatError: The voxels are spread over several files, or lie in another
                folder.
            DimensionError: 2D, or several frames.
            ComplexError: Complex numbers.
            ColourError: Colour.
            GeometryError: A spacing, direction or position is missing, not finite or not positive.
        """
        return TextPlanes(path, self._header(path), self.format)

    def companions(self, path: Path) -> list[Path]:
        """The file with the voxels, where the header lies beside it."""
        with suppress(InputError):  # it will not be read either
            return [self._header(path).data_file]
        return []

    def scaling(self, source: Source, value_range: ValueRange) -> Scaling:
        """How a file holds the values; it has no slope and intercept."""
        return find_scaling(value_range, type_without_slope(source, value_range))

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
        """Begin a compressed file."""
        return self.begin(like, path, scaling.dtype)

    def _header(self, path: Path) -> TextHeader:
        try:
            with path.open("rb") as file:
                start = file.read(_START_BYTES)
        except OSError as error:
            raise InputNotFoundError(f"{path}: {error.strerror or 'cannot be opened'}") from error
        text = self.parse(path, start)
        check_claimed_bytes(
            (text.offset or 0) + text.voxel_bytes,
            text.data_file.stat().st_size,
            str(path),
            # A number takes two characters at least, but for the last one.
            inflation={"deflate": DEFLATE, "bzip2": BZIP2, "text": 8}.get(text.encoding, 1),
        )
        return text


@dataclass
class StreamFile:
    """Compressed voxels under way, first axis fastest.

    Args:
        stream: Where they go.
        compressor: What packs them.
    """

    stream: BinaryIO
    compressor: Compressor
    written: int = field(default=0, init=False)

    def append(self, stored: Array) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""
        for k in range(stored.shape[2]):
            self._write(self.compressor.compress(stored[:, :, k].tobytes(order="F")))

    def finish(self) -> None:
        """Write what the compressor still holds."""
        self._write(self.compressor.flush())

    def _write(self, data: bytes) -> None:
        self.written += self.stream.write(data)


def numbers(values: npt.ArrayLike, separator: str = " ") -> str:
    """Numbers as ITK writes them: 17 digits, so that a double is read back as it was."""
    return separator.join(f"{float(value) + 0.0:.17g}" for value in np.ravel(values))


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
    items = written.replace(b",", b" ").split()[: math.prod(text.geometry.shape)]
    if text.dtype.kind == "f":
        return np.array(items, dtype=np.float64).astype(text.dtype).tobytes()
    numbers = [int(word) for word in items]
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

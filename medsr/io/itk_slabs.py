"""NRRD and MetaImage by slabs: reading where the format allows it, writing always.

Headers and regions are read and made by ITK, in ``itk``; the voxels that are written follow as one
stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medsr.io.compressed import Compressor, gzip_stream, zlib_stream
from medsr.io.itk import (
    header_for,
    is_readable_in_parts,
    read_header,
    read_itk,
    read_planes,
    source_at,
)
from medsr.io.planes import MemoryPlanes, PlaneSource, header_of
from medsr.io.scaling import Scaling
from medsr.volume import Volume

# Room for the size of the compressed voxels, which is known last; readers skip leading zeros.
_SIZE_DIGITS = 20


class MetaImagePlanes:
    """An uncompressed MetaImage; see :class:`medsr.io.planes.PlaneSource`."""

    def __init__(self, path: Path) -> None:
        self._path, self._info = path, read_header(path)
        info = self._info
        native = np.dtype(np.float32) if info.dtype.kind == "f" else info.dtype
        self.header = header_of(info.geometry, native, source=source_at(path, info))

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read planes ``start`` to ``stop``."""
        return read_planes(self._path, self._info, start, stop)

    def close(self) -> None:
        """Nothing is held open."""


def open_itk_planes(path: Path) -> PlaneSource:
    """Open an NRRD or MetaImage file; what ITK reads in one piece only is read whole."""
    return MetaImagePlanes(path) if is_readable_in_parts(path) else MemoryPlanes(read_itk(path))


@dataclass
class ItkFile:
    """A file that takes stored planes one after the other; see :func:`itk_file`."""

    stream: BinaryIO
    compressor: Compressor
    written: int = field(default=0, init=False)

    def append(self, stored: npt.NDArray[Any]) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""
        for k in range(stored.shape[2]):
            self._write(self.compressor.compress(stored[:, :, k].tobytes(order="F")))

    def finish(self) -> None:
        """Write what the compressor still holds."""
        self._write(self.compressor.flush())

    def _write(self, data: bytes) -> None:
        self.written += self.stream.write(data)


@contextmanager
def itk_file(like: Volume, path: Path, scaling: Scaling) -> Iterator[ItkFile]:
    """Begin a compressed NRRD or MetaImage file, whose planes follow.

    Args:
        like: grid of what will be written; its voxels are not looked at.
        path: ends in ``.nrrd`` or ``.mha``; written in place.
        scaling: of the planes.
    """
    header = header_for(like.geometry, scaling.dtype, path)
    is_nrrd = path.suffix.lower() == ".nrrd"
    size_line = "CompressedDataSize = "
    if is_nrrd:
        header = header.replace("encoding: raw", "encoding: gzip")
    else:
        there = f"CompressedData = True\n{size_line}{0:0{_SIZE_DIGITS}}"
        header = header.replace("CompressedData = False", there)
    with path.open("w+b") as stream:
        stream.write(header.encode("ascii"))
        file = ItkFile(stream, gzip_stream() if is_nrrd else zlib_stream())
        yield file
        file.finish()
        if not is_nrrd:
            stream.seek(header.index(size_line) + len(size_line))
            stream.write(f"{file.written:0{_SIZE_DIGITS}}".encode("ascii"))

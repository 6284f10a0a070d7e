"""Gzip and zlib streams, by Intel's ISA-L where it is installed, else by the standard library.

ISA-L (package ``isal``) writes three times as fast as zlib at a like size, and reads faster too.
Only streams of bytes are known here; the formats' modules know what they hold.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

_GZIP_SUFFIXES = (".gz", ".mgz")


def _fastest() -> tuple[Any, Any, int]:
    """The class of gzip files, the module of zlib streams, and the level that is worth its time."""
    try:
        from isal import igzip, isal_zlib
    except ImportError:  # a platform without a wheel
        return gzip.GzipFile, zlib, 1
    return igzip.IGzipFile, isal_zlib, 2


_GzipFile, _zlib, _LEVEL = _fastest()

_MAX_BEYOND_BYTES = 64 << 20
_STEP_BYTES = 1 << 20

DAMAGED_STREAM: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    _zlib.error,
)
"""What reading a damaged or truncated stream raises."""


class Compressor(Protocol):
    """A zlib stream under way."""

    def compress(self, data: bytes, /) -> bytes:
        """Take more; return what is ready."""

    def flush(self) -> bytes:
        """Return the rest."""


def open_to_read(path: Path) -> BinaryIO:
    """Open a file, through gzip where its name ends in ``.gz`` or ``.mgz``."""
    return cast(BinaryIO, _GzipFile(path, "rb")) if _is_gzip(path) else path.open("rb")


@contextmanager
def open_to_write(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, through gzip where its name ends in ``.gz`` or ``.mgz``.

    The stream carries no file name and no time, so that the same bytes give the same file.
    """
    with path.open("wb") as plain:
        if not _is_gzip(path):
            yield plain
            return
        options = {"filename": "", "mode": "wb", "compresslevel": _LEVEL, "mtime": 0}
        with _GzipFile(**options, fileobj=plain) as stream:
            yield stream


def zlib_stream() -> Compressor:
    """Start a zlib stream (RFC 1950)."""
    return cast(Compressor, _zlib.compressobj(_LEVEL))


def gzip_stream() -> Compressor:
    """Start a gzip stream (RFC 1952)."""
    return cast(Compressor, _zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS))


def check_end(stream: BinaryIO, path: Path) -> None:
    """Read a gzip stream to its end, which alone tells whether it is whole and its checksum right.

    Args:
        stream: What :func:`open_to_read` gave, behind all that is wanted of it.
        path: Its file.

    Raises:
        OSError: The stream is damaged, or goes on for more than any trailer needs: a bomb.
    """
    if not _is_gzip(path):
        return
    beyond = 0
    while read := len(stream.read(_STEP_BYTES)):
        beyond += read
        if beyond > _MAX_BEYOND_BYTES:
            raise OSError(f"it goes on for more than {_MAX_BEYOND_BYTES} bytes behind the voxels")


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(_GZIP_SUFFIXES)

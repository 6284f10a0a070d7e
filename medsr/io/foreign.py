"""What a file is that no reader takes: empty, a web page, a link to nothing, packed by something.

Only first bytes are looked at. Which of such files bars a DICOM series is settled in
``dicom_stray``.
"""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

EMPTY = "the file is empty (0 bytes); fetch it again"
LOST_LINK = "a link whose target is missing; fetch the target"
_PAGE = "a web page and no image, as servers send for a download that failed; fetch it again"

_PEEK_BYTES = 1 << 20
_TAR_AT, _TAR = 257, b"ustar"
_BLOCK = 512  # a member of a tar archive begins with a header of this size
_PACKINGS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
_UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda packed: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed, _PEEK_BYTES),
    "bzip2": lambda packed: bz2.BZ2Decompressor().decompress(packed, _PEEK_BYTES),
    "xz": lambda packed: lzma.LZMADecompressor().decompress(packed, _PEEK_BYTES),
}


def is_lost_link(path: Path) -> bool:
    """Whether a path is a link, and leads to nothing."""
    return path.is_symlink() and not path.exists()


def fault_of(stream: BinaryIO) -> str:
    """Say what stands in the way of a file that no reader takes; "" where that is not known.

    Args:
        stream: the file, at its start.

    Returns:
        What it is, and what to do about it.
    """
    start = stream.read(_BLOCK)
    if fault := lost_in_transfer(start):
        return fault
    packing = _packing_of(start)
    if packing:
        start += stream.read(_PEEK_BYTES)
    if _is_tar(_unpacked(start, packing)):
        packed = f" packed by {packing}" if packing else ""
        return f"a tar archive{packed}, which is not read; unpack it and give the folder"
    return f"packed by {packing}, which is not read here; unpack it first" if packing else ""


def lost_in_transfer(start: bytes) -> str:
    """Say what a broken transfer left in place of a file, by its first bytes; "" for nothing such.

    Example:
        >>> lost_in_transfer(b"")
        'the file is empty (0 bytes); fetch it again'
    """
    if not start:
        return EMPTY
    return _PAGE if start.lstrip().lower().startswith((b"<!doctype html", b"<html")) else ""


def members(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """What is packed in a file, as far as its first MiB tells.

    Args:
        stream: the file, at its start.

    Yields:
        ("", first bytes) of what was packed by itself; (name, first bytes) of the members of a tar
        archive, packed or not; nothing for a file that is neither.
    """
    start = stream.read(_PEEK_BYTES)
    packing = _packing_of(start)
    plain = _unpacked(start, packing)
    if not _is_tar(plain):
        if packing and plain:
            yield "", plain[:_BLOCK]
        return
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, plain[member.offset_data : member.offset_data + _BLOCK]
    except tarfile.TarError:  # it goes on behind what was read
        return


def _packing_of(start: bytes) -> str:
    return next((name for magic, name in _PACKINGS.items() if start.startswith(magic)), "")


def _unpacked(start: bytes, packing: str) -> bytes:
    """The beginning of what a file holds; nothing where it cannot be unpacked."""
    if not packing:
        return start
    try:
        return _UNPACKERS[packing](start)
    except Exception:  # another packing, or a damaged file
        return b""


def _is_tar(start: bytes) -> bool:
    return start[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR

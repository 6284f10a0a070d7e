"""What a file is that no reader takes: empty, a web page, a link to nothing, packed, misnamed.

Only first bytes are looked at, once reading has failed. Which of such files bars a DICOM series is
settled in ``dicom/read/stray``.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

EMPTY = "the file is empty (0 bytes); fetch it again"
LOST_LINK = "a link whose target is missing; fetch the target"
_PAGE = "a web page and no image, as servers send for a download that failed; fetch it again"

_PEEK_BYTES = 1 << 20
_START_BYTES, _LOOK_BYTES = 1 << 16, 512
_TAR_AT, _TAR = 257, b"ustar"
_BLOCK = 512  # a member of a tar archive begins with a header of this size
_GZIP = b"\x1f\x8b"
_GZIP_ENDINGS = {".nii": ".nii.gz", ".mgh": ".mgz"}
_PACKINGS = {
    _GZIP: "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda packed, most: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed, most),
    "bzip2": lambda packed, most: bz2.BZ2Decompressor().decompress(packed, most),
    "xz": lambda packed, most: lzma.LZMADecompressor().decompress(packed, most),
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


def hint(path: Path) -> str:
    """What a file seems to be, and the name that it should have: "it is ..., so name it .nii".

    Of what a broken transfer left, that it should be fetched again. Empty where the name is right,
    or nothing is known of the bytes.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return ""
    if fault := lost_in_transfer(start):
        return fault
    name = path.name.lower()
    is_packed = start.startswith(_GZIP)
    inside = _unpacked(start, "gzip", _LOOK_BYTES) if is_packed else start
    if inside.startswith(_GZIP):
        return "it is packed by gzip twice, so unpack it once"
    what, ending = _kind(inside)
    if is_packed and ending in _GZIP_ENDINGS:
        ending = _GZIP_ENDINGS[ending]
    elif is_packed and (what or not name.endswith((".gz", ".mgz"))):
        return f"it is {what or 'a file'} packed by gzip, so unpack it"
    return f"it is {what}, so name it {ending}" if what and not name.endswith(ending) else ""


def _packing_of(start: bytes) -> str:
    return next((name for magic, name in _PACKINGS.items() if start.startswith(magic)), "")


def _unpacked(start: bytes, packing: str, most: int = _PEEK_BYTES) -> bytes:
    """So many bytes of what a file holds at most; nothing where it cannot be unpacked."""
    if not packing:
        return start
    try:
        return _UNPACKERS[packing](start, most)
    except Exception:  # another packing, or a damaged file
        return b""


def _is_tar(start: bytes) -> bool:
    return start[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR


def _kind(start: bytes) -> tuple[str, str]:
    """What a file seems to be and the ending of its name when not compressed; empty if unknown."""
    if start[344:347] == b"n+1" or start[4:7] == b"n+2":
        return "a NIfTI file", ".nii"
    # Version 1, and one of the five types of voxels that FreeSurfer has.
    if start[:4] == b"\0\0\0\1" and start[20:24] in {bytes((0, 0, 0, n)) for n in (0, 1, 3, 4, 10)}:
        return "a FreeSurfer volume", ".mgh"
    if re.match(rb"NRRD\d{4}\r?\n", start):
        return "an NRRD file", ".nrrd"
    if re.match(rb"(ObjectType|NDims|Comment)[ \t]*=", start):
        return "a MetaImage file", ".mha"
    return ("a DICOM file", ".dcm") if start[128:132] == b"DICM" else ("", "")

"""Files that are not what their names say, or lost: told by first bytes, once reading has failed.

No format is read here, and a file that can be read never comes here.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from medsr.io.foreign import lost_in_transfer

_START_BYTES = 1 << 16
_LOOK_BYTES = 512
_GZIP = b"\x1f\x8b"
_GZIP_ENDINGS = {".nii": ".nii.gz", ".mgh": ".mgz"}


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
    inside = _unpacked(start) if is_packed else start
    if inside.startswith(_GZIP):
        return "it is packed by gzip twice, so unpack it once"
    what, ending = _kind(inside)
    if is_packed and ending in _GZIP_ENDINGS:
        ending = _GZIP_ENDINGS[ending]
    elif is_packed and (what or not name.endswith((".gz", ".mgz"))):
        return f"it is {what or 'a file'} packed by gzip, so unpack it"
    return f"it is {what}, so name it {ending}" if what and not name.endswith(ending) else ""


def _unpacked(start: bytes) -> bytes:
    """The first bytes in a gzip stream; none of a damaged one."""
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, _LOOK_BYTES)
    except zlib.error:
        return b""


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

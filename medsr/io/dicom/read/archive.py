"""Zip archives of DICOM files, read where they lie: nothing is ever unpacked to disk.

Since no member is written anywhere, no name in the archive can lead out of a folder and nothing of
a patient is left behind. Here are the limits that keep a hostile archive from taking all memory or
time; what its members hold is read in ``files``.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, cast

from medsr.errors import ArchiveError, InputNotFoundError

MOST_ENTRIES = 100_000
MOST_BYTES = 64 * 2**30
"""Sum of the sizes of all members, unpacked."""
MOST_MEMBER_BYTES = 8 * 2**30
HIGHEST_RATIO = 200.0
"""Unpacked over packed bytes of the whole archive; real CT and MR stay below 10."""
SMALL_BYTES = 256 * 2**20
"""An archive that unpacks to less may have any ratio, as one of blank slices has."""

_ENCRYPTED = 0x1  # general purpose bit flag, APPNOTE.TXT 4.4.4
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_FAILURES = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
    LookupError,
)


class Archive:
    """An open zip archive whose members can be read by several threads at once.

    It stays open as long as anything refers to it.

    Args:
        path: the archive.

    Raises:
        ArchiveError: if it is damaged or encrypted, has members outside itself, or unpacks to more
            than the limits.
        InputNotFoundError: if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            members = [info for info in self._zip.infolist() if not info.is_dir()]
        except PermissionError as error:
            raise InputNotFoundError(f"{path.name} cannot be read: {error.strerror}") from None
        except _FAILURES as error:
            raise ArchiveError(
                f"{path.name}: the zip archive is damaged ({type(error).__name__}); "
                "make or download it again"
            ) from None
        self.members = members
        self._check()

    def open(self, member: zipfile.ZipInfo) -> BinaryIO:
        """Open a member for reading from its start; it can be sought in."""
        try:
            return cast(BinaryIO, self._zip.open(member))
        except _FAILURES as error:
            raise _damaged_member(self.path, error) from None

    def read(self, member: zipfile.ZipInfo) -> BinaryIO:
        """Unpack a member into memory.

        Raises:
            ArchiveError: if it is damaged; its checksum is looked at.
        """
        try:
            return io.BytesIO(self._zip.read(member))
        except _FAILURES as error:
            raise _damaged_member(self.path, error) from None

    def _check(self) -> None:
        name, members = self.path.name, self.members
        if len(members) > MOST_ENTRIES:
            raise ArchiveError(
                f"{name}: the archive has {len(members)} entries; at most {MOST_ENTRIES} are "
                "read, unpack it and give the folder"
            )
        if any(info.flag_bits & _ENCRYPTED for info in members):
            raise ArchiveError(
                f"{name}: the archive is encrypted; unpack it with its password and give the folder"
            )
        if any(info.compress_type not in _METHODS for info in members):
            raise ArchiveError(
                f"{name}: the archive is packed by a method that is not read; "
                "unpack it and give the folder"
            )
        if any(leads_out(info.filename) for info in members):
            raise ArchiveError(
                f"{name}: an entry's name leads out of the archive (.. or an absolute path); "
                "such an archive is not to be trusted"
            )
        unpacked = sum(info.file_size for info in members)
        packed = sum(info.compress_size for info in members)
        largest = max((info.file_size for info in members), default=0)
        ratio = unpacked / max(packed, self.path.stat().st_size, 1)
        if unpacked > MOST_BYTES or largest > MOST_MEMBER_BYTES:
            raise ArchiveError(
                f"{name}: the archive unpacks to {unpacked / 2**30:.0f} GiB, its largest file to "
                f"{largest / 2**30:.0f}; at most {MOST_BYTES // 2**30} and "
                f"{MOST_MEMBER_BYTES // 2**30} are read"
            )
        if unpacked > SMALL_BYTES and ratio > HIGHEST_RATIO:
            raise ArchiveError(
                f"{name}: the archive unpacks to {ratio:.0f} times its size, which no images do; "
                "it may be a zip bomb"
            )


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive, whole or not, by its first bytes."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


def leads_out(name: str) -> bool:
    """Whether a member's name would leave the folder that it were unpacked into."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    absolute = posix.is_absolute() or windows.is_absolute() or bool(windows.drive)
    return absolute or ".." in posix.parts or ".." in windows.parts


def _damaged_member(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{path.name}: a file in the zip archive cannot be unpacked ({type(error).__name__}); "
        "make or download it again"
    )

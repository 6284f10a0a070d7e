"""Files among DICOM files that are none: which may stand for a slice, and which belong elsewhere.

A transfer that breaks leaves an empty file, a server's error page or a link to nothing where a
slice should be. The rule here tells these from notes, tables and pictures beside the
slices; what damage bars is settled in ``damage``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from medsr.errors import CorruptFileError, InputError, InputNotFoundError, UnsupportedFormatError
from medsr.io.dicom.read.sources import DicomFile
from medsr.io.foreign import EMPTY, LOST_LINK, fault_of, is_lost_link, members

_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
_MAGIC_AT = 128
START_BYTES = _MAGIC_AT + 4
_NUMBERED = re.compile(r"\d[0-9A-Za-z]*|[0-9A-Fa-f]{4,}")
_RUN = re.compile(r"#(?:\W#)+")

Place = tuple[PurePath, str]


@dataclass(frozen=True)
class Stray:
    """A file that is no DICOM file.

    Args:
        file: where it lies.
        fault: what it is, and what to do about it; "" where that is not known.
        packed: whether it holds one DICOM file, packed by gzip or the like.
        archive: whether it is a tar archive with a DICOM file in it.
    """

    file: DicomFile
    fault: str = ""
    packed: bool = False
    archive: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether there is nothing in it at all: an empty file, a link to nothing."""
        return self.fault in (EMPTY, LOST_LINK)

    @property
    def error(self) -> InputError:
        """What a source is refused with that it may be a slice of."""
        kind: type[InputError] = CorruptFileError
        if self.packed or self.archive:
            kind = UnsupportedFormatError
        elif self.fault == LOST_LINK:
            kind = InputNotFoundError
        what = self.fault or "no DICOM file, though named like one; fetch it again"
        return kind(f"{self.file.name}: {what}, or take it out of the folder")


def begins_as_dicom(start: bytes) -> bool:
    """Whether the first 132 bytes are those of a DICOM file.

    Either the magic word stands behind the preamble, or there is no preamble and a bare element of
    group 8 comes first.
    """
    if start[_MAGIC_AT:START_BYTES] == b"DICM":
        return True
    # Old files lack the preamble: (0008,00xx) as first element, by a known VR or a short length.
    if len(start) < 16 or start[:2] != b"\x08\x00" or start[3] != 0 or start[2] > 0x20:
        return False
    return start[4:6] in (b"UL", b"CS", b"UI", b"DA", b"SH") or start[5:8] == b"\x00\x00\x00"


def look_at(file: DicomFile) -> Stray:
    """Say what a file is that does not begin as DICOM.

    Raises:
        InputNotFoundError: if it cannot be read.
        ArchiveError: if it cannot be unpacked.
    """
    if file.member is None and not file.path.is_file():
        return Stray(file, LOST_LINK if is_lost_link(file.path) else "")
    with file.open() as stream:
        fault = fault_of(stream)
        if not fault:
            return Stray(file)
        stream.seek(0)
        names = {name for name, start in members(stream) if begins_as_dicom(start[:START_BYTES])}
    return Stray(file, fault, packed=names == {""}, archive=bool(names - {""}))


def place_of(file: DicomFile) -> Place:
    """Folder and form of the name, which the slices of a series mostly share.

    Example:
        >>> from pathlib import Path
        >>> [place_of(DicomFile(Path("ct", n)))[1] for n in ("IM-01-07.dcm", "IM00A7", "notes")]
        ['IM-#.dcm', 'IM#', 'notes']
    """
    return file.folder, _RUN.sub("#", _NUMBERED.sub("#", file.own_name))


def may_be_slice(stray: Stray, taken: Container[Place] = (), names: Container[Place] = ()) -> bool:
    """Whether a slice may be missing where a stray file is.

    So it is where the file holds DICOM that somebody packed, has an ending that DICOM files have,
    or is named like a slice beside it but for the numbers. Hidden files never are.

    Args:
        stray: the file.
        taken: :func:`place_of` of all sound slices.
        names: (folder, name) of all sound slices; a packed copy of one of them lacks nothing.
    """
    name = stray.file.own_name
    if name.startswith("."):
        return False
    if stray.packed:
        return (stray.file.folder, PurePath(name).stem) not in names
    return name.lower().endswith(_SUFFIXES) or place_of(stray.file) in taken


def stray_notes(strays: Sequence[Stray]) -> tuple[str, ...]:
    """Sentences on files that stand for no slice, and that should not go unnoticed all the same."""
    lost = sum(stray.is_lost for stray in strays)
    archives = sum(stray.archive for stray in strays)
    notes = []
    if lost:
        notes.append(f"passed over {lost} empty file(s) or link(s) to nothing, not named as slices")
    if archives:
        notes.append(f"did not look into {archives} tar archive(s) of DICOM; unpack them to read")
    return tuple(notes)

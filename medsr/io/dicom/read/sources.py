"""Where DICOM files lie: a folder, a zip archive, what a DICOMDIR lists, or one file.

The way from a path to its files, each of which can be opened and has a name for messages. What the
files hold is read in ``files``.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import MediaStorageDirectoryStorage

from medsr.errors import CorruptFileError, InputNotFoundError
from medsr.io.dicom.read.archive import Archive, is_archive, leads_out
from medsr.io.walk import walk

_DICOMDIR = "DICOMDIR"
_MAGIC_AT = 128


@dataclass(frozen=True)
class DicomFile:
    """A file that may hold DICOM: on disk, or a member of an archive.

    Args:
        path: the file on disk, or the archive.
        archive: the archive, for a member.
        member: which member.
        number: its place among the files of a folder, an archive or a DICOMDIR, in the order of
            their names, from 1; 0 for a file that was given itself.
    """

    path: Path
    archive: Archive | None = None
    member: zipfile.ZipInfo | None = None
    number: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """What a message calls it: its number, since archives name files after patients."""
        return f"file {self.number} in the order of names" if self.number else self.path.name

    @property
    def own_name(self) -> str:
        """Its name in its folder, which no message repeats."""
        return self.path.name if self.member is None else PurePath(self.member.filename).name

    @property
    def folder(self) -> PurePath:
        """The folder that it lies in, on disk or in the archive."""
        if self.member is None:
            return self.path.parent
        return self.path.joinpath(self.member.filename).parent

    def open(self, *, whole: bool = False) -> BinaryIO:
        """Open it for reading; ``whole`` says that all of it will be read.

        Raises:
            InputNotFoundError: if it cannot be read.
            ArchiveError: if it cannot be unpacked.
        """
        if self.archive is not None and self.member is not None:
            return self.archive.read(self.member) if whole else self.archive.open(self.member)
        try:
            return self.path.open("rb")
        except OSError as error:
            raise InputNotFoundError(f"{self.name} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Listing:
    """The files that a path stands for.

    Args:
        files: in the order of their names.
        notes: sentences on what is not as it should be.
    """

    files: tuple[DicomFile, ...]
    notes: tuple[str, ...] = ()


def list_files(path: Path) -> Listing:
    """List what a folder, an archive or a DICOMDIR holds; one other file stands for itself.

    A DICOMDIR is taken at its word for which files there are, never for what they hold. In a folder
    all files are looked at, listed or not, and files that its DICOMDIR lists in vain are noted, as
    is a DICOMDIR that cannot be parsed.

    Raises:
        InputNotFoundError: if the path or a folder below it does not exist or cannot be read.
        ArchiveError: if an archive cannot be used.
        CorruptFileError: if the DICOMDIR cannot be parsed.
    """
    if path.is_dir():
        below = enumerate(_files_below(path), start=1)
        files = tuple(DicomFile(file, number=number) for number, file in below)
        index = path / _DICOMDIR
        if not index.is_file() or not is_directory(index):
            return Listing(files)
        try:
            return Listing(files, _lost_note(_listed_by(index)[1]))
        except CorruptFileError:
            return Listing(files, ("the DICOMDIR is damaged; whether files are lost is not known",))
    if not path.exists():
        raise InputNotFoundError(f"{path.name} does not exist")
    if is_archive(path):
        archive = Archive(path)
        members = sorted(archive.members, key=lambda info: info.filename)
        within = enumerate(members, start=1)
        return Listing(tuple(DicomFile(path, archive, member, n) for n, member in within))
    if is_directory(path):
        there, lost = _listed_by(path)
        return Listing(tuple(there), _lost_note(lost))
    return Listing((DicomFile(path),))


def is_directory(path: Path) -> bool:
    """Whether a file is a DICOMDIR, by its own word."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_MAGIC_AT + 256)
    except OSError:
        return False
    return start[_MAGIC_AT : _MAGIC_AT + 4] == b"DICM" and (
        MediaStorageDirectoryStorage.encode("ascii") in start
    )


def _listed_by(index: Path) -> tuple[list[DicomFile], int]:
    """The files that a DICOMDIR lists and that are there, and how many are not.

    The records are read as a flat list: their tree, which pydicom's FileSet follows, says nothing
    about files and may lead in circles.

    Source: DICOM PS3.3 F.3.2.2, ReferencedFileID.
    """
    try:
        dataset = pydicom.dcmread(index)
        records: Any = dataset.get_item("DirectoryRecordSequence")
        if isinstance(records, RawDataElement) and len(records.value or b"") < records.length:
            raise EOFError  # the records that are there would be taken for all
        ids = [record.get("ReferencedFileID") for record in dataset.DirectoryRecordSequence]
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise CorruptFileError(
            f"{index.name}: the DICOMDIR cannot be parsed ({type(error).__name__}); "
            "give the folder instead"
        ) from None
    files, lost = {}, 0
    for value in filter(None, ids):
        parts = [value] if isinstance(value, str) else [str(part) for part in value]
        file = None if leads_out("/".join(parts)) else _find(index.parent, parts)
        if file is None:
            lost += 1
        else:
            files[file] = DicomFile(file)
    there = enumerate(sorted(files), start=1)
    return [replace(files[file], number=number) for number, file in there], lost


def _find(root: Path, parts: list[str]) -> Path | None:
    """A file by its ID, also where a file system turned the capitals of a medium into small."""
    for spelling in (str, str.lower, str.upper):
        file = root.joinpath(*(spelling(part) for part in parts))
        if file.is_file():
            return file
    return None


def _lost_note(lost: int) -> tuple[str, ...]:
    return (f"the DICOMDIR lists {lost} file(s) that are not there",) if lost else ()


def _files_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise InputNotFoundError(
            f"a folder below {folder.name} cannot be read: {error.strerror}"
        ) from None

    def order(file: Path) -> list[tuple[bool, str]]:
        *folders, name = file.relative_to(folder).parts
        return [*((True, part) for part in folders), (False, name)]

    files = (place / name for place, _, names in walk(folder, onerror=refuse) for name in names)
    return sorted(files, key=order)

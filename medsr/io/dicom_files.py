"""Reading the headers of DICOM files, and the files whole.

Here lives what tells a DICOM file from any other and a readable image from the rest. Where the
files lie is in ``dicom_sources``; grouping into volumes is in ``dicom_groups``; decoding pixels is
in ``dicom_pixels``.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medsr.errors import (
    ColourError,
    CorruptFileError,
    InputError,
    InputNotFoundError,
    MedsrError,
    NotAnImageError,
    UnsupportedFormatError,
)
from medsr.io.dicom_archive import is_archive
from medsr.io.dicom_damage import (
    DamagedFile,
    damage_of_series,
    identity_before_damage,
    left_out_note,
)
from medsr.io.dicom_header import (
    HEADER_TAGS,
    MULTI_FRAME,
    READABLE,
    SliceHeader,
    is_colour,
    slice_headers,
)
from medsr.io.dicom_quiet import quiet
from medsr.io.dicom_sources import DicomFile, is_directory, list_files
from medsr.io.parallel import ordered_map

logger = logging.getLogger(__name__)

MOST_INFLATED_BYTES = 2**30
"""What one deflated file may become."""

_MAGIC_AT = 128
_START_BYTES = 1024  # holds the file meta information
_INFLATE_BYTES = 1 << 20


@dataclass(frozen=True)
class FoundSlices:
    """The readable slices under a path, and what was passed over.

    Args:
        slices: every CT and MR slice or frame found, in path order.
        not_dicom: number of files that are no DICOM files.
        other_objects: number of DICOM objects of each kind that holds no CT or MR image.
        colour: number of colour images among ``other_objects``.
        remarks: sentences on the source itself.
        damaged: files that may be CT or MR slices and cannot be read.
    """

    slices: tuple[SliceHeader, ...]
    not_dicom: int
    other_objects: Counter[str]
    colour: int
    remarks: tuple[str, ...] = ()
    damaged: tuple[DamagedFile, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence per kind of file that was passed over."""
        notes = [
            f"skipped {count} x {name}, which holds no CT or MR slice"
            for name, count in sorted(self.other_objects.items())
            if name != MediaStorageDirectoryStorage.name
        ]
        if self.not_dicom:
            notes.append(f"skipped {self.not_dicom} file(s) that are not DICOM")
        return (*self.remarks, *notes)


@quiet
def is_dicom(path: Path) -> bool:
    """Whether ``path`` is a DICOM file, or a folder or zip archive with at least one in it.

    Raises:
        ArchiveError: if an archive cannot be used.
    """
    if path.is_dir() or is_archive(path):
        return any(_has_dicom_start(file) for file in list_files(path).files)
    return _has_dicom_start(DicomFile(path))


@quiet
def series_of(path: Path) -> str | None:
    """SeriesInstanceUID of a file with a CT or MR slice; "" where the file is damaged.

    Returns:
        None for every other file, one that may not be read included.
    """
    return _series_of(DicomFile(path))


@quiet
def holds_slices(archive: Path) -> bool:
    """Whether a zip archive holds a file with a CT or MR slice, sound or damaged.

    Raises:
        ArchiveError: if the archive cannot be used.
    """
    if not is_archive(archive):
        return False
    return any(_series_of(file) is not None for file in list_files(archive).files)


def _series_of(file: DicomFile) -> str | None:
    try:
        header = _read_header(file)
        if header is None:
            return None
        sop_class = str(header.get("SOPClassUID") or _media_class(header) or "")
        series = str(header.get("SeriesInstanceUID", ""))
    except InputNotFoundError:
        return None
    except Exception:  # values are parsed on access, and fail in many ways
        return ""
    return series if sop_class in READABLE or not sop_class else None


@quiet
def find_slices(path: Path) -> FoundSlices:
    """Read the headers of all CT and MR images in a folder, an archive, or of one file's series.

    Args:
        path: a folder, searched at every depth; a zip archive; a DICOMDIR, for the files that it
            lists; a multi-frame file; or one slice, whose series is taken from the files beside it.

    Returns:
        What was found. Damaged files are among it and bar what they may belong to; of one slice's
        series they are refused here.

    Raises:
        InputNotFoundError: if the path does not exist or cannot be read.
        ArchiveError: if an archive cannot be used.
        UnsupportedFormatError: if there is no DICOM file.
        NotAnImageError: if there is no image of CT or MR.
        ColourError: if the only images are colour images.
        CorruptFileError: if a file of one slice's series cannot be parsed, or no file can.
    """
    single = path.is_file() and not (is_archive(path) or is_directory(path))
    found = _beside(path) if single else _all_below(path)
    if not found.slices:
        if found.damaged:
            raise found.damaged[0].error
        _refuse_without_slices(found)
    for note in found.remarks:
        logger.warning("%s", note)
    for note in found.notes[len(found.remarks) :]:
        logger.info("%s", note)
    return found


@quiet
def count_voxels(path: Path) -> int:
    """Say how many voxels :func:`find_slices` may find, from one header and the number of files.

    Meant to err on the high side; 0 where there is no readable DICOM file.
    """
    if path.is_dir() or is_archive(path) or is_directory(path):
        files = list(list_files(path).files)
    else:
        files = [DicomFile(file) for file in sorted(path.parent.iterdir()) if file.is_file()]
    for file in files:
        with suppress(Exception):  # a damaged file is judged where it is read
            header = _read_header(file)
            if header is not None and "Rows" in header:
                frames = int(header.get("NumberOfFrames") or 1)
                return len(files) * frames * int(header.Rows) * int(header.get("Columns") or 0)
    return 0


def read_dataset(file: DicomFile) -> FileDataset:
    """The whole file, pixel data included.

    Raises:
        CorruptFileError: if it cannot be parsed.
        ArchiveError: if it cannot be unpacked.
    """
    try:
        with file.open(whole=True) as stream:
            return pydicom.dcmread(stream, force=True)
    except MedsrError:
        raise
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise _damaged(file, error) from None


def _refuse_without_slices(found: FoundSlices) -> None:
    if found.colour:
        raise ColourError(
            f"{found.colour} colour image(s) and no CT or MR slice; "
            "give the series of grey-level images"
        )
    lost = "".join(f"; {remark}" for remark in found.remarks)
    if found.other_objects:
        listed = ", ".join(f"{count} x {name}" for name, count in found.other_objects.items())
        raise NotAnImageError(
            f"no CT or MR slice but {listed}; give a folder of CT or MR images{lost}"
        )
    raise UnsupportedFormatError(
        f"no DICOM file among {found.not_dicom} file(s); give a folder of CT or MR images{lost}"
    )


def _all_below(path: Path) -> FoundSlices:
    listing = list_files(path)
    return _read_headers(listing.files, series=None, remarks=listing.notes)


def _beside(path: Path) -> FoundSlices:
    """The series of one file: the file alone where it is multi-frame and whole."""
    file = DicomFile(path)
    first = _read_header(file)
    if first is None:
        raise UnsupportedFormatError(f"{path.name} is not a DICOM file")
    try:
        series = str(first.get("SeriesInstanceUID", ""))
        whole = str(first.get("SOPClassUID")) in MULTI_FRAME and not first.get("ConcatenationUID")
    except Exception as error:  # values are parsed on access, and fail in many ways
        raise _damaged(file, error) from None
    if whole or not series:
        return _read_headers([file], series=series)
    siblings = sorted(entry for entry in path.parent.iterdir() if entry.is_file())
    found = _read_headers(map(DicomFile, siblings), series=series)
    if not found.slices:
        return found
    may_be, cannot = damage_of_series(found.damaged, found.slices, found.slices)
    if may_be:
        raise may_be[0].error
    remarks = (left_out_note(cannot),) if cannot else ()
    return replace(found, damaged=(), remarks=remarks)


@dataclass(frozen=True)
class _Content:
    """What one file holds: slices, or the name of another kind of object, or nothing."""

    slices: tuple[SliceHeader, ...] = ()
    other: str = ""
    colour: bool = False
    is_dicom: bool = True
    damaged: DamagedFile | None = None


def _read_headers(
    files: Iterable[DicomFile], *, series: str | None, remarks: tuple[str, ...] = ()
) -> FoundSlices:
    slices: list[SliceHeader] = []
    damaged: list[DamagedFile] = []
    others: Counter[str] = Counter()
    not_dicom = colour = 0
    for content in ordered_map(lambda file: _content_or_damage(file, series), files):
        slices.extend(content.slices)
        not_dicom += series is None and not content.is_dicom
        colour += content.colour
        if content.other:
            others[content.other] += 1
        if content.damaged is not None:
            damaged.append(content.damaged)
    return FoundSlices(tuple(slices), not_dicom, others, colour, remarks, tuple(damaged))


def _content_or_damage(file: DicomFile, series: str | None) -> _Content:
    """Look into one file; what cannot be a CT or MR slice is no damage, however broken it is."""
    try:
        return _content_of(file, series)
    except InputError as error:
        sop_class, named = identity_before_damage(file)
        if sop_class and sop_class not in READABLE:
            return _Content(other=UID(sop_class).name)
        return _Content(damaged=DamagedFile(file, error, named))


def _content_of(file: DicomFile, series: str | None) -> _Content:
    """Look into one file; with ``series``, into a file of that series only."""
    header = _read_header(file)
    if header is None:
        return _Content(is_dicom=False)
    try:
        if series and header.get("SeriesInstanceUID") != series:
            return _Content()
        sop_class = str(header.get("SOPClassUID") or _media_class(header) or "")
        if not sop_class:
            raise CorruptFileError(
                f"{file.name}: SOPClassUID is missing; the file is cut short or damaged, "
                "export it again or take it out of the folder"
            )
        if sop_class in READABLE:
            return _Content(tuple(slice_headers(header, file)))
        return _Content(other=UID(sop_class).name, colour=is_colour(header))
    except MedsrError:
        raise
    except Exception as error:  # values are parsed on access, and fail in many ways
        raise _damaged(file, error) from None


def _read_header(file: DicomFile) -> FileDataset | None:
    """The attributes that matter, without pixel data; None if the file is not DICOM."""
    if not _has_dicom_start(file):
        return None
    try:
        with file.open() as stream:
            _check_inflation(stream, file)
            return pydicom.dcmread(
                stream, stop_before_pixels=True, force=True, specific_tags=list(HEADER_TAGS)
            )
    except MedsrError:
        raise
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise _damaged(file, error) from None


def _media_class(header: FileDataset) -> str | None:
    """The SOP class of a file whose data set has none, such as a DICOMDIR."""
    meta: Dataset = header.file_meta
    value = meta.get("MediaStorageSOPClassUID")
    return None if value is None or str(value) in READABLE else str(value)


def _damaged(file: DicomFile, error: Exception) -> CorruptFileError:
    # The library's own text may quote attribute values, so only its kind is passed on.
    return CorruptFileError(
        f"{file.name}: the DICOM file cannot be parsed ({type(error).__name__}); export it again"
    )


def _has_dicom_start(file: DicomFile) -> bool:
    """Whether the file begins as DICOM: the magic word, or a bare group-8 element without it."""
    if file.member is None and not file.path.is_file():
        return False
    with file.open() as stream:
        try:
            start = stream.read(_MAGIC_AT + 4)
        except Exception as error:  # a damaged archive or disk fails in many ways
            raise _damaged(file, error) from None
    if start[_MAGIC_AT:] == b"DICM":
        return True
    # Old files lack the preamble: (0008,00xx) as first element, by a known VR or a short length.
    if len(start) < 16 or start[:2] != b"\x08\x00" or start[3] != 0 or start[2] > 0x20:
        return False
    return start[4:6] in (b"UL", b"CS", b"UI", b"DA", b"SH") or start[5:8] == b"\x00\x00\x00"


def _check_inflation(stream: BinaryIO, file: DicomFile) -> None:
    """Refuse a deflated file that would not fit into memory; the stream stands at its start again.

    Source: DICOM PS3.5 A.5; PS3.10 7.1, FileMetaInformationGroupLength.
    """
    start = stream.read(_START_BYTES)
    stream.seek(0)
    if DeflatedExplicitVRLittleEndian.encode("ascii") not in start:
        return
    # 4 bytes of tag, VR and length come before the value, which counts from its own end.
    stream.seek(_MAGIC_AT + 16 + int.from_bytes(start[_MAGIC_AT + 12 : _MAGIC_AT + 16], "little"))
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    packed = stream.read(_INFLATE_BYTES)
    while packed and not inflater.eof:
        inflated += len(inflater.decompress(packed, _INFLATE_BYTES))
        packed = inflater.unconsumed_tail or stream.read(_INFLATE_BYTES)
        if inflated > MOST_INFLATED_BYTES:
            raise CorruptFileError(
                f"{file.name}: the deflated file grows beyond {MOST_INFLATED_BYTES >> 30} GiB; "
                "it is damaged or made to fill the memory"
            )
    stream.seek(0)

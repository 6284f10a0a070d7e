"""The CT and MR slices among files, and what is to be said of the others.

What tells a readable image from the rest. Where the files lie is in ``sources``,
how one is opened in ``open``; grouping into volumes is in ``groups``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.uid import UID, MediaStorageDirectoryStorage

from medsr.errors import (
    ColourError,
    CorruptFileError,
    InputError,
    InputNotFoundError,
    MedsrError,
    NotAnImageError,
    UnsupportedFormatError,
)
from medsr.io.dicom.logs import suppress_logging
from medsr.io.dicom.read.archive import is_archive
from medsr.io.dicom.read.damage import (
    DamagedFile,
    damage_of_series,
    identity_before_damage,
    left_out_note,
)
from medsr.io.dicom.read.header import (
    MULTI_FRAME,
    READABLE,
    SliceHeader,
    is_colour,
    slice_headers,
)
from medsr.io.dicom.read.open import complete, has_dicom_start, read_header, sop_class_of
from medsr.io.dicom.read.open import damaged as damaged_error
from medsr.io.dicom.read.sources import DicomFile, is_directory, list_files
from medsr.io.dicom.read.stray import Stray, look_at, may_be_slice, place_of, stray_notes
from medsr.io.parallel import ordered_map

logger = logging.getLogger(__name__)

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # and label map


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


@suppress_logging
def is_dicom(path: Path) -> bool:
    """Whether ``path`` is a DICOM file, or a folder or zip archive with at least one in it.

    Raises:
        ArchiveError: if an archive cannot be used.
    """
    if path.is_dir() or is_archive(path):
        return any(has_dicom_start(file) for file in list_files(path).files)
    return has_dicom_start(DicomFile(path))


@suppress_logging
def series_of(path: Path) -> str | None:
    """SeriesInstanceUID of a file with a CT or MR slice; "" where it may be one and is damaged.

    Returns:
        None for every other file, one that may not be read included.
    """
    return _series_of(DicomFile(path))


@suppress_logging
def is_segmentation(path: Path) -> bool:
    """Whether a file is a segmentation object: labels, and no image of a scanner."""
    with suppress(Exception):  # what cannot be parsed is no such object
        header = read_header(DicomFile(path))
        return header is not None and sop_class_of(header) in _SEGMENTATIONS
    return False


@suppress_logging
def is_packed(path: Path) -> bool:
    """Whether a file is a tar archive with DICOM in it, packed or not."""
    try:
        return look_at(DicomFile(path)).archive
    except InputError:
        return False


@suppress_logging
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
        header = read_header(file)
        if header is None:
            return "" if may_be_slice(look_at(file)) else None
        sop_class = sop_class_of(header)
        complete(header)
        series = str(header.get("SeriesInstanceUID", ""))
    except InputNotFoundError:
        return None
    except Exception:  # values are parsed on access, and fail in many ways
        return ""
    return series if sop_class in READABLE or not sop_class else None


@suppress_logging
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
    contents = _beside(path) if single else _all_below(path)
    if not contents.slices:
        if contents.damaged:
            raise contents.damaged[0].error
        _refuse_without_slices(contents)
    for note in contents.remarks:
        logger.warning("%s", note)
    for note in contents.notes[len(contents.remarks) :]:
        logger.info("%s", note)
    return contents


@suppress_logging
def count_voxels(path: Path) -> int:
    """Say how many voxels :func:`find_slices` may find, from one header and the number of files.

    Meant to err on the high side; 0 where there is no readable DICOM file.
    """
    if path.is_dir() or is_archive(path) or is_directory(path):
        files = list(list_files(path).files)
    else:
        files = _siblings(path)
    for file in files:
        with suppress(Exception):  # a damaged file is judged where it is read
            header = read_header(file)
            if header is not None and "Rows" in header:
                frames = int(header.get("NumberOfFrames") or 1)
                return len(files) * frames * int(header.Rows) * int(header.get("Columns") or 0)
    return 0


def _refuse_without_slices(contents: FoundSlices) -> None:
    if contents.colour:
        raise ColourError(
            f"{contents.colour} colour image(s) and no CT or MR slice; "
            "give the series of grey-level images"
        )
    lost = "".join(f"; {remark}" for remark in contents.remarks)
    is_index = set(contents.other_objects) <= {MediaStorageDirectoryStorage.name}
    if is_index and lost and not contents.not_dicom:
        raise NotAnImageError(f"no image but an index of images{lost}; give the whole medium")
    if contents.other_objects:
        listed = ", ".join(f"{count} x {name}" for name, count in contents.other_objects.items())
        raise NotAnImageError(
            f"no CT or MR slice but {listed}; give a folder of CT or MR images{lost}"
        )
    raise UnsupportedFormatError(
        f"no DICOM file among {contents.not_dicom} file(s); give a folder of CT or MR images{lost}"
    )


def _all_below(path: Path) -> FoundSlices:
    listing = list_files(path)
    return _read_headers(listing.files, series=None, remarks=listing.notes)


def _beside(path: Path) -> FoundSlices:
    """The series of one file: the file alone where it is multi-frame and whole."""
    file = DicomFile(path)
    first = read_header(file)
    if first is None:
        raise UnsupportedFormatError(f"{path.name} is not a DICOM file")
    try:
        complete(first)
        series = str(first.get("SeriesInstanceUID", ""))
        whole = str(first.get("SOPClassUID")) in MULTI_FRAME and not first.get("ConcatenationUID")
    except Exception as error:  # values are parsed on access, and fail in many ways
        raise damaged_error(file, error) from None
    if whole or not series:
        return _read_headers([file], series=series)
    contents = _read_headers(_siblings(path), series=series)
    if not contents.slices:
        return contents
    may_be, cannot = damage_of_series(contents.damaged, contents.slices, contents.slices)
    if may_be:
        raise may_be[0].error
    remarks = (left_out_note(cannot),) if cannot else ()
    return replace(contents, damaged=(), remarks=(*contents.remarks, *remarks))


def _siblings(path: Path) -> list[DicomFile]:
    """The files of its folder, links to nothing included."""
    return [DicomFile(entry) for entry in sorted(path.parent.iterdir()) if not entry.is_dir()]


@dataclass(frozen=True)
class _Content:
    """What one file holds: slices, or the name of another kind of object, or no DICOM."""

    slices: tuple[SliceHeader, ...] = ()
    other: str = ""
    colour: bool = False
    damaged: DamagedFile | None = None
    stray: Stray | None = None
    lacking: tuple[str, ...] = ()


def _read_headers(
    files: Iterable[DicomFile], *, series: str | None, remarks: tuple[str, ...] = ()
) -> FoundSlices:
    slices: list[SliceHeader] = []
    damaged: list[DamagedFile] = []
    strays: list[Stray] = []
    others: Counter[str] = Counter()
    lacking: Counter[tuple[str, ...]] = Counter()
    colour = 0
    for content in ordered_map(lambda file: _content_or_damage(file, series), files):
        slices.extend(content.slices)
        colour += content.colour
        lacking[content.lacking] += 1
        if content.other:
            others[content.other] += 1
        if content.damaged is not None:
            damaged.append(content.damaged)
        if content.stray is not None:
            strays.append(content.stray)
    taken = {place_of(header.file) for header in slices}
    names = {(header.file.folder, header.file.own_name) for header in slices}
    barring = [stray for stray in strays if may_be_slice(stray, taken, names)]
    damaged += (DamagedFile(stray.file, stray.error) for stray in barring)
    damaged.sort(key=lambda each: each.file.number)
    others_left = [stray for stray in strays if stray not in barring]
    not_dicom = 0 if series is not None else len(others_left)
    remarks = (*remarks, *stray_notes(others_left))
    remarks += tuple(
        f"{count} file(s) lack {', '.join(names)}; taken from what else they say"
        for names, count in lacking.items()
        if names
    )
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
    header = read_header(file)
    if header is None:
        return _Content(stray=look_at(file))
    try:
        sop_class = sop_class_of(header)
        lacking = complete(header) if sop_class in READABLE else ()
        if series and header.get("SeriesInstanceUID") != series:
            return _Content()
        if not sop_class:
            raise CorruptFileError(
                f"{file.name}: SOPClassUID is missing, and nothing else says what it is (Modality, "
                "Rows, ImagePositionPatient); export it again or take it out of the folder"
            )
        if sop_class in READABLE:
            return _Content(tuple(slice_headers(header, file)), lacking=lacking)
        return _Content(other=UID(sop_class).name, colour=is_colour(header))
    except MedsrError:
        raise
    except Exception as error:  # values are parsed on access, and fail in many ways
        raise damaged_error(file, error) from None

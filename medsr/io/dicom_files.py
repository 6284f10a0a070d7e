"""Finding DICOM files under a path and reading their headers.

Here lives what tells a DICOM file from any other and a readable image from the rest. Grouping into
volumes is in ``dicom_stack``; decoding pixels is in ``dicom_pixels``.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from medsr.errors import (
    ColourError,
    CorruptFileError,
    InputNotFoundError,
    MedsrError,
    UnsupportedFormatError,
)
from medsr.io.dicom_header import HEADER_TAGS, READABLE, SliceHeader, is_colour, slice_headers
from medsr.io.dicom_quiet import quiet

logger = logging.getLogger(__name__)

_MAGIC_AT = 128


@dataclass(frozen=True)
class FoundSlices:
    """The readable slices under a path, and what was passed over.

    Args:
        slices: every CT and MR slice or frame found, in path order.
        not_dicom: number of files that are no DICOM files.
        other_objects: number of DICOM objects of each kind that holds no CT or MR image.
        colour: number of colour images among ``other_objects``.
    """

    slices: tuple[SliceHeader, ...]
    not_dicom: int
    other_objects: Counter[str]
    colour: int

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence per kind of file that was passed over."""
        notes = [
            f"skipped {count} x {name}, which holds no CT or MR slice"
            for name, count in sorted(self.other_objects.items())
        ]
        if self.not_dicom:
            notes.append(f"skipped {self.not_dicom} file(s) that are not DICOM")
        return tuple(notes)


def is_dicom(path: Path) -> bool:
    """Whether ``path`` is a DICOM file, or a folder with at least one in it at any depth."""
    if path.is_dir():
        return any(_has_dicom_start(file) for file in _files_below(path))
    return _has_dicom_start(path)


@quiet
def series_of(path: Path) -> str | None:
    """SeriesInstanceUID of a file with a CT or MR slice; "" where the file is damaged.

    Returns:
        None for every other file, one that may not be read included.
    """
    try:
        header = _read_header(path)
        if header is None:
            return None
        sop_class = str(header.get("SOPClassUID") or _media_class(header) or "")
        series = str(header.get("SeriesInstanceUID", ""))
    except InputNotFoundError:
        return None
    except Exception:  # values are parsed on access, and fail in many ways
        return ""
    return series if sop_class in READABLE or not sop_class else None


def find_slices(path: Path) -> FoundSlices:
    """Read the headers of all CT and MR images in a folder, or of one file's series.

    Args:
        path: a folder, searched at every depth, or one DICOM file, whose series is taken from the
            files beside it.

    Raises:
        InputNotFoundError: if the path does not exist or cannot be read.
        UnsupportedFormatError: if there is no DICOM image of CT or MR.
        ColourError: if the only images are colour images.
        CorruptFileError: if a DICOM file cannot be parsed.
    """
    if path.is_dir():
        found = _read_headers(_files_below(path), series=None)
    elif path.exists():
        first = _read_header(path)
        if first is None:
            raise UnsupportedFormatError(f"{path.name} is not a DICOM file")
        try:
            series = str(first.get("SeriesInstanceUID", ""))
        except Exception as error:  # values are parsed on access, and fail in many ways
            raise _damaged(path, error) from None
        siblings = sorted(entry for entry in path.parent.iterdir() if entry.is_file())
        found = _read_headers(iter(siblings if series else [path]), series=series)
    else:
        raise InputNotFoundError(f"{path.name} does not exist")
    if not found.slices:
        _refuse_without_slices(found)
    for note in found.notes:
        logger.info("%s", note)
    return found


def count_voxels(path: Path) -> int:
    """Say how many voxels :func:`find_slices` may find, from one header and the number of files.

    Meant to err on the high side; 0 where there is no readable DICOM file.
    """
    files = _files_below(path) if path.is_dir() else path.parent.iterdir()
    names = sorted(file for file in files if file.is_file())
    for file in names:
        header = _read_header(file)
        if header is not None and "Rows" in header:
            frames = int(header.get("NumberOfFrames") or 1)
            return len(names) * frames * int(header.Rows) * int(header.get("Columns") or 0)
    return 0


def read_dataset(path: Path) -> FileDataset:
    """The whole file, pixel data included.

    Raises:
        CorruptFileError: if it cannot be parsed.
    """
    try:
        return pydicom.dcmread(path, force=True)
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise _damaged(path, error) from None


def _refuse_without_slices(found: FoundSlices) -> None:
    if found.colour:
        raise ColourError(
            f"{found.colour} colour image(s) and no CT or MR slice; "
            "give the series of grey-level images"
        )
    if found.other_objects:
        listed = ", ".join(f"{count} x {name}" for name, count in found.other_objects.items())
        raise UnsupportedFormatError(
            f"no CT or MR slice but {listed}; give a folder of CT or MR images"
        )
    raise UnsupportedFormatError(
        f"no DICOM file among {found.not_dicom} file(s); give a folder of CT or MR images"
    )


def _read_headers(files: Iterator[Path], *, series: str | None) -> FoundSlices:
    slices: list[SliceHeader] = []
    others: Counter[str] = Counter()
    not_dicom = colour = 0
    for file in files:
        header = _read_header(file)
        if header is None:
            not_dicom += series is None
            continue
        try:
            if series and header.get("SeriesInstanceUID") != series:
                continue
            sop_class = str(header.get("SOPClassUID") or _media_class(header) or "")
            if not sop_class:
                raise CorruptFileError(
                    f"{file.name}: SOPClassUID is missing; the file is cut short or damaged, "
                    "export it again or take it out of the folder"
                )
            if sop_class in READABLE:
                slices.extend(slice_headers(header, file))
            else:
                others[UID(sop_class).name] += 1
                colour += is_colour(header)
        except MedsrError:
            raise
        except Exception as error:  # values are parsed on access, and fail in many ways
            raise _damaged(file, error) from None
    return FoundSlices(tuple(slices), not_dicom, others, colour)


def _read_header(path: Path) -> FileDataset | None:
    """The attributes that matter, without pixel data; None if the file is not DICOM."""
    if not _has_dicom_start(path):
        return None
    try:
        return pydicom.dcmread(
            path, stop_before_pixels=True, force=True, specific_tags=list(HEADER_TAGS)
        )
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom lets many kinds through for damaged files
        raise _damaged(path, error) from None


def _media_class(header: FileDataset) -> str | None:
    """The SOP class of a file whose data set has none, such as a DICOMDIR."""
    meta: Dataset = header.file_meta
    value = meta.get("MediaStorageSOPClassUID")
    return None if value is None or str(value) in READABLE else str(value)


def _damaged(path: Path, error: Exception) -> CorruptFileError:
    # The library's own text may quote attribute values, so only its kind is passed on.
    return CorruptFileError(
        f"{path.name}: the DICOM file cannot be parsed ({type(error).__name__}); export it again"
    )


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputNotFoundError(
            f"a folder below {folder.name} cannot be read: {error.strerror}"
        ) from None

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))


def _has_dicom_start(path: Path) -> bool:
    """Whether the file begins as DICOM: the magic word, or a bare group-8 element without it."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            start = stream.read(_MAGIC_AT + 4)
    except OSError as error:
        raise InputNotFoundError(f"{path.name} cannot be read: {error.strerror}") from None
    if start[_MAGIC_AT:] == b"DICM":
        return True
    # Old files lack the preamble: (0008,00xx) as first element, by a known VR or a short length.
    if len(start) < 16 or start[:2] != b"\x08\x00" or start[3] != 0 or start[2] > 0x20:
        return False
    return start[4:6] in (b"UL", b"CS", b"UI", b"DA", b"SH") or start[5:8] == b"\x00\x00\x00"

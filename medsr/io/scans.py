"""Which scans a folder holds: scan files by their endings, and folders of DICOM slices.

Only names are looked at, and for DICOM the header of one slice per folder. Reading a scan is
``medsr.io.load``'s work; upscaling what was found is ``medsr.infer.folder``'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medsr.io.inspect import SUFFIXES, suffix_of
from medsr.volume import SourceFormat


@dataclass(frozen=True)
class FoundScan:
    """One scan below a folder.

    Args:
        name: its path relative to that folder, with forward slashes; "." for the folder itself.
        path: the file or DICOM folder, for :func:`medsr.io.load`.
        format: kind of file.
        series: SeriesInstanceUID of its first slice, for DICOM; "" where that cannot be told.
    """

    name: str
    path: Path
    format: SourceFormat
    series: str = ""


def find_scans(folder: Path, *, leave_out: Sequence[Path] = ()) -> list[FoundScan]:
    """List the scans below a folder, sorted by name.

    A scan is a file with an ending that medsr reads, or a folder with a CT or MR slice directly in
    it, whatever else that folder holds. Hidden files and folders, links to folders and everything
    else (sidecar files, other DICOM objects) are passed over.

    Args:
        folder: where to search, at every depth.
        leave_out: folders that are not searched, such as those of results.
    """
    return sorted(_walk(folder, leave_out), key=lambda scan: scan.name)


def count_scans(
    folder: Path, *, leave_out: Sequence[Path] = ()
) -> Literal["none", "one", "several"]:
    """Say whether a folder stands for one DICOM series or for a number of scans.

    It stands for one where DICOM slices lie directly in it, or where all that is below it are
    slices of one series. A single scan file in a folder makes it a folder of scans all the same.

    Args:
        folder: where to search, at every depth, until the answer is certain.
        leave_out: folders that are not searched.
    """
    first: FoundScan | None = None
    for scan in _walk(folder, leave_out):
        if scan.name == ".":
            return "one"
        if scan.format != "dicom" or (first is not None and scan.series != first.series):
            return "several"
        first = scan
    return "none" if first is None else "one"


def _walk(folder: Path, leave_out: Sequence[Path]) -> Iterator[FoundScan]:
    """Yield scans folder by folder."""
    closed = {path.resolve() for path in leave_out}
    unreadable: list[str] = []
    for place, folders, names in os.walk(folder, onerror=lambda e: unreadable.append(e.filename)):
        here = Path(place)
        folders[:] = sorted(n for n in folders if _is_open(here / n, closed))
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        series = _series_among(file for file in files if suffix_of(file) is None)
        if series is not None:
            folders.clear()
            yield FoundScan(_name(here, folder), here, "dicom", series)
            continue
        for file in files:
            suffix = suffix_of(file)
            if suffix is not None:
                yield FoundScan(_name(file, folder), file, SUFFIXES[suffix])
    for place in unreadable:
        # Reading it fails, and says why.
        yield FoundScan(_name(Path(place), folder), Path(place), "dicom")


def _is_open(folder: Path, closed: set[Path]) -> bool:
    return not folder.name.startswith(".") and folder.resolve() not in closed


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _series_among(files: Iterator[Path]) -> str | None:
    """SeriesInstanceUID of the first CT or MR slice among files; None without one."""
    for file in files:
        from medsr.io.dicom_files import series_of

        series = series_of(file)
        if series is not None:
            return series
    return None

"""Which scans a folder holds: scan files by their endings, folders and zip archives of DICOM.

Only names are looked at, and for DICOM the header of one slice per folder or archive. Reading a
scan is ``medsr.io.load``'s work; upscaling what was found is ``medsr.infer.folder``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medsr.errors import InputError
from medsr.io.foreign import is_lost_link
from medsr.io.formats import FOLDERS, by_name_of, special_folder, suffix_of
from medsr.io.walk import walk
from medsr.volume import SourceFormat

ARCHIVE_SUFFIX = ".zip"
_TAR_SUFFIXES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class FoundScan:
    """One scan below a folder.

    Args:
        name: its path relative to that folder, with forward slashes; "." for the folder itself.
        path: the file, folder or archive, for :func:`medsr.io.load`.
        format: kind of file.
        series: SeriesInstanceUID of its first slice, for DICOM; "" where that cannot be told.
        kind: "file", "folder" or "archive"; "damaged" for what cannot be read as it is (a DICOM
            file, a tar archive, a link to nothing) and lies where no slice can be; "segmentation"
            for one of DICOM that lies there, which is refused.
    """

    name: str
    path: Path
    format: SourceFormat
    series: str = ""
    kind: Literal["file", "folder", "archive", "damaged", "segmentation"] = "file"


def find_scans(folder: Path, *, leave_out: Sequence[Path] = ()) -> list[FoundScan]:
    """List the scans below a folder, sorted by name.

    A scan is a file with an ending that medsr reads, or a folder with a CT or MR slice directly in
    it, whatever else that folder holds, or a zip archive with one in it. Of a folder whose only
    slices are damaged, the first of those is listed, so that reading it says why; so is a
    segmentation object of DICOM where no slice lies, an archive that cannot be opened, a tar
    archive of DICOM, and a link to nothing that may be one to a folder. Links to folders are
    followed, each folder once. Hidden files and folders and everything else (sidecar files, other
    DICOM objects) are passed over.

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
    slices of one series. A single scan file or archive in a folder makes it a folder of scans all
    the same; damaged slices that lie by themselves decide nothing.

    Args:
        folder: where to search, at every depth, until the answer is certain.
        leave_out: folders that are not searched.
    """
    first: FoundScan | None = None
    damaged = False
    for scan in _walk(folder, leave_out):
        if scan.name == ".":
            return "one"
        if scan.kind in ("damaged", "segmentation"):
            damaged |= scan.kind == "damaged"
            continue
        is_series = scan.kind == "folder" and scan.format == FOLDERS
        if not is_series or (first is not None and scan.series != first.series):
            return "several"
        first = scan
    return "one" if damaged or first is not None else "none"


def _walk(folder: Path, leave_out: Sequence[Path]) -> Iterator[FoundScan]:
    """Yield scans folder by folder."""
    closed = {path.resolve() for path in leave_out}
    closed -= {folder.resolve(), *folder.resolve().parents}  # these would leave nothing
    unreadable: list[str] = []
    for here, folders, names in walk(folder, onerror=lambda e: unreadable.append(e.filename)):
        special = special_folder(here)
        if special is not None:
            folders.clear()
            yield FoundScan(_name(here, folder), here, special.name, kind="folder")
            continue
        folders[:] = [name for name in folders if _is_open(here / name, closed)]
        files = [here / name for name in names if not name.startswith(".")]
        others = [file for file in files if suffix_of(file) is None]
        series, damaged = _series_among(file for file in others if not _is_zip(file))
        if series is not None:
            folders.clear()
            yield FoundScan(_name(here, folder), here, "dicom", series, "folder")
            continue
        if damaged is not None:
            yield FoundScan(_name(damaged, folder), damaged, "dicom", kind="damaged")
        for file in files:
            named = by_name_of(file)
            if named is not None:
                yield FoundScan(_name(file, folder), file, named.name)
            elif _is_zip(file) and _is_scan(file):
                yield FoundScan(_name(file, folder), file, "dicom", kind="archive")
            elif _is_barred(file) and file != damaged:
                yield FoundScan(_name(file, folder), file, "dicom", kind="damaged")
            elif _is_segmentation(file):
                yield FoundScan(_name(file, folder), file, "dicom", kind="segmentation")
    for place in unreadable:
        # Reading it fails, and says why.
        yield FoundScan(_name(Path(place), folder), Path(place), "dicom", kind="folder")


def _is_open(folder: Path, closed: set[Path]) -> bool:
    if folder.name.startswith("."):
        return False
    real = folder.resolve()
    return closed.isdisjoint((real, *real.parents))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _series_among(files: Iterator[Path]) -> tuple[str | None, Path | None]:
    """SeriesInstanceUID of the first CT or MR slice among files, and the first damaged one."""
    damaged: Path | None = None
    for file in files:
        from medsr.io.dicom.read.files import series_of

        series = series_of(file)
        if series:
            return series, damaged
        if series is not None and damaged is None:
            damaged = file
    return None, damaged


def _is_zip(file: Path) -> bool:
    return file.name.lower().endswith(ARCHIVE_SUFFIX)


def _is_barred(file: Path) -> bool:
    """Whether a file stands for a scan that cannot be read as it is.

    That is a tar archive of DICOM, or a link to nothing without an ending: to a folder, or to a
    file of DICOM.
    """
    if is_lost_link(file):
        return not file.suffix
    if not file.name.lower().endswith(_TAR_SUFFIXES):
        return False
    from medsr.io.dicom.read.files import is_packed

    return is_packed(file)


def _is_segmentation(file: Path) -> bool:
    from medsr.io.dicom.read.files import is_segmentation

    return is_segmentation(file)


def _is_scan(archive: Path) -> bool:
    """Whether an archive holds a CT or MR slice, or cannot be opened to see."""
    from medsr.io.dicom.read.files import holds_slices

    try:
        return holds_slices(archive)
    except InputError:
        return True

"""Which files a scan consists of, so that no output ever replaces one of them.

Files are compared by what they are on disk, so that links and the case of letters do not deceive.
Writers ask :func:`check_apart` whatever they were told about overwriting.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medsr.errors import SourceOverwriteError
from medsr.io.formats import by_name_of, suffix_of
from medsr.io.walk import walk

Identity = tuple[int, int]

_WRITTEN = (".json", ".png")  # by medsr into any folder, beside scans
_PAIR = {".hdr": (".img", ".img.gz"), ".img": (".hdr", ".hdr.gz")}


def identity(path: Path) -> Identity | None:
    """What a file or folder is, whatever it is called; None where there is nothing."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def files_of(scan: Path) -> list[Path]:
    """A scan file and what belongs to it: voxels beside their header, sidecars of NIfTI."""
    plain = Path(scan.name.removesuffix(".gz"))
    pair = [scan.with_name(plain.stem + end) for end in _PAIR.get(plain.suffix.lower(), ())]
    named = by_name_of(scan)
    return [scan, *pair, *([] if named is None else named.load().companions(scan))]


def check_apart(scan: Path, files: Iterable[Path] = (), folder: Path | None = None) -> None:
    """Refuse outputs that would replace a scan, or what belongs to it.

    Args:
        scan: a file, DICOM folder or archive.
        files: files to be written.
        folder: a folder to be written as a whole, for DICOM.

    Raises:
        SourceOverwriteError: one of them is the scan, its voxels, its sidecar or a slice of it, by
            whatever name, or ``folder`` is, holds or lies in the folder that is read.
    """
    closed, deep = _folder_of(scan)
    if folder is not None:
        _check_folder(folder, scan, closed if deep else None)
    there = {file: file for file in files}
    if folder is not None:
        there |= {place / name: folder for place, _, names in walk(folder) for name in names}
    overwritten = {identity(file): output for file, output in there.items()}
    if not overwritten.keys() - {None}:
        return
    own = [*files_of(scan), *(() if closed is None else _slices(closed, deep=deep))]
    for each in map(identity, own):
        if each is not None and each in overwritten:
            raise SourceOverwriteError(
                f"{overwritten[each]} is the scan itself, or holds or belongs to it; a source "
                "is never replaced, so choose another name"
            )


def _check_folder(folder: Path, scan: Path, closed: Path | None) -> None:
    whole, home = folder.resolve(), scan.resolve()
    folder_identity = identity(folder)
    if folder_identity is not None and folder_identity in map(identity, (home, *home.parents)):
        raise SourceOverwriteError(
            f"{folder} is or holds the scan itself; a source is never replaced, so choose another "
            "folder"
        )
    read = set() if closed is None else {identity(place) for place, _, _ in walk(closed)} - {None}
    if any(identity(place) in read for place in (whole, *whole.parents)):
        raise SourceOverwriteError(
            f"{folder} lies in the folder of the scan, whose images would be mixed with the "
            "result's; choose another folder"
        )


def _folder_of(scan: Path) -> tuple[Path | None, bool]:
    """The folder whose files are the scan, for DICOM, and whether it is read at every depth."""
    if scan.is_dir():
        return scan, True
    if suffix_of(scan) is not None or scan.suffix.lower() == ".zip" or not scan.is_file():
        return None, False
    return scan.parent, scan.name.upper() == "DICOMDIR"


def _slices(folder: Path, *, deep: bool) -> Iterable[Path]:
    """Files of a DICOM source, without those of kinds that medsr writes beside it."""
    for place, folders, names in walk(folder):
        for file in (place / name for name in names):
            if suffix_of(file) is None and file.suffix.lower() not in _WRITTEN:
                yield file
        if not deep:
            folders.clear()

"""What there is to do in a folder of scans: which scan becomes which output, and in which part.

Names only; nothing is read or computed here. ``medsr.infer.folder`` does the work.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medsr.errors import (
    InputNotFoundError,
    OutputExistsError,
    OutputNotWritableError,
    SourceOverwriteError,
    UnsupportedFormatError,
    UsageError,
)
from medsr.infer.options import UpscaleOptions
from medsr.infer.outputs import Outputs
from medsr.io.bids import derived_name, is_dataset
from medsr.io.dicom.options import DEFAULTS
from medsr.io.formats import find, readable, suffix_of
from medsr.io.scans import ARCHIVE_SUFFIX, FoundScan, find_scans
from medsr.io.source_files import check_apart, identity
from medsr.volume import SourceFormat


@dataclass(frozen=True)
class Places:
    """The folders that results of one kind go to, each with the structure of the input.

    Args:
        scans: The results.
        previews: A picture for each.
        uncertainty: A map of the expected error for each.
        report: The file that tells of all.
    """

    scans: Path
    previews: Path | None = None
    uncertainty: Path | None = None
    report: Path | None = None

    @property
    def folders(self) -> list[Path]:
        """All that are wanted."""
        wanted = (self.scans, self.previews, self.uncertainty)
        return [folder for folder in wanted if folder is not None]

    def check(self, folder: Path) -> None:
        """Refuse places that are no folders, or that mix results with each other or with scans.

        Args:
            folder: Where the scans are.

        Raises:
            InputNotFoundError: ``folder`` is no folder.
            UsageError: A place names a file, or is given twice.
            SourceOverwriteError: A place is or holds the folder of the scans.
            OutputError: A place cannot be made or is a file.
        """
        if not folder.is_dir():
            raise InputNotFoundError(f"{folder}: no such folder")
        for place in self.folders:
            if place.is_file():
                raise OutputExistsError(f"{place} is a file; choose the name of a folder")
            if not place.is_dir() and (suffix_of(place) or place.suffix.lower() == ".png"):
                raise UsageError(
                    f"{place} names one file and {folder} is a folder of scans; give the name of "
                    "a folder (or --series for one DICOM series)"
                )
            home = folder.resolve()
            if place.exists() and any(place.samefile(above) for above in (home, *home.parents)):
                raise SourceOverwriteError(
                    f"{place} holds the scans themselves; give the results another folder"
                )
            if not place.absolute().parent.is_dir():
                raise OutputNotWritableError(
                    f"{place}: its folder {place.parent} does not exist; create it first"
                )
        if max(Counter(place.resolve() for place in self.folders).values()) > 1:
            raise UsageError("two kinds of results go to one folder; give each its own")


@dataclass(frozen=True)
class Job:
    """One scan and where its results go.

    Args:
        name: Its path relative to the folder, with forward slashes.
        path: Its file, DICOM folder or archive.
        outputs: What to write.
        result: The result's path relative to the folder of the results, likewise.
    """

    name: str
    path: Path
    outputs: Outputs
    result: str

    @property
    def is_done(self) -> bool:
        """Whether the result is there; since outputs are atomic, it is whole then."""
        scan = self.outputs.scan
        if scan is None or not scan.is_dir():
            return scan is not None and scan.exists()
        return any(scan.iterdir())


def parse_part(text: str | None) -> tuple[int, int]:
    """Read ``2/8`` as part 2 of 8; None is the whole.

    Raises:
        UsageError: The text is anything else, or the part is not among them.
    """
    if text is None:
        return (1, 1)
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts:
        raise UsageError(f"part {text!r}: write which of how many, such as 2/8, from 1/8 to 8/8")
    return part, parts


def list_jobs(
    folder: Path,
    places: Places,
    options: UpscaleOptions,
    *,
    part: str | None = None,
) -> list[Job]:
    """List the scans below a folder and where their results go, sorted by name.

    Args:
        folder: Where the scans are; the places of results below it are left out.
        places: Where the results go.
        options: Format of all results (that of each scan where None), how those in DICOM are
            written, and whether what exists may be replaced.
        part: Such as ``"2/8"``: every eighth scan from the second on, so that the parts share the
            scans out between them, each the same on every call.

    Raises:
        UsageError: ``folder`` is a DICOM series itself, two scans would have one output, or
            de-identification is asked for and a result would not be DICOM.
        SourceOverwriteError: An output or the report is a scan, or lies in one.
        UnsupportedFormatError: There is no scan.
    """
    first, parts = parse_part(part)
    scans_found = find_scans(folder, leave_out=places.folders)
    if not scans_found:
        raise UnsupportedFormatError(f"{folder}: no scan in it; medsr reads {readable()}")
    if scans_found[0].name == ".":
        raise UsageError(
            f"{folder} holds DICOM slices itself and is one scan; give the folder above it"
        )
    format = options.output_format
    names = output_names(scans_found, format, in_bids=is_dataset(folder))
    others = [scan.name for scan in scans_found if (format or scan.format) != "dicom"]
    if options.dicom.deidentify and others:
        raise UsageError(
            f"only DICOM output is de-identified, and {others[0]} would be written in another "
            "format; leave it out, or leave out --deidentify"
        )
    jobs = [
        Job(scan.name, scan.path, _outputs(scan, name, places, options), name)
        for scan, name in list(zip(scans_found, names, strict=True))[first - 1 :: parts]
    ]
    _check_sources(scans_found, jobs, places.report)
    return jobs


def _check_sources(found: Sequence[FoundScan], jobs: Sequence[Job], report: Path | None) -> None:
    """Refuse outputs that are a scan of the folder, or lie in one: any scan, not only their own."""
    for scan in found:
        check_apart(scan.path, [] if report is None else [report])
    scans = {identity(scan.path) for scan in found} - {None}
    for job in jobs:
        outputs = job.outputs
        for path in filter(None, (outputs.scan, outputs.preview, outputs.uncertainty)):
            around = (path.resolve(), *path.resolve().parents)
            if any(identity(place) in scans for place in around):
                raise SourceOverwriteError(
                    f"{path} is one of the scans or lies in one; a source is never replaced, so "
                    "choose another folder"
                )


def output_names(
    found: Sequence[FoundScan], format: SourceFormat | None = None, *, in_bids: bool = False
) -> list[str]:
    """The names of the results: those of the scans, but for endings that medsr does not write.

    Args:
        found: The scans.
        format: Of the results; that of each scan where None.
        in_bids: Whether they are of a BIDS dataset, whose derivatives say ``desc-sr``.

    Raises:
        UsageError: Two scans would have the same output.
    """
    taken = {scan.name for scan in found}
    names = []
    for scan in found:
        suffix = ARCHIVE_SUFFIX if scan.kind == "archive" else suffix_of(Path(scan.name))
        name = scan.name
        if format not in (None, scan.format):
            # b.nii.gz becomes b.nrrd; the folder b becomes b.nii.gz.
            stem = name if suffix is None else name[: -len(suffix)]
            name = stem + "".join(find(format).endings[:1])
        elif scan.kind == "archive":
            # b.zip becomes the folder b; beside another b it becomes b.dicom.
            stem = name[: -len(ARCHIVE_SUFFIX)]
            name = f"{stem}.dicom" if stem in taken or suffix_of(Path(stem)) else stem
        elif scan.format == "dicom":
            # A folder whose name ends like a file's.
            name = scan.name if suffix is None else f"{scan.name}.dicom"
        elif suffix is not None and suffix not in find(scan.format).endings:
            # b.mhd becomes b.mha; beside another b.mha it becomes b.mhd.mha.
            written = find(scan.format).endings[0]
            name = scan.name[: -len(suffix)] + written
            name = scan.name + written if name in taken else name
        elif in_bids and scan.format == "nifti":
            name = derived_name(name)
        names.append(name)
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(f"two scans would both become {repeated[0]}; rename one of them")
    return names


def _outputs(
    scan: FoundScan,
    name: str,
    places: Places,
    options: UpscaleOptions,
) -> Outputs:
    kind = options.output_format or scan.format
    picture = None if places.previews is None else places.previews / f"{name}.png"
    sigma = None
    if places.uncertainty is not None:
        # DICOM has no place for such a map.
        sigma = places.uncertainty / (f"{name}.nii.gz" if kind == "dicom" else name)
    return Outputs(
        scan=places.scans / name,
        preview=picture,
        uncertainty=sigma,
        overwrite=options.overwrite,
        format=kind,
        dicom=options.dicom if kind == "dicom" else DEFAULTS,
    )

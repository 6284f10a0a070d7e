"""Reading and writing scans: ``load``, ``save`` and ``inspect``, whatever the format.

Here the format is found and what holds for every format is done (slices, finite values, modality,
units, atomic output). How a format is read lives in its own module, imported when needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from medsr.errors import ModalityError, OutputFormatError, UsageError
from medsr.io.allow import parse_allowances
from medsr.io.atomic import atomic_file, atomic_folder, check_output, check_replaceable
from medsr.io.checks import FINITE, check_finite, check_integers, check_slices
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.inspect import (
    SUFFIXES,
    Inspection,
    ListedVolume,
    format_of,
    inspect,
    list_volumes,
    suffix_of,
)
from medsr.io.modality import settled
from medsr.io.source_files import check_apart
from medsr.volume import Derivation, SourceFormat, Volume

__all__ = [
    "Inspection",
    "ListedVolume",
    "check_output",
    "check_writable",
    "inspect",
    "list_volumes",
    "load",
    "name_output",
    "output_format",
    "parse_format",
    "save",
    "saving",
]

logger = logging.getLogger(__name__)

WRITABLE: dict[SourceFormat, tuple[str, ...]] = {
    "nifti": (".nii.gz", ".nii"),
    "nrrd": (".nrrd",),
    "mha": (".mha",),
    "mgz": (".mgz", ".mgh"),
    "dicom": (),
}
# "scan.png" asks for a format; "1.2.840" or "visit.2" is the name of a folder.
_LOOKS_LIKE_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{1,4}$")


def load(
    path: str | Path,
    *,
    modality: Literal["auto", "MR", "CT"] = "auto",
    series: str | None = None,
    allow: Collection[str] = (),
) -> Volume:
    """Read a scan.

    Args:
        path: a NIfTI, NRRD, MetaImage or MGZ file, a folder or zip archive of DICOM files, a
            DICOMDIR, or one DICOM file, which stands for its series.
        modality: what the scan is; "auto" takes DICOM's word and judges other formats by their
            values and BIDS's names, see :mod:`medsr.io.modality`.
        series: SeriesInstanceUID, for a DICOM source that holds several, or the name or number
            that :func:`list_volumes` gives a volume.
        allow: what may be done to a DICOM series that is refused otherwise, any of "gaps" and
            "tilt" (resample onto a regular grid), "duplicates" (take the first of different
            slices at one place) and, for every format, "few-slices" (fewer than four).
            "labels" is for :func:`medsr.upscale`; a label image is read in any case.

    Returns:
        The volume with its array axes as stored, in native units (HU for CT): integers as such
        where the file holds them unscaled, float32 otherwise. Its modality is None where it is in
        doubt; :func:`medsr.upscale` refuses that.

    Raises:
        InputError: one of its family, each with its own exit code.
        UsageError: if ``series`` is given for another format than DICOM, or what shall be allowed
            is not known.
    """
    path = Path(path)
    allowed = parse_allowances(allow)
    if modality not in ("auto", "MR", "CT"):
        raise UsageError(f"modality {modality!r} is not known; choose auto, MR or CT")
    kind = format_of(path)
    if kind == "dicom":
        from medsr.io.dicom.read.series import read_dicom

        volume = read_dicom(path, series=series, allow=allowed)
    elif series is not None:
        raise UsageError(f"{path}: a series can be chosen in DICOM only, and this is {kind}")
    elif kind in ("nifti", "mgz"):
        from medsr.io.nifti import read_nifti

        volume = read_nifti(path)
    else:
        from medsr.io.itk import read_itk

        volume = read_itk(path)
    check_slices(volume.geometry, str(path), few="few-slices" in allowed)
    check_finite(volume.data, str(path))
    if volume.data.dtype.itemsize == 8:
        low, high = float(volume.data.min()), float(volume.data.max())
        check_integers(low, high, volume.data.dtype, str(path))
    return _with_modality(volume, modality)


def save(
    volume: Volume,
    path: str | Path,
    *,
    overwrite: bool = False,
    format: SourceFormat | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions = DEFAULTS,
) -> Path:
    """Write a scan, whole or not at all.

    Integer types are rounded half to even and saturate; the source's stored type, slope and
    intercept are kept where the format can hold them.

    Args:
        volume: what to write.
        path: its ending chooses the format (.nii, .nii.gz, .nrrd, .mha, .mgz); a name without
            one is a DICOM folder.
        overwrite: whether an existing output may be replaced.
        format: the format, if the name shall not decide.
        derivation: how the volume was computed; recorded where the format has a place for it.
        dicom: how a DICOM series is written; other formats ignore it.

    Returns:
        The path written.

    Raises:
        OutputFormatError: if the format is unknown or cannot hold the volume.
        OutputExistsError, OutputNotWritableError: see ``medsr.io.atomic``.
        SourceOverwriteError: if ``path`` is the scan that the volume came from.
        NonFiniteError: if the voxels hold NaN or infinity.
    """
    path = Path(path)
    with saving(
        volume, path, overwrite=overwrite, format=format, derivation=derivation, dicom=dicom
    ):
        return path


@contextmanager
def saving(
    volume: Volume,
    path: Path,
    *,
    overwrite: bool = False,
    format: SourceFormat | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions = DEFAULTS,
) -> Iterator[None]:
    """Write a scan under a temporary name, which becomes ``path`` when the block ends well.

    So several outputs can appear together, or none of them. Arguments and errors are those of
    :func:`save`.
    """
    kind = output_format(path, format=format)
    check_no_source(volume, path, kind)
    check_output(path, overwrite=overwrite)
    check_finite(volume.data, "the volume to be written", largest=FINITE)
    if kind == "dicom":
        from medsr.io.dicom.write.classic import write_dicom

        with atomic_folder(path, overwrite=overwrite, replaceable=is_dicom_name) as folder:
            write_dicom(volume, folder, derivation=derivation, options=dicom)
            yield
        return
    suffix = suffix_of(path) if suffix_of(path) in WRITABLE[kind] else WRITABLE[kind][0]
    with atomic_file(path, overwrite=overwrite, suffix=suffix) as file:
        if kind == "nifti":
            from medsr.io.nifti_write import write_nifti

            stored = write_nifti(volume, file, derivation)
        elif kind == "mgz":
            from medsr.io.nifti_write import write_mgz

            stored = write_mgz(volume, file)
        else:
            from medsr.io.itk import write_itk

            stored = write_itk(volume, file)
        for note in stored.notes:
            logger.info("%s", note)
        del stored  # the numbers as stored may be large, and are in the file
        yield


def output_format(path: str | Path, *, format: SourceFormat | None = None) -> SourceFormat:
    """The format that :func:`save` will write to ``path``.

    Raises:
        OutputFormatError: if the name asks for a format that medsr does not write, or for
            another one than ``format``.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if format is not None and format not in WRITABLE:
        raise OutputFormatError(f"format {format!r} is not known; choose {', '.join(WRITABLE)}")
    if suffix is None:
        if format is not None:
            return format
        if _LOOKS_LIKE_SUFFIX.search(path.name.lower()) and not path.is_dir():
            raise OutputFormatError(_unknown_output(path))
        return "dicom"
    named = SUFFIXES[suffix]
    if suffix not in WRITABLE[named]:
        raise OutputFormatError(_unknown_output(path))
    if format is not None and format != named:
        raise OutputFormatError(f"{path}: the name says {named} and the format asked for {format}")
    return named


def parse_format(name: str | None) -> SourceFormat | None:
    """A format that medsr writes, by the name that a user typed; None stays None.

    Raises:
        OutputFormatError: if it is none of them.
    """
    for known in WRITABLE:
        if name == known:
            return known
    if name is not None:
        raise OutputFormatError(f"format {name!r} is not known; choose {', '.join(WRITABLE)}")
    return None


def name_output(path: Path, format: SourceFormat | None) -> Path:
    """The name of an output whose format was asked for: its ending is added where there is none.

    Example:
        >>> name_output(Path("sharp"), "nifti").name
        'sharp.nii.gz'
        >>> name_output(Path("sharp.nii"), "nifti").name, name_output(Path("sharp"), "dicom").name
        ('sharp.nii', 'sharp')
    """
    if format is None or suffix_of(path) is not None or not WRITABLE[format]:
        return path
    return path.with_name(path.name + WRITABLE[format][0])


def check_no_source(volume: Volume, path: Path, kind: SourceFormat) -> None:
    """Refuse to write a volume over the scan that it came from.

    Raises:
        SourceOverwriteError: See :func:`medsr.io.source_files.check_apart`.
    """
    source = None if volume.source is None else volume.source.path
    if source is not None and source.exists():
        is_folder = kind == "dicom"
        check_apart(source, () if is_folder else (path,), path if is_folder else None)


def check_writable(
    volume: Volume,
    path: str | Path,
    *,
    format: SourceFormat | None = None,
    dicom: DicomOptions = DEFAULTS,
) -> None:
    """Refuse an output that :func:`save` would refuse in the end, before anything is computed.

    Raises:
        OutputFormatError: if ``path`` is a DICOM folder and the volume did not come from DICOM,
            or cannot be of the layout asked for.
        OutputExistsError: if that folder holds files that overwriting would delete.
    """
    if output_format(path, format=format) == "dicom":
        from medsr.io.dicom.write.classic import check_writable as check_source

        check_source(volume, dicom)
        check_replaceable(Path(path), is_dicom_name)


def _unknown_output(path: Path) -> str:
    endings = ", ".join(suffix for suffixes in WRITABLE.values() for suffix in suffixes)
    return f"{path}: cannot write this format; use {endings}, or a plain name for a DICOM folder"


def _with_modality(volume: Volume, asked: Literal["auto", "MR", "CT"]) -> Volume:
    """Settle modality and units; the caller's word goes before the file's."""
    with suppress(ModalityError):
        return settled(volume, None if asked == "auto" else asked)[0]
    return volume


def is_dicom_name(entry: Path) -> bool:
    """Whether an entry of an output folder is one that a DICOM writer leaves."""
    return entry.is_file() and entry.suffix.lower() in (".dcm", "")

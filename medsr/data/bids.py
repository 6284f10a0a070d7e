"""A BIDS dataset as a cohort: which of its files are scans, and their patient, contrast and site.

Structural MR below ``anat`` and CT below ``ct`` are taken, raw files only: what carries an entity
of processing (``desc``, ``space``, ``res``, …) or lies in ``derivatives`` was made of another scan,
which would then count twice. Names are taken apart by ``medsr.io.bids``. A dataset has no splits.

Source: BIDS specification 1.10, "Magnetic Resonance Imaging" and "Participants file".
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from medsr.data.manifest import UNSPLIT, ScanRecord
from medsr.errors import CohortError, MedsrError
from medsr.io import inspect
from medsr.io.bids import BidsName, is_dataset, read_sidecar
from medsr.io.foreign import is_lost_link
from medsr.volume import Modality

logger = logging.getLogger(__name__)

MR_SUFFIXES = frozenset(
    {"T1w", "T2w", "FLAIR", "PDw", "PDT2", "T2starw", "inplaneT1", "inplaneT2", "angio", "T1rho"}
)
CT_SUFFIXES = frozenset({"ct", "CT"})
_PROCESSED = frozenset({"desc", "space", "res", "den", "label", "split", "atlas"})
_SITE_COLUMNS = ("site", "site_id", "scanner")
_PLACE_COLUMNS = ("institution", "institution_name", "hospital")
_SHARP = 1.5
"""Axes whose spacing is up to so many times the finest count as sharp."""
_LARGEST_BYTES = 16 << 20


def is_bids(folder: Path) -> bool:
    """Whether a folder looks like a dataset: it says so, or holds subjects."""
    subjects = folder.glob("sub-*")
    return is_dataset(folder) or any(path.is_dir() or path.is_symlink() for path in subjects)


def read_bids(folder: str | Path) -> tuple[ScanRecord, ...]:
    """Read a BIDS dataset as a cohort.

    Patients are subjects (``sub-01``); several sessions are of one patient. The contrast is the
    suffix. The site is that of ``participants.tsv`` (``site``, ``site_id`` or ``scanner``) or a
    pseudonym of the institution that it or the sidecar names. Spacing and shape come from the
    header; axes of up to 1.5 times the finest spacing count as sharp.

    Args:
        folder: The dataset's root.

    Returns:
        The scans in the order of their paths, all of the split ``all``.

    Raises:
        CohortError: There is no scan, or one whose file is not there (an annex not fetched) or
            whose header cannot be read.
    """
    root = Path(folder)
    sites = _sites(root / "participants.tsv")
    records: list[ScanRecord] = []
    absent = _lost_folders(root)
    subjects = sorted(path for path in root.glob("sub-*") if path.is_dir())
    for subject in subjects:
        for path, name, modality in _scans(subject):
            if not path.exists():
                absent += 1
                continue
            records.append(_record(path, name, modality, subject.name, sites, len(records) + 1))
    if absent:
        raise CohortError(
            f"{root}: {absent} scans are links to files or folders that are not there; fetch them, "
            "for example with datalad get, and read the dataset again"
        )
    if not records:
        raise CohortError(
            f"{root}: no raw structural scan below sub-*/anat or sub-*/ct; give the root of a BIDS "
            "dataset, or a CSV manifest"
        )
    _tell_absent(sites, {subject.name for subject in subjects})
    return tuple(records)


def _tell_absent(participants: Collection[str], subjects: Collection[str]) -> None:
    """Warn of participants without a folder, whose identifiers may lack the prefix."""
    gone = [name for name in participants if not {name, f"sub-{name}"} & set(subjects)]
    if gone:
        logger.warning(
            "%d of %d participants of participants.tsv have no folder in the dataset and are no "
            "part of the cohort",
            len(gone),
            len(participants),
        )


def _lost_folders(root: Path) -> int:
    """How many subjects, sessions and folders of scans are links to nothing."""
    levels = {
        "sub-*": ("sub-*",),
        "sub-*/*": ("ses-*", "anat", "ct"),
        "sub-*/ses-*/*": ("anat", "ct"),
    }
    return sum(
        is_lost_link(path) and any(path.match(name) for name in names)
        for level, names in levels.items()
        for path in root.glob(level)
    )


def _scans(subject: Path) -> Iterator[tuple[Path, BidsName, Modality]]:
    """The raw scans of a subject, those of sessions included."""
    for level in (subject, *sorted(path for path in subject.glob("ses-*") if path.is_dir())):
        for path in sorted((*level.glob("anat/*.nii*"), *level.glob("ct/*.nii*"))):
            name = BidsName.parse(path.name)
            if name is None or name.entities[:1] != (subject.name,):
                continue
            keys = {entity.split("-")[0]: entity for entity in name.entities}
            if _PROCESSED & keys.keys() or keys.get("part", "part-mag") != "part-mag":
                continue
            if name.suffix in CT_SUFFIXES:
                yield path, name, "CT"
            elif name.suffix in MR_SUFFIXES and path.parent.name == "anat":
                yield path, name, "MR"


def _record(
    path: Path,
    name: BidsName,
    modality: Modality,
    subject: str,
    sites: Mapping[str, str],
    number: int,
) -> ScanRecord:
    try:
        seen = inspect(path)
    except MedsrError as error:
        raise CohortError(
            f"scan {number} of the dataset, in the order of paths, has a header that cannot be "
            f"read ({type(error).__name__}); mend it or take it out"
        ) from error
    finest = min(seen.spacing_mm)
    x, y, z = (round(float(value), 4) for value in seen.spacing_mm)
    sharp = (a for a, mm in zip("xyz", seen.spacing_mm, strict=True) if mm <= _SHARP * finest)
    return ScanRecord(
        path=path.absolute(),
        split=UNSPLIT,
        patient_id=subject,
        modality=modality,
        contrast="" if modality == "CT" else name.suffix,
        spacing_mm=(x, y, z),
        shape=seen.shape,
        sharp_axes="".join(sharp),
        site=sites.get(subject) or _place((read_sidecar(path) or {}).get("InstitutionName")),
    )


def _sites(table: Path) -> dict[str, str]:
    """Subject to site, as far as ``participants.tsv`` tells."""
    if not table.is_file():
        return {}
    try:
        if table.stat().st_size > _LARGEST_BYTES:
            raise CohortError(f"{table.name} is larger than a table of participants can be")
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{table.name} cannot be read; write it as UTF-8 with tabs") from error
    entities: dict[str, str] = {}
    for row in rows:
        cells = {
            key.strip().lower(): value.strip()
            for key, value in row.items()
            if isinstance(key, str) and isinstance(value, str)
        }
        subject = cells.get("participant_id", "")
        coded = next((_told(cells.get(column)) for column in _SITE_COLUMNS if column in cells), "")
        named = next(
            (_place(cells.get(column)) for column in _PLACE_COLUMNS if column in cells), ""
        )
        if subject:
            entities[subject] = coded or named
    return entities


def _told(value: object) -> str:
    """A value of a table, without the ways to say that there is none."""
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    return "" if text.lower() in ("", "n/a", "na", "none", "nan") else text


def _place(value: object) -> str:
    """A pseudonym of an institution; its name is not kept."""
    text = _told(value)
    if not text:
        return ""
    return "site-" + hashlib.blake2b(text.casefold().encode(), digest_size=3).hexdigest()

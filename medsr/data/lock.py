"""The lock file: a cohort's split, frozen, with a hash of every scan.

A lock is JSON beside the scans it names (paths are relative to it). Reading one costs nothing;
:func:`verify` hashes the scans of one split and refuses what is missing or has changed, so that
scores of two dates are of the same scans. How patients are assigned is in ``split``, how a cohort
of any kind is read in ``cohort``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from medsr._version import __version__
from medsr.data.manifest import ScanRecord
from medsr.data.split import METHOD, strata
from medsr.errors import CohortChangedError, CohortError
from medsr.io.atomic import atomic_file
from medsr.io.walk import walk
from medsr.types import Progress
from medsr.volume import Modality

SCHEMA = 1
KIND = "medsr cohort lock"
_LARGEST_BYTES = 256 << 20
_CONFIG = ConfigDict(extra="forbid")

"""Called with (done, in all, what is being done)."""


@dataclass(frozen=True, config=_CONFIG)
class FileHash:
    """A scan's file or folder as it was.

    Attributes:
        path: Relative to the lock, with forward slashes.
        sha256: Of the file; of a folder, of the names and hashes of its files in their order.
        bytes: Size, of a folder the sum.

    Examples:
        >>> from medsr.data.lock import FileHash
        >>> FileHash("mr/p1.nii.gz", sha256="9f2c" * 16, bytes=5_242_880).path
        'mr/p1.nii.gz'
    """

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, config=_CONFIG)
class LockedScan:
    """A scan of the cohort; fields as in :class:`medsr.data.manifest.ScanRecord`.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.lock import FileHash, LockedScan
        >>> file = FileHash("mr/p1.nii.gz", sha256="9f2c" * 16, bytes=5_242_880)
        >>> scan = LockedScan(file, split="dev", patient_id="p1", modality="MR")
        >>> scan.record(Path("cohort")).path.as_posix()
        'cohort/mr/p1.nii.gz'
    """

    file: FileHash
    split: str
    patient_id: str
    modality: Modality
    contrast: str = ""
    site: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    shape: tuple[int, int, int] | None = None
    sharp_axes: str = "xyz"
    lr: FileHash | None = None
    region: str = ""

    def record(self, folder: Path) -> ScanRecord:
        """The scan as cohorts have it, its paths below the lock's folder."""
        return ScanRecord(
            path=_place(folder, self.file),
            split=self.split,
            patient_id=self.patient_id,
            modality=self.modality,
            contrast=self.contrast,
            spacing_mm=self.spacing_mm,
            shape=self.shape,
            sharp_axes=self.sharp_axes,
            site=self.site,
            lr_path=None if self.lr is None else _place(folder, self.lr),
            region=self.region,
        )


@dataclass(frozen=True, config=_CONFIG)
class Stratum:
    """How one kind of patient went to the splits.

    Attributes:
        stratum: Modality, contrast and site of the patients' scans.
        patients: Number by split.
        scans: Number by split.

    Examples:
        >>> from medsr.data.lock import Stratum
        >>> kind = Stratum("MR/T1w", patients={"train": 8, "dev": 2}, scans={"train": 11, "dev": 3})
        >>> sum(kind.scans.values())
        14
    """

    stratum: str
    patients: dict[str, int]
    scans: dict[str, int]


@dataclass(frozen=True, config=_CONFIG)
class Lock:
    """The content of a lock file.

    Attributes:
        kind: Says what the file is.
        schema: Version of the format.
        medsr: Version that wrote it.
        method: How patients were assigned, in words.
        seed: Key of the hash; None where the cohort's own splits were kept.
        fractions: Share of each split that was aimed at; empty where splits were kept.
        strata: What came of it.
        scans: The cohort.

    Examples:
        >>> from medsr.data.lock import FileHash, Lock, LockedScan
        >>> file = FileHash("mr/p1.nii.gz", sha256="9f2c" * 16, bytes=5_242_880)
        >>> lock = Lock(
        ...     kind="medsr cohort lock",
        ...     schema=1,
        ...     medsr="0.1.0",
        ...     method="splits of the manifest",
        ...     seed=None,
        ...     fractions={},
        ...     strata=(),
        ...     scans=(LockedScan(file, split="dev", patient_id="p1", modality="MR"),),
        ... )
        >>> lock.splits()
        {'p1': 'dev'}
    """

    kind: Literal["medsr cohort lock"]
    schema: Literal[1]
    medsr: str
    method: str
    seed: int | None
    fractions: dict[str, float]
    strata: tuple[Stratum, ...]
    scans: tuple[LockedScan, ...]

    def splits(self) -> dict[str, str]:
        """Patient to split."""
        return {scan.patient_id: scan.split for scan in self.scans}


_LOCK: TypeAdapter[Lock] = TypeAdapter(Lock)


def make_lock(
    records: Sequence[ScanRecord],
    folder: Path,
    *,
    seed: int | None,
    fractions: Mapping[str, float],
    progress: Progress | None = None,
) -> Lock:
    """Freeze a cohort that has been split.

    Args:
        records: The cohort with its splits.
        folder: Where the lock will lie.
        seed: Seed of the split; None where the cohort brought its own.
        fractions: Fractions of the split; empty where the cohort brought its own.
        progress: Told of every scan before it is hashed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.lock import make_lock
        >>> from medsr.data.manifest import ScanRecord
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan = Path(folder, "p1.nii.gz")
        ...     _ = scan.write_bytes(b"a scan")
        ...     records = [ScanRecord(scan, "dev", "p1", "MR")]
        ...     lock = make_lock(records, Path(folder), seed=None, fractions={})
        >>> lock.scans[0].file.path, lock.scans[0].file.bytes
        ('p1.nii.gz', 6)
    """
    scans = []
    for number, record in enumerate(records):
        if progress is not None:
            progress(number, len(records), "hashing")
        scans.append(
            LockedScan(
                file=_hash(record.path, folder),
                split=record.split,
                patient_id=record.patient_id,
                modality=record.modality,
                contrast=record.contrast,
                site=record.site,
                spacing_mm=record.spacing_mm,
                shape=record.shape,
                sharp_axes=record.sharp_axes,
                lr=None if record.lr_path is None else _hash(record.lr_path, folder),
                region=record.region,
            )
        )
    return Lock(
        kind="medsr cohort lock",
        schema=1,
        medsr=__version__,
        method=METHOD if seed is not None else "the splits that the cohort named",
        seed=seed,
        fractions=dict(fractions),
        strata=table(records),
        scans=tuple(scans),
    )


def table(records: Sequence[ScanRecord]) -> tuple[Stratum, ...]:
    """Count patients and scans by stratum and split.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.lock import table
        >>> from medsr.data.manifest import ScanRecord
        >>> scans = [ScanRecord(Path(f"p{n}.nii.gz"), "dev", f"p{n}", "MR") for n in range(3)]
        >>> [(row.stratum, row.patients) for row in table(scans)]
        [('MR', {'dev': 3})]
    """
    stratum = strata(records)
    splits = list(dict.fromkeys(record.split for record in records))
    patients = Counter((stratum[p], s) for p, s in {(r.patient_id, r.split) for r in records})
    scans = Counter((stratum[r.patient_id], r.split) for r in records)
    return tuple(
        Stratum(
            name,
            {split: patients[name, split] for split in splits},
            {split: scans[name, split] for split in splits},
        )
        for name in sorted(set(stratum.values()))
    )


def write_lock(lock: Lock, path: Path, *, overwrite: bool = False) -> Path:
    """Write a lock file, whole or not at all.

    Raises:
        OutputError: It is there already, or cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.lock import make_lock, read_lock, write_lock
        >>> from medsr.data.manifest import ScanRecord
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan = Path(folder, "p1.nii.gz")
        ...     _ = scan.write_bytes(b"a scan")
        ...     records = [ScanRecord(scan, "dev", "p1", "MR")]
        ...     lock = make_lock(records, Path(folder), seed=None, fractions={})
        ...     file = write_lock(lock, Path(folder, "cohort.lock.json"))
        ...     read_lock(file) == lock
        True
    """
    text = json.dumps(asdict(lock), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_lock(path: str | Path) -> Lock:
    """Read a lock file; no scan is looked at.

    Raises:
        CohortError: It is unreadable, of another kind or version, or has a patient in two splits.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.lock import read_lock
        >>> from medsr.errors import CohortError
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "cohort.lock.json")
        ...     _ = file.write_text("{}")
        ...     try:
        ...         read_lock(file)
        ...     except CohortError:
        ...         print("this is no lock file")
        this is no lock file
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise CohortError(f"{path}: larger than a lock file can be")
        lock = _LOCK.validate_json(path.read_bytes())
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error.strerror}); give a lock file") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise CohortError(
            f"{path}: no lock file of this version, {key}: {first['msg']}; make one with medsr "
            "cohort split"
        ) from error
    split_of: dict[str, str] = {}
    for number, scan in enumerate(lock.scans, start=1):
        if split_of.setdefault(scan.patient_id, scan.split) != scan.split:
            raise CohortError(
                f"{path}: the patient of scan {number} (split {scan.split}) stands also in split "
                f"{split_of[scan.patient_id]}; the file was changed by hand: make it again"
            )
    if not lock.scans:
        raise CohortError(f"{path}: the lock holds no scan; make it again")
    return lock


def verify(
    lock: Lock,
    path: Path,
    *,
    split: str | None = None,
    only: Collection[Path] | None = None,
    progress: Progress | None = None,
) -> int:
    """Check that the scans are those that were locked, by size and hash.

    Args:
        lock: Content of the lock file.
        path: The lock file.
        split: Only scans of this split; all where None.
        only: Only these scans; all where None.
        progress: Told of every scan before it is hashed.

    Returns:
        How many scans were checked.

    Raises:
        CohortChangedError: Any is missing or has changed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.lock import make_lock, verify
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.errors import CohortChangedError
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan, file = Path(folder, "p1.nii.gz"), Path(folder, "cohort.lock.json")
        ...     _ = scan.write_bytes(b"a scan")
        ...     records = [ScanRecord(scan, "dev", "p1", "MR")]
        ...     lock = make_lock(records, Path(folder), seed=None, fractions={})
        ...     print(verify(lock, file), "scan as it was locked")
        ...     _ = scan.write_bytes(b"another scan")
        ...     try:
        ...         verify(lock, file)
        ...     except CohortChangedError:
        ...         print("a scan has changed")
        1 scan as it was locked
        a scan has changed
    """
    folder = path.absolute().parent
    chosen = [
        scan
        for scan in lock.scans
        if split in (None, scan.split) and (only is None or _place(folder, scan.file) in only)
    ]
    missing: list[str] = []
    changed: list[str] = []
    for number, scan in enumerate(chosen):
        if progress is not None:
            progress(number, len(chosen), "verifying")
        for told in filter(None, (scan.file, scan.lr)):
            place = _place(folder, told)
            if not place.exists():
                missing.append(told.path)
            elif _size(place) != told.bytes or _digest(place) != told.sha256:
                changed.append(told.path)
    if missing or changed:
        problems = [f"{len(missing)} missing"] * bool(missing)
        problems += [f"{len(changed)} changed"] * bool(changed)
        raise CohortChangedError(
            f"{path}: of {len(chosen)} scans {' and '.join(problems)} since they were locked, the "
            f"first {(missing + changed)[0]}; bring them back, or lock the cohort again with "
            "medsr cohort split --extend"
        )
    return len(chosen)


def _place(folder: Path, told: FileHash) -> Path:
    return Path(os.path.normpath(folder / told.path))


def _hash(path: Path, folder: Path) -> FileHash:
    relative = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    try:
        return FileHash(relative, _digest(path), _size(path))
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error.strerror})") from error


def _files(path: Path) -> list[Path]:
    files = (place / name for place, _, names in walk(path) for name in names)
    return sorted(file for file in files if file.is_file())


def _size(path: Path) -> int:
    files = _files(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _digest(path: Path) -> str:
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    whole = hashlib.sha256()
    for file in _files(path):
        whole.update(f"{file.relative_to(path).as_posix()}\0{_digest(file)}\n".encode())
    return whole.hexdigest()

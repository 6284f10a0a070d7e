"""A cohort of any kind, read and frozen: a CSV manifest, a BIDS dataset or a lock file.

Each kind has its own module (``manifest``, ``bids``, ``lock``). Here a cohort is also split and
frozen. ``leaks`` looks for patients in two splits under two names, ``overlap`` for a model's
training patients.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from medsr.data.bids import is_bids, read_bids
from medsr.data.lock import Lock, make_lock, read_lock, verify
from medsr.data.manifest import UNSPLIT, ScanRecord, read_manifest, require_files
from medsr.data.split import FRACTIONS, apply_split, split_patients
from medsr.errors import CohortError
from medsr.types import Progress

logger = logging.getLogger(__name__)


def read_cohort(
    path: str | Path,
    *,
    split: str | None = None,
    check_files: bool = True,
    needs_split: bool = True,
    progress: Progress | None = None,
) -> tuple[ScanRecord, ...]:
    r"""Read a cohort of any kind.

    Args:
        path: A CSV manifest, the root of a BIDS dataset (all its scans are of the split ``all``),
            or a lock file.
        split: The split that is used: its scans must be there, those of a lock by size and hash;
            others are not looked at. None asks that all of a manifest be there, and of a lock
            verifies none.
        check_files: Whether scans are looked for at all; see :func:`require_scans`.
        needs_split: As for :func:`medsr.data.manifest.read_manifest`.
        progress: Told of every scan before it is verified.

    Returns:
        All scans of the cohort, those of other splits too.

    Raises:
        CohortError: It is no cohort, or is incomplete, or has a patient in two splits.
        CohortChangedError: Scans of the split are missing or have changed since they were locked.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.cohort import read_cohort
        >>> rows = ["path,split,patient_id,modality", "a.nii.gz,train,p1,CT", "b.nii.gz,dev,p2,CT"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("\n".join(rows))
        ...     scans = read_cohort(manifest, check_files=False)  # or a BIDS folder, or a lock file
        >>> len(scans)
        2
    """
    path = Path(path)
    if path.is_dir():
        if not is_bids(path):
            raise CohortError(
                f"{path}: this folder is no BIDS dataset (no sub-* folder in it); give a CSV "
                "manifest, a BIDS dataset or a lock file"
            )
        return read_bids(path)
    if not is_lock(path):
        return read_manifest(path, check_files=check_files, split=split, needs_split=needs_split)
    lock = read_lock(path)
    if split is not None and check_files:
        verify(lock, path, split=split, progress=progress)
    folder = path.absolute().parent
    return tuple(scan.record(folder) for scan in lock.scans)


def require_scans(path: str | Path, records: Sequence[ScanRecord]) -> None:
    r"""Refuse scans of a cohort that are missing or, of a lock, have changed.

    Args:
        path: As for :func:`read_cohort`.
        records: The scans that will be read; no other is looked at.

    Raises:
        CohortError: One is not there.
        CohortChangedError: One of a lock is missing or has changed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.cohort import read_cohort, require_scans
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("path,split,patient_id,modality\np1.nii.gz,train,p1,CT")
        ...     _ = Path(folder, "p1.nii.gz").write_bytes(b"")
        ...     require_scans(manifest, read_cohort(manifest))  # silent: all are there
    """
    path = Path(path)
    if not path.is_dir() and is_lock(path):
        verify(read_lock(path), path, only={record.path for record in records})
    else:
        require_files(path, records)


def is_lock(path: Path) -> bool:
    """Whether a file is a lock, by its name.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.cohort import is_lock
        >>> is_lock(Path("cohort.lock.json")), is_lock(Path("cohort.csv"))
        (True, False)
    """
    return path.suffix.lower() == ".json"


def cohort_digest(path: str | Path) -> str:
    """SHA-256 (hex) by which results name the cohort: of the CSV or lock file.

    Of a BIDS dataset, which has no such file, of the relative paths and sizes of its scans.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.cohort import cohort_digest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("path,split,patient_id,modality")
        ...     digest = cohort_digest(manifest)
        >>> len(digest)
        64
    """
    path = Path(path)
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    whole = hashlib.sha256()
    for record in read_bids(path):
        name = record.path.relative_to(path.absolute()).as_posix()
        whole.update(f"{name}\0{record.path.stat().st_size}\n".encode())
    return whole.hexdigest()


def freeze(
    cohort: str | Path,
    folder: str | Path,
    *,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    extend: Lock | None = None,
    keep_splits: bool = False,
    progress: Progress | None = None,
) -> Lock:
    r"""Split a cohort by patient and freeze it.

    Args:
        cohort: As for :func:`read_cohort`; its own splits do not count unless they are kept.
        folder: Where the lock will lie; its paths are relative to this.
        fractions: Share of the patients of each split.
        seed: Of the hash that orders the patients.
        extend: A lock whose patients keep their splits, and whose seed and fractions are taken.
        keep_splits: Freeze the splits that the cohort names, and split nothing.
        progress: Told of every scan before it is hashed.

    Raises:
        CohortError: The cohort is wrong, or names no splits that could be kept.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.cohort import freeze, read_cohort
        >>> from medsr.data.lock import write_lock
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = ["path,patient_id,modality"]
        ...     for number in range(10):
        ...         _ = Path(folder, f"p{number}.nii.gz").write_bytes(b"scan %d" % number)
        ...         rows.append(f"p{number}.nii.gz,p{number},MR")
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("\n".join(rows))
        ...     lock = freeze(manifest, folder, fractions={"train": 0.8, "dev": 0.2})
        ...     file = write_lock(lock, Path(folder, "cohort.lock.json"))
        ...     scans = read_cohort(file, split="dev")  # compares the scans with their hashes
        >>> sum(scan.split == "dev" for scan in scans), len(scans)
        (2, 10)
    """
    folder = Path(folder)
    records = read_cohort(cohort, needs_split=keep_splits)
    if keep_splits:
        if all(record.split == UNSPLIT for record in records):
            raise CohortError(f"{cohort}: no scan names a split that could be kept; split it")
        return make_lock(records, folder, seed=None, fractions={}, progress=progress)
    earlier_splits: dict[str, str] = {}
    if extend is not None:
        if extend.seed is None:
            # Splits made by hand say nothing of how new patients should be assigned.
            earlier_splits = extend.splits()
        else:
            earlier_splits, seed, fractions = extend.splits(), extend.seed, extend.fractions
        gone = earlier_splits.keys() - {record.patient_id for record in records}
        if gone:
            logger.warning(
                "%d patients of the extended lock are no longer in the cohort", len(gone)
            )
    assigned = split_patients(records, fractions, seed=seed, known=earlier_splits)
    split = apply_split(records, assigned)
    return make_lock(split, folder, seed=seed, fractions=fractions, progress=progress)

"""The cohort manifest: which scans there are, of which patients, and in which split.

A manifest is a CSV file with one row a scan. This module checks its cells and picks rows from it
(``table`` takes it apart); it opens no scan, and it imports neither torch nor MONAI, so that a leak
is found before anything heavy starts. BIDS folders and lock files are read by ``bids`` and
``cohort``; ``transforms`` prepares scans for training and ``medsr.evaluate.cohort``
for scoring.

Messages name lines of the manifest, never a patient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medsr.data.table import TableError, read_rows
from medsr.errors import CohortError
from medsr.io.formats import suffix_of

if TYPE_CHECKING:
    from medsr.volume import Modality

REQUIRED_COLUMNS = ("path", "split", "patient_id", "modality")
UNSPLIT = "all"
"""The split of every scan of a cohort that has not been split."""

_MODALITIES: dict[str, Modality] = {"mr": "MR", "mri": "MR", "ct": "CT"}


@dataclass(frozen=True)
class ScanRecord:
    """One row of a manifest.

    Attributes:
        path: The scan, a file or a DICOM folder; absolute.
        split: Name of the split, for example ``train`` or ``dev``.
        patient_id: Pseudonym of the person; the unit of splitting and of averaging.
        modality: ``MR`` or ``CT``.
        contrast: Free text such as ``T1w``; empty where the manifest has none.
        spacing_mm: Voxel spacing along x, y, z as the manifest states it, or None.
        shape: Voxels along x, y, z as the manifest states it, or None.
        sharp_axes: The array axes along which the grid carries real detail, in the order x, y, z.
        site: Where it was made, a pseudonym such as ``B``; empty where the manifest has none.
        lr_path: A thick scan of the same patient at about the same time, absolute; the two are a
            real pair. None where there is none.
        region: What of the body is shown, such as ``brain``; empty where the manifest has none.
        line: Of the manifest, for messages; 0 where there is none.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.manifest import ScanRecord
        >>> scan = ScanRecord(Path("mr/p1_T1w.nii.gz"), "train", "p1", "MR", contrast="T1w")
        >>> scan.scan_id, scan.domain, scan.sharp_axes
        ('p1_T1w', 'MR/T1w', 'xyz')
    """

    path: Path
    split: str
    patient_id: str
    modality: Modality
    contrast: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    shape: tuple[int, int, int] | None = None
    sharp_axes: str = "xyz"
    site: str = ""
    lr_path: Path | None = None
    region: str = ""
    line: int = field(default=0, compare=False)

    @property
    def scan_id(self) -> str:
        """File or folder name without the image suffix."""
        name, suffix = self.path.name, suffix_of(self.path)
        return name if suffix is None else name[: -len(suffix)]

    @property
    def domain(self) -> str:
        """Modality and contrast: ``"MR/T1w"``, or ``"CT"`` where no contrast is stated."""
        return "/".join(filter(None, (self.modality, self.contrast)))

    @property
    def sharp_axis_indices(self) -> tuple[int, ...]:
        """The sharp axes as array axis numbers, ascending."""
        return tuple("xyz".index(axis) for axis in self.sharp_axes)


def read_manifest(
    path: str | Path,
    *,
    check_files: bool = True,
    split: str | None = None,
    needs_split: bool = True,
) -> tuple[ScanRecord, ...]:
    r"""Read and check a manifest.

    Columns ``path``, ``split``, ``patient_id`` and ``modality`` are required; ``contrast``,
    ``region``, ``site``, ``lr_path``, ``spacing_mm`` (``0.9x0.9x2.0``), ``shape``
    (``170x204x72``) and ``sharp_axes`` (``xy``) are used where they are there, and any other column
    is ignored.
    Relative paths are relative to the manifest's folder.

    Args:
        path: The CSV file, separated by commas, semicolons or tabs.
        check_files: Also require that the listed scans are there.
        split: Those of this split alone, as only they are used; None asks for all.
        needs_split: Require splits; otherwise scans without one are of the split ``all``, and a
            patient may be in several, as in a cohort that is about to be split.

    Returns:
        The rows in the order of the file.

    Raises:
        CohortError: The manifest is unreadable, empty or incomplete, a value cannot be
            understood, a scan is missing or listed twice, or one patient stands in two splits.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.data.manifest import read_manifest
        >>> rows = ["path,split,patient_id,modality", "a.nii.gz,train,p1,MR", "b.nii.gz,dev,p2,MR"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("\n".join(rows))
        ...     scans = read_manifest(manifest, check_files=False)
        >>> [(scan.patient_id, scan.split) for scan in scans]
        [('p1', 'train'), ('p2', 'dev')]
    """
    manifest = Path(path)
    required = tuple(name for name in REQUIRED_COLUMNS if needs_split or name != "split")
    rows = _read_rows(manifest, required)
    records = tuple(_record(manifest, line, row, required) for line, row in rows)
    _check_unique(manifest, records)
    if needs_split:
        _check_leaks(manifest, records)
    if check_files:
        require_files(manifest, (r for r in records if split in (None, r.split)))
    return records


def require_files(cohort: str | Path, records: Iterable[ScanRecord]) -> None:
    """Refuse scans that are not there.

    Args:
        cohort: Where they are listed, for the message.
        records: The scans that will be read, and no others.

    Raises:
        CohortError: A scan or its thick partner is missing.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.manifest import ScanRecord, require_files
        >>> from medsr.errors import CohortError
        >>> gone = ScanRecord(Path("gone.nii.gz"), "dev", "p1", "MR", line=2)
        >>> try:
        ...     require_files("cohort.csv", [gone])
        ... except CohortError as error:
        ...     print(str(error).partition(";")[0])
        cohort.csv, line 2: scan gone.nii.gz is not there
    """
    missing = [
        (record.line, path)
        for record in records
        for path in filter(None, (record.path, record.lr_path))
        if not path.exists()
    ]
    if missing:
        line, path = missing[0]
        where = f"{cohort}, line {line}" if line else str(cohort)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CohortError(
            f"{where}: scan {path} is not there{more}; paths are relative to the manifest's folder"
        )


def select(
    records: Iterable[ScanRecord],
    *,
    split: str | None = None,
    modality: Modality | None = None,
) -> tuple[ScanRecord, ...]:
    """Pick the rows of one split, one modality, or both.

    Raises:
        CohortError: No row is left.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.data.manifest import ScanRecord, select
        >>> scans = [
        ...     ScanRecord(Path("p1.nii.gz"), "train", "p1", "MR"),
        ...     ScanRecord(Path("p2.nii.gz"), "dev", "p2", "MR"),
        ...     ScanRecord(Path("p3.nii.gz"), "dev", "p3", "CT"),
        ... ]
        >>> [scan.scan_id for scan in select(scans, split="dev", modality="CT")]
        ['p3']
    """
    candidates = tuple(records)
    chosen = tuple(
        record
        for record in candidates
        if (split is None or record.split == split)
        and (modality is None or record.modality == modality)
    )
    if not chosen:
        there = sorted({f"{record.split}/{record.modality}" for record in candidates})
        wanted = f"{split or 'any split'}/{modality or 'any modality'}"
        raise CohortError(
            f"no scan of {wanted} in the manifest, which has {', '.join(there) or 'no scans'}; "
            "name another split or modality"
        )
    return chosen


def _read_rows(manifest: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read non-empty rows as (line number, column -> text)."""
    try:
        rows = read_rows(manifest.read_bytes(), required)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CohortError(f"{manifest}: cannot read the manifest ({reason}); give a CSV") from error
    except TableError as error:
        raise CohortError(f"{manifest}: {error}") from error
    if not rows:
        raise CohortError(f"{manifest}: the manifest lists no scan; add one row a scan")
    return rows


def _record(
    manifest: Path, line: int, row: Mapping[str, str], required: Sequence[str]
) -> ScanRecord:
    where = f"{manifest}, line {line}"
    empty = [name for name in required if not row.get(name)]
    if empty:
        raise CohortError(f"{where}: {', '.join(empty)} is empty; fill it in")
    modality = _MODALITIES.get(row["modality"].lower())
    if modality is None:
        raise CohortError(f"{where}: modality {row['modality']!r} is unknown; write MR or CT")
    spacing = _triple(where, "spacing_mm", row.get("spacing_mm", ""))
    shape = _triple(where, "shape", row.get("shape", ""))
    lr_path = row.get("lr_path")
    if lr_path == row["path"]:
        raise CohortError(f"{where}: lr_path is the scan itself; name its thick partner")
    return ScanRecord(
        path=(manifest.parent / row["path"]).absolute(),
        split=row.get("split") or UNSPLIT,
        patient_id=row["patient_id"],
        modality=modality,
        contrast=row.get("contrast", ""),
        spacing_mm=spacing,
        shape=None if shape is None else _whole(where, shape),
        sharp_axes=_sharp_axes(where, row.get("sharp_axes", "")),
        site=row.get("site", ""),
        lr_path=(manifest.parent / lr_path).absolute() if lr_path else None,
        region=row.get("region", "").lower(),
        line=line,
    )


def _triple(where: str, column: str, text: str) -> tuple[float, float, float] | None:
    if not text:
        return None
    try:
        # A spreadsheet that separates cells by semicolons writes 0,9x0,9x2,0.
        x, y, z = (float(part) for part in text.lower().replace(",", ".").split("x"))
    except ValueError:
        x = y = z = 0.0
    if not all(0 < value < math.inf for value in (x, y, z)):
        raise CohortError(f"{where}: {column} {text!r} is not three positive numbers like 1x1x2")
    return x, y, z


def _whole(where: str, values: tuple[float, float, float]) -> tuple[int, int, int]:
    if any(value != int(value) for value in values):
        raise CohortError(f"{where}: shape holds a fraction; write whole voxels like 170x204x72")
    return int(values[0]), int(values[1]), int(values[2])


def _sharp_axes(where: str, text: str) -> str:
    if not text:
        return "xyz"
    letters = text.lower()
    if set(letters) - set("xyz") or len(set(letters)) != len(letters):
        raise CohortError(f"{where}: sharp_axes {text!r} is not made of x, y and z; write like xy")
    return "".join(sorted(letters))


def _check_unique(manifest: Path, records: Iterable[ScanRecord]) -> None:
    first: dict[Path, int] = {}
    for record in records:
        first_line = first.setdefault(record.path, record.line)
        if first_line != record.line:
            raise CohortError(
                f"{manifest}: lines {first_line} and {record.line} list the same scan; "
                "keep one of them"
            )


def _check_leaks(manifest: Path, records: Iterable[ScanRecord]) -> None:
    first: dict[str, ScanRecord] = {}
    for record in records:
        first_record = first.setdefault(record.patient_id, record)
        if first_record.split != record.split:
            raise CohortError(
                f"{manifest}: the patient of line {record.line} (split {record.split}) stands also "
                f"in line {first_record.line} (split {first_record.split}); "
                "keep each patient in one split"
            )

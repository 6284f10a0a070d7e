"""What an evaluation found: one row a restored scan, means with spread, and the two files.

``results.json`` carries everything needed to read the numbers (conventions, degradation, versions,
models), ``scans.csv`` the rows alone and ``robustness.csv`` those of disturbed inputs. How the rows
come about is in ``cohort`` and ``robustness``. The only names in them are those of the manifest.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from medsr.errors import OutputNotWritableError
from medsr.evaluate.metrics import Metrics
from medsr.io.atomic import atomic_file, check_output

SCHEMA = 1
REFERENCE_METHOD = "bspline"
RESULTS_FILE = "results.json"
TABLE_FILE = "scans.csv"
ROBUSTNESS_FILE = "robustness.csv"
CLEAN = "clean"

_METRICS = ("psnr", "ssim", "nrmse", "mae")
_COLUMNS = (
    "patient_id",
    "scan_id",
    "axis",
    "method",
    *_METRICS,
    "seconds",
    "psnr_gain",
)
_DISTURBED_COLUMNS = (*_COLUMNS[:4], "input", *_METRICS, "seconds", "psnr_loss")
# Differences below this are rounding, not quality.
_DIGITS = 6


@dataclass(frozen=True)
class CaseResult:
    """One scan restored along one axis (or all) by one method.

    Attributes:
        patient_id: Pseudonym from the manifest.
        scan_id: Name of the scan in the manifest, without suffix.
        axis: Degraded array axes of the scan: ``x``, ``y``, ``z`` or ``xyz``.
        method: ``linear``, ``bspline`` or a model's label.
        metrics: Quality in native units.
        seconds: Wall time of the restoration alone; loading of scan and model left out.
    """

    patient_id: str
    scan_id: str
    axis: str
    method: str
    metrics: Metrics
    seconds: float


@dataclass(frozen=True)
class DisturbedResult(CaseResult):
    """The same for a part of a scan, given clean or disturbed.

    Attributes:
        input: ``clean``, ``noise`` or ``pgd``; see :mod:`medsr.evaluate.robustness`.
    """

    input: str


@dataclass(frozen=True)
class Results:
    """All rows of an evaluation and what is needed to read them.

    Attributes:
        about: Command, versions, task, conventions, degradation and models, as plain data.
        cases: The rows.
        skipped: What could not be scored, a sentence each.
        disturbed: Rows of parts of scans, clean and disturbed; empty unless asked for.
    """

    about: dict[str, Any]
    cases: tuple[CaseResult, ...]
    skipped: tuple[str, ...] = field(default=())
    disturbed: tuple[DisturbedResult, ...] = field(default=())

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of their first row."""
        return tuple(dict.fromkeys(case.method for case in self.cases))

    def gains(self, method: str) -> tuple[float, ...]:
        """PSNR over cubic B-spline of each row of a method, dB."""
        base = {
            (case.scan_id, case.axis): case.metrics.psnr
            for case in self.cases
            if case.method == REFERENCE_METHOD
        }
        return tuple(
            case.metrics.psnr - base[case.scan_id, case.axis]
            for case in self.cases
            if case.method == method and (case.scan_id, case.axis) in base
        )

    def summary(self) -> dict[str, dict[str, Any]]:
        """Means and spread of every method.

        Returns:
            Per method and metric: mean and sample standard deviation over rows and over scans
            (axes of a scan averaged first), and the mean over patients (all rows of a patient
            averaged first); the PSNR gain over B-spline by row as min, mean, max; mean seconds.
        """
        return {method: self._of(method) for method in self.methods}

    def _of(self, method: str) -> dict[str, Any]:
        rows = [case for case in self.cases if case.method == method]
        summary: dict[str, Any] = {"rows": len(rows)}
        for name in _METRICS:
            by_row = [getattr(row.metrics, name) for row in rows]
            by_scan = _means(rows, name, lambda row: row.scan_id)
            by_patient = _means(rows, name, lambda row: row.patient_id)
            summary[name] = {
                "mean_over_rows": fmean(by_row),
                "std_over_rows": _spread(by_row),
                "mean_over_scans": fmean(by_scan),
                "std_over_scans": _spread(by_scan),
                "mean_over_patients": fmean(by_patient),
            }
        gains = self.gains(method)
        if method != REFERENCE_METHOD and gains:
            summary["psnr_gain_over_bspline"] = {
                "min": min(gains),
                "mean": fmean(gains),
                "max": max(gains),
                "rows_below_bspline": sum(gain < 0 for gain in gains),
            }
        summary["mean_seconds"] = fmean(row.seconds for row in rows)
        return summary

    def robustness(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Means and spread over the rows of disturbed inputs.

        Returns:
            Per method and input: rows, PSNR and SSIM, and ``psnr_loss``, what the disturbance cost
            against the same part given clean (dB by row, as mean, least and most).
        """
        found: dict[str, dict[str, dict[str, Any]]] = {}
        losses = self._losses()
        for row in self.disturbed:
            found.setdefault(row.method, {}).setdefault(row.input, {})
        for method, inputs in found.items():
            for name, summary in inputs.items():
                chosen = [
                    number
                    for number, row in enumerate(self.disturbed)
                    if (row.method, row.input) == (method, name)
                ]
                summary["rows"] = len(chosen)
                for metric in ("psnr", "ssim"):
                    values = [getattr(self.disturbed[n].metrics, metric) for n in chosen]
                    summary[metric] = {"mean": fmean(values), "std": _spread(values)}
                if name != CLEAN:
                    lost = [losses[n] for n in chosen]
                    summary["psnr_loss"] = {
                        "mean": fmean(lost),
                        "min": min(lost),
                        "max": max(lost),
                    }
        return found

    def _losses(self) -> list[float]:
        """What each disturbed row lost against its clean one, dB."""
        clean = {
            (row.scan_id, row.axis, row.method): row.metrics.psnr
            for row in self.disturbed
            if row.input == CLEAN
        }
        return [
            clean.get((row.scan_id, row.axis, row.method), math.nan) - row.metrics.psnr
            for row in self.disturbed
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become None."""
        plain: dict[str, Any] = _finite(
            {
                "schema": SCHEMA,
                **self.about,
                "summary": self.summary(),
                "skipped": list(self.skipped),
                "scans": self.rows(),
                **self._disturbed_part(),
            }
        )
        return plain

    def rows(self) -> list[dict[str, Any]]:
        """One flat mapping a row, with the columns of ``scans.csv``."""
        base = {
            (case.scan_id, case.axis): case.metrics.psnr
            for case in self.cases
            if case.method == REFERENCE_METHOD
        }
        flat = []
        for case in self.cases:
            reference = base.get((case.scan_id, case.axis), math.nan)
            values = {
                "patient_id": case.patient_id,
                "scan_id": case.scan_id,
                "axis": case.axis,
                "method": case.method,
                **asdict(case.metrics),
                "seconds": case.seconds,
                "psnr_gain": case.metrics.psnr - reference,
            }
            flat.append({column: values[column] for column in _COLUMNS})
        return flat

    def disturbed_rows(self) -> list[dict[str, Any]]:
        """One flat mapping a disturbed row, with the columns of ``robustness.csv``."""
        flat = []
        for row, lost in zip(self.disturbed, self._losses(), strict=True):
            values = {**asdict(row), **asdict(row.metrics), "psnr_loss": lost}
            flat.append({column: values[column] for column in _DISTURBED_COLUMNS})
        return flat

    def _disturbed_part(self) -> dict[str, Any]:
        if not self.disturbed:
            return {}
        return {"robustness": self.robustness(), "disturbed": self.disturbed_rows()}


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot take results, before any work is spent on them.

    Raises:
        OutputExistsError: It holds results already and ``overwrite`` is False, or is a file.
        OutputNotWritableError: It cannot be made or written.
    """
    if not folder.is_dir():
        check_output(folder, overwrite=False)
        return
    for name in (RESULTS_FILE, TABLE_FILE, ROBUSTNESS_FILE):
        check_output(folder / name, overwrite=overwrite)


def write_results(results: Results, folder: Path, *, overwrite: bool = False) -> Path:
    """Write ``results.json``, ``scans.csv`` and, where there are disturbed rows, their table.

    Each file appears whole or not at all. A table of disturbed rows that another evaluation left
    is taken away.

    Returns:
        The path of ``results.json``.

    Raises:
        OutputExistsError: One of them is there and ``overwrite`` is False.
        OutputNotWritableError: The folder cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputNotWritableError(f"{folder}: cannot be made ({error.strerror})") from error
    _write_table(folder / TABLE_FILE, _COLUMNS, results.rows(), overwrite=overwrite)
    if results.disturbed:
        rows = results.disturbed_rows()
        _write_table(folder / ROBUSTNESS_FILE, _DISTURBED_COLUMNS, rows, overwrite=overwrite)
    else:
        (folder / ROBUSTNESS_FILE).unlink(missing_ok=True)
    target = folder / RESULTS_FILE
    with atomic_file(target, overwrite=overwrite) as temporary:
        text = json.dumps(results.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def _write_table(
    path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]], *, overwrite: bool
) -> None:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_finite(rows))
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8")


def _means(rows: Iterable[CaseResult], name: str, key: Callable[[CaseResult], str]) -> list[float]:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(getattr(row.metrics, name))
    return [fmean(values) for values in groups.values()]


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for a single value."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return stdev(values)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

"""What an evaluation found: one row a restored scan, and means with spread.

How the rows come about is in ``runner`` and ``robustness``, what is inferred from them in
``statistics``, and the files that hold them in ``folder``. The only names in them are those of the
manifest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from medsr.evaluate.metrics.catalogue import describe
from medsr.evaluate.results.patients import mean_by, tidy

__all__ = ["CaseResult", "DisturbedResult", "Results"]

SCHEMA = 2
REFERENCE_METHOD = "bspline"
CLEAN = "clean"

_KEYS = ("patient_id", "scan_id", "axis", "method", "region")
# Differences below this are rounding, not quality.
_DIGITS = 6


@dataclass(frozen=True)
class CaseResult:
    """One scan restored along one axis (or all) by one method.

    Attributes:
        patient_id: Pseudonym from the manifest.
        scan_id: Name of the scan in the manifest, without suffix.
        axis: Degraded array axes of the scan: ``x``, ``y``, ``z`` or ``xyz``.
        method: A baseline's name, a model's label or another tool's name.
        metrics: Quality by the names of :mod:`medsr.evaluate.metrics.catalogue`, in native units;
            NaN where a metric means nothing for this scan.
        seconds: Wall time of the restoration alone; loading of scan and model left out.
        region: What of the body the manifest says the scan shows; empty where it does not.

    Examples:
        >>> from medsr.evaluate.results import CaseResult
        >>> row = CaseResult("p1", "p1_T1w", "z", "mr-z4", {"psnr": 28.4}, 1.7, region="brain")
        >>> row.metrics["psnr"]  # dB
        28.4
    """

    patient_id: str
    scan_id: str
    axis: str
    method: str
    metrics: Mapping[str, float]
    seconds: float
    region: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class DisturbedResult(CaseResult):
    """The same for a part of a scan, given clean or disturbed.

    Attributes:
        input: ``clean``, ``noise`` or ``pgd``; see :mod:`medsr.evaluate.robustness`.

    Examples:
        >>> from medsr.evaluate.results import DisturbedResult
        >>> row = DisturbedResult("p1", "p1_T1w", "z", "mr-z4", {"psnr": 26.1}, 0.4, input="noise")
        >>> row.input
        'noise'
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
        found: Further parts of ``results.json`` by name: statistics, lesions, calibration.
        failed: What went wrong, one entry a scan, axis and method (None where the scan itself).

    Examples:
        >>> from medsr.evaluate.results import CaseResult, Results
        >>> cases = tuple(
        ...     CaseResult("p1", "p1_T1w", "z", method, {"psnr": psnr}, seconds=1.0)
        ...     for method, psnr in (("bspline", 25.0), ("mr-z4", 27.5))
        ... )
        >>> results = Results(about={}, cases=cases)
        >>> results.methods, results.gains("mr-z4")  # dB over cubic B-spline
        (('bspline', 'mr-z4'), (2.5,))
        >>> results.to_dict()["summary"]["mr-z4"]["psnr"]["mean_over_patients"]
        27.5
    """

    about: dict[str, Any]
    cases: tuple[CaseResult, ...]
    skipped: tuple[str, ...] = field(default=())
    disturbed: tuple[DisturbedResult, ...] = field(default=())
    found: Mapping[str, Any] = field(default_factory=dict)
    failed: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of their first row."""
        return tuple(dict.fromkeys(case.method for case in self.cases))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics in the order of their first row."""
        return _names(self.cases)

    def gains(self, method: str) -> tuple[float, ...]:
        """PSNR over cubic B-spline of each row of a method, dB."""
        base = {
            (case.scan_id, case.axis): case.metrics["psnr"]
            for case in self.cases
            if case.method == REFERENCE_METHOD
        }
        return tuple(
            case.metrics["psnr"] - base[case.scan_id, case.axis]
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
        # Infinity (a perfect result) counts.
        for name, lines in tidy(rows).dropna(subset=["value"]).groupby("metric", sort=False):
            by_row = lines["value"].tolist()
            by_scan = [*mean_by(lines, "scan_id").values()]
            over_patients = [*mean_by(lines, "patient_id").values()]
            summary[str(name)] = {
                "mean_over_rows": fmean(by_row),
                "std_over_rows": _spread(by_row),
                "mean_over_scans": fmean(by_scan),
                "std_over_scans": _spread(by_scan),
                "mean_over_patients": fmean(over_patients),
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
        by_input: dict[str, dict[str, dict[str, Any]]] = {}
        losses = self._losses()
        for row in self.disturbed:
            by_input.setdefault(row.method, {}).setdefault(row.input, {})
        for method, inputs in by_input.items():
            for name, summary in inputs.items():
                chosen = [
                    number
                    for number, row in enumerate(self.disturbed)
                    if (row.method, row.input) == (method, name)
                ]
                summary["rows"] = len(chosen)
                for metric in ("psnr", "ssim"):
                    values = [self.disturbed[n].metrics[metric] for n in chosen]
                    summary[metric] = {"mean": fmean(values), "std": _spread(values)}
                if name != CLEAN:
                    lost = [losses[n] for n in chosen]
                    summary["psnr_loss"] = {
                        "mean": fmean(lost),
                        "min": min(lost),
                        "max": max(lost),
                    }
        return by_input

    def _losses(self) -> list[float]:
        """What each disturbed row lost against its clean one, dB."""
        clean = {
            (row.scan_id, row.axis, row.method): row.metrics["psnr"]
            for row in self.disturbed
            if row.input == CLEAN
        }
        return [
            clean.get((row.scan_id, row.axis, row.method), math.nan) - row.metrics["psnr"]
            for row in self.disturbed
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become None."""
        plain: dict[str, Any] = finite(
            {
                "schema": SCHEMA,
                **self.about,
                "metrics": {name: self._described(name) for name in self.metrics},
                "summary": self.summary(),
                **self.found,
                "failed": list(self.failed),
                "skipped": list(self.skipped),
                "scans": self.rows(),
                **self._disturbed_part(),
            }
        )
        return plain

    def rows(self) -> list[dict[str, Any]]:
        """One flat mapping a row, with the columns of ``scans.csv``."""
        base = {
            (case.scan_id, case.axis): case.metrics["psnr"]
            for case in self.cases
            if case.method == REFERENCE_METHOD
        }
        metrics = self.metrics
        flat = []
        for case in self.cases:
            reference = base.get((case.scan_id, case.axis), math.nan)
            row: dict[str, Any] = {key: getattr(case, key) for key in _KEYS}
            row.update({name: case.metrics.get(name, math.nan) for name in metrics})
            row["seconds"] = case.seconds
            row["psnr_gain"] = case.metrics["psnr"] - reference
            flat.append(row)
        return flat

    def disturbed_rows(self) -> list[dict[str, Any]]:
        """One flat mapping a disturbed row, with the columns of ``robustness.csv``."""
        flat = []
        for row, lost in zip(self.disturbed, self._losses(), strict=True):
            values: dict[str, Any] = {key: getattr(row, key) for key in _KEYS}
            values["input"] = row.input
            values.update(row.metrics)
            flat.append({**values, "seconds": row.seconds, "psnr_loss": lost})
        return flat

    def _described(self, name: str) -> dict[str, str]:
        info = describe(name, self.about.get("cohort", {}).get("modality"))
        return {"label": info.label, "unit": info.unit, "better": info.better, "what": info.what}

    def _disturbed_part(self) -> dict[str, Any]:
        if not self.disturbed:
            return {}
        return {"robustness": self.robustness(), "disturbed": self.disturbed_rows()}


def finite(value: Any) -> Any:
    """Plain data with numbers rounded to six digits after the point, None where not finite."""
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _names(rows: Iterable[CaseResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in rows for name in row.metrics))


def _spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for a single value."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return stdev(values)

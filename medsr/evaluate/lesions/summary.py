"""Means over patients of what methods made of lesions, with bootstrap intervals.

Rows of one patient are averaged first, so that a patient with many scans or axes counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MEASURES = (
    "contrast_kept",
    "volume_kept",
    "extent_kept",
    "shift_mm",
    "false_response",
    "plain_contrast",
)
CONFIDENCE = 0.95
RESAMPLES = 1999


def summarise(
    rows: Sequence[Mapping[str, Any]], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Bring rows together by method, contrast and diameter.

    Args:
        rows: Fields of :class:`~medsr.evaluate.lesions.measure.LesionResult` with ``patient_id``
            and ``method``.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        By method one entry for each kind of lesion: ``diameter_mm``, ``contrast``, ``tissue``,
        ``lesions`` and ``patients`` (counts), and for each of :data:`MEASURES` ``mean``, ``low``
        and ``high``: the mean over patients with its 95 % interval (BCa bootstrap over patients),
        None where too few patients or no values are there.

    Examples:
        >>> from dataclasses import asdict
        >>> from medsr.evaluate.lesions import LesionResult, summarise
        >>> rows = []
        >>> for number, kept in enumerate([0.8, 0.9, 1.0, 0.9, 0.85, 0.95]):
        ...     lesion = LesionResult(6.0, "+20 %", "tissue", 90.0, kept, kept, 1.0, 0.1, 0.0, 0.2)
        ...     rows.append({"patient_id": f"p{number}", "method": "mr-z4", **asdict(lesion)})
        >>> (entry,) = summarise(rows)["mr-z4"]
        >>> entry["patients"], round(entry["contrast_kept"]["mean"], 3)
        (6, 0.9)
    """
    import pandas as pd

    table = pd.DataFrame(list(rows))
    by_method: dict[str, list[dict[str, Any]]] = {}
    if table.empty:
        return by_method
    kinds = ["method", "tissue", "contrast", "diameter_mm"]
    for (method, tissue, contrast, diameter), lines in table.groupby(kinds, sort=False):
        entry: dict[str, Any] = {
            "diameter_mm": float(diameter),
            "contrast": contrast,
            "tissue": tissue,
            "lesions": len(lines),
            "patients": int(lines["patient_id"].nunique()),
        }
        for measure in MEASURES:
            entry[measure] = _interval(_by_patient(lines, measure), resamples, seed)
        by_method.setdefault(method, []).append(entry)
    for entries in by_method.values():
        entries.sort(key=lambda e: (e["tissue"], _number(e["contrast"]), e["diameter_mm"]))
    return by_method


def _by_patient(lines: pd.DataFrame, measure: str) -> list[float]:
    """A mean for every patient that has a value, sorted by patient."""
    from medsr.evaluate.results.patients import mean_by

    if measure not in lines:
        return []
    values = lines.assign(**{measure: lines[measure].astype(float)})
    finite = values[np.isfinite(values[measure])]
    # NumPy's sum: the bootstrap of few patients hangs on the last bit of their means.
    means = mean_by(finite, "patient_id", value=measure, mean=lambda v: float(np.mean(v)))
    return [means[patient] for patient in sorted(means)]


def _interval(values: Sequence[float], resamples: int, seed: int) -> dict[str, float | None]:
    """Mean with the interval of a bootstrap over the values."""
    from medsr.evaluate.results.intervals import bootstrap_interval

    low, high = bootstrap_interval(
        values, confidence=CONFIDENCE, resamples=resamples, seed=seed
    ) or (None, None)
    return {"mean": float(np.mean(values)) if values else None, "low": low, "high": high}


def _number(contrast: str) -> float:
    """The number a contrast's name begins with, for sorting."""
    try:
        return float(contrast.split()[0])
    except ValueError:
        return 0.0

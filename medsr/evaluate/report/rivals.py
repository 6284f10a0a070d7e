"""One method against another: by a metric, and by what they keep of small lesions.

The numbers come from the statistics where those have the pair, else from the patients' means. What
is said about them is in ``headline`` and ``answers``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medsr.evaluate.report.reading import (
    Info,
    Method,
    ReportData,
    decimals,
    finite,
    interval,
    number,
    text,
    with_unit,
)
from medsr.evaluate.results.intervals import bootstrap_interval
from medsr.evaluate.results.patients import mean_by

KEPT_WELL = 0.1
"""Loss of contrast of small lesions up to which a method is good at them, of 1."""
KEPT_FAIRLY = 0.2
"""The same for a method that no other one betters."""
HALF_LOST = 0.4
"""Loss from which on about half of a lesion is gone, and the method is bad at them."""


@dataclass(frozen=True)
class Gain:
    """One method against another on one metric, patient by patient."""

    info: Info
    method: Method
    against: Method
    difference: float
    low: float | None
    high: float | None
    patients: int
    better: int
    worse: int

    @property
    def wins(self) -> bool:
        """Whether the mean moved the good way; of what should be near zero, the magnitude."""
        return self.difference > 0 if self.info.better == "higher" else self.difference < 0

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out; never without an interval."""
        return self.low is not None and self.high is not None and self.low * self.high > 0

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, if there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def tone(self) -> str:
        """Good or bad where it is clear."""
        return "" if self.bounds and not self.clear else "good" if self.wins else "bad"


@dataclass(frozen=True)
class Kept:
    """What a method keeps of the smallest lesions.

    Attributes:
        method: Of which method.
        diameter_mm: Across.
        contrast: Mean share of their contrast, over kinds of contrast; 1 is the truth.
        volume: The same of their volume above half of the true contrast, where known.
    """

    method: Method
    diameter_mm: float
    contrast: float
    volume: float | None

    @property
    def loss(self) -> float:
        """How far the contrast is from the truth's; too much of it is wrong as well."""
        return abs(1 - self.contrast)

    def tone(self, rival: Kept | None) -> str:
        """Good, fair or bad; a method that another one betters has to keep more to be good."""
        unbeaten = rival is None or self.loss <= rival.loss
        if self.loss <= (KEPT_FAIRLY if unbeaten else KEPT_WELL):
            return "good"
        return "bad" if self.loss >= HALF_LOST else "fair"


def gain(of: ReportData, method: Method, against: Method, metric: str) -> Gain | None:
    """Compare two methods; from the statistics, or from patients' means where there are none."""
    info = of.info(metric)
    paired = of.comparison(method.name, against.name, metric)
    if paired is not None and finite(paired.get("difference")):
        return Gain(
            info,
            method,
            against,
            float(paired["difference"]),
            number(paired.get("low")),
            number(paired.get("high")),
            int(paired.get("patients") or of.patients),
            int(paired.get("better") or 0),
            int(paired.get("worse") or 0),
        )
    one, other = of.per_patient(method.name, metric), of.per_patient(against.name, metric)
    both = [patient for patient in one if patient in other]
    if not both:
        return None
    keys = [info.key(one[p]) - info.key(other[p]) for p in both]
    # As in the statistics: differences of what should be near zero are those of the magnitudes.
    size = abs if info.better == "zero" else float
    gaps = [size(one[p]) - size(other[p]) for p in both]
    low, high = _interval(of, gaps) or (None, None)
    won, lost = sum(k > 0 for k in keys), sum(k < 0 for k in keys)
    mean = math.fsum(gaps) / len(gaps)
    return Gain(info, method, against, mean, low, high, len(both), won, lost)


def against_rival(of: ReportData, method: Method, metric: str) -> Gain | None:
    """Compare a method with the best of its rivals by that metric."""
    rival = of.rival(method, metric)
    return None if rival is None else gain(of, method, rival, metric)


def amount(of: ReportData, found: Gain) -> str:
    """``+1.20 dB PSNR (95 % interval 0.9 to 1.4)``."""
    digits = max(1, decimals([0.0, found.difference]) - 1)
    value = with_unit(text(found.difference, digits, signed=True), found.info.unit)
    bounds = interval(found.bounds, digits, signed=bool(found.bounds and not found.clear))
    sure = f" ({of.percent()} interval {bounds})" if bounds else ""
    return f"{value} {found.info.label}{sure}"


def kept(of: ReportData, method: Method) -> Kept | None:
    """What a method keeps of the smallest lesions; None where no lesion was put in."""
    summary: Mapping[str, Any] = (of.data.get("lesions") or {}).get("summary") or {}
    entries = summary.get(method.name) or []
    with_contrast = [e for e in entries if finite((e.get("contrast_kept") or {}).get("mean"))]
    if not with_contrast:
        return None
    smallest = min(float(e["diameter_mm"]) for e in with_contrast)
    group = [e for e in with_contrast if float(e["diameter_mm"]) == smallest]
    volumes = [
        float(e["volume_kept"]["mean"])
        for e in group
        if finite((e.get("volume_kept") or {}).get("mean"))
    ]
    contrasts = [float(e["contrast_kept"]["mean"]) for e in group]
    return Kept(
        method,
        smallest,
        math.fsum(contrasts) / len(contrasts),
        math.fsum(volumes) / len(volumes) if volumes else None,
    )


def kept_best(of: ReportData, mine: Kept) -> Kept | None:
    """The rival that keeps most of lesions of the same size."""
    candidates = [kept(of, other) for other in of.rivals(mine.method)]
    same_size = [k for k in candidates if k is not None and k.diameter_mm == mine.diameter_mm]
    return min(same_size, key=lambda k: k.loss) if same_size else None


def kept_difference(of: ReportData, mine: Kept, theirs: Kept) -> tuple[float, float] | None:
    """Interval over patients of the difference in contrast kept; None where rows are missing."""
    ours, others = (_by_patient(of, k) for k in (mine, theirs))
    return _interval(of, [ours[p] - others[p] for p in ours if p in others])


def _by_patient(of: ReportData, of_method: Kept) -> dict[str, float]:
    lesions = pd.DataFrame((of.data.get("lesions") or {}).get("rows") or [])
    if lesions.empty:
        return {}
    same = (lesions["method"] == of_method.method.name) & (
        lesions["diameter_mm"] == of_method.diameter_mm
    )
    kept = lesions[same].dropna(subset=["contrast_kept"])
    return mean_by(kept, "patient_id", value="contrast_kept")


def _interval(of: ReportData, values: Sequence[float]) -> tuple[float, float] | None:
    return bootstrap_interval(values, confidence=of.confidence) if values else None

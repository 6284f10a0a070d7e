"""The answer in plain words: headline, key figures, short answers to a reviewer's questions.

Every sentence follows from the data and says as much when a method is worse, when an interval
holds zero, or when one patient allows no interval at all. Tables are in ``tables``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medsr.evaluate.report.reading import (
    Evaluation,
    Info,
    Method,
    decimals,
    finite,
    interval,
    number,
    text,
    with_unit,
)

FEW_PATIENTS = 6
"""Below this many, no two-sided sign-flip test over patients can reach p < 0.05."""


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


@dataclass(frozen=True)
class Figure:
    """A key figure: a number, what it is, and what stands beneath."""

    value: str
    label: str
    detail: str
    tone: str = ""


@dataclass(frozen=True)
class Answer:
    """A question that a reviewer asks, its short answer and a sentence of evidence."""

    question: str
    short: str
    detail: str
    tone: str


def gain(of: Evaluation, method: Method, against: Method, metric: str) -> Gain | None:
    """Compare two methods; from the statistics, or from patients' means where there are none."""
    info = of.info(metric)
    found = of.comparison(method.name, against.name, metric)
    if found is not None and finite(found.get("difference")):
        return Gain(
            info,
            method,
            against,
            float(found["difference"]),
            number(found.get("low")),
            number(found.get("high")),
            int(found.get("patients") or of.patients),
            int(found.get("better") or 0),
            int(found.get("worse") or 0),
        )
    one, other = of.per_patient(method.name, metric), of.per_patient(against.name, metric)
    both = [patient for patient in one if patient in other]
    if not both:
        return None
    keys = [info.key(one[p]) - info.key(other[p]) for p in both]
    # As in the statistics: differences of what should be near zero are those of the magnitudes.
    size = abs if info.better == "zero" else float
    difference = math.fsum(size(one[p]) - size(other[p]) for p in both) / len(both)
    won, lost = sum(k > 0 for k in keys), sum(k < 0 for k in keys)
    return Gain(info, method, against, difference, None, None, len(both), won, lost)


def title(of: Evaluation) -> str:
    """The headline."""
    lead, reference = of.lead, of.method(of.reference)
    if lead is None:
        best = of.best(of.primary)
        if best is None:
            return "Nothing to compare: one method was scored"
        return f"Without a model, {of.method(best).title} scores best"
    found = gain(of, lead, reference, of.primary)
    if found is None:
        return f"{lead.title} was scored, but not beside {reference.title}"
    if found.patients == 1:
        how = "better" if found.wins else "worse" if found.worse else "no better"
        return f"{lead.title} is {how} than {reference.title} in the one patient scored"
    if found.bounds is not None and not found.clear:
        return f"No clear difference between {lead.title} and {reference.title}"
    how, count = ("better", found.better) if found.wins else ("worse", found.worse)
    return f"{lead.title} is {how} than {reference.title} in {count} of {found.patients} patients"


def lede(of: Evaluation) -> str:
    """One or two sentences under the headline: by how much, and how sure."""
    lead, reference = of.lead, of.method(of.reference)
    if lead is None:
        return "No model was given; the figures compare the built-in baselines with each other."
    found = gain(of, lead, reference, of.primary)
    if found is None:
        return ""
    parts = [_amount(of, found)]
    finer = _resolution(of, lead, reference)
    if finer is not None:
        way = "finer" if finer.wins else "coarser"
        what = "slices" if of.through_plane else "detail"
        parts.append(
            f"{with_unit(text(abs(finer.difference), 2), 'mm')} {way} {what} "
            "by Fourier shell correlation"
        )
    sentence = " and ".join(parts)
    over = "one patient" if found.patients == 1 else f"{found.patients} patients"
    words = f"{sentence}, {'in' if found.patients == 1 else 'on average over'} {over}."
    if found.patients == 1:
        words += " One patient gives no interval and says nothing about others."
    elif found.bounds is not None and not found.clear:
        words += (
            f" The interval holds zero; {found.better} of {found.patients} patients are better, "
            f"{found.worse} worse."
        )
    elif found.better and found.worse:
        count, way = (found.worse, "worse") if found.wins else (found.better, "better")
        words += f" {count} {'patient is' if count == 1 else 'patients are'} {way}."
    return words


def key_figures(of: Evaluation) -> list[Figure]:
    """Up to four figures for the top of the page."""
    lead, reference = of.lead, of.method(of.reference)
    if lead is None:
        return []
    figures = []
    for metric in dict.fromkeys((of.primary, "ssim")):
        found = gain(of, lead, reference, metric)
        if found is not None:
            figures.append(_figure(of, found))
    finer = _resolution(of, lead, reference)
    if finer is not None:
        figures.append(_sharper(of, finer))
    found = gain(of, lead, reference, of.primary)
    if found is not None:
        figures.append(
            Figure(
                f"{found.better} of {found.patients}",
                "patients better" if found.patients != 1 else "patient better",
                f"in {found.info.label} than with {reference.title}",
                "good"
                if found.better == found.patients
                else "bad"
                if found.worse > found.better
                else "",
            )
        )
    return figures


def answers(of: Evaluation) -> list[Answer]:
    """What a reviewer asks, answered from whatever the data hold."""
    found = [_for_whom(of), _lesions(of), _non_inferior(of), _misleading(of)]
    return [answer for answer in found if answer is not None]


def warnings(of: Evaluation) -> list[str]:
    """What to keep in mind before believing any of it."""
    found = [str(words) for words in of.data.get("warnings") or []]
    if of.patients == 1:
        found.append("One patient only: no intervals, no tests, no claim about others.")
    elif 1 < of.patients < FEW_PATIENTS:
        found.append(
            f"Only {of.patients} patients: intervals are rough, and a test by flipping signs over "
            "so few cannot reach p < 0.05."
        )
    failed = of.data.get("failed") or []
    if failed:
        scans = len({entry.get("scan_id") for entry in failed})
        found.append(
            f"{_count(scans, 'scan')} failed in part or whole and "
            f"{'is' if scans == 1 else 'are'} left out of the means; see the list below."
        )
    if (of.data.get("task") or {}).get("kind", "simulated") == "simulated":
        found.append(
            "Low resolution was simulated from sharp scans. Real thick slices differ in profile, "
            "noise and motion; the further they differ, the less these figures apply."
        )
    return found


def _figure(of: Evaluation, found: Gain) -> Figure:
    digits = max(1, decimals([0.0, found.difference]) - 1)
    value = with_unit(text(found.difference, digits, signed=True), found.info.unit)
    bounds = interval(found.bounds, digits, signed=True)
    detail = f"{of.percent()} interval {bounds}" if bounds else "no interval"
    return Figure(value, found.info.label, detail, _tone(found))


def _sharper(of: Evaluation, found: Gain) -> Figure:
    """Gain in resolution: so many mm finer, from what to what."""
    way = "finer" if found.wins else "coarser"
    label = f"{way} between slices" if of.through_plane else f"{way} detail"
    before = of.estimate(found.against.name, found.info.name)
    after = of.estimate(found.method.name, found.info.name)
    parts = []
    if before is not None and after is not None:
        parts.append(f"{text(before.mean)} to {text(after.mean)} mm")
    if found.bounds is not None:
        low, high = sorted((abs(found.bounds[0]), abs(found.bounds[1])))
        known = interval((low, high) if found.clear else found.bounds, 2)
        parts.append(f"{of.percent()} interval of the difference {known}")
    value = with_unit(text(abs(found.difference)), found.info.unit)
    return Figure(value, label, "; ".join(parts) or "no interval", _tone(found))


def _tone(found: Gain) -> str:
    """Good or bad where it is clear."""
    return "" if found.bounds and not found.clear else "good" if found.wins else "bad"


def _amount(of: Evaluation, found: Gain) -> str:
    digits = max(1, decimals([0.0, found.difference]) - 1)
    value = with_unit(text(found.difference, digits, signed=True), found.info.unit)
    bounds = interval(found.bounds, digits)
    sure = f" ({of.percent()} interval {bounds})" if bounds else ""
    return f"{value} {found.info.label}{sure}"


def _resolution(of: Evaluation, method: Method, reference: Method) -> Gain | None:
    metric = of.across("resolution")
    return None if metric is None else gain(of, method, reference, metric)


def _for_whom(of: Evaluation) -> Answer | None:
    reference = of.method(of.reference)
    gains = [g for m in of.learned if (g := gain(of, m, reference, of.primary)) is not None]
    if not gains:
        return None
    first = gains[0]
    every = first.better == first.patients
    short = (
        "Yes" if every else "No" if not first.better else f"Not for {first.patients - first.better}"
    )
    detail = "; ".join(
        f"{g.method.title}: {_amount(of, g)}, better in {g.better} of {g.patients}" for g in gains
    )
    return Answer(
        f"Is it better than {reference.title} for every patient?",
        short,
        f"{detail}.",
        "good" if every else "bad",
    )


def _lesions(of: Evaluation) -> Answer | None:
    summary: Mapping[str, Any] = (of.data.get("lesions") or {}).get("summary") or {}
    lead = of.lead
    if lead is None or not summary.get(lead.name):
        return None
    mine, theirs = _smallest(summary[lead.name]), _smallest(summary.get(of.reference) or [])
    if mine is None:
        return None
    diameter, kept = mine
    share = f"{text(100 * kept, 0)} %"
    detail = f"{lead.title} keeps {share} of the contrast of lesions {diameter:g} mm across"
    tone = "good" if kept >= 0.5 else "bad"
    if theirs is not None and theirs[0] == diameter:
        detail += f", {of.method(of.reference).title} {text(100 * theirs[1], 0)} %"
        tone = "good" if kept > theirs[1] else "bad"
    return Answer("What happens to small lesions?", f"{share} kept", f"{detail}.", tone)


def _smallest(entries: list[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Smallest diameter and the mean share of contrast that its lesions keep."""
    known = [e for e in entries if finite((e.get("contrast_kept") or {}).get("mean"))]
    if not known:
        return None
    smallest = min(float(e["diameter_mm"]) for e in known)
    kept = [e["contrast_kept"]["mean"] for e in known if float(e["diameter_mm"]) == smallest]
    return smallest, math.fsum(kept) / len(kept)


def _non_inferior(of: Evaluation) -> Answer | None:
    entries = of.statistics.get("non_inferiority") or []
    if not entries:
        return None
    entry = entries[0]
    info = of.info(str(entry["metric"]))
    low, high = number(entry.get("low")), number(entry.get("high"))
    bounds = interval(None if low is None or high is None else (low, high), 2, signed=True)
    sure = f" ({of.percent()} interval {bounds})" if bounds else ", without an interval"
    difference = with_unit(text(number(entry.get("difference")), 2, signed=True), info.unit)
    margin = with_unit(text(abs(float(entry["margin"])), 2), info.unit)
    known = entry.get("non_inferior")
    return Answer(
        f"Is {entry['method']} non-inferior to {entry['against']}?",
        "Not tested" if known is None else "Yes" if known else "Not shown",
        f"{difference} {info.label}{sure}; the margin set in advance is {margin}.",
        "" if known is None else "good" if known else "bad",
    )


def _misleading(of: Evaluation) -> Answer | None:
    lead = of.lead
    if lead is None:
        return None
    info, reference = of.info(of.primary), of.method(of.reference)
    base = {(r.get("scan_id"), r.get("axis")): r for r in of.rows if r["method"] == of.reference}
    steps = [
        (float(row[of.primary]) - float(base[key][of.primary]), row)
        for row in of.rows
        if row["method"] == lead.name
        and (key := (row.get("scan_id"), row.get("axis"))) in base
        and finite(row.get(of.primary))
        and finite(base[key].get(of.primary))
    ]
    if not steps:
        return None
    sign = 1.0 if info.better == "higher" else -1.0
    worst, row = min(steps, key=lambda step: sign * step[0])
    below = sum(sign * step < 0 for step, _ in steps)
    value = with_unit(text(worst, 2, signed=True), info.unit)
    fell = "No row falls below" if not below else f"{below} of {len(steps)} rows fall below"
    return Answer(
        "Where does it help least?",
        value,
        f"{row.get('scan_id')}, axis {row.get('axis')}. {fell} {reference.title}.",
        "bad" if sign * worst < 0 else "",
    )


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"

"""Short answers to what a reviewer asks: for everybody? small lesions? the teacher? the worst row?

Each follows from the data and says as much where a method is worse than its best rival.
"""

from __future__ import annotations

from dataclasses import dataclass

from medsr.evaluate.report.reading import (
    Method,
    ReportData,
    finite,
    interval,
    number,
    text,
    with_unit,
)
from medsr.evaluate.report.rivals import (
    Kept,
    against_rival,
    amount,
    gain,
    kept,
    kept_best,
    kept_difference,
)


@dataclass(frozen=True)
class Answer:
    """A question that a reviewer asks, its short answer and a sentence of evidence.

    ``tone`` is ``good``, ``fair``, ``bad`` or nothing.
    """

    question: str
    short: str
    detail: str
    tone: str


def answers(of: ReportData) -> list[Answer]:
    """What a reviewer asks, answered from whatever the data hold."""
    given = [_for_whom(of), _lesions(of), _non_inferior(of), _misleading(of)]
    return [answer for answer in given if answer is not None]


def share(part: float) -> str:
    """A share as whole percent."""
    return f"{text(100 * part, 0)} %"


def _for_whom(of: ReportData) -> Answer | None:
    lead = of.lead
    if lead is None or not of.rivals(lead):
        return None
    best, scored = _best_for(of, lead)
    if not scored:
        return None
    parts = []
    for method in (lead, *(m for m in of.learned if m != lead)):
        comparison = against_rival(of, method, of.primary)
        if comparison is not None:
            parts.append(
                f"{method.title} against {comparison.against.title}: "
                f"{amount(of, comparison)}, better in "
                f"{comparison.better} of {comparison.patients}"
            )
    short = "Yes" if best == scored else "No" if not best else f"Not for {scored - best}"
    return Answer(
        f"Is {lead.title} the best method for every patient?",
        short,
        f"{'; '.join(parts)}.",
        "good" if best == scored else "bad" if 2 * best < scored else "fair",
    )


def _best_for(of: ReportData, method: Method) -> tuple[int, int]:
    """For how many patients a method is better than all its rivals, and of how many."""
    info, mine = of.info(of.primary), of.per_patient(method.name, of.primary)
    others = [of.per_patient(rival.name, of.primary) for rival in of.rivals(method)]
    scored = [p for p in mine if any(p in other for other in others)]
    best = [
        p
        for p in scored
        if all(info.key(mine[p]) > info.key(other[p]) for other in others if p in other)
    ]
    return len(best), len(scored)


def _lesions(of: ReportData) -> Answer | None:
    lead = of.lead
    mine = None if lead is None else kept(of, lead)
    if mine is None:
        return None
    best_rival = kept_best(of, mine)
    sentence = (
        f"{mine.method.title} keeps {share(mine.contrast)} of the contrast of lesions "
        f"{mine.diameter_mm:g} mm across"
    )
    if mine.volume is not None:
        sentence += f" and {share(mine.volume)} of their volume"
    sentence += "."
    if best_rival is not None:
        sentence += f" {_beside(of, mine, best_rival)}"
    tone = mine.tone(best_rival)
    if tone == "bad":
        lost = "About half of such a lesion is lost" if mine.contrast < 1 else "Much is added"
        sentence += f" {lost}."
    question = "What happens to small lesions?"
    return Answer(question, f"{share(mine.contrast)} kept", sentence, tone)


def _beside(of: ReportData, mine: Kept, theirs: Kept) -> str:
    """How the best rival does, and by how much the method is ahead of it or behind."""
    bounds = kept_difference(of, mine, theirs)
    points = None if bounds is None else [100 * end for end in bounds]
    sure = f" ({of.percent()} interval {interval(points, 0, signed=True)})" if points else ""
    step = text(100 * (mine.contrast - theirs.contrast), 0, signed=True)
    return (
        f"{theirs.method.capital}, the best of the others here, keeps "
        f"{share(theirs.contrast)}: {step} points{sure}."
    )


def _non_inferior(of: ReportData) -> Answer | None:
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
    verdict = entry.get("non_inferior")
    return Answer(
        f"Is {entry['method']} non-inferior to {entry['against']}?",
        "Not tested" if verdict is None else "Yes" if verdict else "Not shown",
        f"{difference} {info.label}{sure}; the margin set in advance is {margin}.",
        "" if verdict is None else "good" if verdict else "bad",
    )


def _misleading(of: ReportData) -> Answer | None:
    lead = of.lead
    rival = None if lead is None else of.rival(lead, of.primary)
    if lead is None or rival is None or gain(of, lead, rival, of.primary) is None:
        return None
    info = of.info(of.primary)
    base = {(r.get("scan_id"), r.get("axis")): r for r in of.rows if r["method"] == rival.name}
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
        f"Where does it help least against {rival.title}?",
        value,
        f"{row.get('scan_id')}, axis {row.get('axis')}. {fell} {rival.title}.",
        "bad" if sign * worst < 0 else "",
    )

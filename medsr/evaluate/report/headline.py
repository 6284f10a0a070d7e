"""The answer in plain words: headline, the sentence below it, key figures, warnings.

The method that the report is about is set against its best rival: whichever of the other methods
has the best mean, by each metric anew. Every sentence follows from the data and says as much when
the method is worse, when an interval holds zero, or when one patient allows no interval at all.
Answers to a reviewer's questions are in ``answers``, tables in ``tables``.
"""

from __future__ import annotations

from dataclasses import dataclass

from medsr.evaluate.report.answers import share
from medsr.evaluate.report.reading import Method, ReportData, decimals, interval, text, with_unit
from medsr.evaluate.report.rivals import Gain, against_rival, amount, gain, kept, kept_best

FEW_PATIENTS = 6
"""Below this many, no two-sided sign-flip test over patients can reach p < 0.05."""


@dataclass(frozen=True)
class Figure:
    """A key figure: a number, what it is, and what stands beneath; tones as of an answer."""

    value: str
    label: str
    detail: str
    tone: str = ""


def title(of: ReportData) -> str:
    """The headline."""
    lead = of.lead
    if lead is None:
        best = of.best(of.primary)
        if best is None:
            return "Nothing to compare: one method was scored"
        return f"Without a model, {of.method(best).title} scores best"
    comparison = against_rival(of, lead, of.primary)
    if comparison is None:
        return f"{lead.title} was scored, but not beside another method"
    rival = comparison.against.title
    if comparison.patients == 1:
        how = "better" if comparison.wins else "worse" if comparison.worse else "no better"
        return f"{lead.title} is {how} than {rival} in the one patient scored"
    if comparison.bounds is not None and not comparison.clear:
        return f"No clear difference between {lead.title} and {rival}"
    how, count = ("better", comparison.better) if comparison.wins else ("worse", comparison.worse)
    return f"{lead.title} is {how} than {rival} in {count} of {comparison.patients} patients"


def lede(of: ReportData) -> str:
    """One to three sentences under the headline: by how much, how sure, over which method."""
    lead = of.lead
    if lead is None:
        return "No model was given; the figures compare the built-in baselines with each other."
    comparison = against_rival(of, lead, of.primary)
    if comparison is None:
        return ""
    parts = [amount(of, comparison)]
    finer = _resolution(of, lead)
    if finer is not None:
        way = "finer" if finer.wins else "coarser"
        what = "slices" if of.through_plane else "detail"
        words = f"{with_unit(text(abs(finer.difference), 2), 'mm')} {way} {what} "
        words += "by Fourier shell correlation"
        if finer.against != comparison.against:
            words += f" than {finer.against.title}"
        parts.append(words)
    sentence = " and ".join(parts)
    over = "one patient" if comparison.patients == 1 else f"{comparison.patients} patients"
    words = f"{sentence}, {'in' if comparison.patients == 1 else 'on average over'} {over}."
    if comparison.patients == 1:
        words += " One patient gives no interval and says nothing about others."
    elif comparison.bounds is not None and not comparison.clear:
        words += (
            f" The interval holds zero; {comparison.better} of {comparison.patients} patients are "
            f"better, {comparison.worse} worse."
        )
    elif comparison.better and comparison.worse:
        count, way = (
            (comparison.worse, "worse") if comparison.wins else (comparison.better, "better")
        )
        words += f" {count} {'patient is' if count == 1 else 'patients are'} {way}."
    return words + _against(of, lead, comparison)


def key_figures(of: ReportData) -> list[Figure]:
    """Up to five figures for the top of the page, each against the best rival by its metric."""
    lead = of.lead
    if lead is None:
        return []
    figures = []
    for metric in dict.fromkeys((of.primary, "ssim")):
        comparison = against_rival(of, lead, metric)
        if comparison is not None:
            figures.append(_figure(of, comparison))
    finer = _resolution(of, lead)
    if finer is not None:
        figures.append(_sharper(of, finer))
    comparison = against_rival(of, lead, of.primary)
    if comparison is not None:
        figures.append(_patients(comparison))
    lesions = _lesions(of, lead)
    return [*figures, *([lesions] if lesions is not None else [])]


def warnings(of: ReportData) -> list[str]:
    """What to keep in mind before believing any of it."""
    warnings_given = [str(words) for words in of.data.get("warnings") or []]
    if of.patients == 1:
        warnings_given.append("One patient only: no intervals, no tests, no claim about others.")
    elif 1 < of.patients < FEW_PATIENTS:
        warnings_given.append(
            f"Only {of.patients} patients: intervals are rough, and a test by flipping signs over "
            "so few cannot reach p < 0.05."
        )
    regions = of.data.get("regions") or []
    if len(regions) > 1 and 2 * int(regions[0]["patients"]) > of.patients:
        warnings_given.append(
            f"{regions[0]['patients']} of {of.patients} patients show the region "
            f"{regions[0]['region']}, so a mean over all is mostly theirs; see the regions apart."
        )
    failed = of.data.get("failed") or []
    if failed:
        scans = len({entry.get("scan_id") for entry in failed})
        warnings_given.append(
            f"{_count(scans, 'scan')} failed in part or whole and "
            f"{'is' if scans == 1 else 'are'} left out of the means; see the list below."
        )
    if (of.data.get("task") or {}).get("kind", "simulated") == "simulated":
        warnings_given.append(
            "Low resolution was simulated from sharp scans. Real thick slices differ in profile, "
            "noise and motion; the further they differ, the less these figures apply."
        )
    return warnings_given


def _against(of: ReportData, lead: Method, found: Gain) -> str:
    """Why this rival, and what the gain over the usual reference is."""
    others = len(of.rivals(lead))
    words = ""
    if others > 1:
        best = f"best of the {others} other methods by {found.info.label}"
        words = f" {found.against.capital} is the {best}"
        plain = None
        if found.against.name != of.reference:
            plain = gain(of, lead, of.method(of.reference), of.primary)
        if plain is not None:
            words += f"; against {plain.against.title} it is {amount(of, plain)}"
        words += "."
    return words


def _figure(of: ReportData, found: Gain) -> Figure:
    digits = max(1, decimals([0.0, found.difference]) - 1)
    value = with_unit(text(found.difference, digits, signed=True), found.info.unit)
    bounds = interval(found.bounds, digits, signed=True)
    detail = f"{of.percent()} interval {bounds}" if bounds else "no interval"
    return Figure(value, f"{found.info.label} over {found.against.title}", detail, found.tone)


def _patients(found: Gain) -> Figure:
    some = "bad" if found.worse > found.better else "fair"
    tone = "good" if found.better == found.patients else some
    return Figure(
        f"{found.better} of {found.patients}",
        "patients better" if found.patients != 1 else "patient better",
        f"in {found.info.label} than with {found.against.title}",
        tone,
    )


def _sharper(of: ReportData, found: Gain) -> Figure:
    """Gain in resolution: so many mm finer, from what to what."""
    way = "finer" if found.wins else "coarser"
    label = f"{way} between slices" if of.through_plane else f"{way} detail"
    before = of.estimate(found.against.name, found.info.name)
    after = of.estimate(found.method.name, found.info.name)
    parts = []
    if before is not None and after is not None:
        parts.append(f"{text(before.mean)} ({found.against.title}) to {text(after.mean)} mm")
    if found.bounds is not None:
        low, high = sorted((abs(found.bounds[0]), abs(found.bounds[1])))
        known = interval((low, high) if found.clear else found.bounds, 2)
        parts.append(f"{of.percent()} interval of the difference {known}")
    value = with_unit(text(abs(found.difference)), found.info.unit)
    return Figure(value, label, "; ".join(parts) or "no interval", found.tone)


def _lesions(of: ReportData, lead: Method) -> Figure | None:
    mine = kept(of, lead)
    if mine is None:
        return None
    best_rival = kept_best(of, mine)
    beside = (
        "" if best_rival is None else f"; {best_rival.method.title} {share(best_rival.contrast)}"
    )
    return Figure(
        share(mine.contrast),
        "of small lesions kept",
        f"contrast at {mine.diameter_mm:g} mm{beside}",
        mine.tone(best_rival),
    )


def _resolution(of: ReportData, method: Method) -> Gain | None:
    metric = of.across("resolution")
    return None if metric is None else against_rival(of, method, metric)


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"

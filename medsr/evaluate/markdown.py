"""Tables and sentences of an evaluation as Markdown, for pages and model cards.

Everything here is made of a ``results.json`` alone, so that no figure need be typed. The words are
those of the report, which says the same with plots and pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medsr.evaluate.report.answers import answers
from medsr.evaluate.report.headline import lede, title
from medsr.evaluate.report.reading import (
    Method,
    ReportData,
    finite,
    interval,
    number,
    p_value,
    text,
)
from medsr.evaluate.report.regions import compared, region_rival
from medsr.evaluate.report.rivals import Gain, gain

DASH = "\N{EN DASH}"
_DIGITS = {"psnr": 2, "ssim": 3, "mae": 1}
_COLUMNS = ("psnr", "ssim", "mae", "resolution_z_mm", "edge_width_z_mm", "consistency_rmse")
_LESIONS = ("contrast_kept", "volume_kept", "extent_kept", "shift_mm", "false_response")


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def name(method: Method) -> str:
    """A method as it stands in tables: models as code, baselines in words."""
    if method.name == "nearest":
        return "the scan as it is"
    return f"`{method.title}`" if method.learned else method.title


def who(of: ReportData) -> str:
    """``6 patients, 7 scans, 21 rows``, and what the rows are."""
    cohort, rows = of.cohort, len({(r["scan_id"], r["axis"]) for r in of.rows})
    scans = len({r["scan_id"] for r in of.rows})
    counts = (_count(of.patients, "patient"), _count(scans, "scan"), _count(rows, "row"))
    sentence = (
        f"{', '.join(counts)} of the split `{cohort.get('split')}` ({of.data['task']['axes']})"
    )
    left_out = int(cohort.get("scans") or scans) - scans
    if left_out <= 0:
        return sentence
    return f"{sentence}; {_count(left_out, 'scan')} could not be scored along any axis"


def scores(of: ReportData, methods: Sequence[Method] | None = None) -> str:
    """Means over patients with intervals, one line a method."""
    metrics = [metric for metric in _COLUMNS if metric in of.metrics]
    heads = [", ".join(filter(None, (of.info(m).label, _unit(of, m)))) for m in metrics]
    lines = []
    for method in of.methods if methods is None else methods:
        cells = []
        for metric in metrics:
            found = of.estimate(method.name, metric)
            digits = _DIGITS.get(metric, 2)
            bounds = interval(None if found is None else found.bounds, digits)
            cells.append(_value(None if found is None else found.mean, bounds, digits))
        lines.append([name(method), *cells])
    return table(["Method", *heads], lines)


def compared_with_rivals(of: ReportData) -> str:
    """What every model gains over its best rival and over the reference, one item each."""
    items = []
    for method in of.learned:
        rival, reference = of.rival(method, of.primary), of.method(of.reference)
        against = list(dict.fromkeys(m for m in (rival, reference) if m is not None))
        for other in against:
            comparison = gain(of, method, other, of.primary)
            if comparison is not None and other != method:
                items.append(f"- {name(method)} less {other.title}: {_gained(of, comparison)}")
    items += [_teacher(of, entry) for entry in of.statistics.get("non_inferiority") or []]
    return "\n".join(items)


def in_short(of: ReportData) -> str:
    """The report's headline and its answer on small lesions, as list items."""
    items = [f"**{title(of)}.** {lede(of)}"]
    items += [a.detail for a in answers(of) if "small lesions" in a.question]
    return "\n".join(f"- {item}" for item in items)


def lesions(of: ReportData, methods: Sequence[Method] | None = None) -> str:
    """What is left of lesions by diameter and method, means over kinds of contrast."""
    summary: Mapping[str, Any] = (of.data.get("lesions") or {}).get("summary") or {}
    shown = [m for m in (of.methods if methods is None else methods) if m.name in summary]
    sizes = sorted({float(e["diameter_mm"]) for m in shown for e in summary[m.name]})
    lines = [
        [f"{size:g} mm", name(m), *(text(_kept(summary[m.name], size, key), 2) for key in _LESIONS)]
        for size in sizes
        for m in shown
    ]
    heads = [key.removesuffix("_mm").replace("_", " ") for key in _LESIONS]
    heads[heads.index("shift")] = "shift, mm"
    return table(["Diameter", "Method", *heads], lines)


def regions(of: ReportData, method: Method | None = None) -> str:
    """What a model (the first by default) and its best rival reach in each region of the body.

    Empty where the results know no regions.
    """
    lead, entries = method or of.lead, of.data.get("regions") or []
    if lead is None or not entries:
        return ""
    lines = []
    for entry in entries:
        means, metric = entry["means"], of.primary
        rival = region_rival(of, lead, means, metric)
        comparison = None if rival is None else compared(entry, lead.name, rival.name)
        mine = number(((means.get(lead.name) or {}).get(metric) or {}).get("mean"))
        cells = [str(entry["region"]), str(entry["patients"]), str(entry["scans"]), text(mine, 2)]
        if rival is None or comparison is None:
            lines.append([*cells, DASH, DASH, DASH])
            continue
        rival_mean = number(means[rival.name][metric]["mean"])
        bounds = interval(_ends(comparison), 2, signed=True)
        better = f"{comparison['better']} of {comparison['patients']}"
        step = text(comparison["difference"], 2, signed=True)
        beaten = f"{rival.title} {text(rival_mean, 2)}"
        lines.append([*cells, beaten, f"{step} ({bounds})" if bounds else step, better])
    label = of.info(of.primary).title
    head = ["Region", "patients", "scans", f"{name(lead)}, {label}", "best rival there"]
    return table([*head, "difference", "better for"], lines)


def by_scan(of: ReportData) -> str:
    """The reference, and what the best rival and the models gain over it, scan by scan.

    The axes of a scan are averaged; where there are several, the least gain of one follows.
    """
    lead = of.lead
    rival = None if lead is None else of.rival(lead, of.primary)
    shown = [m for m in (rival, *of.learned) if m is not None and m.name != of.reference]
    values: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in of.rows:
        if finite(row.get(of.primary)):
            key = (str(row["scan_id"]), str(row.get("region") or ""))
            values.setdefault(key, {}).setdefault(row["method"], {})[row["axis"]] = row[of.primary]
    lines = []
    for (scan, region), found in values.items():
        base = found.get(of.reference) or {}
        cells = [scan, region or DASH, " ".join(base), text(_mean(list(base.values())), 2)]
        for method in shown:
            mine = found.get(method.name) or {}
            gains = [mine[axis] - base[axis] for axis in base if axis in mine]
            least = f" ({text(min(gains), 2, signed=True)})" if len(gains) > 1 else ""
            cells.append(text(_mean(gains), 2, signed=True) + least)
        lines.append(cells)
    head = ["Scan", "region", "axes", f"{of.method(of.reference).title}, dB"]
    return table([*head, *(name(method) for method in shown)], lines)


def gains_by_kind(kinds: Mapping[str, ReportData], models: Sequence[str]) -> str:
    """Gains of models over the reference on several kinds of low resolution.

    Args:
        kinds: Evaluations of the same scans by what was done to them, in words.
        models: Which models; those that no evaluation has are left out.
    """
    there = [m for m in models if any(of.estimate(m, of.primary) for of in kinds.values())]
    lines = []
    for words, of in kinds.items():
        base = of.estimate(of.reference, of.primary)
        cells = [words, text(None if base is None else base.mean, 2)]
        for model in there:
            comparison = gain(of, of.method(model), of.method(of.reference), of.primary)
            if comparison is None or not of.estimate(model, of.primary):
                cells += [DASH, DASH]
                continue
            bounds = interval(comparison.bounds, 2, signed=True)
            sure = f" ({bounds})" if bounds else ""
            cells += [text(comparison.difference, 2, signed=True) + sure, _below(of, model)]
        lines.append(cells)
    head = ["Slices", next(iter(kinds.values())).method("bspline").title]
    return table([*head, *(c for model in there for c in (f"`{model}`", "rows below"))], lines)


def _below(of: ReportData, model: str) -> str:
    base = {(r["scan_id"], r["axis"]): r for r in of.rows if r["method"] == of.reference}
    steps = [
        of.info(of.primary).key(row[of.primary])
        - of.info(of.primary).key(base[row["scan_id"], row["axis"]][of.primary])
        for row in of.rows
        if row["method"] == model and (row["scan_id"], row["axis"]) in base
    ]
    return f"{sum(step < 0 for step in steps)} of {len(steps)}"


def _gained(of: ReportData, found: Gain) -> str:
    step = text(found.difference, 2, signed=True)
    bounds = interval(found.bounds, 2, signed=True)
    words = f"{step} {found.info.unit}{f' ({bounds})' if bounds else ''}, better for {found.better}"
    words += f" of {found.patients}"
    tested = of.comparison(found.method.name, found.against.name, of.primary) or {}
    if finite(tested.get("p")):
        p, corrected = p_value(tested["p"]), p_value(number(tested.get("p_corrected")))
        words += f"; p = {p}, corrected {corrected}"
    return words


def _teacher(of: ReportData, entry: Mapping[str, Any]) -> str:
    bounds = interval(_ends(entry), 2, signed=True) or "no interval"
    verdict = entry.get("non_inferior")
    verdict_text = "not tested" if verdict is None else "non-inferior" if verdict else "not shown"
    return (
        f"- `{entry['method']}` against `{entry['against']}`: "
        f"{text(entry['difference'], 2, signed=True)} {of.info(of.primary).unit} ({bounds}); "
        f"margin {entry['margin']:g} {of.info(of.primary).unit}: {verdict_text}"
    )


def _ends(found: Mapping[str, Any]) -> tuple[float, float] | None:
    low, high = number(found.get("low")), number(found.get("high"))
    return None if low is None or high is None else (low, high)


def _kept(entries: Sequence[Mapping[str, Any]], size: float, key: str) -> float | None:
    """Mean over the kinds of lesions of one size."""
    contrast_means = [
        e[key]["mean"] for e in entries if float(e["diameter_mm"]) == size and e.get(key)
    ]
    return _mean([float(value) for value in contrast_means if finite(value)])


def _unit(of: ReportData, metric: str) -> str:
    """The unit, which goes without saying where it is that of the scan."""
    unit = of.info(metric).unit
    return unit if unit in ("dB", "HU", "mm") else ""


def _value(mean: float | None, bounds: str, digits: int) -> str:
    return text(mean, digits) + (f" ({bounds})" if bounds else "")


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _count(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"

"""Tables of the report as plain rows of text: summary, comparisons, scans, and the fine print.

What a cell says is decided here, how it looks in the templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medsr.evaluate.report.figures_detail import verdict
from medsr.evaluate.report.reading import (
    MAIN,
    Info,
    Method,
    ReportData,
    decimals,
    finite,
    interval,
    number,
    p_value,
    text,
)


@dataclass(frozen=True)
class Cell:
    """A cell: what is read first, what stands beneath, whether it is the best of its column."""

    value: str
    detail: str = ""
    best: bool = False
    sort: float | str = ""
    tone: str = ""


@dataclass(frozen=True)
class Line:
    """A row: the method it is about, if any, what heads it, and its cells."""

    method: Method | None
    cells: tuple[Cell, ...]
    search: str = ""


@dataclass(frozen=True)
class Heading:
    """A column: its name, the unit and direction beneath, what the metric is."""

    name: str
    detail: str = ""
    what: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table with a caption, as columns and rows."""

    headings: tuple[Heading, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    """One method against another on several metrics."""

    method: Method
    against: Method
    table: Table


def summary(of: ReportData) -> Table:
    """Methods by main metrics: means over patients with intervals, and seconds."""
    metrics = main_metrics(of)
    lines = []
    for method in of.methods:
        cells = []
        for metric in metrics:
            estimate, digits = of.estimate(method.name, metric), of.digits(metric)
            if estimate is None:
                cells.append(Cell("\N{EN DASH}"))
                continue
            cells.append(
                Cell(
                    text(estimate.mean, digits),
                    interval(estimate.bounds, digits),
                    of.best(metric) == method.name,
                )
            )
        cells.append(Cell(text(_seconds(of, method), 1)))
        lines.append(Line(method, tuple(cells)))
    headings = [_heading(of.info(metric)) for metric in metrics]
    return Table((*headings, Heading("time", "s", "Mean wall time of a restoration")), tuple(lines))


def main_metrics(of: ReportData) -> list[str]:
    """Metrics that stand in the summary, in order."""
    across = [of.across("resolution"), of.across("edge_width")]
    wanted = [*MAIN, *(name for name in across if name), "consistency_rmse"]
    return [name for name in wanted if name in of.metrics]


def comparisons(of: ReportData) -> list[Comparison]:
    """Paired comparisons on the summary's metrics, one table a pair of methods."""
    chosen = set(main_metrics(of))
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in _compared(of):
        if entry["metric"] in chosen:
            pairs.setdefault((entry["method"], entry["against"]), []).append(entry)
    return [
        Comparison(
            of.method(method),
            of.method(against),
            Table(_columns(of, entries), tuple(_line(of, entry) for entry in entries)),
        )
        for (method, against), entries in pairs.items()
    ]


def other_comparisons(of: ReportData) -> Table | None:
    """Paired comparisons on all other metrics in one table."""
    chosen = set(main_metrics(of))
    entries = [entry for entry in _compared(of) if entry["metric"] not in chosen]
    if not entries:
        return None
    lines = [_line(of, entry) for entry in entries]
    lines = [
        Line(line.method, (Cell(of.method(str(e["against"])).title), *line.cells))
        for line, e in zip(lines, entries, strict=True)
    ]
    return Table((Heading("against", numeric=False), *_columns(of, entries)), tuple(lines))


def _compared(of: ReportData) -> list[Mapping[str, Any]]:
    entries = of.statistics.get("comparisons") or []
    return [entry for entry in entries if finite(entry.get("difference"))]


def _columns(of: ReportData, entries: Sequence[Mapping[str, Any]]) -> tuple[Heading, ...]:
    effect = str(entries[0].get("effect_name") or "")
    return (
        Heading("metric", numeric=False),
        Heading("difference", f"{of.percent()} interval"),
        Heading("p"),
        Heading("p corrected"),
        Heading("effect", effect),
        Heading("patients", "better / worse / equal"),
    )


def _line(of: ReportData, entry: Mapping[str, Any]) -> Line:
    info = of.info(entry["metric"])
    digits = decimals([0.0, entry["difference"]])
    low, high = number(entry.get("low")), number(entry.get("high"))
    bounds = None if low is None or high is None else (low, high)
    counts = [int(entry.get(name) or 0) for name in ("better", "worse", "equal")]
    clear = bounds is not None and bounds[0] * bounds[1] > 0
    tone = "good" if counts[0] > counts[1] else "bad"
    cells = (
        Cell(info.label),
        Cell(
            " ".join([text(entry["difference"], digits, signed=True), info.unit]).strip(),
            interval(bounds, digits, signed=True),
            tone=tone if clear else "",
        ),
        Cell(p_value(number(entry.get("p")))),
        Cell(p_value(number(entry.get("p_corrected")))),
        Cell(text(number(entry.get("effect")), 2)),
        Cell(" / ".join(map(str, counts))),
    )
    return Line(of.method(entry["method"]), cells)


def margins(of: ReportData) -> Table | None:
    """Non-inferiority in rows."""
    verdicts = of.statistics.get("non_inferiority") or []
    if not verdicts:
        return None
    lines = []
    for entry in verdicts:
        info = of.info(str(entry["metric"]))
        low, high = number(entry.get("low")), number(entry.get("high"))
        bounds = None if low is None or high is None else (low, high)
        known = entry.get("non_inferior")
        cells = (
            Cell(of.method(str(entry["against"])).title),
            Cell(info.label),
            Cell(
                f"{text(number(entry.get('difference')), 2, signed=True)} {info.unit}",
                interval(bounds, 2, signed=True),
            ),
            Cell(f"{text(abs(float(entry['margin'])), 2)} {info.unit}"),
            Cell(verdict(known), tone="" if known is None else "good" if known else "bad"),
        )
        lines.append(Line(of.method(entry["method"]), cells))
    headings = (
        Heading("against", numeric=False),
        Heading("metric", numeric=False),
        Heading("difference", f"{of.percent()} interval"),
        Heading("margin"),
        Heading("verdict", numeric=False),
    )
    return Table(headings, tuple(lines))


def scans(of: ReportData) -> Table:
    """All rows, one a scan, axis and method, to be sorted and filtered."""
    metrics = [name for name in main_metrics(of) if any(name in row for row in of.rows)]
    base = {
        (row.get("scan_id"), row.get("axis")): number(row.get(of.primary))
        for row in of.rows
        if row["method"] == of.reference
    }
    lines = []
    for row in of.rows:
        mine = number(row.get(of.primary))
        reference_row = base.get((row.get("scan_id"), row.get("axis")))
        step = None if mine is None or reference_row is None else mine - reference_row
        # The reference against itself is no gain.
        step = None if row["method"] == of.reference else step
        searched = [str(row.get(name, "")) for name in ("patient_id", "scan_id", "axis")]
        cells = [Cell(word, sort=word) for word in searched]
        cells += [_value(number(row.get(name)), of.digits(name)) for name in metrics]
        cells.append(_value(step, 2, signed=True))
        cells.append(_value(number(row.get("seconds")), 1))
        method = of.method(str(row["method"]))
        lines.append(
            Line(method, tuple(cells), " ".join([*searched, method.name, method.title]).lower())
        )
    info = of.info(of.primary)
    headings = (
        Heading("patient", numeric=False),
        Heading("scan", numeric=False),
        Heading("axis", numeric=False),
        *(_heading(of.info(name)) for name in metrics),
        Heading("gain", info.unit, f"{info.label} over {of.method(of.reference).title}"),
        Heading("time", "s"),
    )
    return Table(headings, tuple(lines))


def facts(of: ReportData) -> list[tuple[str, str]]:
    """What was scored, for the strip under the headline."""
    task: Mapping[str, Any] = of.data.get("task") or {}
    scale = [int(s) for s in task.get("scale") or []]
    size = ""
    if len(scale) == 3:
        size = f"×{scale[2]} through-plane" if of.through_plane else f"×{scale[0]} isotropic"
    pairs = task.get("kind") == "pairs"
    kind = "real pairs of thick and thin scans" if pairs else "simulated low resolution"
    found = [
        ("Task", f"{of.modality} {size}".strip()),
        ("Input", kind),
        ("Split", str(of.cohort.get("split", ""))),
        ("Patients", str(of.patients)),
        ("Scans", str(of.cohort.get("scans") or len({r.get("scan_id") for r in of.rows}))),
        ("Scored", f"{len({(r.get('scan_id'), r.get('axis')) for r in of.rows})} scan–axis pairs"),
    ]
    return [(name, value) for name, value in found if value]


def fine_print(of: ReportData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Everything else of ``results.json`` that says how the figures came about."""
    parts: list[tuple[str, object]] = [
        ("Conventions", of.data.get("conventions")),
        ("Statistics", of.settings),
        ("Task", of.data.get("task")),
        ("Degradation", of.data.get("degradation")),
        ("Lesions", (of.data.get("lesions") or {}).get("settings")),
        ("Cohort", of.data.get("cohort")),
        ("Machine", of.data.get("machine")),
        ("Versions", of.data.get("versions")),
    ]
    return [
        (name, [(_plain(key), _written(value)) for key, value in part.items()])
        for name, part in parts
        if isinstance(part, Mapping) and part
    ]


def method_facts(of: ReportData) -> list[tuple[Method, list[tuple[str, str]]]]:
    """What is known of each method besides its role."""
    described: Mapping[str, Any] = of.data.get("methods") or {}
    return [
        (
            method,
            [
                (_plain(key), _written(value))
                for key, value in (described.get(method.name) or {}).items()
                if key != "what" and value not in (None, "")
            ],
        )
        for method in of.methods
    ]


def _seconds(of: ReportData, method: Method) -> float | None:
    summary_of = (of.data.get("summary") or {}).get(method.name) or {}
    known = number(summary_of.get("mean_seconds"))
    if known is not None:
        return known
    taken = [number(r.get("seconds")) for r in of.rows if r["method"] == method.name]
    finite_ones = [value for value in taken if value is not None]
    return sum(finite_ones) / len(finite_ones) if finite_ones else None


def _heading(info: Info) -> Heading:
    arrow = {"higher": "↑", "lower": "↓"}.get(info.better, "→ 0")
    what = f"{info.what} {info.direction.capitalize()}.".strip()
    return Heading(info.label, f"{info.unit} {arrow}".strip(), what)


def _value(value: float | None, digits: int, *, signed: bool = False) -> Cell:
    # What is missing sorts last, whichever way.
    return Cell(text(value, digits, signed=signed), sort="" if value is None else value)


def _plain(key: object) -> str:
    return str(key).replace("_", " ")


def _written(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return ", ".join(f"{item:g}" for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no"}.get(value, "–") if value is not None else "–"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)

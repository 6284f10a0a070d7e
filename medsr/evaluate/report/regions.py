"""The table of regions of the body: what the method and its best rival reach in each.

The numbers are those of :mod:`medsr.evaluate.results.regions`; only their words are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medsr.evaluate.report.reading import Method, ReportData, interval, number, text
from medsr.evaluate.report.tables import Cell, Heading, Line, Table

Means = Mapping[str, Mapping[str, Mapping[str, Any]]]


def by_region(of: ReportData) -> Table | None:
    """One line a region; None where the manifest names none or no model was scored."""
    lead = of.lead
    entries = of.data.get("regions") or []
    if lead is None or not entries:
        return None
    info = of.info(of.primary)
    unit = info.unit
    headings = (
        Heading("region", numeric=False),
        Heading("patients", "scans"),
        Heading(lead.title, f"{info.label}, {unit}".rstrip(", ")),
        Heading("best rival in the region", f"{info.label}, {unit}".rstrip(", "), numeric=False),
        Heading("difference", f"{of.percent()} interval"),
        Heading("patients", "better / worse"),
    )
    return Table(headings, tuple(_line(of, lead, entry) for entry in entries))


def region_rival(of: ReportData, method: Method, means: Means, metric: str) -> Method | None:
    """The rival with the best mean in one region."""
    info = of.info(metric)
    best_rivals = {
        rival: value
        for rival in of.rivals(method)
        if (value := _mean(means, rival.name, metric)) is not None
    }
    return max(best_rivals, key=lambda rival: info.key(best_rivals[rival])) if best_rivals else None


def compared(entry: Mapping[str, Any], method: str, against: str) -> Mapping[str, Any] | None:
    """The comparison of two methods in a region."""
    for found in entry.get("comparisons") or []:
        if (found["method"], found["against"]) == (method, against):
            return dict(found)
    return None


def _line(of: ReportData, lead: Method, entry: Mapping[str, Any]) -> Line:
    means, metric = entry["means"], of.primary
    rival = region_rival(of, lead, means, metric)
    cells = [
        Cell(str(entry["region"])),
        Cell(str(entry["patients"]), str(entry["scans"])),
        Cell(text(_mean(means, lead.name, metric), 2)),
    ]
    comparison = None if rival is None else compared(entry, lead.name, rival.name)
    if rival is None or comparison is None:
        return Line(None, (*cells, *(Cell("\N{EN DASH}") for _ in range(3))))
    low, high = number(comparison.get("low")), number(comparison.get("high"))
    bounds = None if low is None or high is None else (low, high)
    won = comparison["better"] == comparison["patients"]
    return Line(
        None,
        (
            *cells,
            Cell(f"{rival.title} {text(_mean(means, rival.name, metric), 2)}"),
            Cell(
                text(comparison["difference"], 2, signed=True),
                interval(bounds, 2, signed=True) or "no interval",
            ),
            Cell(f"{comparison['better']} / {comparison['worse']}", tone="good" if won else ""),
        ),
    )


def _mean(means: Means, method: str, metric: str) -> float | None:
    return number(((means.get(method) or {}).get(metric) or {}).get("mean"))

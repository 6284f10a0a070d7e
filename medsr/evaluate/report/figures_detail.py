"""Plots of patients, of comparisons, of lesions and of calibration.

What they share with the plots of means (rows, dots, markers) is in ``figures``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from medsr.evaluate.report.figures import FOOT, ROW, Pen, clip, few_ticks, rows
from medsr.evaluate.report.palette import colour, marker, placeholder
from medsr.evaluate.report.reading import (
    Estimate,
    Method,
    ReportData,
    decimals,
    finite,
    interval,
    number,
    text,
)
from medsr.evaluate.report.svg import Plot, canvas

Kind = tuple[str, str]
"""Contrast and tissue of lesions, in words."""

# Rows of a plot of patients become thinner where there are many.
_CROWD = 30


def paired(pen: Pen, metric: str, methods: Sequence[Method]) -> Plot | None:
    """Plot every patient: the first method's best rival joined to what each method reaches."""
    of, info = pen.of, pen.of.info(metric)
    reference = (of.rival(methods[0], metric) if methods else None) or of.method(of.reference)
    base = of.per_patient(reference.name, metric)
    per_method = [(method, of.per_patient(method.name, metric)) for method in methods]
    per_method = [(method, values) for method, values in per_method if values]
    if not base or not per_method:
        return None
    lead = per_method[0][1]
    order = sorted(base, key=lambda p: info.key(lead.get(p, base[p])) - info.key(base[p]))[::-1]
    digits = decimals([*base.values(), *lead.values()])
    with canvas(_row(order) * len(order) + FOOT) as drawn:
        axes = drawn.axes
        for row, patient in enumerate(order):
            start = base[patient]
            reached = [start, *(values[patient] for _, values in per_method if patient in values)]
            axes.plot(
                (min(reached), max(reached)),
                (row, row),
                color=placeholder("faint"),
                linewidth=2,
                alpha=0.6,
            )
            axes.plot(
                start,
                row,
                marker=marker(reference),
                color=colour(reference),
                markersize=7.5,
                zorder=4,
                gid=drawn.tip(f"{patient}, {reference.title}: {text(start, digits)} {info.unit}"),
            )
            for method, values in reversed(per_method):
                if patient not in values:
                    continue
                end = values[patient]
                axes.plot(
                    end,
                    row,
                    marker=marker(method),
                    color=colour(method),
                    markeredgecolor=placeholder("card"),
                    markersize=9,
                    zorder=5,
                    gid=drawn.tip(
                        f"{patient}, {method.title}: {text(end, digits)} {info.unit} "
                        f"({text(end - start, digits, signed=True)})"
                    ),
                )
        rows(drawn, order)
        _thin(drawn.axes, order)
        few_ticks(drawn)
        axes.set_xlabel(info.title)
        spoken = "; ".join(
            f"{p} {text(base[p], digits)} to {text(lead.get(p), digits)}" for p in order
        )
        first = per_method[0][0].title
        alt = f"{info.label} of every patient, {reference.title} to {first}: {spoken}."
        title = f"{info.label[:1].upper()}{info.label[1:]}, patient by patient"
        note = f"from {reference.title} to each method; largest gain first; {info.direction}"
        return pen.finish(drawn, title, alt, key=f"paired-{metric}", note=note)


def gains(pen: Pen, metric: str, method: Method) -> Plot | None:
    """Plot what every patient gains over the best rival, sorted, with the mean's interval."""
    of, info = pen.of, pen.of.info(metric)
    rival = of.rival(method, metric) or of.method(of.reference)
    base, theirs = of.per_patient(rival.name, metric), of.per_patient(method.name, metric)
    gained = {p: theirs[p] - base[p] for p in base if p in theirs}
    if not gained or method.name == rival.name:
        return None
    order = sorted(gained, key=lambda p: info.key(theirs[p]) - info.key(base[p]), reverse=True)
    digits = decimals([0.0, *gained.values()])
    compared = of.comparison(method.name, rival.name, metric) or {}
    bounds = (number(compared.get("low")), number(compared.get("high")))
    mean = math.fsum(gained.values()) / len(gained)
    with canvas(_row(order) * len(order) + FOOT) as drawn:
        axes = drawn.axes
        if bounds[0] is not None and bounds[1] is not None:
            axes.axvspan(
                bounds[0], bounds[1], color=colour(method), alpha=0.13, linewidth=0, zorder=0
            )
        axes.axvline(mean, color=colour(method), linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for row, patient in enumerate(order):
            value = gained[patient]
            won = info.key(theirs[patient]) > info.key(base[patient])
            axes.plot((0, value), (row, row), color=colour(method), linewidth=1.8, alpha=0.45)
            axes.plot(
                value,
                row,
                marker=marker(method),
                markersize=8.5,
                color=colour(method),
                markerfacecolor=colour(method) if won else placeholder("card"),
                zorder=4,
                gid=drawn.tip(f"{patient}: {text(value, digits, signed=True)} {info.unit}"),
            )
        axes.axvline(0, color=placeholder("faint"), linewidth=1.2)
        rows(drawn, order)
        _thin(drawn.axes, order)
        few_ticks(drawn)
        axes.set_xlabel(f"{info.label} over {rival.title} ({info.unit})".replace(" ()", ""))
        spoken = "; ".join(f"{p} {text(gained[p], digits, signed=True)}" for p in order)
        middle = f"mean {text(mean, digits, signed=True)}"
        alt = f"Difference in {info.label} by patient: {spoken}; {middle}."
        note = f"dashed: {middle}"
        if bounds[0] is not None and bounds[1] is not None:
            note += f"; shaded: {of.percent()} interval {interval((bounds[0], bounds[1]), digits)}"
        note += f"; hollow marks: worse than {rival.title}"
        return pen.finish(
            drawn,
            f"What {method.title} changes in {info.label}",
            alt,
            key=f"gains-{metric}-{method.number}",
            note=note,
        )


def non_inferiority(pen: Pen) -> Plot | None:
    """Plot each difference with its interval against the margin set in advance."""
    of = pen.of
    verdicts = [
        e for e in of.statistics.get("non_inferiority") or [] if finite(e.get("difference"))
    ]
    if not verdicts:
        return None
    info = of.info(verdicts[0]["metric"])
    sign = 1.0 if info.better == "higher" else -1.0
    digits = max(2, decimals([e["difference"] for e in verdicts]))
    with canvas(34 * len(verdicts) + FOOT + 24) as drawn:
        axes, spoken = drawn.axes, []
        margins = [sign * -abs(float(e["margin"])) for e in verdicts]
        for row, entry in enumerate(verdicts):
            method = of.method(entry["method"])
            low, high = number(entry.get("low")), number(entry.get("high"))
            spoken_label = (
                f"{entry['method']} against {entry['against']}: "
                f"{text(entry['difference'], digits, signed=True)} {info.unit}, "
                f"{verdict(entry.get('non_inferior'))}"
            )
            spoken.append(spoken_label)
            if low is not None and high is not None:
                axes.plot((low, high), (row, row), color=colour(method), linewidth=2.6, alpha=0.6)
            axes.plot(
                entry["difference"],
                row,
                marker=marker(method),
                markersize=9,
                color=colour(method),
                zorder=4,
                gid=drawn.tip(spoken_label),
            )
            axes.plot(
                (margins[row],) * 2, (row - 0.5, row + 0.5), color=placeholder("bad"), linewidth=2
            )
        axes.axvline(0, color=placeholder("faint"), linewidth=1.2)
        rows(drawn, [f"{e['method']} –\n{e['against']}" for e in verdicts])
        reach = max(
            abs(v)
            for e, m in zip(verdicts, margins, strict=True)
            for v in (e.get("low") or 0.0, e.get("high") or 0.0, e["difference"], m)
        )
        axes.set_xlim(-1.25 * reach, 1.25 * reach)
        worse = (-1.25 * reach, margins[0]) if sign > 0 else (margins[0], 1.25 * reach)
        axes.axvspan(*worse, color=placeholder("bad"), alpha=0.09, linewidth=0)
        axes.annotate(
            f"margin {text(margins[0], 2, signed=True)}",
            (margins[0], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=placeholder("bad"),
        )
        few_ticks(drawn)
        axes.set_xlabel(f"difference in {info.title}")
        note = "non-inferior where the whole interval lies clear of the red zone"
        alt = f"Non-inferiority on {info.label}: {'; '.join(spoken)}."
        return pen.finish(drawn, "Against the margin", alt, key="margin", note=note)


def lesions(pen: Pen, quantity: str, kind: Kind, *, key: str) -> Plot | None:
    """Plot ``contrast_kept`` or ``volume_kept`` of one kind of lesion against the diameter.

    Args:
        pen: What to draw with.
        quantity: Which of the two.
        kind: Tissue and contrast, as :func:`lesion_kinds` lists them.
        key: Unique in the page.
    """
    lines = [(method, _kept(pen.of, method, quantity, kind)) for method in pen.of.methods]
    lines = [(method, points) for method, points in lines if points]
    if not lines:
        return None
    what = {"contrast_kept": "contrast", "volume_kept": "volume"}[quantity]
    with canvas(250) as drawn:
        axes, spoken = drawn.axes, []
        axes.axhline(100, color=placeholder("faint"), linewidth=1.2)
        for method, points in lines:
            bounded = [(d, *kept.bounds) for d, kept in points.items() if kept.bounds]
            if bounded:
                axes.fill_between(
                    [diameter for diameter, _, _ in bounded],
                    [low for _, low, _ in bounded],
                    [high for _, _, high in bounded],
                    color=colour(method),
                    alpha=0.13 if method.learned else 0.07,
                    linewidth=0,
                )
            means = [kept.mean for kept in points.values()]
            width = 2.0 if method.learned else 1.3
            axes.plot(list(points), means, color=colour(method), linewidth=width)
            for diameter, kept in points.items():
                label = f"{method.title}, {diameter:g} mm: {text(kept.mean, 0)} %"
                if kept.bounds:
                    label += f" ({interval(kept.bounds, 0)})"
                spoken.append(label)
                axes.plot(
                    diameter,
                    kept.mean,
                    marker=marker(method),
                    markersize=8,
                    color=colour(method),
                    markeredgecolor=placeholder("card"),
                    gid=drawn.tip(f"{label} of the {what} kept"),
                )
        axes.set_xticks(sorted({d for _, points in lines for d in points}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="y", labelsize=10.5, labelcolor=placeholder("soft"))
        axes.set_xlabel("diameter (mm)")
        axes.set_ylabel("% of the true lesion")
        axes.grid(visible=True, axis="y")
        label = " ".join(part for part in kind if part)
        title = f"{what.capitalize()} kept{f': {label}' if label else ''}"
        alt = f"{title}, percent of the truth against diameter. {'; '.join(spoken)}."
        return pen.finish(drawn, title, alt, key=key, note="100 % is the truth")


def lesion_kinds(of: ReportData) -> list[Kind]:
    """Kinds of lesions, in the data's order."""
    summary: Mapping[str, Any] = (of.data.get("lesions") or {}).get("summary") or {}
    return list(dict.fromkeys(_kind(entry) for entries in summary.values() for entry in entries))


def _kind(entry: Mapping[str, Any]) -> Kind:
    contrast = entry.get("contrast")
    words = "" if contrast is None else f"{contrast:+g}" if finite(contrast) else str(contrast)
    tissue = str(entry.get("tissue") or "")
    return (words, f"in {tissue}" if tissue else "")


def _kept(of: ReportData, method: Method, quantity: str, kind: Kind) -> dict[float, Estimate]:
    """Percent of the truth by diameter, with intervals where there are any."""
    summary: Mapping[str, Any] = (of.data.get("lesions") or {}).get("summary") or {}
    points = {}
    for entry in summary.get(method.name) or []:
        share = {k: number(v) for k, v in (entry.get(quantity) or {}).items()}
        mean, low, high = share.get("mean"), share.get("low"), share.get("high")
        if mean is None or _kind(entry) != kind:
            continue
        points[float(entry["diameter_mm"])] = Estimate(
            100 * mean, None if low is None else 100 * low, None if high is None else 100 * high
        )
    return dict(sorted(points.items()))


def calibration(pen: Pen) -> Plot | None:
    """Plot how many errors lie within each multiple of sigma, against how many should."""
    calibrations: Mapping[str, Any] = pen.of.data.get("calibration") or {}
    calibrated = {
        n: of for n, of in calibrations.items() if of.get("observed") and of.get("expected")
    }
    if not calibrated:
        return None
    with canvas(280) as drawn:
        axes, spoken = drawn.axes, []
        axes.plot((0, 100), (0, 100), color=placeholder("faint"), linewidth=1.2)
        for name, of in calibrated.items():
            method = pen.of.method(name)
            expected = [100 * value for value in of["expected"]]
            observed = [100 * value for value in of["observed"]]
            axes.plot(expected, observed, color=colour(method), linewidth=1.6)
            for e, o in zip(expected, observed, strict=True):
                words = f"{name}: {text(o, 1)} % of errors where {text(e, 1)} % were promised"
                axes.plot(e, o, marker=marker(method), color=colour(method), gid=drawn.tip(words))
                spoken.append(words)
        axes.set_xlabel("promised (% of voxels within k sigma)")
        axes.set_ylabel("found (%)")
        axes.tick_params(axis="y", labelsize=10.5, labelcolor=placeholder("soft"))
        axes.grid(visible=True)
        return pen.finish(
            drawn,
            "Is the uncertainty map worth its name?",
            f"Calibration. {'; '.join(spoken)}.",
            key="calibration",
            note="on the line: as promised; below it: the map promises too much",
        )


def verdict(non_inferior: object) -> str:
    """Non-inferiority in words."""
    if non_inferior is None:
        return "not tested"
    return "non-inferior" if non_inferior else "non-inferiority not shown"


def _row(order: Sequence[str]) -> float:
    return ROW - 3 if len(order) <= _CROWD else 9.0


def _thin(axes: Any, order: Sequence[str]) -> None:
    """Where patients are many, their names are left to the tooltips."""
    if len(order) > _CROWD:
        axes.set_yticklabels([])
    else:
        axes.set_yticklabels([clip(patient, 20) for patient in order])

"""Plots of means: forests of one metric, and dots of several metrics of one kind side by side.

Every plot takes the :class:`ReportData` and returns a :class:`Plot`, or None where the data have
nothing to show. Patients, lesions and comparisons are plotted in ``figures_detail``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from medsr.evaluate.report.palette import colour, follow_theme, marker, placeholder
from medsr.evaluate.report.reading import Estimate, Method, ReportData, decimals, interval, text
from medsr.evaluate.report.svg import Canvas, Plot, canvas, inline, require_matplotlib

ROW = 25
"""Height of a row, CSS pixels."""

FOOT = 46
"""Height of the horizontal axis with its label, CSS pixels."""


@dataclass(frozen=True)
class Pen:
    """What every plot is drawn with.

    Args:
        of: The evaluation.
        fixed: Draw in the light theme's colours, for print.
    """

    of: ReportData
    fixed: bool = False

    def finish(self, drawn: Canvas, title: str, alt: str, *, key: str, note: str = "") -> Plot:
        """Turn a canvas into a plot of the page; ``key`` is unique in the page."""
        svg = inline(drawn, key, alt, self.of.methods, fixed=self.fixed)
        return Plot(svg, title, note)

    def swatch(self, method: Method) -> Markup:
        """The method's marker as a small picture for legends and tables."""
        return swatch(self.of, method, fixed=self.fixed)


def forest(pen: Pen, metric: str) -> Plot | None:
    """Plot the mean of one metric by method, with its interval; the best is written bold."""
    of, info = pen.of, pen.of.info(metric)
    estimates = [(m, e) for m in of.methods if (e := of.estimate(m.name, metric)) is not None]
    if not estimates:
        return None
    digits, best = of.digits(metric), of.best(metric)
    with canvas(ROW * len(estimates) + FOOT) as drawn:
        axes = drawn.axes
        for row, (method, estimate) in enumerate(estimates):
            method_label = f"{method.title}: {_spoken(estimate, digits, info.unit)}"
            dot(drawn, method, estimate, row, method_label)
            axes.annotate(
                text(estimate.mean, digits),
                (1.0, row),
                xycoords=("axes fraction", "data"),
                xytext=(44, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontweight="bold" if method.name == best else "normal",
            )
        rows(drawn, [method.title for method, _ in estimates])
        if info.better == "zero":
            axes.axvline(0, color=placeholder("faint"), linewidth=1)
        axes.margins(x=0.08)
        few_ticks(drawn)
        axes.set_xlabel(info.unit)
        spoken = "; ".join(f"{m.title} {_spoken(e, digits, info.unit)}" for m, e in estimates)
        alt = f"{info.label} by method, mean over patients: {spoken}."
        return pen.finish(
            drawn, _capital(info.label), alt, key=f"forest-{metric}", note=info.direction
        )


def grouped(
    pen: Pen, metrics: Sequence[str], title: str, *, key: str, strip: str = ""
) -> Plot | None:
    """Plot several metrics of one unit, one band each, one dot with interval a method.

    Args:
        pen: What to draw with.
        metrics: Their names, from top to bottom.
        title: Headline.
        key: Unique in the page.
        strip: Words that the labels of the bands go without, because the title says them.
    """
    of = pen.of
    by_metric = [
        (metric, [(m, e) for m in of.methods if (e := of.estimate(m.name, metric)) is not None])
        for metric in metrics
    ]
    by_metric = [(metric, found) for metric, found in by_metric if found]
    if not by_metric:
        return None
    step, gap = 14.0, 12.0
    height = sum(step * len(found) + gap for _, found in by_metric)
    info = of.info(by_metric[0][0])
    digits = decimals([e.mean for _, found in by_metric for _, e in found])
    spoken = []
    with canvas(height + FOOT) as drawn:
        axes, y, labels = drawn.axes, 0.0, []
        for metric, found in by_metric:
            name = _without(of.info(metric).label, strip)
            start = y
            for method, estimate in found:
                method_label = f"{name}, {method.title}: {_spoken(estimate, digits, info.unit)}"
                dot(drawn, method, estimate, y, method_label, size=7.5)
                spoken.append(method_label)
                y += step
            labels.append(((start + y - step) / 2, name))
            y += gap
            axes.axhline(y - step / 2 - gap / 2, color=placeholder("grid"), linewidth=1)
        axes.set_yticks([place for place, _ in labels], [name for _, name in labels])
        axes.set_ylim(y - step / 2 - gap / 2, -step)
        axes.grid(visible=True, axis="x")
        if any(of.info(metric).better == "zero" for metric, _ in by_metric):
            axes.axvline(0, color=placeholder("faint"), linewidth=1)
        axes.margins(x=0.06)
        few_ticks(drawn)
        axes.set_xlabel(info.unit)
        return pen.finish(
            drawn, title, f"{title}. {'; '.join(spoken)}.", key=key, note=info.direction
        )


def swatch(of: ReportData, method: Method, *, fixed: bool = False) -> Markup:
    """Draw a method's marker in its accent, as a small picture for legends and tables."""
    require_matplotlib()
    from matplotlib.markers import MarkerStyle

    style = MarkerStyle(marker(method))
    outlines = style.get_path().transformed(style.get_transform()).to_polygons()
    path = "".join(
        "M" + "L".join(f"{x:.3f} {-y:.3f}" for x, y in np.asarray(outline, dtype=float)) + "Z"
        for outline in outlines
    )
    accent = follow_theme(colour(method), of.methods, fixed=fixed)
    return Markup(
        '<svg class="swatch" aria-hidden="true" viewBox="-0.6 -0.6 1.2 1.2">'
        '<path d="{}" style="fill: {}"/></svg>'
    ).format(path, accent)


def dot(
    drawn: Canvas, method: Method, estimate: Estimate, y: float, words: str, *, size: float = 9.0
) -> None:
    """Draw a mean and its interval, with a tooltip."""
    accent = colour(method)
    if estimate.bounds is not None:
        drawn.axes.plot(estimate.bounds, (y, y), color=accent, linewidth=2.2, alpha=0.55, zorder=3)
    drawn.axes.plot(
        estimate.mean,
        y,
        marker=marker(method),
        markersize=size,
        color=accent,
        markeredgecolor=placeholder("card"),
        markeredgewidth=1.0,
        zorder=4,
        gid=drawn.tip(words),
    )


def rows(drawn: Canvas, names: Sequence[str]) -> None:
    """Label rows from top to bottom, with faint lines to guide the eye."""
    drawn.axes.set_yticks(range(len(names)), [clip(name) for name in names])
    drawn.axes.set_ylim(len(names) - 0.45, -0.55)
    drawn.axes.grid(visible=True, axis="both")


def few_ticks(drawn: Canvas) -> None:
    """Put at most five numbers on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    drawn.axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))


def clip(name: str, length: int = 22) -> str:
    """Shorten a name for the margin of a plot."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _spoken(estimate: Estimate, digits: int, unit: str) -> str:
    words = f"{text(estimate.mean, digits)} {unit}".strip()
    return f"{words} ({interval(estimate.bounds, digits)})" if estimate.bounds else words


def _without(label: str, strip: str) -> str:
    """A label without words that the title says already."""
    if strip and label.lower().startswith(strip.lower()):
        label = label[len(strip) :].strip(" ,")
    return _capital(label)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]

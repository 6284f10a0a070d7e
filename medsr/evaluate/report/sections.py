"""The sections of the report in order: which plots stand in each, and the words around them.

A section without anything to show is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medsr.evaluate.report import figures, figures_detail
from medsr.evaluate.report.figures import Pen
from medsr.evaluate.report.reading import MAIN, Method, ReportData
from medsr.evaluate.report.svg import Plot

# Stems of metrics of structures that a segmentation found, and what the plot is called.
_STRUCTURES = (
    ("dice@", "Dice with the truth's structures"),
    ("volume_error@", "Volume error of structures"),
)
_AXES = (("resolution", "Resolution"), ("edge_width", "Edge width"))


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Args:
        key: Anchor.
        name: In the table of contents.
        title: Headline.
        intro: Sentence below it.
        template: What it is rendered with.
        plots: What ``plots.html.j2`` shows.
        methods: Which methods these plots show.
    """

    key: str
    name: str
    title: str
    intro: str
    template: str
    plots: tuple[Plot, ...] = ()
    methods: tuple[Method, ...] = ()


def plotted(pen: Pen) -> list[Section]:
    """All sections that consist of plots."""
    of = pen.of
    over = f"Means over {of.patients} patients"
    sure = f" with {of.percent()} intervals" if of.patients > 1 else ""
    if of.patients == 1:
        over = "One patient"
    through = ", z being the direction across the slices" if of.through_plane else ""
    with_plots = [
        _section(
            "quality",
            "Quality",
            "How close to the truth",
            f"{over}{sure}. Every value is in its native unit, inside the body.",
            (figures.forest(pen, name) for name in _main(of)),
        ),
        _section(
            "patients",
            "Patients",
            "Patient by patient",
            "Every patient that was scored, none averaged away.",
            _patients(pen),
        ),
        _section(
            "sharpness",
            "Sharpness",
            "How fine the detail is, in millimetres",
            "Resolution is the detail up to which result and truth agree (Fourier shell "
            "correlation); edge width is how far an edge is smeared. Axes are those of the scored "
            f"grid{through}.",
            _sharpness(pen),
        ),
        _section(
            "regions",
            "Regions",
            "Where in the body",
            "The same errors, counted in parts of the body only.",
            _regions(pen),
        ),
        _section(
            "lesions",
            "Lesions",
            "What happens to small lesions",
            "Synthetic lesions of known size and contrast were put into the truth before it was "
            "degraded; shown is how much of them comes back.",
            _lesions(pen),
        ),
        _section(
            "downstream",
            "Downstream",
            "What a segmentation makes of it",
            "The same classical segmentation ran on the truth and on every result.",
            _structures(pen),
        ),
        _section(
            "calibration",
            "Uncertainty",
            "Uncertainty",
            "How often errors stay within what the model promises.",
            [figures_detail.calibration(pen)],
        ),
    ]
    rivals = {r.name for m in of.learned if (r := of.rival(m, of.primary)) is not None}
    judged = tuple(m for m in of.methods if m.learned or m.name in rivals)
    return [
        replace(section, methods=judged if section.key == "patients" else of.methods)
        for section in with_plots
        if section.plots
    ]


def _main(of: ReportData) -> list[str]:
    return [name for name in (*MAIN, "consistency_rmse") if name in of.metrics]


def _patients(pen: Pen) -> Iterable[Plot | None]:
    of = pen.of
    across = of.across("resolution")
    for metric in dict.fromkeys(name for name in (of.primary, across, "ssim") if name):
        if metric in of.metrics:
            yield figures_detail.paired(pen, metric, of.learned)
    for method in of.learned:
        yield figures_detail.gains(pen, of.primary, method)


def _sharpness(pen: Pen) -> Iterable[Plot | None]:
    for stem, title in _AXES:
        metrics = pen.of.along_axes(stem)
        yield figures.grouped(
            pen, metrics, f"{title} along each axis", key=stem, strip=title.lower()
        )


def _regions(pen: Pen) -> Iterable[Plot | None]:
    of = pen.of
    stems: dict[str, list[str]] = {}
    for name in of.metrics:
        stem, at, _ = name.partition("@")
        if at and not name.startswith(tuple(prefix for prefix, _ in _STRUCTURES)):
            stems.setdefault(stem, []).append(name)
    for stem, names in stems.items():
        title = of.info(stem).label
        title = f"{title[:1].upper()}{title[1:]} by region"
        yield figures.grouped(pen, names, title, key=f"region-{stem}", strip=of.info(stem).label)


def _lesions(pen: Pen) -> Iterable[Plot | None]:
    for quantity in ("contrast_kept", "volume_kept"):
        for place, kind in enumerate(figures_detail.lesion_kinds(pen.of)):
            key = f"lesions-{quantity}-{place}"
            yield figures_detail.lesions(pen, quantity, kind, key=key)


def _structures(pen: Pen) -> Iterable[Plot | None]:
    for stem, title in _STRUCTURES:
        names = pen.of.family(stem)
        yield figures.grouped(pen, names, title, key=stem.rstrip("@"), strip=_common(pen.of, names))


def _common(of: ReportData, names: Sequence[str]) -> str:
    """What the labels of all names begin with."""
    labels = [of.info(name).label for name in names]
    if len(labels) < 2:
        return ""
    shared = [
        a
        for a, *rest in zip(*(label.split() for label in labels), strict=False)
        if all(a == other for other in rest)
    ]
    return " ".join(shared)


def _section(key: str, name: str, title: str, intro: str, plots: Iterable[Plot | None]) -> Section:
    drawn = tuple(plot for plot in plots if plot is not None)
    return Section(key, name, title, intro, "plots.html.j2", drawn)

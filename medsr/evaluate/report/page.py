"""Puts the page together: data and cases in, one self-contained HTML file out.

Templates are package data in ``templates``; they escape everything that is not markup made here.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from medsr._version import __version__
from medsr.errors import MissingExtraError
from medsr.evaluate.report import headline, tables
from medsr.evaluate.report.answers import answers
from medsr.evaluate.report.cases import Case
from medsr.evaluate.report.figures import Pen
from medsr.evaluate.report.figures_detail import non_inferiority
from medsr.evaluate.report.palette import stylesheet, variables
from medsr.evaluate.report.pictures import CasePictures, Picture, draw_case
from medsr.evaluate.report.reading import Method, ReportData, decimals, text
from medsr.evaluate.report.regions import by_region
from medsr.evaluate.report.sections import Section, plotted
from medsr.evaluate.report.svg import require_matplotlib
from medsr.evaluate.report.viewer import Library, ViewerCase, find_library, store_cases
from medsr.io.atomic import atomic_file, check_output

if TYPE_CHECKING:
    from jinja2 import Environment

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"

_NO_VIEWER = (
    "This page was written without the interactive viewer, because no installed package carries "
    "NiiVue. Install it with  pip install 'medsr[report]'  and write the report again."
)


_REGIONS = (
    Section(
        "body",
        "Body regions",
        "Region by region",
        "A mean over all patients is mostly that of the region which most of them show.",
        "regions.html.j2",
    ),
)


@dataclass(frozen=True)
class _Viewer:
    """What the viewer's template needs."""

    library: Library
    cases: tuple[ViewerCase, ...]
    labels: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        return {"cases": [case.settings for case in self.cases]}


@dataclass(frozen=True)
class _Download:
    name: str
    uri: str
    size: str


def write_report(
    data: Mapping[str, Any], cases: Sequence[Case], path: Path, *, overwrite: bool = False
) -> Path:
    """Write the report of an evaluation as one HTML file that needs no network.

    Args:
        data: Content of ``results.json``; whatever part is missing is left out of the page.
        cases: Scans to show side by side and in the viewer, the most telling first.
        path: The HTML file.
        overwrite: Whether an existing file may be replaced.

    Returns:
        ``path``.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
        OutputError: The file cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.evaluate.report import write_report
        >>> from medsr.evaluate.results import CaseResult, Results
        >>> cases = tuple(
        ...     CaseResult(f"p{n}", f"s{n}", "z", method, {"psnr": psnr + n}, seconds=1.0)
        ...     for n in range(4)
        ...     for method, psnr in (("bspline", 25.0), ("mr-z4", 27.5))
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = Results(about={}, cases=cases).to_dict()
        ...     page = write_report(data, [], Path(folder, "report.html"))
        ...     page.read_text(encoding="utf-8").startswith("<!doctype html>")
        True
    """
    check_output(path, overwrite=overwrite)
    page = render(data, cases)
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(page, encoding="utf-8")
    logger.info("report: %.1f MB", len(page) / 1e6)
    return path


def check_report() -> None:
    """Refuse to report before any work is spent, where packages are missing.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.

    Examples:
        >>> from medsr.evaluate.report import check_report
        >>> check_report()  # silent: the extra ``report`` is installed
    """
    _environment()
    require_matplotlib()


def render(data: Mapping[str, Any], cases: Sequence[Case], *, static: bool = False) -> str:
    """Return the page as HTML.

    Args:
        data: Content of ``results.json``.
        cases: Scans to show.
        static: For print: no scripts, no viewer, colours of the light theme.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.

    Examples:
        >>> from medsr.evaluate.report import render
        >>> from medsr.evaluate.results import CaseResult, Results
        >>> row = CaseResult("p1", "s1", "z", "bspline", {"psnr": 25.0}, seconds=1.0)
        >>> page = render(Results(about={}, cases=(row,)).to_dict(), [], static=True)
        >>> "<script" in page  # for print: no scripts
        False
    """
    environment = _environment()
    of = ReportData(data)
    pen = Pen(of, fixed=static)
    pictures = [draw_case(case, of) for case in cases]
    viewer = None if static else _viewer(cases, pictures, of)
    sections = _sections(pen, pictures, bool(tables.comparisons(of)))
    names = ("report.css", "cases.css", *(("paper.css",) if static else ()))
    css = "".join(map(_text, names))
    environment.globals |= {
        "swatches": {method.name: pen.swatch(method) for method in of.methods},
        "ui_colour": _colour(of, static),
    }
    title = headline.title(of)
    return environment.get_template("page.html.j2").render(
        title=title,
        nonce=hashlib.sha256(json.dumps(data, default=str).encode()).hexdigest()[:24],
        version=__version__,
        static=static,
        css=Markup(stylesheet(of.methods) + css),
        js=Markup(_text("report.js")),
        viewer_js=Markup(_text("viewer.js")),
        eyebrow=_eyebrow(of),
        lede=headline.lede(of),
        figures=headline.key_figures(of),
        facts=tables.facts(of),
        warnings=headline.warnings(of),
        answers=answers(of),
        sections=sections,
        methods=of.methods,
        summary=tables.summary(of),
        regions=by_region(of),
        summary_note=_summary_note(of),
        comparisons=tables.comparisons(of),
        other_comparisons=tables.other_comparisons(of),
        comparison_note=_comparison_note(of),
        margins=tables.margins(of),
        margin_plot=non_inferiority(pen),
        pictures=pictures,
        picture=_static_picture if static else _picture,
        against=lambda drawn: _against(drawn.case, of),
        number=lambda value: text(value, decimals([value])),
        unit="HU" if of.modality == "CT" else "the scan's own units",
        viewer=viewer,
        viewer_missing=_NO_VIEWER,
        viewer_note="" if viewer is None else _viewer_note(viewer),
        scans=tables.scans(of),
        failed=list(data.get("failed") or []),
        skipped=list(data.get("skipped") or []),
        command=str(data.get("command") or ""),
        downloads=[] if static else _downloads(data, of),
        method_facts=tables.method_facts(of),
        infos=[of.info(name) for name in of.metrics],
        fine_print=tables.fine_print(of),
    )


def _sections(pen: Pen, pictures: Sequence[CasePictures], compared: bool) -> list[Section]:
    of = pen.of
    sections = [
        *_looking(pictures, static=pen.fixed),
        Section(
            "summary",
            "Summary",
            "All methods side by side",
            "",
            "summary.html.j2",
        ),
        *(_REGIONS if by_region(of) else ()),
        *plotted(pen),
    ]
    if compared or of.statistics.get("non_inferiority"):
        place = next((n for n, s in enumerate(sections) if s.key == "sharpness"), len(sections))
        sections.insert(
            place,
            Section(
                "comparisons",
                "Comparisons",
                "Paired comparisons",
                "Each patient is compared with themselves; differences are method minus reference.",
                "comparisons.html.j2",
            ),
        )
    sections.append(Section("scans", "Scans", "Every row", "", "scans.html.j2"))
    words = "What a reader needs to repeat these figures, or to doubt them."
    sections.append(Section("methods", "Methods", "How it was done", words, "methods.html.j2"))
    return sections


def _looking(pictures: Sequence[CasePictures], *, static: bool) -> list[Section]:
    """What can be seen with one's own eyes; it stands first, below the headline."""
    if not pictures:
        return []
    words = "The same planes of one scan through every method, and where each one errs."
    cases = Section("cases", "Pictures", "Look for yourself", words, "cases.html.j2")
    words = "Four volumes, one crosshair, values in native units."
    viewer = Section("viewer-part", "Viewer", "Walk through it", words, "viewer.html.j2")
    return [cases] if static else [cases, viewer]


def _viewer(
    cases: Sequence[Case], pictures: Sequence[CasePictures], of: ReportData
) -> _Viewer | None:
    library = find_library() if cases else None
    if library is None:
        return None
    stored = store_cases(cases, pictures, of)
    labels = tuple(f"{case.label}: {case.scan_id}, axis {case.axis}" for case in cases)
    return _Viewer(library, stored, labels)


def _viewer_note(viewer: _Viewer) -> str:
    first = viewer.cases[0].settings
    words = f"Values are stored in steps of {first['step']:g} {first['unit']}".rstrip()
    if any(case.settings["cropped"] for case in viewer.cases):
        words += "; volumes are cropped to the body, or a part amid it, to keep the page small"
    return (
        f"{words}. Drawn by NiiVue (BSD-2-Clause licence), as carried by {viewer.library.carrier}."
    )


def _eyebrow(of: ReportData) -> str:
    facts = dict(tables.facts(of))
    return " · ".join(["Evaluation on held-out patients", facts.get("Task", ""), facts["Input"]])


def _summary_note(of: ReportData) -> str:
    if of.patients == 1:
        return "Values of one patient; bold is the best of a column. No interval can be given."
    words = "Means over patients (the rows of a patient are averaged first); bold is best."
    if of.settings:
        words += f" Below each, the {of.percent()} interval: {of.settings.get('interval', '')}."
    return words


def _comparison_note(of: ReportData) -> str:
    settings = of.settings
    parts = [str(settings[key]) for key in ("test", "correction") if settings.get(key)]
    return ". ".join(parts) + "." if parts else ""


def _downloads(data: Mapping[str, Any], of: ReportData) -> list[_Download]:
    plain = json.dumps(data, indent=1, ensure_ascii=False)
    columns = list(dict.fromkeys(name for row in of.rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(of.rows)
    parts = (
        ("results.json", "application/json", plain),
        ("scans.csv", "text/csv", table.getvalue()),
    )
    return [
        _Download(
            name,
            f"data:{kind};base64,{base64.b64encode(content.encode()).decode('ascii')}",
            f"{len(content.encode()) / 1000:.0f} kB",
        )
        for name, kind, content in parts
    ]


def _against(case: Case, of: ReportData) -> tuple[str, str]:
    """Titles of the methods whose error maps are laid over each other first."""
    lead = of.lead
    rival = None if lead is None else of.rival(lead, of.primary, case.results)
    return ("" if lead is None else lead.title, "" if rival is None else rival.title)


def _picture(picture: Picture, title: str, kind: str) -> Markup:
    """A picture that enlarges when chosen, to be swept against others of its kind."""
    words = Markup('<button type="button" aria-label="Enlarge: {}">{}</button>')
    return words.format(picture.alt, _static_picture(picture, title, kind))


def _static_picture(picture: Picture, title: str, kind: str) -> Markup:
    image = Markup(
        '<img src="{}" alt="{}" width="{}" height="{}" data-title="{}" data-kind="{}" '
        'decoding="async">'
    )
    return image.format(picture.uri, picture.alt, picture.width, picture.height, title, kind)


def _colour(of: ReportData, static: bool) -> Any:
    light = variables(of.methods)[0]

    def colour(method: Method) -> str:
        return light[f"m{method.number}"] if static else f"var(--m{method.number})"

    return colour


def _text(name: str) -> str:
    """Return a file of the folder ``templates``."""
    return (files("medsr.evaluate.report") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(
            "the report needs jinja2, which is not installed; pip install 'medsr[report]'"
        ) from error
    return Environment(
        loader=PackageLoader("medsr.evaluate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

"""The page as text: it holds everything, loads nothing, copes with gaps and trusts no name."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from medsr.errors import MissingExtraError, OutputExistsError
from medsr.evaluate.report import Case, check_report, render, write_report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

HOSTILE = """p</script><script>alert("x")</script><img src=x onerror=alert(1)>'$x$&amp;"""


class Page(HTMLParser):
    """Collects what is in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._skip = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._skip = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._skip = ""

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.words.append(data)

    @property
    def text(self) -> str:
        """The readable words."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def full(evaluation: Callable[..., dict[str, Any]], make_case: Callable[..., Case]) -> str:
    data = evaluation()
    data["failed"] = [
        {"scan_id": "late_T1w", "axis": "x", "method": None, "reason": "the file is truncated"}
    ]
    data["skipped"] = ["early_T1w, axis z: thicker; not scored"]
    data["calibration"] = {
        "mr-z4": {"expected": [0.38, 0.68, 0.95], "observed": [0.30, 0.61, 0.91]}
    }
    return render(data, [make_case(), make_case(label="median")])


def test_nothing_is_loaded_from_elsewhere(full: str) -> None:
    page = Page(full)
    assert {a.get("src") or "data:" for a in page.of("script")} == {"data:"}
    addresses = [a[k] for _, a in page.tags for k in ("src", "href", "xlink:href") if a.get(k)]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses if address)
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    style = full[full.index("<style>") : full.index("</style>")]
    assert "@import" not in style
    assert not re.search(r"url\((?!#)", style)


def test_the_page_holds_every_section(full: str) -> None:
    sections = {attributes.get("id") for attributes in Page(full).of("section")}
    assert sections >= {
        "summary",
        "quality",
        "patients",
        "comparisons",
        "sharpness",
        "regions",
        "lesions",
        "downstream",
        "calibration",
        "cases",
        "viewer-part",
        "scans",
        "methods",
    }


def test_pictures_stand_first_and_each_kind_is_marked(full: str) -> None:
    page = Page(full)
    assert [a.get("id") for a in page.of("section")][:3] == ["cases", "viewer-part", "summary"]
    panels = [a for a in page.of("div") if a.get("data-rival")]
    assert {(a["data-lead"], a["data-rival"]) for a in panels} == {("mr-z4", "cubic B-spline")}
    shown = [(a["data-kind"], a["data-title"]) for a in page.of("img") if a.get("data-kind")]
    assert {title for kind, title in shown if kind == "error"} == {
        "linear",
        "cubic B-spline",
        "mr-z4",
    }
    # Two cases of three planes, three results each; maps of consistency are of a kind of their own.
    assert sum(kind == "error" for kind, _ in shown) == 2 * 3 * 3
    assert sum(kind == "image" for kind, _ in shown) == 2 * 3 * (3 + 2)
    assert {title for kind, title in shown if kind == "consistency"} == {"consistency"}


def test_regions_of_the_body_have_their_own_rivals(
    evaluation: Callable[..., dict[str, Any]],
) -> None:
    data = evaluation()

    def region(name: str, patients: int, **psnr: float) -> dict[str, Any]:
        means = {key.replace("_", "-"): {"psnr": {"mean": v}} for key, v in psnr.items()}
        best = max((key for key in means if key != "mr-z4"), key=lambda m: means[m]["psnr"]["mean"])
        found = {"method": "mr-z4", "against": best, "metric": "psnr", "patients": patients}
        found |= {"difference": 0.25, "low": None, "high": None, "better": patients, "worse": 0}
        entry = {"region": name, "patients": patients, "scans": 9, "means": means}
        return {**entry, "comparisons": [found]}

    data["regions"] = [
        region("brain", 5, bspline=22.0, tv=23.5, mr_z4=23.75),
        region("knee", 2, bspline=31.5, tv=30.0, mr_z4=31.75),
    ]
    words = Page(render(data, [])).text
    assert "Region by region" in words
    assert "total variation 23.50" in words
    assert "cubic B-spline 31.50" in words
    assert "+0.25 no interval" in words
    assert "Region by region" not in Page(render(evaluation(), [])).text


def test_the_page_is_accessible(full: str) -> None:
    page = Page(full)
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    links = {a["href"][1:] for a in page.of("a") if (a.get("href") or "").startswith("#")}
    assert links <= set(ids)
    named = [a for a in page.of("img") if a.get("id") not in ("sweep-under", "sweep-over")]
    assert all(a.get("alt") for a in named)
    assert all(a.get("scope") in ("col", "row") for a in page.of("th"))
    plots = [a for a in page.of("svg") if a.get("class") == "plot"]
    assert len(plots) > 15
    assert all(a.get("aria-label") for a in plots)
    assert [a.get("lang") for a in page.of("html")] == ["en"]


def test_plots_follow_the_theme_and_show_every_patient(full: str) -> None:
    assert not re.search(r"#fe0[01][0-9a-f]{2}", full)
    assert "var(--m3)" in full
    assert full.count("<title>patient-05") >= 3
    assert not re.search(r'\bid="tip\d', full)


def test_figures_are_those_of_the_data(full: str, evaluation: Callable[..., Any]) -> None:
    data = evaluation()
    mean = data["statistics"]["means"]["mr-z4"]["psnr"]
    words = Page(full).text
    assert f"{mean['mean']:.2f}" in words
    assert f"{mean['low']:.2f} to {mean['high']:.2f}" in words
    assert data["cohort"]["sha256"] in words
    assert data["command"] in words
    assert "the file is truncated" in words
    assert "early_T1w, axis z: thicker; not scored" in words


def test_downloads_are_the_data(full: str, evaluation: Callable[..., Any]) -> None:
    found = {a["download"]: a["href"] for a in Page(full).of("a") if a.get("download")}
    content = {n: base64.b64decode(str(uri).partition(",")[2]) for n, uri in found.items()}
    assert json.loads(content["results.json"])["statistics"] == evaluation()["statistics"]
    rows = list(csv.DictReader(io.StringIO(content["scans.csv"].decode())))
    assert [row["psnr"] for row in rows] == [str(r["psnr"]) for r in evaluation()["scans"]]


def test_names_cannot_inject_script(
    evaluation: Callable[..., dict[str, Any]], make_case: Callable[..., Case]
) -> None:
    text = json.dumps(evaluation(patients=2))
    data = json.loads(text.replace("patient-01", json.dumps(HOSTILE)[1:-1]))
    data["failed"] = [{"scan_id": HOSTILE, "axis": HOSTILE, "method": HOSTILE, "reason": HOSTILE}]
    data["skipped"] = [HOSTILE]
    data["warnings"] = [HOSTILE]
    data["methods"]["mr-z4"]["what"] = HOSTILE
    data["metrics"]["psnr"]["label"] = HOSTILE
    case = make_case()
    hostile = Case(HOSTILE, HOSTILE, HOSTILE, "x", case.lr, case.truth, case.results)
    page = render(data, [hostile])
    assert HOSTILE not in page
    parsed = Page(page)
    assert not any("onerror" in attributes for _, attributes in parsed.tags)
    assert "x" not in [attributes.get("src") for attributes in parsed.of("img")]
    runs = [a for a in parsed.of("script") if a.get("type") is None]
    assert len(runs) == 2
    assert all(a.get("nonce") for a in runs)


@pytest.mark.parametrize(
    "missing",
    [
        ("statistics",),
        ("lesions", "summary"),
        ("methods", "metrics"),
        ("cohort", "task", "conventions", "versions", "machine", "degradation", "command"),
        ("statistics", "methods", "metrics", "cohort", "task", "lesions", "summary", "failed"),
    ],
)
def test_any_part_may_be_missing(
    evaluation: Callable[..., dict[str, Any]], missing: tuple[str, ...]
) -> None:
    data = {name: part for name, part in evaluation().items() if name not in missing}
    words = Page(render(data, [])).text
    assert "of 7 patients" in words
    assert "mr-z4" in words


def test_empty_data_still_make_a_page() -> None:
    assert "Nothing to compare" in Page(render({}, [])).text


def test_one_patient_shows_no_interval(evaluation: Callable[..., dict[str, Any]]) -> None:
    words = Page(render(evaluation(patients=1), [])).text
    assert "in the one patient scored" in words
    assert "One patient only" in words
    assert "95\N{NARROW NO-BREAK SPACE}% interval 2" not in words


def test_many_methods_have_each_a_colour(evaluation: Callable[..., dict[str, Any]]) -> None:
    names = ("linear", "bspline", "lanczos", "tv", "mr-z4", "mr-z4-teacher", "peer")
    page = render(evaluation(methods=names), [])
    colours = dict(re.findall(r"--(m\d):(#[0-9a-f]{6})", page[: page.index("@media")]))
    assert len(colours) == len(names)
    assert len(set(colours.values())) == len(names)


def test_computed_tomography_is_in_hounsfield_units(
    evaluation: Callable[..., dict[str, Any]], make_case: Callable[..., Case]
) -> None:
    words = Page(render(evaluation(modality="CT"), [make_case(modality="CT")])).text
    assert "-160" not in words
    assert "soft-tissue window, \N{MINUS SIGN}160 to 240 HU" in words
    assert "absolute error, HU" in words


def test_the_file_is_written_whole(
    evaluation: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    assert write_report(evaluation(minimal=True), [], path) == path
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    with pytest.raises(OutputExistsError):
        write_report(evaluation(minimal=True), [], path)
    write_report(evaluation(minimal=True), [], path, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=r"medsr\[report\]"):
        check_report()

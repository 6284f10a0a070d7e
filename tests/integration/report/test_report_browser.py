"""The report in a real browser: quiet, self-contained, legible at two sizes, with a viewer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SIZES = ((1440, 900), (420, 900))
WAIT_MS = 120_000


@dataclass
class Opened:
    """A page, and what it asked for and complained about."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(browser: Any, report: Path) -> Iterator[Callable[..., Opened]]:
    """Open a report; when the test is over nothing may have been fetched or complained of."""
    pages: list[Opened] = []

    def opener(path: Path = report, size: tuple[int, int] = SIZES[0], **options: Any) -> Opened:
        width, height = size
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        opened = Opened(page)
        pages.append(opened)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                opened.complaints.append(message.text)
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.goto(path.as_uri())
        return opened

    yield opener
    for opened in pages:
        opened.page.close()
        assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
        assert sum(url.startswith("file:") for url in opened.requests) == 1
        assert opened.complaints == []


def _start_viewer(page: Any) -> None:
    page.locator("#viewer").scroll_into_view_if_needed()
    page.wait_for_selector("#viewer[data-state=ready], #viewer[data-state=failed]", timeout=WAIT_MS)
    assert page.get_attribute("#viewer", "data-state") == "ready"
    page.wait_for_timeout(300)


def _pane(page: Any, number: int) -> npt.NDArray[np.float64]:
    shot = page.locator("#viewer canvas").nth(number).screenshot()
    # Panes may differ by a pixel where the page's width does not divide evenly.
    image = Image.open(io.BytesIO(shot)).convert("RGB").resize((160, 160))
    return np.asarray(image, dtype=np.float64)


def _values(page: Any) -> list[str]:
    return [str(text) for text in page.locator(".pane-value").all_inner_texts()]


@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_follows_the_theme(
    open_page: Callable[..., Opened], size: tuple[int, int], scheme: str
) -> None:
    page = open_page(size=size, color_scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    too_wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg, .unseen')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90))"
    )
    assert too_wide == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([float(part) for part in back[4:-1].split(",")])
    assert (brightness > 200) if scheme == "light" else (brightness < 60)
    # Letters of a plot are legible: no smaller than ten pixels, and in contrast to the page.
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg.plot')].map(svg =>"
        " 10.5 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"
    )
    assert smallest >= 9.5


def test_the_theme_can_be_chosen(open_page: Callable[..., Opened]) -> None:
    page = open_page(color_scheme="light").page
    colours = []
    for _ in range(3):
        page.click("#theme")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark, system = colours
    assert light == system != dark
    assert page.inner_text("#theme") == "Theme: system"


def test_tables_sort_and_filter(open_page: Callable[..., Opened]) -> None:
    page = open_page().page

    def column(number: int) -> list[str]:
        found = page.locator(f"#scans-table tbody tr:not([hidden]) > :nth-child({number})")
        return [text.replace("\N{MINUS SIGN}", "-") for text in found.all_inner_texts()]

    heads = page.locator("#scans-table thead th")
    psnr = heads.all_inner_texts().index(
        next(text for text in heads.all_inner_texts() if text.startswith("PSNR"))
    )
    before = column(psnr + 1)
    button = heads.nth(psnr).locator("button")
    button.focus()
    page.keyboard.press("Enter")
    assert column(psnr + 1) == sorted(before, key=float) != before
    assert heads.nth(psnr).get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(psnr + 1) == sorted(before, key=float, reverse=True)
    page.fill("#scan-search", "patient-03")
    assert set(column(2)) == {"patient-03"}
    page.select_option("#scan-method", "mr-z4")
    assert len(column(1)) == 2
    assert page.inner_text("#scan-count") == f"2 of {len(before)} rows"


def test_a_picture_enlarges_and_sweeps(open_page: Callable[..., Opened]) -> None:
    page = open_page().page
    page.locator(".panel button").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#lightbox[open]")
    assert page.input_value("#lightbox-other") != ""
    shots = []
    for at in (0, 100):
        page.locator("#sweep-at").fill(str(at))
        shots.append(page.locator("#sweep").screenshot())
    assert shots[0] != shots[1]
    page.keyboard.press("Escape")
    assert page.locator("#lightbox[open]").count() == 0


def test_like_is_swept_against_like(open_page: Callable[..., Opened]) -> None:
    page = open_page().page
    first = page.locator(".panels[data-rival]").first
    for kind, against in (("image", "truth"), ("error", "error of cubic B-spline")):
        first.locator(f'img[data-kind="{kind}"][data-title="mr-z4"]').click()
        page.wait_for_selector("#lightbox[open]")
        assert page.locator("#sweep-right").inner_text() == against
        shown = page.locator("#sweep-under").get_attribute("src")
        same = first.locator(f'img[data-kind="{kind}"]').evaluate_all("all => all.map(i => i.src)")
        assert shown in same
        choices = page.locator("#lightbox-other option").all_inner_texts()
        assert len(choices) == len(same) - 1
        assert all(choice.startswith("error of ") == (kind == "error") for choice in choices)
        page.keyboard.press("Escape")


@pytest.mark.parametrize("size", SIZES, ids=["wide", "narrow"])
def test_the_viewer_draws_linked_panes(
    open_page: Callable[..., Opened], builders: ModuleType, size: tuple[int, int]
) -> None:
    page = open_page(size=size).page
    assert page.evaluate("typeof niivue") == "undefined"
    _start_viewer(page)
    before = [_pane(page, number) for number in range(4)]
    for pane in before:
        assert pane.std() > 20
    assert np.abs(before[0] - before[3]).mean() > 1
    values = _values(page)
    assert len(set(values)) > 2
    truth = builders.build_case().truth
    place = page.inner_text("#viewer-place")

    canvas = page.locator("#viewer canvas").nth(1)
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.4, "y": box["height"] * 0.45})
    page.wait_for_timeout(300)
    assert page.inner_text("#viewer-place") != place
    assert _values(page) != values
    for number, old in enumerate(before):
        assert np.abs(_pane(page, number) - old).max() > 30

    # What is read under the crosshair is the scan's own number.
    mm = page.inner_text("#viewer-place").replace("\N{MINUS SIGN}", "-").split(",")
    voxel = truth.geometry.world_to_voxel([float(part) for part in mm])
    near = [
        truth.data[tuple(np.clip(np.rint(voxel + shift).astype(int), 0, np.array(truth.shape) - 1))]
        for shift in np.array(np.meshgrid(*[(-0.06, 0.0, 0.06)] * 3)).reshape(3, -1).T
    ]
    read = float(_values(page)[3].replace("\N{MINUS SIGN}", "-").split()[0])
    assert min(abs(read - float(value)) for value in near) < 1.0


def test_keys_planes_grey_values_and_cases(open_page: Callable[..., Opened]) -> None:
    page = open_page().page
    _start_viewer(page)
    place = page.inner_text("#viewer-place")
    page.locator("#viewer canvas").nth(3).focus()
    page.keyboard.press("ArrowUp")  # to the centre of the next voxel
    page.wait_for_timeout(200)
    centred = page.inner_text("#viewer-place")
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(200)
    moved = page.inner_text("#viewer-place")
    assert moved.split(", ")[:2] == centred.split(", ")[:2]
    assert moved.split(", ")[2] != centred.split(", ")[2]
    page.keyboard.press("PageDown")
    page.wait_for_timeout(200)
    assert page.inner_text("#viewer-place").split(", ")[1] != moved.split(", ")[1]

    coronal = _pane(page, 3)
    page.select_option("#viewer-plane", "axial")
    page.wait_for_timeout(300)
    assert np.abs(_pane(page, 3) - coronal).mean() > 2
    axial = _pane(page, 3)
    page.locator("#viewer-level").fill(page.get_attribute("#viewer-level", "max"))
    page.wait_for_timeout(300)
    assert _pane(page, 3).mean() < 0.8 * axial.mean()
    page.click("#viewer-reset")
    page.wait_for_timeout(300)
    assert page.inner_text("#viewer-place") == place
    page.locator(".pane-volume").nth(2).select_option("3")
    page.wait_for_timeout(800)
    assert _values(page)[2] == _values(page)[3]
    page.select_option("#viewer-case", "1")
    page.wait_for_timeout(1500)
    assert page.locator(".pane-volume").nth(2).input_value() == "2"
    assert _pane(page, 0).std() > 20


def test_without_webgl_the_page_says_so(open_page: Callable[..., Opened]) -> None:
    opened = open_page()
    opened.page.add_init_script(
        "HTMLCanvasElement.prototype.getContext = function () { return null; };"
    )
    opened.requests.clear()
    opened.page.reload()
    opened.page.locator("#viewer").scroll_into_view_if_needed()
    opened.page.wait_for_selector("#viewer[data-state=failed]")
    assert "no WebGL 2" in opened.page.inner_text("#viewer-message")


def test_hostile_names_run_nothing(
    open_page: Callable[..., Opened], builders: ModuleType, tmp_path: Path
) -> None:
    from medsr.evaluate.report import Case, write_report

    name = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
    data = builders.build(minimal=True, patients=2)
    for row in data["scans"]:
        row["scan_id"] = name
    data["failed"] = [{"scan_id": name, "axis": "x", "method": name, "reason": name}]
    case = builders.build_case()
    cases = [Case(name, name, name, "x", case.lr, case.truth, case.results)]
    page = open_page(write_report(data, cases, tmp_path / "report.html")).page
    _start_viewer(page)
    page.locator(".panel button").first.click()
    assert page.evaluate("window.hurt") is None


def test_without_scripts_everything_can_be_read(open_page: Callable[..., Opened]) -> None:
    page = open_page(java_script_enabled=False).page
    assert "7 of 7 patients" in page.inner_text("h1")
    assert page.locator("#scans-table tbody tr").count() == 70

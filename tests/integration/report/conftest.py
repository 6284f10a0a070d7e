"""A real headless Chromium, and reports for it to open."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BUILDERS = Path(__file__).parents[2] / "unit" / "evaluate" / "report" / "conftest.py"
# A drawing without a graphics card, and no background traffic of the browser itself.
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
)


@pytest.fixture(scope="session")
def builders() -> ModuleType:
    """The builders of synthetic evaluations and cases that the unit tests use."""
    spec = importlib.util.spec_from_file_location("report_builders", BUILDERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report(builders: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full report with two cases."""
    from medsr.evaluate.report import write_report

    data = builders.build()
    data["failed"] = [{"scan_id": "x_T1w", "axis": "x", "method": None, "reason": "truncated"}]
    cases = [builders.build_case(), builders.build_case(label="median")]
    return write_report(data, cases, tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium with a software WebGL; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs the browser chromium, which is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield opened
        opened.close()

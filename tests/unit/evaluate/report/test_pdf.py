"""The report as PDF: a real one where WeasyPrint and Pango are there, a hint where they are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medsr.errors import MissingExtraError
from medsr.evaluate.report import Case, render, write_pdf


@pytest.mark.slow
def test_the_report_prints(
    evaluation: Callable[..., dict[str, Any]], make_case: Callable[..., Case], tmp_path: Path
) -> None:
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"needs weasyprint and libpangoft2-1.0-0: {error}")
    path = write_pdf(evaluation(patients=2), [make_case()], tmp_path / "report.pdf")
    content = path.read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(content) > 50_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.pdf"]


def test_what_is_printed_needs_no_script(
    evaluation: Callable[..., dict[str, Any]], make_case: Callable[..., Case]
) -> None:
    page = render(evaluation(minimal=True), [make_case()], static=True)
    assert "<script" not in page
    assert "<canvas" not in page
    plots = page[page.index('<svg class="plot"') :]
    assert "var(--" not in plots[: plots.index("</svg>")]
    assert "data:image/png" in page


def test_without_weasyprint_the_extra_is_named(
    evaluation: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingExtraError, match=r"medsr\[pdf\]"):
        write_pdf(evaluation(minimal=True), [], tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())

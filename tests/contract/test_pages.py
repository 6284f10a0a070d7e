"""The figures of the documentation are what ``tools/pages.py`` makes of the committed results."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

from medsr import zoo

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "docs" / "benchmarks" / "evaluation").glob("*.json"))
# A figure to two places after the point, as scores have.
FIGURE = re.compile(r"(?<![\d.])\d+\.\d\d(?![\d.])")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pages", ROOT / "tools" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _load()
HELD = [path for path in pages.PAGES if pages.BLOCK.search(path.read_text(encoding="utf-8"))]


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", HELD, ids=_id)
def test_a_page_is_what_its_results_say(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert pages.rewrite(text) == text, "run python tools/pages.py"


def test_a_figure_typed_by_hand_does_not_stay() -> None:
    page = (ROOT / "docs" / "explanation" / "lesions.md").read_text(encoding="utf-8")
    block = pages.BLOCK.search(page)[0]
    typed = page.replace(block, FIGURE.sub("0.99", block, count=1))
    assert typed != page
    assert pages.rewrite(typed) == page


def test_every_kind_of_block_is_on_a_page_and_every_card_has_one() -> None:
    found = {m["name"] for path in HELD for m in pages.BLOCK.finditer(path.read_text("utf-8"))}
    assert found == pages.BLOCKS.keys()
    cards = {zoo.path(name) / "card.md" for name in zoo.names()}
    assert cards <= set(HELD)


@pytest.mark.parametrize("name", ["benchmarks/evaluation.md", "explanation/lesions.md"])
def test_scores_stand_in_blocks_alone(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert FIGURE.findall(pages.BLOCK.sub("", text)) == []


@pytest.mark.parametrize("path", HELD, ids=_id)
def test_a_table_of_scores_stands_on_one_page(path: Path) -> None:
    """No line of a generated table, figures and all, is typed on another page; cards repeat one."""
    lines = {
        line
        for block in pages.BLOCK.finditer(path.read_text("utf-8"))
        for line in block["body"].splitlines()
        if line.startswith("|") and len(FIGURE.findall(line)) > 2
    }
    for other in (ROOT / "docs").rglob("*.md"):
        if other != path and path.name != "card.md":
            assert not lines & set(other.read_text(encoding="utf-8").splitlines()), other


@pytest.mark.parametrize("path", RESULTS, ids=_id)
def test_what_is_tabled_is_what_ships(path: Path) -> None:
    methods = json.loads(path.read_text(encoding="utf-8"))["methods"]
    shipped = [name for name in methods if name in zoo.names()]
    assert shipped
    for name in shipped:
        weights = (zoo.path(name) / "weights.safetensors").read_bytes()
        assert methods[name]["weights_sha256"] == hashlib.sha256(weights).hexdigest(), name


@pytest.mark.parametrize("name", ["mr-z4", "mr-iso2", "ct-z4"])
def test_figures_by_hand(name: str) -> None:
    """Means over patients and over kinds of lesions, from the rows and by their definition."""
    data = json.loads((ROOT / f"docs/benchmarks/evaluation/{name}.json").read_text("utf-8"))
    scans: dict[tuple[str, str], list[float]] = {}
    for row in data["scans"]:
        if row["method"] == name:
            scans.setdefault((row["patient_id"], row["scan_id"]), []).append(row["psnr"])
    people: dict[str, list[float]] = {}
    for (patient, _), values in scans.items():
        people.setdefault(patient, []).append(fmean(values))
    psnr = fmean(fmean(values) for values in people.values())
    line = re.search(rf"^\| `{name}` \| (\S+)", pages.scored(name), re.MULTILINE)
    assert line is not None
    assert float(line[1]) == pytest.approx(psnr, abs=0.006)
    kept = [
        e["contrast_kept"]["mean"]
        for e in data["lesions"]["summary"][name]
        if e["diameter_mm"] == 3
    ]
    row = re.search(rf"^\| 3 mm \| `{name}` \| (\S+)", pages.lesions(name), re.MULTILINE)
    assert row is not None
    assert float(row[1]) == pytest.approx(fmean(kept), abs=0.006)


def test_results_are_taken_over_without_rows_of_lesions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "BENCHMARKS", tmp_path / "benchmarks")
    (tmp_path / "benchmarks" / "evaluation").mkdir(parents=True)
    (tmp_path / "runs" / "mr-z4").mkdir(parents=True)
    data: dict[str, Any] = {"summary": {}, "lesions": {"summary": {"m": []}, "rows": [1, 2]}}
    (tmp_path / "runs" / "mr-z4" / "results.json").write_text(json.dumps(data), encoding="utf-8")
    assert pages.take(tmp_path / "runs") == ["mr-z4"]
    kept = json.loads((tmp_path / "benchmarks/evaluation/mr-z4.json").read_text(encoding="utf-8"))
    assert kept == {"summary": {}, "lesions": {"summary": {"m": []}}}

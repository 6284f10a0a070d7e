"""Rates are measured once, kept, and survive a damaged cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsr.infer.engine import speed as calibrate
from medsr.infer.engine.speed import USUAL, Rates, Way, rates


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MEDSR_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "CUBES", (8, 12))
    monkeypatch.setattr(calibrate, "PLANES", (8, 12))
    rates.cache_clear()
    yield tmp_path
    rates.cache_clear()


def test_between_the_points_and_beyond() -> None:
    table = Rates(((100.0, 10.0), (10000.0, 30.0), (1000000.0, 10.0)))
    assert table.at(1) == 10
    assert table.at(1000) == pytest.approx(20)
    assert table.at(100000) == pytest.approx(20)
    assert table.at(1e9) == 10
    assert USUAL["fp32"].at(2**40) < USUAL["fp32"].at(2**20)


@pytest.mark.parametrize("way", ["stream", "tile"])
def test_measured_once_and_kept(way: Way, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = rates(way, "fp32")
    assert len(measured.points) == 2
    assert all(rate > 1e6 for _, rate in measured.points)
    files = list(folder.glob("rates-*.json"))
    assert len(files) == 1
    rates.cache_clear()
    monkeypatch.setattr(calibrate, "_streaming", None)
    monkeypatch.setattr(calibrate, "_tiles", None)
    assert rates(way, "fp32") == measured


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"points": []}',
        '{"points": [[1, -2], [3, 4]]}',
        '{"points": [["a", "b"], ["c", "d"]]}',
        '{"points": [[1, 2], [1, 2]]}',
        '{"points": [[1, 2], [NaN, 2]]}',
        '{"points": {"1": 2, "3": 4}}',
    ],
)
def test_a_damaged_cache_is_measured_anew(folder: Path, content: str) -> None:
    rates("tile", "fp32")
    (file,) = folder.glob("rates-*.json")
    file.write_text(content)
    rates.cache_clear()
    assert len(rates("tile", "fp32").points) == 2
    assert len(json.loads(file.read_text())["points"]) == 2


def test_graphics_processors_are_not_measured(folder: Path) -> None:
    large = rates("stream", "bf16", "cuda")
    assert large.at(2**28) > large.at(2**20)
    assert list(folder.iterdir()) == []

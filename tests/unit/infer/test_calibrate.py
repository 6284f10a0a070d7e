"""Rates are measured once, kept, and survive a damaged cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsr.infer import calibrate
from medsr.infer.calibrate import USUAL, Rates, rates


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MEDSR_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "SIZES", (8, 12))
    rates.cache_clear()
    yield tmp_path
    rates.cache_clear()


def test_between_the_points_and_beyond() -> None:
    table = Rates(((100.0, 10.0), (10000.0, 30.0), (1000000.0, 10.0)))
    assert table.at(1) == 10
    assert table.at(1000) == pytest.approx(20)
    assert table.at(100000) == pytest.approx(20)
    assert table.at(1e9) == 10
    assert table.best_bytes == 10000
    assert USUAL.at(2**40) < USUAL.at(2**20)


def test_measured_once_and_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = rates("fp32")
    assert len(measured.points) == 2
    assert all(rate > 1e6 for _, rate in measured.points)
    files = list(folder.glob("rates-*.json"))
    assert len(files) == 1
    rates.cache_clear()
    monkeypatch.setattr(calibrate, "_measure", None)
    assert rates("fp32") == measured


@pytest.mark.parametrize("content", ["{", '{"points": []}', '{"points": [[1, -2], [3, 4]]}'])
def test_a_damaged_cache_is_measured_anew(folder: Path, content: str) -> None:
    rates("fp32")
    (file,) = folder.glob("rates-*.json")
    file.write_text(content)
    rates.cache_clear()
    assert len(rates("fp32").points) == 2
    assert len(json.loads(file.read_text())["points"]) == 2


def test_graphics_processors_are_not_measured(folder: Path) -> None:
    assert rates("bf16", "cuda").best_bytes >= 2**28
    assert list(folder.iterdir()) == []

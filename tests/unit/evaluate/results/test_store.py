"""What an unfinished evaluation leaves, and who may go on with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from medsr.errors import OutputExistsError
from medsr.evaluate.results.store import UNFINISHED, Unfinished

SETTINGS = {"seed": 1, "scale": [1, 1, 4], "share": 0.1 + 0.2}


def test_rows_survive_to_the_last_digit(tmp_path: Path) -> None:
    row = {"value": 0.1 + 0.2, "nothing": math.nan, "perfect": math.inf, "name": "späť/.."}
    Unfinished(tmp_path / "out", SETTINGS).keep("../scan ü", row)
    again = Unfinished(tmp_path / "out", SETTINGS).load("../scan ü")
    assert again is not None
    assert again["value"] == row["value"]
    assert math.isnan(again["nothing"])
    assert again["perfect"] == math.inf
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_settings_are_refused_or_thrown_away(tmp_path: Path) -> None:
    Unfinished(tmp_path, SETTINGS).keep("a", {"x": 1})
    other = {**SETTINGS, "seed": 2}
    with pytest.raises(OutputExistsError, match="other settings"):
        Unfinished(tmp_path, other)
    assert Unfinished(tmp_path, SETTINGS).load("a") == {"x": 1}
    assert Unfinished(tmp_path, other, overwrite=True).load("a") is None


def test_half_a_file_counts_as_none_and_clearing_leaves_nothing(tmp_path: Path) -> None:
    kept = Unfinished(tmp_path, SETTINGS)
    kept.keep("a", {"x": 1})
    for path in (tmp_path / UNFINISHED).glob("*.json"):
        path.write_text(path.read_text()[:5])
    assert kept.load("a") is None
    kept.clear()
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    kept = Unfinished(None, SETTINGS)
    kept.keep("a", {"x": 1})
    assert kept.load("a") is None
    kept.clear()

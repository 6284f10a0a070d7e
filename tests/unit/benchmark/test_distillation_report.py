"""Table, picture and page say what the results hold, and keep what was written by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medsr.benchmark.distillation_report import HAND, page, plot, ranked, table, write_page
from medsr.benchmark.distillation_stats import summarise
from medsr.errors import MissingExtraError


def rows(*values: float) -> list[dict[str, Any]]:
    return [
        {"patient_id": f"p{i}", "scan_id": f"s{i}", "axis": "z", "psnr": value}
        for i, value in enumerate(values)
    ]


@pytest.fixture
def results() -> dict[str, Any]:
    gains = {"undistilled": 0.0, "longer": 0.2, "worse": -0.3, "output": 0.4}
    arms: dict[str, Any] = {
        name: {"about": f"About {name}.", "as_long_as": None, "changes": {}} for name in gains
    }
    ramp = {"start": 0.7, "end": 0.0, "begin": 0.5, "until": 0.8}
    arms["output"]["changes"] = {"terms": [{"name": "output", "weight": ramp}]}
    plain: dict[str, Any] = {
        "about": {
            "command": "medsr benchmark distillation --recipe arms.yaml",
            "versions": {"medsr": "0"},
            "base": {
                "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 4}},
                "patches": {"size": [8, 8, 4], "batch": 2},
                "loop": {"steps": 40},
                "data": {"modality": "MR"},
                "degradation": {"kind": "slice_profile", "factor": [1, 1, 4]},
            },
            "teacher": {"name": "mr-z4", "parameters": 1000},
            "scoring": {"split": "dev"},
            "arms": arms,
        },
        "references": {"bspline": rows(19.0, 29.0), "teacher": rows(25.0, 35.0)},
        "timing": {"longer": {"as_long_as": "output", "ratio": 1.5}},
        "failures": [{"arm": "broken", "seed": 1, "error": "not finite"}],
        "runs": [
            {
                "arm": arm,
                "seed": seed,
                "steps": 40,
                "seconds": 10.0 * (1 + (arm == "output")),
                "parameters": 500,
                "rows": rows(20 + gain + 0.01 * seed * gain, 30 + gain),
            }
            for arm, gain in gains.items()
            for seed in range(3)
        ],
    }
    return plain | {"summary": summarise(plain)}


def test_the_table_has_a_row_an_arm_the_best_first(results: dict[str, Any]) -> None:
    lines = [line.strip("| ").split(" | ") for line in table(results).splitlines()]
    names = [line[0].strip() for line in lines[2:]]
    assert names[:2] == ["cubic B-spline", "teacher `mr-z4`"]
    assert names[2:6] == ["undistilled", "longer", "output", "worse"]
    assert names[6].startswith("broken, seed 1: failed")
    output, worse = lines[6], lines[7]
    assert output[2].startswith("+0.40")
    assert output[3:5] == ["3 of 3", "yes"]
    assert output[6:] == ["8%", "40", "20", "2.00"]
    assert worse[3:5] == ["0 of 3", "yes"]
    assert [arm for arm, _ in ranked(results)] == names[2:6]


def test_the_picture_is_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with Image.open(plot(results, tmp_path / "arms.png")) as picture:
        assert min(picture.size) > 200


def test_a_missing_matplotlib_names_the_extra(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"medsr\[report\]"):
        plot(results, tmp_path / "arms.png")


def test_the_page_tells_method_command_and_arms(results: dict[str, Any]) -> None:
    text = page(results, data="arms.json", picture="arms.png")
    for expected in (
        table(results),
        "![PSNR of every method over the undistilled student](arms.png)",
        "[JSON](arms.json)",
        "medsr benchmark distillation --recipe arms.yaml",
        "About worse.",
        "`output` 0.7 → 0 from 50% to 80% of the steps",
        "2 rows of 2 patients",
        "1.50 times the steps",
    ):
        assert expected in text


def test_what_was_written_by_hand_is_kept(results: dict[str, Any], tmp_path: Path) -> None:
    path = write_page(results, tmp_path / "page.md", data=None, picture=None)
    text = path.read_text(encoding="utf-8")
    assert text.endswith(HAND + "\n")
    path.write_text(text + "\n## What follows\n\nUse output.\n", encoding="utf-8")
    results["about"]["command"] = "another command"
    write_page(results, path, data=None, picture=None)
    again = path.read_text(encoding="utf-8")
    assert again.endswith(HAND + "\n\n## What follows\n\nUse output.\n")
    assert "another command" in again

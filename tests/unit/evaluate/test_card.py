"""Model cards and tables say what the results hold, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medsr.errors import CohortError
from medsr.evaluate.card import (
    gain_table,
    model_card,
    read_precision,
    read_results,
    score_table,
)
from medsr.model import Intensity, ModelSpec, SpacingRange


def _row(axis: str, method: str, psnr: float, gain: float) -> dict[str, Any]:
    return {"scan_id": "s1", "axis": axis, "method": method, "psnr": psnr, "psnr_gain": gain}


@pytest.fixture
def results() -> dict[str, Any]:
    def of(psnr: float, gain: dict[str, float] | None) -> dict[str, Any]:
        metric = {"mean_over_rows": psnr, "std_over_rows": 0.5}
        base = {"psnr": metric, "ssim": metric, "mae": metric}
        return base if gain is None else base | {"psnr_gain_over_bspline": gain}

    return {
        "command": "medsr evaluate --model m",
        "cohort": {"scans": 1, "patients": 1, "split": "dev"},
        "task": {"axes": "each axis in turn"},
        "conventions": {"data_range": "2048 HU"},
        "summary": {
            "bspline": of(20.0, None),
            "m": of(22.5, {"mean": 2.5, "min": 2.0, "max": 3.0}),
        },
        "scans": [
            _row("x", "bspline", 19.0, 0.0),
            _row("x", "m", 21.0, 2.0),
            _row("y", "bspline", 21.0, 0.0),
            _row("y", "m", 24.0, 3.0),
        ],
    }


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        name="m",
        version="1",
        network="RepPlain3D",
        options={"width": 16},
        scale=(1, 1, 4),
        modality="CT",
        role="student",
        intensity=Intensity.for_modality("CT"),
        halo=(3, 3, 3),
        multiple_of=(1, 1, 1),
        trained_spacing_mm=SpacingRange(in_plane=(0.5, 1.0), slice=(2.0, 4.0)),
        trained_degradation={"kind": "ct_slab"},
        parameters=1234,
        training={"recipe": {"teacher": "runs/big/model", "loop": {"steps": 77}}},
        description="A model.",
    )


def test_score_table_shows_mean_spread_and_gain(results: dict[str, Any]) -> None:
    header, rule, base, ours = score_table(results).splitlines()
    assert header.count("|") == rule.count("|") == base.count("|") == ours.count("|")
    assert base == "| bspline | 20.00 ± 0.50 |  | 20.0000 ± 0.5000 | 20.00 ± 0.50 |"
    assert "| +2.50 (+2.00 … +3.00) |" in ours


def test_gain_table_has_one_line_a_row(results: dict[str, Any]) -> None:
    lines = gain_table(results, ["m"]).splitlines()
    assert lines[2:] == ["| s1 | x | 19.00 | +2.00 |", "| s1 | y | 21.00 | +3.00 |"]


def test_card_names_what_matters(results: dict[str, Any], spec: ModelSpec) -> None:
    card = model_card(spec, results, "m", ["Set A, CC0"], ["One note."])
    for expected in (
        "Not for diagnosis",
        "Set A, CC0",
        "distilled from `big`",
        "77 steps",
        "1,234 parameters",
        "2048 HU",
        "medsr evaluate --model m",
        "One note.",
        "| m | 22.50 ± 0.50 |",
    ):
        assert expected in card


@pytest.mark.parametrize(
    ("term", "warned"),
    [
        ({"name": "adversarial", "weight": 0.01}, True),
        ({"name": "dam", "options": {"adversarial": 0.01}}, True),
        ({"name": "dam", "options": {"adversarial": 0.0}}, False),
        ({"name": "output", "options": {}}, False),
    ],
)
def test_card_warns_of_invented_texture(
    results: dict[str, Any], spec: ModelSpec, term: dict[str, Any], warned: bool
) -> None:
    assert spec.training["recipe"].get("terms") is None
    assert "invented" not in model_card(spec, results, "m", ["Set A"])
    recipe = spec.training["recipe"] | {"terms": [{"name": "output"}, term]}
    spec = replace(spec, training={"recipe": recipe})
    card = model_card(spec, results, "m", ["Set A"])
    assert ("**Warning: m was trained to fool a discriminator: fine texture" in card) is warned


def test_card_refuses_a_model_that_was_not_scored(results: dict[str, Any], spec: ModelSpec) -> None:
    with pytest.raises(CohortError, match="--model other"):
        model_card(spec, results, "other", ["Set A"])


@pytest.mark.parametrize("text", ["", "[]", "{}", "no json"])
def test_wrong_results_are_refused(tmp_path: Any, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(CohortError, match=r"results\.json"):
        read_results(path)


def test_card_says_what_distillation_gave(results: dict[str, Any], spec: ModelSpec) -> None:
    results["summary"]["m-plain"] = results["summary"]["m"]
    results["scans"] += [_row("y", "m-plain", 23.75, 2.75), _row("x", "m-plain", 21.25, 2.25)]
    card = model_card(spec, results, "m", ["Set A"], undistilled="m-plain")
    assert "What distillation gave: +0.00 dB (-0.25 … +0.25 by row) against `m-plain`" in card
    assert "| m-plain | 22.50" in card
    assert "What distillation gave" not in model_card(spec, results, "m", ["Set A"])
    with pytest.raises(CohortError, match="no method 'fog'"):
        model_card(spec, results, "m", ["Set A"], undistilled="fog")


def test_card_says_what_bf16_costs(
    results: dict[str, Any], spec: ModelSpec, tmp_path: Path
) -> None:
    entry = {"mean": -0.0012, "worst": -0.0049, "scans": [{}, {}], "split": "dev"}
    path = tmp_path / "inference.json"
    measured = {"precision_psnr_db": {"m": entry | {"weights_sha256": "abc"}}}
    path.write_text(json.dumps(measured), encoding="utf-8")
    card = model_card(
        spec, results, "m", ["Set A, CC0"], precision=read_precision(path, "m", "abc")
    )
    line = "bf16 differs from fp32 by -0.0012 dB of PSNR (worst -0.0049 dB) over 2 scans of the "
    assert line in card
    assert "bf16" not in model_card(spec, results, "m", ["Set A, CC0"])


def test_bf16_figures_of_other_models_and_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "inference.json"
    with pytest.raises(CohortError, match=r"inference\.json: does not say what bf16 costs m"):
        read_precision(path, "m", "abc")
    entry = {"mean": 0.0, "worst": 0.0, "scans": [], "split": "dev", "weights_sha256": "old"}
    path.write_text(json.dumps({"precision_psnr_db": {"m": entry}}), encoding="utf-8")
    with pytest.raises(CohortError, match="does not say what bf16 costs other"):
        read_precision(path, "other", "old")
    with pytest.raises(CohortError, match="m had other weights"):
        read_precision(path, "m", "new")

"""The statistics block: what is compared with what, by how much, and what few patients allow."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from medsr.evaluate.results import CaseResult
from medsr.evaluate.results.intervals import cautious_interval
from medsr.evaluate.results.statistics import WORST_ROWS, analyse

METHODS: dict[str, dict[str, str]] = {
    "linear": {"role": "baseline"},
    "bspline": {"role": "baseline"},
    "tv": {"role": "baseline"},
    "small": {"role": "student"},
    "large": {"role": "teacher"},
    "peer": {"role": "external"},
}
# PSNR over B-spline, dB.
GAIN = {"linear": -1.0, "bspline": 0.0, "tv": 1.0, "small": 2.0, "large": 2.03, "peer": -0.5}


def cohort(patients: int = 7, spread: float = 0.02, seed: int = 5) -> list[CaseResult]:
    """Two axes a patient, patients that differ far more than methods do."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        level = 25 + 5 * rng.normal()
        for axis in "xy":
            for method, gain in GAIN.items():
                psnr = level + gain + spread * rng.normal()
                values = {"psnr": psnr, "mae": 10 ** (2 - psnr / 20), "bias": -gain, "ssim": 0.9}
                rows.append(CaseResult(f"p{number}", f"s{number}", axis, method, values, 0.1))
    return rows


def chosen(block: dict[str, Any], method: str, against: str, metric: str) -> dict[str, Any]:
    (found,) = [
        entry
        for entry in block["comparisons"]
        if (entry["method"], entry["against"], entry["metric"]) == (method, against, metric)
    ]
    return dict(found)


@pytest.fixture(scope="module")
def block() -> dict[str, Any]:
    return analyse(cohort(), METHODS, resamples=999)


def test_the_block_is_plain_json_with_finite_numbers(block: dict[str, Any]) -> None:
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    assert set(block) == {
        *("settings", "patients", "means", "comparisons"),
        *("non_inferiority", "per_patient", "worst"),
    }
    assert block["patients"] == 7


def test_means_are_over_patients(block: dict[str, Any]) -> None:
    rows = [row for row in cohort() if row.method == "small"]
    by_patient = [
        np.mean([row.metrics["psnr"] for row in rows if row.patient_id == f"p{n}"])
        for n in range(7)
    ]
    found = block["means"]["small"]["psnr"]
    assert found["mean"] == pytest.approx(np.mean(by_patient))
    assert found["median"] == pytest.approx(np.median(by_patient))
    assert (found["min"], found["max"]) == pytest.approx((min(by_patient), max(by_patient)))
    assert found["low"] < found["mean"] < found["high"]
    assert (found["patients"], found["dropped"]) == (7, 0)
    assert block["per_patient"]["small"]["p3"]["psnr"] == pytest.approx(by_patient[3])


def test_pairing_sees_what_means_cannot(block: dict[str, Any]) -> None:
    """Patients differ by 5 dB, methods by 2: intervals of means overlap, that of the pairs not."""
    means = block["means"]
    assert means["small"]["psnr"]["low"] < means["bspline"]["psnr"]["high"]
    found = chosen(block, "small", "bspline", "psnr")
    assert found["difference"] == pytest.approx(2.0, abs=0.03)
    assert 1.9 < found["low"] < found["high"] < 2.1
    assert (found["better"], found["worse"], found["equal"]) == (7, 0, 0)
    assert found["p"] == 2 / 2**7
    assert found["effect"] == 1.0


def test_holm_is_over_the_methods_that_are_compared(block: dict[str, Any]) -> None:
    family = [chosen(block, name, "bspline", "psnr") for name in ("small", "large", "peer")]
    assert [entry["p"] for entry in family] == [2 / 2**7] * 3
    assert [entry["p_corrected"] for entry in family] == pytest.approx([3 * 2 / 2**7] * 3)
    alone = chosen(block, "small", "large", "psnr")
    assert alone["p_corrected"] == alone["p"] < 0.1


def test_projected_models_are_compared_with_their_like() -> None:
    twins = {"small": "small+consistency", "large": "large+consistency"}
    rows = cohort()
    rows += [replace(row, method=twins[row.method]) for row in rows if row.method in twins]
    methods = METHODS | {new: {**METHODS[old], "projects": old} for old, new in twins.items()}
    found = analyse(rows, methods, resamples=999)
    among = {
        (row["method"], row["against"])
        for row in found["comparisons"]
        if row["metric"] == "psnr" and row["against"] in {*twins, *twins.values()}
    }
    assert among == {
        ("small", "large"),
        ("small+consistency", "large+consistency"),
        ("small+consistency", "small"),
        ("large+consistency", "large"),
    }
    same = chosen(found, "small+consistency", "small", "psnr")
    assert (same["difference"], same["equal"], same["p"]) == (0, 7, None)
    assert len(found["non_inferiority"]) == 2
    assert chosen(found, "small", "large", "psnr")["p_corrected"] <= 2 * 0.1


def test_the_sign_of_better_follows_the_metric(block: dict[str, Any]) -> None:
    lower = chosen(block, "small", "bspline", "mae")
    assert lower["difference"] < 0
    assert (lower["better"], lower["effect"]) == (7, 1.0)
    # A bias of -2 is further from zero than one of 0, and one of 0.5 is, too.
    for method, size in (("small", 2.0), ("peer", 0.5)):
        zero = chosen(block, method, "bspline", "bias")
        assert zero["difference"] == pytest.approx(size)
        assert (zero["worse"], zero["effect"]) == (7, -1.0)
    same = chosen(block, "small", "bspline", "ssim")
    assert (same["equal"], same["effect"], same["p"]) == (7, 0.0, 1.0)


def test_only_the_stated_metrics_are_tested(block: dict[str, Any]) -> None:
    assert block["settings"]["tested"] == ["psnr", "mae", "ssim"]
    assert chosen(block, "small", "bspline", "bias")["p"] is None
    described = chosen(block, "small", "tv", "psnr")
    assert described["p"] is None
    assert described["low"] < 1.0 < described["high"]
    assert all(e["method"] not in ("linear", "bspline", "tv") for e in block["comparisons"])


def test_non_inferiority_turns_at_the_margin() -> None:
    rows = cohort()
    (found,) = analyse(rows, METHODS, resamples=499)["non_inferiority"]
    assert (found["method"], found["against"], found["margin"]) == ("small", "large", 0.1)
    assert found["non_inferior"] is True
    assert found["low"] > -0.1
    reach = -found["low"]
    for margin, expected in ((reach + 1e-3, True), (reach - 1e-3, False)):
        (again,) = analyse(rows, METHODS, resamples=499, margin=margin)["non_inferiority"]
        assert again["non_inferior"] is expected


def test_non_inferiority_of_a_metric_that_should_be_low() -> None:
    (found,) = analyse(cohort(), METHODS, primary="mae", margin=1.0, resamples=499)[
        "non_inferiority"
    ]
    assert found["difference"] > 0
    assert found["non_inferior"] is (found["high"] < 1.0)


def test_non_inferiority_keeps_its_promise_on_seven_patients(rng: np.random.Generator) -> None:
    """A student that is worse by exactly the margin passes in about 2.5 of 100 studies."""
    studies, passed = 400, 0
    for _ in range(studies):
        ends = cautious_interval(rng.normal(-0.1, 0.05, 7).tolist(), resamples=199)
        assert ends is not None
        passed += ends[0] > -0.1
    assert passed <= stats.binom.ppf(0.999, studies, 0.025)


def test_non_inferiority_goes_by_that_interval() -> None:
    gaps = (-0.08, -0.02, -0.05, 0.01, -0.06, -0.03, -0.04)
    rows = [
        CaseResult(f"p{number}", f"s{number}", "x", method, {"psnr": psnr}, 0.0)
        for number, gap in enumerate(gaps)
        for method, psnr in (("large", 30.0), ("small", 30.0 + gap))
    ]
    (found,) = analyse(rows, METHODS, resamples=199, seed=5)["non_inferiority"]
    ends = cautious_interval(gaps, resamples=199, seed=5)
    assert (found["low"], found["high"]) == pytest.approx(ends)
    assert found["non_inferior"] is True


def test_the_worst_rows_come_first(block: dict[str, Any]) -> None:
    rows = {(r.scan_id, r.axis, r.method): r.metrics["psnr"] for r in cohort()}
    gains = sorted(
        value - rows[scan, axis, "bspline"]
        for (scan, axis, method), value in rows.items()
        if method == "small"
    )
    found = [entry for entry in block["worst"] if entry["method"] == "small"]
    assert [entry["gain"] for entry in found] == pytest.approx(gains[:WORST_ROWS])
    assert {entry["method"] for entry in block["worst"]} == {"small", "large", "peer"}


@pytest.mark.parametrize("patients", [1, 2])
def test_few_patients_are_described_without_inference(patients: int) -> None:
    found = analyse(cohort(patients), METHODS)
    assert found["patients"] == patients
    row = chosen(found, "small", "bspline", "psnr")
    assert row["difference"] == pytest.approx(2.0, abs=0.1)
    assert [row[name] for name in ("low", "high", "p", "p_corrected")] == [None] * 4
    assert row["better"] == patients
    assert found["means"]["small"]["psnr"]["low"] is None
    (entry,) = found["non_inferiority"]
    assert entry["non_inferior"] is None
    assert "below 3 patients" in found["settings"]["interval"]


def test_missing_numbers_are_left_out_and_counted() -> None:
    rows = cohort(4)
    for number, row in enumerate(rows):
        if row.patient_id == "p0" and row.method == "small":
            values = {**row.metrics, "psnr": math.nan}
            rows[number] = CaseResult(row.patient_id, row.scan_id, row.axis, "small", values, 0.1)
    found = analyse(rows, METHODS, resamples=199)
    assert found["means"]["small"]["psnr"]["dropped"] == 2
    assert found["means"]["small"]["psnr"]["patients"] == 3
    assert chosen(found, "small", "bspline", "psnr")["patients"] == 3
    assert "psnr" not in found["per_patient"]["small"]["p0"]


def test_without_models_or_reference_there_is_nothing_to_compare() -> None:
    only = [row for row in cohort(4) if row.method in ("linear", "tv")]
    found = analyse(only, METHODS, resamples=199)
    assert found["comparisons"] == found["non_inferiority"] == found["worst"] == []
    assert set(found["means"]) == {"linear", "tv"}
    assert analyse([], {})["patients"] == 0


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"margin": math.nan}, {"confidence": 1.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is"):
        analyse(cohort(3), METHODS, **wrong)

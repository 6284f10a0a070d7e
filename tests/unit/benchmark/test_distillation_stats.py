"""Means, differences and doubts are those of SciPy and of pencil and paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from medsr.benchmark.distillation_stats import by_patient, compare, summarise
from medsr.evaluate.results.intervals import bootstrap_interval, t_interval


def rows(**patients: list[float]) -> list[dict[str, Any]]:
    return [
        {"patient_id": name, "scan_id": f"{name}-{i}", "axis": "z", "psnr": value}
        for name, values in patients.items()
        for i, value in enumerate(values)
    ]


def run(arm: str, seed: int, seconds: float, steps: int = 4, **patients: list[float]) -> Any:
    own = rows(**patients)
    return {"arm": arm, "seed": seed, "seconds": seconds, "steps": steps, "rows": own}


def test_a_patient_counts_once() -> None:
    assert by_patient(rows(a=[20.0, 22.0], b=[30.0])) == {"a": 21.0, "b": 30.0}


def test_intervals_are_scipys() -> None:
    values = [0.2, 0.5, -0.1, 0.4]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert t_interval(values, fewest=2) == pytest.approx((expected.low, expected.high))
    interval = bootstrap_interval(values, fewest=2)
    assert interval is not None
    assert min(values) <= interval[0] < np.mean(values) < interval[1] <= max(values)
    assert bootstrap_interval(values, fewest=2) == interval
    assert bootstrap_interval([0.3, 0.3], fewest=2) == (0.3, 0.3)
    assert bootstrap_interval([0.3], fewest=2) is None
    assert t_interval([0.3], fewest=2) is None


def test_differences_are_paired_by_seed_and_patient() -> None:
    theirs = {s: {"a": 20.0 + s, "b": 30.0 + s, "c": 25.0} for s in range(3)}
    ours = {s: {p: v + 0.5 + 0.01 * s for p, v in own.items()} for s, own in theirs.items()}
    found = compare(ours, theirs)
    assert found is not None
    assert found["mean"] == pytest.approx(0.51)
    assert [*found["by_seed"].values()] == pytest.approx([0.50, 0.51, 0.52])
    assert [*found["by_patient"].values()] == pytest.approx([0.51] * 3)
    assert found["significant"] is True
    assert compare(theirs, theirs)["significant"] is False  # type: ignore[index]
    # One seed says nothing of other seeds.
    assert compare({0: ours[0]}, theirs)["significant"] is None  # type: ignore[index]
    assert compare({9: ours[0]}, theirs) is None


def test_both_doubts_have_to_go() -> None:
    theirs = {s: {"a": 20.0, "b": 21.0, "c": 22.0} for s in range(3)}
    by_seed = {s: {p: v + shift for p, v in theirs[s].items()} for s, shift in enumerate((2, 0, 1))}
    found = compare(by_seed, theirs)
    assert found is not None
    assert found["over_patients"] == (1.0, 1.0)
    assert found["over_seeds"][0] < 0
    assert found["significant"] is False


def test_a_summary_says_what_an_arm_gained_and_cost() -> None:
    results = {
        "references": {"bspline": rows(a=[19.0], b=[29.0]), "teacher": rows(a=[24.0], b=[34.0])},
        "runs": [
            run("undistilled", 0, 10.0, a=[20.0], b=[30.0]),
            run("undistilled", 1, 12.0, a=[20.0], b=[30.0]),
            run("longer", 0, 22.0, 8, a=[20.5], b=[30.5]),
            run("output", 0, 20.0, a=[21.0], b=[31.0]),
            run("output", 1, 24.0, a=[21.0], b=[31.4]),
        ],
    }
    summary = summarise(results)
    plain, output = summary["undistilled"], summary["output"]
    assert plain["psnr"] == 25.0
    assert plain["difference"] is None
    assert plain["gain_over_bspline"] == 1.0
    assert output["psnr"] == pytest.approx(26.1)
    assert output["std_over_seeds"] == pytest.approx(np.std([26.0, 26.2], ddof=1))
    assert output["difference"]["mean"] == pytest.approx(1.1)
    assert output["over_longer"]["mean"] == pytest.approx(0.5)
    assert output["gap_recovered"] == pytest.approx(1.1 / 4)
    assert output["relative_cost"] == pytest.approx(2.0)
    assert summary["longer"]["steps"] == 8
    assert summary["longer"]["over_longer"] is None


def test_no_share_of_a_gap_that_is_not_there() -> None:
    results = {
        "references": {"teacher": rows(a=[19.0])},
        "runs": [run("undistilled", 0, 1.0, a=[20.0]), run("output", 0, 1.0, a=[21.0])],
    }
    assert summarise(results)["output"]["gap_recovered"] is None

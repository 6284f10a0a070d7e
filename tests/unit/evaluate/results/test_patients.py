"""Rows become patients: axes first, then scans, and what has no number is counted."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from medsr.evaluate.results import CaseResult
from medsr.evaluate.results.patients import differences, names, over_patients, scores


def row(patient: str, scan: str, axis: str, value: float, method: str = "a") -> CaseResult:
    return CaseResult(patient, scan, axis, method, {"psnr": value}, 0.1)


ROWS = [
    row("p1", "s1", "x", 10.0),
    row("p1", "s1", "y", 20.0),
    row("p1", "s1", "z", 30.0),
    row("p1", "s2", "x", 40.0),
    row("p2", "s3", "x", 7.0),
    row("p2", "s3", "y", math.nan),
    row("p3", "s4", "x", math.inf),
]


def test_equal_to_pandas_group_by() -> None:
    frame = pd.DataFrame(
        [(r.patient_id, r.scan_id, r.metrics["psnr"]) for r in ROWS if r.scan_id != "s4"],
        columns=["patient", "scan", "psnr"],
    ).dropna()
    by_scan = frame.groupby(["patient", "scan"]).psnr.mean()
    expected = by_scan.groupby("patient").mean().to_dict()
    found = scores(ROWS, "a", "psnr")
    assert over_patients(found.by_place) == pytest.approx(expected)
    assert over_patients(found.by_place)["p1"] == 30.0  # not 25, the mean of the rows


def test_rows_without_a_number_are_dropped_and_counted() -> None:
    found = scores(ROWS, "a", "psnr")
    assert found.dropped == 2
    assert ("p2", "s3", "y") not in found.by_place
    assert "p3" not in over_patients(found.by_place)
    assert scores(ROWS, "a", "ssim").dropped == 0
    assert not scores(ROWS, "b", "psnr").by_place


def test_several_rows_of_one_place_are_averaged() -> None:
    found = scores([row("p", "s", "x", 1.0), row("p", "s", "x", 2.0)], "a", "psnr")
    assert found.by_place == {("p", "s", "x"): 1.5}


def test_differences_are_paired_row_by_row() -> None:
    theirs = scores([row("p1", "s1", "x", 9.0), row("p2", "s3", "y", 1.0)], "a", "psnr")
    ours = scores(ROWS, "a", "psnr")
    assert differences(ours, theirs, "higher") == {("p1", "s1", "x"): 1.0}


def test_magnitudes_are_compared_where_zero_is_best() -> None:
    ours = scores([row("p", "s", "x", 5.0), row("p", "s", "y", -5.0)], "a", "psnr")
    theirs = scores([row("p", "s", "x", 1.0), row("p", "s", "y", 1.0)], "a", "psnr")
    assert over_patients(differences(ours, theirs, "zero")) == {"p": 4.0}
    assert over_patients(differences(ours, theirs, "lower")) == {"p": -1.0}


def test_names_keep_their_order() -> None:
    rows = [row("p", "s", "x", 1.0, "b"), row("p", "s", "x", 1.0, "a")]
    assert names(rows) == (("b", "a"), ("psnr",))

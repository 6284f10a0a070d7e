"""Rows become patients: axes first, then scans, and what has no number is counted."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from medsr.evaluate.results import CaseResult
from medsr.evaluate.results.patients import (
    COLUMNS,
    Scores,
    differences,
    over_patients,
    scores,
    tidy,
)


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


def numbers(rows: list[CaseResult], metric: str = "psnr") -> Scores:
    return scores(tidy(rows)).get(("a", metric), Scores({}, 0))


def test_a_line_for_every_number() -> None:
    rows = [replace(row("p", "s", "x", 1.0), metrics={"psnr": 1.0, "ssim": 0.5}, region="knee")]
    table = tidy(rows)
    assert table.columns.tolist() == [*COLUMNS]
    assert table.values.tolist() == [
        ["p", "s", "x", "knee", "a", "psnr", 1.0],
        ["p", "s", "x", "knee", "a", "ssim", 0.5],
    ]
    assert tidy([]).columns.tolist() == [*COLUMNS]


def test_equal_to_pandas_group_by() -> None:
    frame = tidy(ROWS)
    frame = frame[np.isfinite(frame["value"])]
    by_scan = frame.groupby(["patient_id", "scan_id"])["value"].mean()
    expected = by_scan.groupby("patient_id").mean().to_dict()
    found = over_patients(numbers(ROWS).by_place)
    assert found == pytest.approx(expected)
    assert found["p1"] == 30.0  # not 25, the mean of the rows


def test_rows_without_a_number_are_dropped_and_counted() -> None:
    found = numbers(ROWS)
    assert found.dropped == 2
    assert ("p2", "s3", "y") not in found.by_place
    assert "p3" not in over_patients(found.by_place)
    assert numbers(ROWS, "ssim").dropped == 0
    assert ("b", "psnr") not in scores(tidy(ROWS))


def test_several_rows_of_one_place_are_averaged() -> None:
    found = numbers([row("p", "s", "x", 1.0), row("p", "s", "x", 2.0)])
    assert found.by_place == {("p", "s", "x"): 1.5}


def test_differences_are_paired_row_by_row() -> None:
    theirs = numbers([row("p1", "s1", "x", 9.0), row("p2", "s3", "y", 1.0)])
    ours = numbers(ROWS)
    assert differences(ours, theirs, "higher") == {("p1", "s1", "x"): 1.0}


def test_magnitudes_are_compared_where_zero_is_best() -> None:
    ours = numbers([row("p", "s", "x", 5.0), row("p", "s", "y", -5.0)])
    theirs = numbers([row("p", "s", "x", 1.0), row("p", "s", "y", 1.0)])
    assert over_patients(differences(ours, theirs, "zero")) == {"p": 4.0}
    assert over_patients(differences(ours, theirs, "lower")) == {"p": -1.0}


def test_numbers_keep_their_order() -> None:
    rows = [row("p", "s", "x", 1.0, "b"), row("p", "s", "x", 1.0, "a")]
    assert list(scores(tidy(rows))) == [("b", "psnr"), ("a", "psnr")]

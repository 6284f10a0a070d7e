"""Tables: means, gains, and files that appear whole."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from statistics import fmean, stdev

import pytest

from medsr.errors import OutputExistsError, OutputNotWritableError
from medsr.evaluate.results import CaseResult, DisturbedResult, Results
from medsr.evaluate.results.store import check_folder, write_results

ROWS = [
    ("p1", "a", "x", 20.0, 23.0),
    ("p1", "a", "y", 22.0, 24.0),
    ("p1", "b", "x", 24.0, 23.5),
    ("p2", "c", "x", 30.0, 34.0),
]


def case(patient: str, scan: str, axis: str, method: str, psnr: float) -> CaseResult:
    metrics = {"psnr": psnr, "ssim": 0.9, "nrmse": 0.1, "mae": 5.0}
    return CaseResult(patient, scan, axis, method, metrics, seconds=0.5)


@pytest.fixture
def results() -> Results:
    cases = [
        case(patient, scan, axis, method, psnr)
        for patient, scan, axis, base, ours in ROWS
        for method, psnr in (("bspline", base), ("mr-z4", ours))
    ]
    return Results(about={"task": {"scale": [1, 1, 4]}}, cases=tuple(cases), skipped=("s: thin",))


def test_means_over_rows_scans_and_patients(results: Results) -> None:
    psnr = results.summary()["mr-z4"]["psnr"]
    assert psnr["mean_over_rows"] == pytest.approx(fmean([23.0, 24.0, 23.5, 34.0]))
    assert psnr["std_over_rows"] == pytest.approx(stdev([23.0, 24.0, 23.5, 34.0]))
    assert psnr["mean_over_scans"] == pytest.approx(fmean([23.5, 23.5, 34.0]))
    assert psnr["std_over_scans"] == pytest.approx(stdev([23.5, 23.5, 34.0]))
    assert psnr["mean_over_patients"] == pytest.approx(fmean([fmean([23.0, 24.0, 23.5]), 34.0]))


def test_gain_over_bspline_is_taken_row_by_row(results: Results) -> None:
    assert results.gains("mr-z4") == (3.0, 2.0, -0.5, 4.0)
    assert results.summary()["mr-z4"]["psnr_gain_over_bspline"] == {
        "min": -0.5,
        "mean": pytest.approx(2.125),
        "max": 4.0,
        "rows_below_bspline": 1,
    }
    assert "psnr_gain_over_bspline" not in results.summary()["bspline"]


def test_files_hold_the_rows(results: Results, tmp_path: Path) -> None:
    path = write_results(results, tmp_path / "out")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["task"]["scale"] == [1, 1, 4]
    assert content["skipped"] == ["s: thin"]
    assert len(content["scans"]) == 8
    with (tmp_path / "out" / "scans.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["method"] for row in table[:2]] == ["bspline", "mr-z4"]
    assert float(table[1]["psnr_gain"]) == 3.0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["results.json", "scans.csv"]


def test_infinite_psnr_becomes_null_and_a_single_row_has_no_spread(tmp_path: Path) -> None:
    perfect = Results(about={}, cases=(case("p", "a", "x", "bspline", math.inf),))
    content = json.loads(write_results(perfect, tmp_path).read_text(encoding="utf-8"))
    assert content["scans"][0]["psnr"] is None
    assert content["summary"]["bspline"]["psnr"]["mean_over_rows"] is None
    assert content["summary"]["bspline"]["ssim"]["std_over_rows"] is None


def test_existing_results_are_kept_unless_told_otherwise(results: Results, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("older", encoding="utf-8")
    with pytest.raises(OutputExistsError):
        check_folder(tmp_path, overwrite=False)
    with pytest.raises(OutputExistsError):
        write_results(results, tmp_path)
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == "older"
    assert not (tmp_path / "scans.csv").exists()
    write_results(results, tmp_path, overwrite=True)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["schema"] == 2


def test_folder_without_a_parent_is_refused_and_a_new_one_is_not_made_early(tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritableError):
        check_folder(tmp_path / "absent" / "out", overwrite=False)
    check_folder(tmp_path / "out", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def disturbed(scan: str, method: str, given: str, psnr: float) -> DisturbedResult:
    metrics = {"psnr": psnr, "ssim": 0.9, "nrmse": 0.1, "mae": 5.0}
    return DisturbedResult("p", scan, "z", method, metrics, seconds=0.5, input=given)


@pytest.fixture
def shaken(results: Results) -> Results:
    rows = [
        disturbed(scan, "mr-z4", given, psnr)
        for scan, values in {"a": (30.0, 28.0, 20.0), "b": (26.0, 25.0, 22.0)}.items()
        for given, psnr in zip(("clean", "noise", "pgd"), values, strict=True)
    ]
    rows.append(disturbed("a", "linear", "clean", 24.0))
    return Results(results.about, results.cases, results.skipped, tuple(rows))


def test_losses_are_taken_row_by_row_against_the_clean_part(shaken: Results) -> None:
    summary = shaken.robustness()
    assert summary["mr-z4"]["clean"]["psnr"]["mean"] == 28.0
    assert "psnr_loss" not in summary["mr-z4"]["clean"]
    assert summary["mr-z4"]["noise"]["psnr_loss"] == {"mean": 1.5, "min": 1.0, "max": 2.0}
    assert summary["mr-z4"]["pgd"]["psnr_loss"] == {"mean": 7.0, "min": 4.0, "max": 10.0}
    assert summary["mr-z4"]["pgd"]["psnr"]["std"] == pytest.approx(stdev([20.0, 22.0]))
    assert list(summary["linear"]) == ["clean"]
    # The rows of whole scans do not mix with those of parts.
    assert shaken.summary()["mr-z4"]["rows"] == 4


def test_disturbed_rows_have_a_table_of_their_own(shaken: Results, tmp_path: Path) -> None:
    content = json.loads(write_results(shaken, tmp_path / "out").read_text(encoding="utf-8"))
    assert content["robustness"]["mr-z4"]["pgd"]["rows"] == 2
    assert len(content["disturbed"]) == 7
    with (tmp_path / "out" / "robustness.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["input"] for row in table[:3]] == ["clean", "noise", "pgd"]
    assert [float(row["psnr_loss"]) for row in table[:3]] == [0.0, 2.0, 10.0]


def test_a_table_of_an_older_evaluation_does_not_stay(
    shaken: Results, results: Results, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_results(shaken, out)
    with pytest.raises(OutputExistsError):
        write_results(results, out)
    assert (out / "robustness.csv").exists()
    content = json.loads(write_results(results, out, overwrite=True).read_text(encoding="utf-8"))
    assert "robustness" not in content
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "scans.csv"]

"""Evaluations from the command to the folder: goes on, names failures, and takes other tools."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from medsr.cli.main import main
from medsr.errors import OutputExistsError, TrainingPatientsError
from medsr.evaluate.cohort import evaluate
from medsr.evaluate.plan import Plan
from medsr.evaluate.results.store import UNFINISHED
from medsr.evaluate.run import evaluate_into, shown
from medsr.model import SRModel
from medsr.patients import TrainingPatients

AFFINE = np.array([[0, -1.0, 0, 12], [1.1, 0, 0, -7], [0, 0, 0.9, 30], [0, 0, 0, 1]])


def head(seed: int) -> npt.NDArray[np.int16]:
    """A head with structure of several sizes, another one for every seed."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (36, 34, 32)), indexing="ij")
    body = (x / 0.9) ** 2 + (y / 0.85) ** 2 + (z / 0.95) ** 2 < 1
    fine = ndimage.gaussian_filter(rng.normal(size=x.shape), 1.2)
    data = np.where(body, 500 + 900 * fine + 120 * np.sin(6 * x + seed), 5)
    return np.clip(data, 0, None).astype(np.int16)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Four people, one scan each, sharp along z; a model may have been trained on the fourth."""
    rows = ["path,split,patient_id,modality,sharp_axes"]
    for number in range(4):
        nib.save(nib.Nifti1Image(head(number), AFFINE), tmp_path / f"s{number}.nii.gz")
        rows.append(f"s{number}.nii.gz,dev,person-{number},MR,z")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "cohort.csv"


@pytest.fixture
def plan(cohort: Path, tiny_model: Callable[..., Path]) -> Plan:
    return Plan(
        cohort,
        split="dev",
        scale=(1, 1, 4),
        models=[tiny_model()],
        baselines=("bspline",),
        precision="fp32",
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scans.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_everything_lands_in_one_folder(plan: Plan, tmp_path: Path) -> None:
    results, path = evaluate_into(plan, tmp_path / "out")
    assert path.name == "report.html"
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "lesions.csv",
        "report.html",
        "results.json",
        "scans.csv",
    ]
    found = content(path.parent)
    assert found["statistics"]["patients"] == 4
    assert set(found["statistics"]["means"]) == {"bspline", "tiny"}
    (against,) = (
        row
        for row in found["statistics"]["comparisons"]
        if (row["method"], row["metric"]) == ("tiny", "psnr")
    )
    gains = [float(row["psnr_gain"]) for row in rows(path.parent) if row["method"] == "tiny"]
    assert against["difference"] == pytest.approx(np.mean(gains), abs=1e-5)
    assert {row["method"] for row in found["lesions"]["rows"]} == {"bspline", "tiny"}
    assert all("consistency_rmse" in row and "dice@middle" in row for row in found["scans"])
    assert found["warnings"]  # the model does not state its training patients
    page = path.read_text(encoding="utf-8")
    assert "cubic B-spline" in page
    assert str(tmp_path) not in page + json.dumps(found)
    worst = min(gains)
    label, scan, axis = shown(results)[0]
    (row,) = (r for r in rows(path.parent) if (r["scan_id"], r["method"]) == (scan, "tiny"))
    assert (label, axis) == ("worst", "z")
    assert float(row["psnr_gain"]) == pytest.approx(worst)


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(
    plan: Plan, tmp_path: Path
) -> None:
    evaluate_into(plan, tmp_path / "straight", report=False)

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_into(plan, tmp_path / "out", report=False, progress=stop)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [UNFINISHED]
    with pytest.raises(OutputExistsError, match="other settings"):
        evaluate_into(replace(plan, parts=()), tmp_path / "out", report=False)
    seen: list[str] = []
    evaluate_into(
        plan, tmp_path / "out", report=False, progress=lambda done, total, what: seen.append(what)
    )
    assert not any(what.startswith(("s0", "s1")) for what in seen)
    assert any(what.startswith("s2") for what in seen)
    assert rows(tmp_path / "out") == rows(tmp_path / "straight")
    assert not (tmp_path / "out" / UNFINISHED).exists()
    one, other = content(tmp_path / "out"), content(tmp_path / "straight")
    assert one["statistics"]["comparisons"] == other["statistics"]["comparisons"]
    assert one["lesions"] == other["lesions"]


def test_a_run_that_was_stopped_at_its_report_goes_on_too(plan: Plan, tmp_path: Path) -> None:
    plan, out = replace(plan, parts=(), limit=2), tmp_path / "out"

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("pictures"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_into(plan, out, progress=stop)
    before = rows(out)
    with pytest.raises(OutputExistsError, match="other settings"):
        evaluate_into(replace(plan, seed=1), out)
    seen: list[str] = []
    evaluate_into(plan, out, progress=lambda done, total, what: seen.append(what))
    assert not any("reading" in what for what in seen)
    assert (out / "report.html").is_file()
    assert rows(out) == before
    with pytest.raises(OutputExistsError, match="exists already"):
        evaluate_into(plan, out)


def test_what_fails_is_named_and_the_others_go_on(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s1.nii.gz").write_bytes(b"no scan at all")
    others = tmp_path / "others"
    others.mkdir()
    good = nib.load(tmp_path / "s0.nii.gz")
    nib.save(good, others / "s0_axis-z.nii.gz")
    nib.save(nib.Nifti1Image(good.get_fdata(), np.eye(4)), others / "s2_axis-z.nii.gz")
    larger = AFFINE @ np.diag([3, 3, 3, 1])
    larger[:3, 3] -= AFFINE[:3, :3] @ (30, 30, 30)
    nib.save(nib.Nifti1Image(good.get_fdata(), larger), others / "s3_axis-z.nii.gz")
    code = main(
        [
            *("evaluate", "--cohort", str(cohort), "--split", "dev", "--scale", "1,1,4"),
            *("--baselines", "bspline", "--parts", "none", "--no-report"),
            *("--method", f"perfect={others}", "--out", str(tmp_path / "out")),
        ]
    )
    assert code == 53
    found = content(tmp_path / "out")
    reasons = {(f["scan_id"], f["method"]): f["reason"] for f in found["failed"]}
    assert set(reasons) == {("s1", None), ("s2", "perfect"), ("s3", "perfect")}
    assert "keep the physical extent" in reasons["s2", "perfect"]
    assert "reaches far beyond" in reasons["s3", "perfect"]
    scored = {(row["scan_id"], row["method"]) for row in found["scans"]}
    assert scored == {(s, "bspline") for s in ("s0", "s2", "s3")} | {("s0", "perfect")}
    (row,) = (row for row in found["scans"] if row["method"] == "perfect")
    assert row["mae"] == 0
    assert row["ssim"] == pytest.approx(1)
    assert row["psnr"] is None  # infinite
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert str(tmp_path) not in json.dumps(found)
    assert "person-" not in told.err


def test_another_tool_restores_what_was_written_for_it(plan: Plan, tmp_path: Path) -> None:
    """Its input is all that it gets; here it does what the built-in does, and scores the same."""
    inputs, others = tmp_path / "inputs", tmp_path / "others"
    inputs.mkdir()
    others.mkdir()
    first = replace(plan, models=(), baselines=("linear",), limit=2)
    evaluate(replace(first, write_inputs=inputs))
    names = sorted(path.name for path in inputs.iterdir())
    assert names == [f"s{n}_axis-z{v}.nii.gz" for n in range(2) for v in ("", "_lesions")]
    for path in inputs.iterdir():
        image = nib.load(path)
        data = image.get_fdata(dtype=np.float32)
        at = (np.arange(4 * data.shape[2]) + 0.5) / 4 - 0.5
        grid = np.meshgrid(*(np.arange(n) for n in data.shape[:2]), at, indexing="ij")
        result = ndimage.map_coordinates(data, grid, order=1, mode="nearest")
        affine = image.affine @ np.diag([1, 1, 0.25, 1])
        affine[:3, 3] += image.affine[:3, 2] * at[0]
        nib.save(nib.Nifti1Image(result, affine), others / path.name)
    results = evaluate(replace(first, others={"mine": others}))
    by = {(case.scan_id, case.method): case.metrics for case in results.cases}
    for scan in ("s0", "s1"):
        for name, value in by[scan, "linear"].items():
            assert by[scan, "mine"][name] == pytest.approx(value, rel=1e-3, abs=1e-3, nan_ok=True)
    kept = results.found["lesions"]["summary"]
    for ours, theirs in zip(kept["linear"], kept["mine"], strict=True):
        assert ours["contrast_kept"]["mean"] == pytest.approx(
            theirs["contrast_kept"]["mean"], abs=1e-3
        )


def test_models_are_not_scored_on_those_they_learnt_from(plan: Plan, tmp_path: Path) -> None:
    model = SRModel.load(plan.models[0])
    learnt = TrainingPatients.gather(["Person_3", "somebody"])
    folder = SRModel(model.module, replace(model.spec, training_patients=learnt)).save(
        tmp_path / "learnt"
    )
    told = replace(plan, models=[folder], parts=())
    with pytest.raises(TrainingPatientsError, match="1 of the 4 patients") as caught:
        evaluate(told)
    assert "erson" not in str(caught.value)
    assert evaluate(replace(told, limit=3)).about["warnings"] == []
    allowed = evaluate(replace(told, allow_train=True))
    assert "flatter" in allowed.about["warnings"][0]


def test_real_pairs_are_compared_where_both_lie(
    cohort: Path, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    thin = nib.load(tmp_path / "s0.nii.gz")
    data = thin.get_fdata(dtype=np.float32)[:, :, 4:28]
    thick = data.reshape(36, 34, 6, 4).mean(axis=3).transpose(2, 0, 1)
    affine = thin.affine[:, [2, 0, 1, 3]] @ np.diag([4, 1, 1, 1])
    affine[:3, 3] += thin.affine[:3, 2] * (4 + 1.5)
    nib.save(nib.Nifti1Image(thick, affine), tmp_path / "thick.nii.gz")
    (tmp_path / "pairs.csv").write_text(
        "path,split,patient_id,modality,lr_path\ns0.nii.gz,dev,p,MR,thick.nii.gz\n"
        "s1.nii.gz,dev,q,MR,\n"
    )
    results = evaluate(
        Plan(
            tmp_path / "pairs.csv",
            split="dev",
            pairs=True,
            models=[tiny_model()],
            baselines=("bspline",),
            precision="fp32",
        )
    )
    assert [(case.scan_id, case.axis, case.method) for case in results.cases] == [
        ("s0", "pair", "bspline"),
        ("s0", "pair", "tiny"),
    ]
    # A scan that lay one slice off would score far worse than interpolation of it does.
    assert results.cases[0].metrics["psnr"] > 18
    (note,) = results.found["tasks"]
    assert note["covered"] == pytest.approx(24 / 32)
    np.testing.assert_allclose(note["displacement_mm"], 0, atol=0.5)
    assert results.about["task"]["kind"] == "pairs"
    assert "lesions" not in results.found


def test_a_model_that_says_how_sure_it_is_is_taken_at_its_word(
    plan: Plan, tiny_model: Callable[..., Path]
) -> None:
    sure = tiny_model(head="gaussian")
    results = evaluate(replace(plan, models=[sure], parts=(), limit=2))
    found = results.found["calibration"]["tiny"]
    assert (found["rows"], found["patients"]) == (2, 2)
    assert 0 <= found["observed"][0] <= found["observed"][-1] <= 1
    assert found["sigma"] > 0


def test_consistency_adds_a_row_that_gives_back_the_scan(plan: Plan, tmp_path: Path) -> None:
    model = SRModel.load(plan.models[0])
    told = replace(model.spec, trained_degradation={"kind": "slice_profile", "factor": [1, 1, 4]})
    folder = SRModel(model.module, told).save(tmp_path / "told")
    results = evaluate(
        replace(plan, models=[folder], parts=("consistency",), consistency=True, limit=1)
    )
    by = {case.method: case.metrics for case in results.cases}
    assert set(by) == {"bspline", "tiny", "tiny+consistency"}
    # Not to the tolerance, since the phantom's background and least value are kept.
    for metric in ("consistency_max", "consistency_rmse"):
        assert by["tiny+consistency"][metric] < 0.5 * by["tiny"][metric]

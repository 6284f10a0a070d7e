"""``medsr cohort``: what it prints, writes and leaves with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medsr import zoo
from medsr.cli.main import main
from medsr.model import ModelSpec
from medsr.patients import TrainingPatients

PATIENTS = 6


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six people without splits, one scan each."""
    rows = ["path,patient_id,modality,contrast"]
    for number in range(PATIENTS):
        noise = np.random.default_rng(number).normal(size=(40, 40, 36))
        data = 500 + 4000 * (gaussian_filter(noise, 1.5) - gaussian_filter(noise, 4))
        image = nib.Nifti1Image(data.astype(np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
        nib.save(image, tmp_path / f"scan{number}.nii.gz")
        rows.append(f"scan{number}.nii.gz,QZX{number},MR,{'T1w' if number else 'T2w'}")
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)
    return path


def split(*more: str) -> int:
    return main(["cohort", "split", "cohort.csv", "--out", "c.lock.json", *more])


def test_splitting_shows_the_strata(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split() == 0
    shown = capsys.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["patients", "(scans)", "train", "dev", "test"] or len(lines[0]) == 5
    rows = {line[0]: line[1:] for line in lines if line and line[0] in ("MR/T1w", "MR/T2w", "all")}
    assert rows.keys() == {"MR/T1w", "MR/T2w", "all"}
    counts = [int(cell) for cell in rows["all"] if cell.isdigit()]
    assert sum(counts) == PATIENTS
    assert "written: c.lock.json" in shown.out
    assert "QZX" not in shown.out + shown.err
    scans = json.loads(Path("c.lock.json").read_text())["scans"]
    assert [scan["file"]["path"] for scan in scans] == [f"scan{n}.nii.gz" for n in range(PATIENTS)]


def test_quiet_is_quiet(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert split("--quiet") == 0
    assert main(["cohort", "check", "c.lock.json", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_options_are_heeded(cohort: Path) -> None:
    assert split("--fractions", "fit=0.5,score=0.5", "--seed", "7") == 0
    lock = json.loads(Path("c.lock.json").read_text())
    assert lock["seed"] == 7
    assert lock["fractions"] == {"fit": 0.5, "score": 0.5}
    splits = [scan["split"] for scan in lock["scans"]]
    assert splits.count("fit") == 3
    assert split() == 31
    assert split("--overwrite", "--extend", "c.lock.json") == 0
    again = json.loads(Path("c.lock.json").read_text())
    assert [scan["split"] for scan in again["scans"]] == splits


@pytest.mark.parametrize(
    "wrong",
    [
        ["--keep-splits", "--seed", "1"],
        ["--fractions", "train=2"],
        ["--out", "c.txt"],
        ["--extend", "c.lock.json", "--seed", "3"],
    ],
)
def test_options_that_do_not_go_together_are_refused(cohort: Path, wrong: list[str]) -> None:
    assert split() == 0
    assert split("--overwrite", *wrong) == 2


def test_checking_a_clean_lock(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split("--quiet")
    assert main(["cohort", "check", "c.lock.json", "--json", "found.json"]) == 0
    assert "no patient found under two names; 15 pairs of scans compared" in capsys.readouterr().out
    found = json.loads(Path("found.json").read_text())
    assert found == {"spellings": [], "contents": [], "unread": [], "compared": 15}
    assert main(["cohort", "check", "c.lock.json", "--no-content"]) == 0
    assert "pairs" not in capsys.readouterr().out


def test_a_changed_scan_leaves_with_its_code(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split("--quiet")
    lock = json.loads(Path("c.lock.json").read_text())
    Path("scan0.nii.gz").write_bytes(b"other")
    assert main(["cohort", "check", "c.lock.json"]) == 55
    assert "1 changed since they were locked" in capsys.readouterr().err
    other = next(s["split"] for s in lock["scans"] if s["split"] != lock["scans"][0]["split"])
    assert main(["cohort", "check", "c.lock.json", "--split", other]) == 0


def test_a_copy_in_another_split_leaves_with_its_code(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = cohort.read_text().splitlines()
    named = [f"{row},{'train' if number < 4 else 'test'}" for number, row in enumerate(rows[1:])]
    image = nib.load("scan1.nii.gz")
    turned = nib.Nifti1Image(
        (np.asarray(image.dataobj).transpose(2, 0, 1) // 2 + 7).astype(np.int16),
        image.affine @ np.eye(4)[[2, 0, 1, 3]].T,
    )
    Path("sub").mkdir()
    nib.save(turned, "sub/copy.nii.gz")
    named += ["sub/copy.nii.gz,qzx-0,MR,T1w,test"]
    cohort.write_text("\n".join([f"{rows[0]},split", *named]) + "\n")
    assert main(["cohort", "check", "cohort.csv", "--json", "found.json"]) == 56
    shown = capsys.readouterr()
    assert "the same acquisition under two patient_ids" in shown.out
    assert "nearly the same patient_id" in shown.out
    assert "scan1 (train) and copy (test) show the same acquisition" in shown.err
    assert "QZX" not in (shown.out + shown.err).upper()
    found = json.loads(Path("found.json").read_text())
    assert [(row["first"], row["second"]) for row in found["contents"]] == [
        ("scan1.nii.gz", "sub/copy.nii.gz")
    ]
    assert [(row["first"], row["second"]) for row in found["spellings"]] == [
        ("scan0.nii.gz", "sub/copy.nii.gz")
    ]


def test_models_are_checked_against_the_cohort(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split("--quiet")
    spec = ModelSpec.read(zoo.path("mr-z4"))
    for name, told in (
        ("knows", TrainingPatients.gather(["qzx-3"], cost=16)),
        ("silent", None),
    ):
        (tmp_path / name).mkdir()
        text = replace(spec, name=name, training_patients=told).to_json()
        (tmp_path / name / "spec.json").write_text(text)
    check = ["cohort", "check", "c.lock.json", "--no-content", "--model"]
    assert main([*check, "mr-z4"]) == 0
    assert "models that learnt from none of these patients: 1" in capsys.readouterr().out
    assert main([*check, "silent"]) == 0
    assert "model silent does not state its training patients" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*check, "knows"]) == 54
    assert "(scans scan3)" in capsys.readouterr().err


def test_a_cohort_is_checked_before_it_is_split(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = nib.load("scan1.nii.gz")
    nib.save(image, "again.nii.gz")
    cohort.write_text(cohort.read_text() + "again.nii.gz,somebody,MR,T1w\n")
    assert main(["cohort", "check", "cohort.csv"]) == 0
    assert "the same acquisition under two patient_ids" in capsys.readouterr().out


def test_a_patient_in_two_splits_is_refused(cohort: Path) -> None:
    rows = ["path,patient_id,modality,split", "scan0.nii.gz,a,MR,train", "scan1.nii.gz,a,MR,test"]
    cohort.write_text("\n".join(rows) + "\n")
    assert main(["cohort", "check", "cohort.csv", "--no-content"]) == 51

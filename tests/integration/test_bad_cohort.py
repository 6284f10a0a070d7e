"""A bad scan among good ones stops every command that learns from a cohort, and is named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsr.cli.main import main
from medsr.compress import calibration_patches
from medsr.errors import CohortError, NonFiniteError
from medsr.model import ModelSpec


@pytest.fixture
def cohort(world: Path, tmp_path: Path) -> Path:
    """The world's scans, and one with a voxel that is no number, of which a test says the split."""
    for number in range(3):
        (tmp_path / f"{number}.nii.gz").write_bytes((world / f"{number}.nii.gz").read_bytes())
    image = nib.load(world / "0.nii.gz")
    data = image.get_fdata(dtype=np.float32)
    data[11, 11, 11] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "broken.nii.gz")
    rows = (world / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(rows + "broken.nii.gz,{split},p9,MR,xyz\n")
    return tmp_path / "manifest.csv"


def put_in(cohort: Path, split: str) -> None:
    cohort.write_text(cohort.read_text().replace("{split}", split))


SHORT = ["loop.steps=1", "loop.validate_every=1", "loop.checkpoint_every=1", "--device", "cpu"]


def commands(world: Path, cohort: Path, command: str) -> list[str]:
    teacher, out = str(world / "teacher" / "model"), str(cohort.parent / "out")
    recipe = [str(world / "tiny.yaml"), f"data.manifest={cohort}", *SHORT, "--out", out]
    return {
        "train": ["train", *recipe],
        "distill": [
            "distill",
            *recipe,
            f"teacher={teacher}",
            "terms=[{name: output, weight: 0.5}]",
        ],
        "adapt": ["adapt", teacher, "--cohort", str(cohort), "--out", out, "--steps", "1"],
        "quantise": ["quantise", teacher, out, "--cohort", str(cohort)],
    }[command]


@pytest.mark.parametrize(
    ("command", "split"),
    [(name, split) for name in ("train", "distill", "adapt") for split in ("train", "dev")]
    + [("quantise", "train")],
)
def test_a_bad_scan_is_named(
    command: str, split: str, world: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in(cohort, split)
    code = main(commands(world, cohort, command))
    said = capsys.readouterr().err
    assert code == NonFiniteError.exit_code
    assert "broken.nii.gz: 1 of" in said.splitlines()[-1]
    assert "p9" not in said
    assert not list((cohort.parent / "out").rglob("*.safetensors"))


def test_processes_that_share_a_run_stop_too(
    world: Path, cohort: Path, repository: Path, tmp_path: Path
) -> None:
    put_in(cohort, "train")
    words = [*commands(world, cohort, "train"), "--devices", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "medsr.cli.main", *words],
        cwd=repository,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == NonFiniteError.exit_code
    assert "broken.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr


def test_small_and_empty_scans_are_left_out_by_name(
    world: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in(cohort, "other")
    body = np.random.default_rng(0).integers(0, 900, (22, 22, 5))
    for name, data in (("thin", body), ("void", np.zeros((22, 22, 22)))):
        data = data.astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.eye(4)), cohort.parent / f"{name}.nii.gz")
    rows = ["thin.nii.gz,train,p7,MR,z", "void.nii.gz,train,p8,MR,z"]
    cohort.write_text(cohort.read_text() + "\n".join(rows) + "\n")
    assert main(commands(world, cohort, "train")) == 0
    said = capsys.readouterr().err
    assert "and left out: scans thin;" in said
    assert "no voxel of a body is in scans void" in said


def test_a_validation_scan_without_body_is_named(
    world: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in(cohort, "other")
    void = nib.Nifti1Image(np.zeros((22, 22, 22), dtype=np.int16), np.eye(4))
    nib.save(void, cohort.parent / "void.nii.gz")
    cohort.write_text(cohort.read_text() + "void.nii.gz,dev,p8,MR,z\n")
    assert main(commands(world, cohort, "train")) == 0
    assert "hold no voxel of the body: scans void" in capsys.readouterr().err


def test_scans_too_small_to_calibrate_with_are_named(world: Path, cohort: Path) -> None:
    put_in(cohort, "other")
    large_folds = replace(ModelSpec.read(world / "teacher" / "model"), multiple_of=(1, 1, 16))
    with pytest.raises(CohortError, match=r"scan \d: .*22 x 22 x 22 voxels are too few"):
        calibration_patches(cohort, large_folds)

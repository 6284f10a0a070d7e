"""Evaluation end to end on a synthetic cohort, with a small saved model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from medsr.data.cohort import freeze
from medsr.data.lock import write_lock
from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import CohortChangedError, CohortError, UnknownModelError, UsageError
from medsr.evaluate import metrics
from medsr.evaluate.baselines import resample
from medsr.evaluate.cohort import evaluate
from medsr.evaluate.plan import Plan
from medsr.evaluate.results import Results
from medsr.io import load
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.types import Progress
from medsr.volume import Modality

OPTIONS = {"width": 16, "depth": 2, "branches": False}
HEADER = "path,split,patient_id,modality,sharp_axes"


def save_model(
    folder: Path, scale: tuple[int, int, int] = (1, 1, 4), modality: Modality = "MR"
) -> Path:
    torch.manual_seed(0)
    network = build_network("RepPlain3D", scale, width=16, depth=2)
    spec = ModelSpec(
        name="tiny",
        version="1",
        network="RepPlain3D",
        options={"width": 16, "depth": 2},
        scale=scale,
        modality=modality,
        role="student",
        intensity=Intensity.for_modality(modality),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange(in_plane=(0.5, 1.5), slice=(2.0, 6.0)),
        trained_degradation={},
        parameters=sum(p.numel() for p in network.parameters()),
        training={},
        description="untrained, for tests",
    )
    return SRModel(network, spec).save(folder)


def write_scan(path: Path, data: npt.NDArray[np.float32]) -> None:
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (30.0, -20.0, 5.0)
    nib.save(nib.Nifti1Image(data.astype(np.int16), affine), path)


def scored(cohort: Path, *, progress: Progress | None = None, **options: Any) -> Results:
    """Score with interpolation alone beside the models, and nothing but the plain metrics."""
    options = {"parts": (), "baselines": ("linear", "bspline"), **options}
    return evaluate(Plan(cohort, **options), progress=progress)


@pytest.fixture
def cohort(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Path:
    """Two MR scans and a CT in ``dev``, one MR in ``train``; one scan is sharp in the plane only.

    Sizes are no multiples of 4, so that cropping matters.
    """
    write_scan(tmp_path / "one.nii.gz", phantom[:37, :34, :30])
    write_scan(tmp_path / "two.nii.gz", phantom[::-1, :33, :29])
    write_scan(tmp_path / "other.nii.gz", phantom)
    write_scan(tmp_path / "chest.nii.gz", phantom - 1000.0)
    manifest = tmp_path / "manifest.csv"
    rows = [
        HEADER,
        "one.nii.gz,dev,p1,MR,xyz",
        "two.nii.gz,dev,p2,MR,xy",
        "chest.nii.gz,dev,p3,CT,z",
        "other.nii.gz,train,p4,MR,xyz",
    ]
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def test_every_sharp_axis_serves_as_slice_axis(cohort: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    results = scored(
        cohort,
        split="dev",
        scale=(1, 1, 4),
        models=[save_model(tmp_path / "model")],
        precision="fp32",
        progress=lambda done, total, _: seen.append((done, total)),
    )
    assert [(c.scan_id, c.axis, c.method) for c in results.cases] == [
        (scan, axis, method)
        for scan, axes in (("one", "xyz"), ("two", "xy"))
        for axis in axes
        for method in ("linear", "bspline", "tiny")
    ]
    assert seen[-1] == (5, 5)
    assert all(np.isfinite(c.metrics["psnr"]) and c.metrics["ssim"] < 1 for c in results.cases)
    assert results.about["conventions"].items() >= metrics.conventions("MR").items()
    assert results.about["degradation"]["kind"] == "slice_profile"
    assert results.about["methods"]["tiny"]["parameters"] > 0
    assert len(results.about["methods"]["tiny"]["weights_sha256"]) == 64
    assert str(tmp_path) not in str(results.about)


def test_rows_equal_the_steps_done_by_hand(cohort: Path) -> None:
    results = scored(cohort, split="dev", scale=(1, 1, 4), modality="MR", limit=1)
    truth = load(cohort.parent / "one.nii.gz", modality="MR").permute((0, 2, 1))
    truth = truth.crop((0, 0, 0), (37, 30, 32))
    lr = degrade_volume(truth, build_degradation("slice_profile", (1, 1, 4)))
    reference = metrics.reference_for(truth.data, "MR")
    for method in ("linear", "bspline"):
        (row,) = (c for c in results.cases if (c.axis, c.method) == ("y", method))
        expected = metrics.score(resample(lr, truth.geometry, method).data, truth.data, reference)
        for name, value in asdict(expected).items():
            assert row.metrics[name] == pytest.approx(value, rel=1e-9)


def test_isotropic_tasks_take_scans_sharp_everywhere(cohort: Path, tmp_path: Path) -> None:
    results = scored(
        cohort,
        split="dev",
        scale=(2, 2, 2),
        models=[save_model(tmp_path / "model", scale=(2, 2, 2))],
    )
    assert {(c.scan_id, c.axis) for c in results.cases} == {("one", "xyz")}
    assert results.about["degradation"]["kind"] == "kspace"


def test_ct_takes_the_slab_and_its_own_conventions(cohort: Path) -> None:
    results = scored(cohort, split="dev", scale=(1, 1, 2), modality="CT")
    assert {(c.scan_id, c.axis) for c in results.cases} == {("chest", "z")}
    assert results.about["degradation"]["kind"] == "ct_slab"
    assert "HU" in results.about["conventions"]["data_range"]


def test_a_model_for_both_modalities_is_scored_on_the_one_that_is_named(
    cohort: Path, tmp_path: Path
) -> None:
    loaded = SRModel.load(save_model(tmp_path / "both"))
    ct = Intensity.for_modality("CT")
    spec = replace(loaded.spec, options=OPTIONS, other_modalities={"CT": ct})
    both = SRModel(loaded.module, spec).save(tmp_path / "both")
    with pytest.raises(UsageError, match="choose with --modality"):
        scored(cohort, split="dev", scale=(1, 1, 4), models=[both])
    results = scored(cohort, split="dev", scale=(1, 1, 4), models=[both], modality="CT")
    assert results.about["degradation"]["kind"] == "ct_slab"
    # A fresh network repeats its input, so wrong intensities would show.
    rows = {case.method: case.metrics["psnr"] for case in results.cases}
    assert rows["tiny"] == pytest.approx(rows["linear"], abs=3)
    chest = save_model(tmp_path / "chest", modality="CT")
    common = scored(cohort, split="dev", scale=(1, 1, 4), models=[both, chest])
    assert common.about["degradation"]["kind"] == "ct_slab"


def test_two_models_of_one_name_are_told_apart(cohort: Path, tmp_path: Path) -> None:
    folders = [save_model(tmp_path / "a"), save_model(tmp_path / "b")]
    results = scored(cohort, split="dev", scale=(1, 1, 4), models=folders, limit=1)
    assert results.methods == ("linear", "bspline", "tiny", "tiny-2")
    ours, again = (
        [c.metrics["psnr"] for c in results.cases if c.method == name]
        for name in ("tiny", "tiny-2")
    )
    assert ours == again


def test_axis_that_stays_thinner_than_another_is_skipped_and_said(tmp_path: Path) -> None:
    data = np.random.default_rng(3).integers(100, 900, (24, 24, 16)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([0.5, 0.5, 3.0, 1.0])), tmp_path / "s.nii")
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"{HEADER}\ns.nii,dev,p,MR,xz\n", encoding="utf-8")
    results = scored(manifest, split="dev", scale=(1, 1, 2))
    assert {c.axis for c in results.cases} == {"z"}
    assert [text.split(":")[0] for text in results.skipped] == ["s, axis x"]
    manifest.write_text(f"{HEADER}\ns.nii,dev,p,MR,x\n", encoding="utf-8")
    with pytest.raises(CohortError, match="nothing could be scored; s, axis x: another axis"):
        scored(manifest, split="dev", scale=(1, 1, 2))


def test_a_blank_scan_is_skipped_and_said(cohort: Path) -> None:
    write_scan(cohort.parent / "one.nii.gz", np.zeros((16, 16, 16), np.float32))
    results = scored(cohort, split="dev", scale=(1, 1, 4), modality="MR")
    assert {case.scan_id for case in results.cases} == {"two"}
    assert len(results.skipped) == 3
    assert all("no foreground" in text for text in results.skipped)


def test_refusals(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="split train"):
        scored(cohort, split="train", scale=(1, 1, 4))
    with pytest.raises(UsageError, match="MR and CT"):
        scored(cohort, split="dev", scale=(1, 1, 4))
    with pytest.raises(UsageError, match="cannot be scored"):
        scored(cohort, split="dev", scale=(2, 1, 4))
    with pytest.raises(CohortError, match="no scan of test"):
        scored(cohort, split="test", scale=(1, 1, 4))
    with pytest.raises(CohortError, match="sharp along x, y and z"):
        scored(cohort, split="dev", scale=(2, 2, 2), modality="CT")
    with pytest.raises(UnknownModelError):
        scored(cohort, split="dev", scale=(1, 1, 4), models=["nope"])
    model = save_model(tmp_path / "model")
    with pytest.raises(UsageError, match="restores 1,1,4, not 1,1,2"):
        scored(cohort, split="dev", scale=(1, 1, 2), models=[model])
    with pytest.raises(UsageError, match="models are for MR"):
        scored(cohort, split="dev", scale=(1, 1, 4), models=[model], modality="CT")
    chest = save_model(tmp_path / "chest", modality="CT")
    with pytest.raises(UsageError, match="different modalities"):
        scored(cohort, split="dev", scale=(1, 1, 4), models=[model, chest])


def test_train_split_on_demand(cohort: Path) -> None:
    results = scored(cohort, split="train", scale=(1, 1, 4), allow_train=True)
    assert {c.scan_id for c in results.cases} == {"other"}
    assert results.about["command"].endswith("--allow-train --out DIR")


@pytest.mark.slow
def test_baselines_on_a_real_scan_stay_what_they_were(shared_data: Path) -> None:
    """Linear and B-spline on the first dev scan, ×4 through-plane: 22.5 and 23.5 dB."""
    results = scored(
        shared_data / "manifest.csv", split="dev", scale=(1, 1, 4), modality="MR", limit=1
    )
    means = {name: row["psnr"]["mean_over_rows"] for name, row in results.summary().items()}
    assert means["linear"] == pytest.approx(22.5, abs=0.2)
    assert means["bspline"] == pytest.approx(23.47, abs=0.2)


def test_only_the_scans_that_are_scored_need_be_there(cohort: Path) -> None:
    for name in ("two", "other", "chest"):
        (cohort.parent / f"{name}.nii.gz").unlink()
    results = scored(cohort, split="dev", scale=(1, 1, 4), modality="MR", limit=1)
    assert {case.scan_id for case in results.cases} == {"one"}
    # "two" is sharp in the plane only, so that an isotropic task has no use for it.
    results = scored(cohort, split="dev", scale=(2, 2, 2), modality="MR")
    assert {case.scan_id for case in results.cases} == {"one"}
    with pytest.raises(CohortError, match=r"line 3: scan .*two.nii.gz is not there"):
        scored(cohort, split="dev", scale=(1, 1, 4), modality="MR")


def test_only_the_scans_of_a_lock_that_are_scored_are_verified(cohort: Path) -> None:
    lock = write_lock(freeze(cohort, cohort.parent, keep_splits=True), cohort.parent / "l.json")
    (cohort.parent / "two.nii.gz").write_bytes(b"changed")
    (cohort.parent / "other.nii.gz").unlink()
    results = scored(lock, split="dev", scale=(1, 1, 4), modality="MR", limit=1)
    assert {case.scan_id for case in results.cases} == {"one"}
    with pytest.raises(CohortChangedError, match="of 2 scans 1 changed"):
        scored(lock, split="dev", scale=(1, 1, 4), modality="MR")


def test_regions_are_told_apart_and_patients_averaged_first(cohort: Path) -> None:
    rows = ["one.nii.gz,dev,p1,MR,x,brain", "two.nii.gz,dev,p1,MR,xy,brain"]
    rows += ["other.nii.gz,dev,p2,MR,x,knee"]
    cohort.write_text("\n".join([f"{HEADER},region", *rows]) + "\n", encoding="utf-8")
    plain = scored(cohort, split="dev", scale=(1, 1, 4)).to_dict()
    assert [row["region"] for row in plain["scans"][::2]] == ["brain", "brain", "brain", "knee"]
    brain, knee = plain["regions"]
    counts = [(r["region"], r["patients"], r["scans"], r["rows"]) for r in (brain, knee)]
    assert counts == [("brain", 1, 2, 3), ("knee", 1, 1, 1)]
    psnr = [row["psnr"] for row in plain["scans"] if row["method"] == "linear"]
    expected = (psnr[0] + (psnr[1] + psnr[2]) / 2) / 2
    assert brain["means"]["linear"]["psnr"]["mean"] == pytest.approx(expected, abs=1e-5)
    assert brain["means"]["linear"]["psnr"]["low"] is None

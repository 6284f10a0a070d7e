"""Robustness: the part that is scored, the noise, the attack's bounds and its effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import UsageError
from medsr.evaluate import metrics
from medsr.evaluate.baselines import resample
from medsr.evaluate.robustness import Disturbances, add_noise, attack, examine
from medsr.geometry import Geometry
from medsr.infer.upscale import upscale
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.volume import Modality, Volume, units_of

HOW = Disturbances(part=20, steps=4, radius=0.02)
DEGRADATION = build_degradation("slice_profile", (1, 1, 2))


def _model(modality: Modality = "MR") -> SRModel:
    torch.manual_seed(0)
    network = build_network("RepPlain3D", (1, 1, 2), width=16, depth=1, branches=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network = network.eval().requires_grad_(False)
    spec = ModelSpec(
        name="tiny",
        version="1",
        network="RepPlain3D",
        options={"width": 16, "depth": 1, "branches": False},
        scale=(1, 1, 2),
        modality=modality,
        role="student",
        intensity=Intensity.for_modality(modality),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange(in_plane=(0.5, 1.5), slice=(1.0, 6.0)),
        trained_degradation={},
        parameters=sum(p.numel() for p in network.parameters()),
        training={},
        description="untrained, for tests",
    )
    return SRModel(network, spec)


def _volume(data: npt.NDArray[Any], modality: Modality = "MR") -> Volume:
    # Axes that run left and posterior: canonical order turns them round.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    x, y, z = data.shape
    return Volume(
        data=np.ascontiguousarray(data, dtype=np.float32),
        geometry=Geometry((x, y, z), affine),
        modality=modality,
        units=units_of(modality),
        source=None,
    )


@pytest.fixture
def truth(phantom: npt.NDArray[np.float32]) -> Volume:
    return _volume(phantom[:30, :28, :26])


def test_bounds_of_the_attack_hold_in_native_units(truth: Volume) -> None:
    model, lr = _model(), degrade_volume(truth, DEGRADATION)
    reference = metrics.reference_for(truth.data, "MR")
    found = attack(model, lr, truth, reference, HOW, device="cpu", precision="fp32")
    width = model.spec.intensity.fit(lr.data).divisor
    change = np.abs(found.data - lr.data)
    assert change.max() <= HOW.radius * width * 1.001
    assert change.mean() > 0.3 * HOW.radius * width
    assert found.data.min() >= min(0.0, lr.data.min()) - 1e-3
    assert found.geometry.same_grid(lr.geometry)
    again = attack(model, lr, truth, reference, HOW, device="cpu", precision="fp32")
    np.testing.assert_array_equal(found.data, again.data)


def test_attack_costs_more_than_noise_of_its_size(truth: Volume) -> None:
    model, lr = _model(), degrade_volume(truth, DEGRADATION)
    reference = metrics.reference_for(truth.data, "MR")

    def psnr(scan: Volume) -> float:
        sr = upscale(scan, model=model, scale=(1, 1, 2), device="cpu", precision="fp32").volume
        return metrics.score(sr.data, truth.data, reference).psnr

    attacked = attack(model, lr, truth, reference, HOW, device="cpu", precision="fp32")
    change = attacked.data - lr.data
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=change.shape)
    at_random = lr.replace(data=(lr.data + np.abs(change) * signs).astype(np.float32))
    # Were a flip or an axis of the gradient's way back wrong, this would be no better than chance.
    assert psnr(attacked) < psnr(at_random) - 0.1
    assert psnr(attacked) < psnr(lr) - 0.1


def test_half_precision_attacks_too(truth: Volume) -> None:
    model, lr = _model(), degrade_volume(truth, DEGRADATION)
    reference = metrics.reference_for(truth.data, "MR")
    found = attack(model, lr, truth, reference, HOW, device="cpu", precision="bf16")
    assert found.data.dtype == np.float32
    assert np.isfinite(found.data).all()
    assert not np.array_equal(found.data, lr.data)


def test_noise_is_rician_for_mr_and_in_hu_for_ct() -> None:
    flat = np.full((40, 40, 20), 500.0)
    how = Disturbances(mr_sigma=0.05, ct_sigma_hu=30.0)
    ct = add_noise(_volume(flat, "CT"), "CT", 2048.0, how)
    assert (ct.data - 500).std() == pytest.approx(30.0, rel=0.05)
    neighbours = np.corrcoef(ct.data[1:].ravel(), ct.data[:-1].ravel())[0, 1]
    assert neighbours > 0.3
    mr = add_noise(_volume(flat), "MR", 1000.0, how)
    assert (mr.data - 500).std() == pytest.approx(50.0, rel=0.05)
    air = add_noise(_volume(0 * flat), "MR", 1000.0, how)
    # In air Rician noise is Rayleigh distributed: its mean is sigma · sqrt(pi / 2).
    assert air.data.mean() == pytest.approx(50.0 * np.sqrt(np.pi / 2), rel=0.02)


def test_rows_are_the_steps_done_by_hand(truth: Volume) -> None:
    reference = metrics.reference_for(truth.data, "MR")
    methods = {"linear": lambda lr, hr: resample(lr, hr.geometry, "linear")}
    rows = list(examine(truth, reference, DEGRADATION, methods, {}, HOW, "MR", device="cpu"))
    assert [(row.input, row.method) for row in rows] == [("clean", "linear"), ("noise", "linear")]
    middle = [
        (np.nonzero(reference.mask)[axis].mean(), size) for axis, size in enumerate(truth.shape)
    ]
    steps = (1, 1, 2)
    start = [
        min(max(round((mean - 10) / step) * step, 0), size - 20)
        for (mean, size), step in zip(middle, steps, strict=True)
    ]
    hr = truth.crop(start, [low + 20 for low in start])
    window = tuple(slice(low, low + 20) for low in start)
    part = replace(reference, mask=reference.mask[window])
    lr = degrade_volume(hr, DEGRADATION)
    noisy = add_noise(lr, "MR", reference.data_range, HOW)
    for row, given in zip(rows, (lr, noisy), strict=True):
        sr = resample(given, hr.geometry, "linear")
        assert row.metrics == metrics.score(sr.data, hr.data, part)


def test_part_keeps_enough_slices_and_lies_in_the_body() -> None:
    data = np.zeros((24, 24, 96))
    data[2:20, 3:21, 60:92] = 500 + 100 * np.random.default_rng(0).random((18, 18, 32))
    truth = _volume(data)
    reference = metrics.reference_for(truth.data, "MR")
    seen: list[tuple[int, ...]] = []

    def restore(lr: Volume, hr: Volume) -> Volume:
        seen.append(lr.shape)
        return resample(lr, hr.geometry, "linear")

    how = Disturbances(part=20)
    degradation = build_degradation("slice_profile", (1, 1, 8))
    rows = list(examine(truth, reference, degradation, {"linear": restore}, {}, how, "MR"))
    assert seen == [(20, 20, 8), (20, 20, 8)]
    assert all(np.isfinite(row.metrics.psnr) for row in rows)
    hollow = replace(reference, mask=reference.mask & (np.arange(96) == 95))
    with pytest.raises(ValueError, match="no foreground"):
        list(examine(truth, hollow, degradation, {"linear": restore}, {}, how, "MR"))


@pytest.mark.parametrize("options", [{"part": 0}, {"steps": 0}, {"radius": -1}, {"mr_sigma": -1}])
def test_wrong_disturbances_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Disturbances(**options)


def test_whole_evaluation_adds_parts_and_says_what_they_are(
    tmp_path: Path, phantom: npt.NDArray[np.float32]
) -> None:
    import nibabel as nib

    from medsr.evaluate.cohort import evaluate
    from medsr.evaluate.plan import Plan

    nib.save(
        nib.Nifti1Image(phantom[:26, :24, :22].astype(np.int16), np.eye(4)), tmp_path / "s.nii"
    )
    (tmp_path / "m.csv").write_text(
        "path,split,patient_id,modality,sharp_axes\ns.nii,dev,p,MR,xz\n"
    )
    folder = _model().save(tmp_path / "model")
    options: dict[str, Any] = {"split": "dev", "scale": (1, 1, 2), "precision": "fp32"}
    options |= {"models": [folder], "parts": (), "baselines": ("linear", "bspline")}
    results = evaluate(Plan(tmp_path / "m.csv", robust=HOW, **options))
    plain = evaluate(Plan(tmp_path / "m.csv", **options))
    assert [row.metrics["psnr"] for row in results.cases] == [
        row.metrics["psnr"] for row in plain.cases
    ]
    assert plain.disturbed == ()
    assert "inputs" not in plain.about
    assert {(row.axis, row.method, row.input) for row in results.disturbed} == {
        (axis, method, given)
        for axis in "xz"
        for method in ("linear", "bspline", "tiny")
        for given in ("clean", "noise", "pgd")
        if method == "tiny" or given != "pgd"
    }
    assert set(results.about["inputs"]) == {"clean", "noise", "pgd"}
    assert "--robust" in results.about["command"]
    assert "--robust" not in plain.about["command"]
    assert results.robustness()["tiny"]["pgd"]["psnr_loss"]["min"] > 0

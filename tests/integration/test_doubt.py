"""A result that does not give its scan back is not trusted, and the user is told."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import medsr
from medsr import io, zoo
from medsr.degrade import build_degradation, degrade_volume
from medsr.evaluate.consistency import consistency
from medsr.geometry import Geometry
from medsr.model import SRModel
from medsr.volume import Volume


@pytest.fixture
def truth() -> Volume:
    """A head with detail of every size."""
    rng = np.random.default_rng(1)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (56, 52, 64)), indexing="ij")
    body = (x / 0.9) ** 2 + (y / 0.85) ** 2 + (z / 0.95) ** 2 < 1
    fine = ndimage.gaussian_filter(rng.normal(size=x.shape), 1.2)
    data = np.where(body, 500 + 1500 * fine, 0).clip(0).astype(np.float32)
    return Volume(data, Geometry((56, 52, 64), np.diag([1.0, -1.0, 1.0, 1.0])), "MR")


@pytest.mark.parametrize("kind", ["slice_profile", "ct_slab", "kspace"])
def test_slices_as_in_training_raise_no_doubt(truth: Volume, kind: str) -> None:
    degradation = build_degradation(kind, (1, 1, 4))
    lr = degrade_volume(truth, degradation)
    result = medsr.upscale(lr, model="mr-z4", scale=(1, 1, 4), precision="fp32")
    assert result.report["warnings"] == []
    found, _ = consistency(result.whole(), lr, degradation)
    # The same difference by another way; air counts here and not there.
    assert 0 < result.report["residual"]["rms"] <= found["consistency_rmse"] * 1.01
    assert result.report["residual"]["largest"] > result.report["residual"]["rms"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("kind", ["slice_profile", "ct_slab", "kspace"])
def test_the_check_is_the_same_in_chunks(
    truth: Volume,
    kind: str,
    order: tuple[int, int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lr = degrade_volume(truth, build_degradation(kind, (1, 1, 4))).permute(order).flip((2,))
    scan = io.save(lr, tmp_path / "scan.nii")
    options = {"model": "mr-z4", "modality": "mr", "precision": "fp32", "spacing": (0.9, 1.0, 1.0)}
    whole = medsr.upscale(scan, tmp_path / "whole.nii", **options)
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 5)
    chunks = medsr.upscale(scan, tmp_path / "chunks.nii", **options)
    assert chunks.volume is None
    assert chunks.report["tiles"]["slabs"] > 2
    for measure in ("rms", "largest"):
        expected = whole.report["residual"][measure]
        assert chunks.report["residual"][measure] == pytest.approx(expected, rel=1e-3)
    assert chunks.report["warnings"] == whole.report["warnings"]


def test_a_result_larger_than_memory_that_does_not_fit_is_warned_of(
    truth: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = SRModel.load(zoo.path("mr-z4"))
    narrow = {"kind": "slice_profile", "factor": [1, 1, 4], "thickness": 1.0}
    model = SRModel(shipped.module, replace(shipped.spec, trained_degradation=narrow))
    scan = io.save(
        degrade_volume(truth, build_degradation("kspace", (1, 1, 4))), tmp_path / "a.nii"
    )
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 4)
    result = medsr.upscale(scan, tmp_path / "b.nii", model=model, modality="mr", scale=(1, 1, 4))
    assert result.volume is None
    assert any("does not fit the scan" in text for text in result.report["doubts"])


def test_what_cannot_be_checked_in_chunks_says_why(
    truth: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = io.save(
        degrade_volume(truth, build_degradation("kspace", (1, 1, 4))), tmp_path / "a.nii"
    )
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 4)
    monkeypatch.setattr("medsr.infer.consistency.check.SHARE", 1e-9)
    options = {"model": "mr-z4", "modality": "mr", "scale": (1, 1, 4)}
    result = medsr.upscale(scan, tmp_path / "b.nii", **options)
    assert result.report["residual"] is None
    assert "takes more memory than there is" in result.report["residual_missing"]
    assert any("not checked" in text for text in result.report["warnings"])


def test_slices_that_the_model_never_saw_do(
    truth: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = SRModel.load(zoo.path("mr-z4"))
    narrow = {"kind": "slice_profile", "factor": [1, 1, 4], "thickness": 1.0}
    model = SRModel(shipped.module, replace(shipped.spec, trained_degradation=narrow))
    lr = degrade_volume(truth, build_degradation("kspace", (1, 1, 4)))
    with caplog.at_level(logging.WARNING):
        result = medsr.upscale(lr.permute((2, 0, 1)), model=model, scale=(1, 1, 4))
    (warning,) = (text for text in result.report["warnings"] if "does not fit the scan" in text)
    assert "do not trust this result" in warning
    assert warning in caplog.messages
    made = medsr.upscale(lr, model=model, scale=(1, 1, 4), consistency=True)
    assert any("does not fit the scan" in text for text in made.report["warnings"])

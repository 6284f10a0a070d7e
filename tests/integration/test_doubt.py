"""A result that does not give its scan back is not trusted, and the user is told."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import medsr
from medsr import zoo
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

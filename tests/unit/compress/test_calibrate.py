"""Calibration patches: low resolution of the training split, the same each time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from medsr.compress import calibration_patches
from medsr.errors import CohortError, ModelError
from medsr.model import SRModel


@pytest.fixture
def manifest(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Path:
    """One training scan and one of dev, twice as bright."""
    for name, factor in (("train", 1), ("dev", 2)):
        image = nib.Nifti1Image((factor * phantom).astype(np.int16), np.eye(4))
        nib.save(image, tmp_path / f"{name}.nii.gz")
    rows = ["path,split,patient_id,modality,sharp_axes"]
    rows += [f"{name}.nii.gz,{name},{name},MR,xyz" for name in ("train", "dev")]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_patches_show_the_training_scans(
    manifest: Path, make_model: Callable[..., SRModel]
) -> None:
    spec = make_model("RepPlain3D", width=16, depth=1, fold=(2, 1, 1)).spec
    found = calibration_patches(manifest, spec, count=5, size=(9, 8, 40))
    again = calibration_patches(manifest, spec, count=5, size=(9, 8, 40))
    assert [tuple(patch.shape) for patch in found] == [(1, 1, 8, 8, 20)] * 5
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert len({float(patch.sum()) for patch in found}) > 1
    # Normalised by the scan's own percentile: bright tissue lies near 1.
    assert 0.5 < max(float(patch.max()) for patch in found) < 2


def test_a_split_without_scans_is_refused(
    manifest: Path, make_model: Callable[..., SRModel]
) -> None:
    spec = make_model("RepPlain3D", width=16, depth=1).spec
    with pytest.raises(CohortError, match="test/MR"):
        calibration_patches(manifest, spec, split="test")


def test_a_spec_without_degradation_is_refused(
    manifest: Path, make_model: Callable[..., SRModel]
) -> None:
    spec = make_model("RepPlain3D", width=16, depth=1).spec
    with pytest.raises(ModelError, match="trained_degradation"):
        calibration_patches(manifest, dataclasses.replace(spec, trained_degradation={}))

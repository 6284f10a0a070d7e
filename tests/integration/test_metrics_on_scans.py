"""Metrics of real scans say of thick slices, blur and truth what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medsr.degrade import build_degradation, degrade_volume
from medsr.evaluate.baselines import resample
from medsr.evaluate.metrics import Scorer, reference_for, score
from medsr.io import load
from medsr.volume import Modality, Volume


def _part(path: Path, modality: Modality, voxels: int) -> Volume:
    """A cube amid a scan, or all of an axis that is shorter."""
    scan = load(path, modality=modality)
    size = [min(voxels, n // 4 * 4) for n in scan.shape]
    start = [(n - s) // 2 for n, s in zip(scan.shape, size, strict=True)]
    stop = [a + s for a, s in zip(start, size, strict=True)]
    scan = scan.replace(data=np.ascontiguousarray(scan.data, dtype=np.float32))
    return scan.crop(start, stop)


@pytest.mark.parametrize(
    ("name", "modality", "axis"),
    [("arc_M2299_T1w", "MR", 2), ("lungfcp0001_CT", "CT", 1)],
)
def test_thick_slices_of_a_scan_read_as_thick(
    name: str, modality: Modality, axis: int, shared_data: Path
) -> None:
    truth = _part(shared_data / "dev" / f"{name}.nii.gz", modality, 96)
    truth = truth.permute([i for i in range(3) if i != axis] + [axis])
    kind = "ct_slab" if modality == "CT" else "slice_profile"
    lr = degrade_volume(truth, build_degradation(kind, factor=(1, 1, 4)))
    interpolated = resample(lr, truth.geometry, "bspline").data
    x_mm, y_mm, z_mm = (float(step) for step in truth.geometry.spacing)
    blurred = ndimage.gaussian_filter(truth.data, [1 / x_mm, 1 / y_mm, 1 / z_mm])
    scorer = Scorer(truth.data, modality, (x_mm, y_mm, z_mm))
    thick, perfect, soft = (scorer.score(sr) for sr in (interpolated, truth.data, blurred))

    expected = score(interpolated, truth.data, reference_for(truth.data, modality))
    assert (thick["psnr"], thick["ssim"]) == (expected.psnr, expected.ssim)
    # Aliased detail still correlates a little above the Nyquist frequency of the slices.
    assert 0.75 * 4 * z_mm < thick["resolution_z_mm"] < 1.3 * 4 * z_mm
    assert thick["resolution_x_mm"] < 1.3 * x_mm
    assert [perfect[f"resolution_{a}_mm"] for a in "xyz"] == [x_mm, y_mm, z_mm]
    # Blur alone is no loss to correlation; it shows in the edges.
    assert soft["resolution_z_mm"] < 1.5 * z_mm
    assert soft["edge_width_z_mm"] > perfect["edge_width_z_mm"] + 0.7
    assert thick["edge_width_z_mm"] > 1.5 * perfect["edge_width_z_mm"]
    assert thick["edge_width_x_mm"] < 1.5 * perfect["edge_width_x_mm"]
    assert thick["psnr@edges"] < thick["psnr"]

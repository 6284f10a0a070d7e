"""The scorer equals the single metrics, torchmetrics and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.regression import (
    mean_absolute_error,
    normalized_root_mean_squared_error,
)

from medsr.evaluate import metrics
from medsr.evaluate.metrics import Scorer, describe
from medsr.evaluate.metrics.regions import LEAST_VOXELS
from medsr.types import Float32Array

BASIC = ("psnr", "ssim", "nrmse", "mae")
SPACING = (1.0, 1.0, 1.2)


@pytest.fixture
def head(phantom: Float32Array) -> Float32Array:
    """The phantom with much air around it."""
    return np.pad(phantom, ((14, 9), (11, 16), (3, 12))).astype(np.float32)


@pytest.fixture
def result(head: Float32Array, rng: np.random.Generator) -> Float32Array:
    return (ndimage.gaussian_filter(head, 0.8) + rng.normal(0, 10, head.shape)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_basic_metrics_keep_every_digit(
    head: Float32Array, result: Float32Array, dtype: type
) -> None:
    hr, sr = head.astype(dtype), result.astype(dtype)
    expected = metrics.score(sr, hr, metrics.reference_for(hr, "MR"))
    found = Scorer(hr, "MR", SPACING).score(sr)
    assert {name: found[name] for name in BASIC} == {
        name: getattr(expected, name) for name in BASIC
    }


def test_basic_metrics_keep_every_digit_of_ct(head: Float32Array, result: Float32Array) -> None:
    hr, sr = head * 2 - 1000, result * 2 - 1000
    expected = metrics.score(sr, hr, metrics.reference_for(hr, "CT"))
    found = Scorer(hr, "CT", SPACING).score(sr)
    assert all(found[name] == getattr(expected, name) for name in BASIC)


def test_basic_metrics_equal_torchmetrics(rng: np.random.Generator) -> None:
    # Body everywhere, so that the libraries' means over the image are means in the mask.
    hr = rng.uniform(300, 900, (26, 24, 28)).astype(np.float32)
    sr = (hr + rng.normal(5, 40, hr.shape)).astype(np.float32)
    scorer = Scorer(hr, "MR", SPACING)
    assert scorer.reference.mask.all()
    width = scorer.reference.data_range
    found = scorer.score(sr)
    mine, truth = (torch.from_numpy(each).double() for each in (sr, hr))
    flat = mine.flatten(), truth.flatten()
    assert found["psnr"] == pytest.approx(
        float(peak_signal_noise_ratio(mine, truth, data_range=width)), rel=1e-6
    )
    assert found["mae"] == pytest.approx(float(mean_absolute_error(*flat)), rel=1e-9)
    spread = float(flat[1].max() - flat[1].min())
    other = float(normalized_root_mean_squared_error(*flat, normalization="range"))
    assert found["nrmse"] == pytest.approx(other * spread / width, rel=1e-6)
    assert found["bias"] == pytest.approx(float((flat[0] - flat[1]).mean()), rel=1e-9)
    inside = np.zeros(hr.shape, dtype=bool)
    inside[5:-5, 5:-5, 5:-5] = True
    _, similar = structural_similarity_index_measure(
        mine[None, None], truth[None, None], data_range=width, sigma=1.5, return_full_image=True
    )
    expected = float(similar[0, 0].numpy()[inside].mean())
    assert metrics.ssim(sr, hr, inside, width) == pytest.approx(expected, rel=1e-6)


def test_the_truth_itself_is_perfect(head: Float32Array) -> None:
    scorer = Scorer(head, "MR", SPACING)
    found = scorer.score(head)
    assert found["psnr"] == float("inf")
    assert found["ssim"] == found["ms_ssim"] == pytest.approx(1.0, abs=1e-5)
    assert found["bias"] == found["mae"] == found["hfen"] == found["mae@edges"] == 0.0
    assert [found[f"resolution_{axis}_mm"] for axis in "xyz"] == list(SPACING)


def test_bias_and_regions_by_hand(head: Float32Array, result: Float32Array) -> None:
    scorer = Scorer(head, "MR", SPACING)
    found, shifted = scorer.score(result), scorer.score(result + np.float32(30))
    assert set(scorer.regions) == {"edges", "dark", "middle", "bright"}
    width = scorer.reference.data_range
    for name, region in scorer.regions.items():
        assert region.shape == head.shape
        assert region.sum() >= LEAST_VOXELS
        errors = (result.astype(np.float64) - head)[region]
        assert found[f"bias@{name}"] == pytest.approx(errors.mean(), rel=1e-4, abs=1e-4)
        assert found[f"mae@{name}"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
        psnr = 20 * np.log10(width / np.sqrt(np.mean(errors**2)))
        assert found[f"psnr@{name}"] == pytest.approx(psnr, rel=1e-5)
        assert shifted[f"bias@{name}"] == pytest.approx(found[f"bias@{name}"] + 30, abs=1e-3)
    assert shifted["bias"] == pytest.approx(found["bias"] + 30, abs=1e-3)
    assert shifted["hfen"] == pytest.approx(found["hfen"], abs=1e-4)
    tissue = [scorer.regions[name] for name in ("dark", "middle", "bright")]
    assert np.array_equal(np.sum(tissue, axis=0) == 1, scorer.reference.mask)


def test_thick_slices_show_along_z(rng: np.random.Generator) -> None:
    grid = np.meshgrid(*(np.arange(48) for _ in range(3)), indexing="ij")
    ball = np.sqrt(sum((part - 23.6) ** 2 for part in grid)) < 17.3
    texture = ndimage.gaussian_filter(rng.normal(0, 120, ball.shape), 0.6)
    hr = np.where(ball, 700 + texture, 20).astype(np.float32)
    thick = ndimage.uniform_filter1d(hr, 4, axis=2, origin=-1)[:, :, 1::4]
    at = (np.arange(48) - 1.5) / 4
    sr = ndimage.map_coordinates(thick, [grid[0], grid[1], at[grid[2]]], order=1, mode="nearest")
    found = Scorer(hr, "MR", (1.0, 1.0, 1.0)).score(sr)
    assert 2.5 < found["resolution_z_mm"] < 5.0  # of slices of 4 mm, with aliasing
    assert found["resolution_x_mm"] < 1.5
    assert 3.0 < found["edge_width_z_mm"] < 7.0
    assert found["edge_width_x_mm"] < 0.6 * found["edge_width_z_mm"]
    assert found["psnr@edges"] < found["psnr"]


def test_what_is_outside_the_mask_never_counts(head: Float32Array, result: Float32Array) -> None:
    seen = np.zeros(head.shape, dtype=bool)
    seen[:34] = True
    scorer = Scorer(head, "MR", SPACING, mask=seen)
    assert np.array_equal(scorer.reference.mask, Scorer(head, "MR", SPACING).reference.mask & seen)
    assert not any(region[~seen].any() for region in scorer.regions.values())
    spoiled = np.where(seen, result, np.float32(5000))
    assert scorer.score(result) == pytest.approx(scorer.score(spoiled), nan_ok=True)
    with pytest.raises(ValueError, match="no foreground in the mask"):
        Scorer(head, "MR", SPACING, mask=np.zeros_like(seen))
    with pytest.raises(ValueError, match="shapes differ"):
        Scorer(head, "MR", SPACING, mask=seen[1:])


def test_small_truths_have_numbers_or_nan(rng: np.random.Generator) -> None:
    hr = rng.uniform(300, 900, (11, 12, 13)).astype(np.float32)
    found = Scorer(hr, "MR", SPACING).score(hr + np.float32(1))
    assert found["bias"] == pytest.approx(1.0, abs=1e-3)
    for name in ("ms_ssim", "resolution_x_mm", "edge_width_z_mm", "psnr@edges", "mae@edges"):
        assert np.isnan(found[name]), name
    with pytest.raises(ValueError, match="smaller than the window"):
        Scorer(hr[:10], "MR", SPACING)


def test_what_cannot_be_scored_is_refused(head: Float32Array) -> None:
    scorer = Scorer(head, "MR", SPACING)
    with pytest.raises(ValueError, match="shapes differ"):
        scorer.score(head[1:])
    broken = head.copy()
    broken[30, 30, 20] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        scorer.score(broken)
    with pytest.raises(ValueError, match="not finite"):
        Scorer(broken, "MR", SPACING)
    with pytest.raises(ValueError, match="no foreground"):
        Scorer(np.zeros_like(head), "MR", SPACING)


def test_every_name_is_described_and_every_convention_written(head: Float32Array) -> None:
    for modality, volume in (("MR", head), ("CT", head - 1000)):
        scorer = Scorer(volume, modality, SPACING)
        words = scorer.conventions()
        assert set(metrics.conventions(modality)) <= set(words)
        for region in scorer.regions:
            assert f"region_{region}" in words
        for name in scorer.score(volume):
            info = describe(name, modality)
            assert info.what
            assert info.label != name
            base = name.split("@")[0]
            stem = base.removesuffix("_mm").rstrip("xyz").rstrip("_") if "_mm" in base else base
            assert stem in words, name

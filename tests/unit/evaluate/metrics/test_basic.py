"""Metrics equal scikit-image, and the conventions choose what they say."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import (
    mean_squared_error,
    normalized_root_mse,
    peak_signal_noise_ratio,
    structural_similarity,
)

from medsr.evaluate import metrics
from medsr.types import Float32Array


@pytest.fixture
def pair(phantom: Float32Array, rng: np.random.Generator) -> tuple[Float32Array, Float32Array]:
    """A restored scan and its truth."""
    return phantom + rng.normal(0, 30, phantom.shape).astype(np.float32), phantom


def test_whole_grid_metrics_equal_scikit_image(pair: tuple[Float32Array, Float32Array]) -> None:
    sr, hr = pair
    everywhere = np.ones(hr.shape, dtype=bool)
    hr64, sr64 = hr.astype(np.float64), sr.astype(np.float64)
    assert metrics.psnr(sr, hr, everywhere, 900.0) == pytest.approx(
        peak_signal_noise_ratio(hr64, sr64, data_range=900.0), rel=1e-12
    )
    expected = structural_similarity(
        hr64,
        sr64,
        data_range=900.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1].mean()
    assert metrics.ssim(sr, hr, everywhere, 900.0) == pytest.approx(expected, rel=1e-12)
    width = float(hr64.max() - hr64.min())
    assert metrics.nrmse(sr, hr, everywhere, width) == pytest.approx(
        normalized_root_mse(hr64, sr64, normalization="min-max"), rel=1e-12
    )
    assert metrics.mae(sr, hr, everywhere) == pytest.approx(np.abs(hr64 - sr64).mean())


def test_masked_metrics_see_the_mask_alone(pair: tuple[Float32Array, Float32Array]) -> None:
    sr, hr = pair
    mask = metrics.reference_for(hr, "MR").mask
    spoiled = np.where(mask, sr, sr + 5000.0)
    for call in (metrics.psnr, metrics.nrmse):
        assert call(spoiled, hr, mask, 900.0) == call(sr, hr, mask, 900.0)
    assert metrics.mae(spoiled, hr, mask) == metrics.mae(sr, hr, mask)
    inside = mean_squared_error(hr[mask].astype(np.float64), sr[mask].astype(np.float64))
    assert metrics.psnr(sr, hr, mask, 900.0) == pytest.approx(10 * np.log10(900.0**2 / inside))


def test_masked_ssim_averages_the_full_map(pair: tuple[Float32Array, Float32Array]) -> None:
    sr, hr = pair
    mask = metrics.reference_for(hr, "MR").mask
    everywhere = np.ones_like(mask)
    share = mask.mean()
    inside = metrics.ssim(sr, hr, mask, 900.0)
    outside = metrics.ssim(sr, hr, ~mask, 900.0)
    whole = metrics.ssim(sr, hr, everywhere, 900.0)
    assert share * inside + (1 - share) * outside == pytest.approx(whole)


def test_metrics_do_not_depend_on_the_units(pair: tuple[Float32Array, Float32Array]) -> None:
    sr, hr = (array.astype(np.float64) for array in pair)
    plain = metrics.score(sr, hr, metrics.reference_for(hr, "MR"))
    scaled = metrics.score(7.0 * sr, 7.0 * hr, metrics.reference_for(7.0 * hr, "MR"))
    assert scaled.psnr == pytest.approx(plain.psnr)
    assert scaled.ssim == pytest.approx(plain.ssim)
    assert scaled.nrmse == pytest.approx(plain.nrmse)
    assert scaled.mae == pytest.approx(7.0 * plain.mae)


def test_a_perfect_restoration(phantom: Float32Array) -> None:
    perfect = metrics.score(phantom, phantom, metrics.reference_for(phantom, "MR"))
    assert perfect == metrics.Metrics(psnr=float("inf"), ssim=1.0, nrmse=0.0, mae=0.0)


def test_mr_reference(phantom: Float32Array) -> None:
    reference = metrics.reference_for(phantom, "MR")
    foreground = phantom[phantom > 0.02 * phantom.max()]
    assert reference.data_range == pytest.approx(np.percentile(foreground, 99.5))
    np.testing.assert_array_equal(reference.mask, phantom > 0.08 * reference.data_range)


def test_ct_reference_leaves_air_out_and_fills_no_hole() -> None:
    hr = np.full((16, 16, 16), -1000, dtype=np.int16)
    hr[2:14, 2:14, 2:14] = 40
    hr[6:9, 6:9, 6:9] = -850
    reference = metrics.reference_for(hr, "CT")
    assert reference.data_range == 2048.0
    np.testing.assert_array_equal(reference.mask, hr == 40)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_truth_without_foreground_is_refused(modality: metrics.Modality) -> None:
    with pytest.raises(ValueError, match="no foreground"):
        metrics.reference_for(np.full((12, 12, 12), -1000.0 * (modality == "CT")), modality)


def test_wrong_arguments_are_refused(pair: tuple[Float32Array, Float32Array]) -> None:
    sr, hr = pair
    everywhere = np.ones(hr.shape, dtype=bool)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.psnr(sr[1:], hr, everywhere, 1.0)
    with pytest.raises(ValueError, match="mask is empty"):
        metrics.mae(sr, hr, ~everywhere)
    with pytest.raises(ValueError, match="smaller than the window"):
        metrics.ssim(sr[:10], hr[:10], everywhere[:10], 1.0)


def test_conventions_state_the_numbers_used() -> None:
    assert "2048 HU" in str(metrics.conventions("CT")["data_range"])
    assert "-500 HU" in str(metrics.conventions("CT")["mask"])
    assert "99.5th percentile" in str(metrics.conventions("MR")["data_range"])
    assert "0.08" in str(metrics.conventions("MR")["mask"])

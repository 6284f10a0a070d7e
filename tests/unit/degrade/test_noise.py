"""Statistics of Rician and of correlated noise against scipy's distributions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from medsr.degrade import build_degradation

SHAPE = (48, 48, 32)


@pytest.mark.parametrize("kind", ["slice_profile", "kspace"])
@pytest.mark.parametrize("signal", [0.0, 0.1, 1.0])
def test_magnitude_noise_is_rician(kind: str, signal: float) -> None:
    sigma = 0.1
    degradation = build_degradation(kind, factor=(1, 1, 2), noise=sigma)
    params = degradation.sample(torch.Generator().manual_seed(1))
    noisy = degradation.apply(torch.full(SHAPE, signal), params).numpy().ravel()
    rice = scipy.stats.rice(signal / sigma, scale=sigma)
    assert noisy.min() >= 0
    assert noisy.mean() == pytest.approx(rice.mean(), rel=0.01)
    assert noisy.std() == pytest.approx(rice.std(), rel=0.02)
    assert scipy.stats.kstest(noisy[:5000], rice.cdf).pvalue > 1e-3


def test_magnitude_noise_is_white() -> None:
    degradation = build_degradation("slice_profile", factor=(1, 1, 2), noise=0.1)
    params = degradation.sample(torch.Generator().manual_seed(2))
    noisy = degradation.apply(torch.ones(SHAPE), params).numpy()
    for axis in range(3):
        assert abs(_correlation(noisy, axis, 1)) < 0.03


def test_ringing_below_zero_keeps_its_sign() -> None:
    degradation = build_degradation("kspace", factor=(1, 1, 1), noise=0.01)
    params = degradation.sample(torch.Generator().manual_seed(3))
    noisy = degradation.apply(torch.full((8, 8, 8), -0.5), params)
    assert noisy.max() < -0.4


@pytest.mark.parametrize("correlation", [0.8, 1.5])
def test_ct_noise_has_its_level_in_hu_and_its_length(correlation: float) -> None:
    degradation = build_degradation(
        "ct_slab", factor=(1, 1, 2), noise=25.0, correlation_voxels=correlation
    )
    params = degradation.sample(torch.Generator().manual_seed(4))
    noisy = degradation.apply(torch.full((64, 64, 64), 40.0), params).numpy()
    assert noisy.std() == pytest.approx(25.0, rel=0.02)
    assert noisy.mean() == pytest.approx(40.0, abs=1.0)
    impulse = np.zeros(41)
    impulse[20] = 1
    kernel = scipy.ndimage.gaussian_filter1d(impulse, correlation, truncate=10)
    expected = np.correlate(kernel, kernel, mode="full")
    expected = expected / expected.max()
    middle = len(expected) // 2
    for lag in (1, 2, 3):
        for axis in (0, 1):
            measured = _correlation(noisy, axis, lag)
            assert measured == pytest.approx(expected[middle + lag], abs=0.04)
    assert abs(_correlation(noisy, 2, 1)) < 0.03


def test_ct_noise_without_correlation_is_white_and_normal() -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 2), noise=10.0, correlation_voxels=0.0)
    params = degradation.sample(torch.Generator().manual_seed(5))
    noisy = degradation.apply(torch.zeros(SHAPE), params).numpy()
    assert max(abs(_correlation(noisy, axis, 1)) for axis in range(3)) < 0.03
    normal = scipy.stats.norm(scale=10.0)
    assert scipy.stats.kstest(noisy.ravel()[:5000], normal.cdf).pvalue > 1e-3


def _correlation(image: np.ndarray, axis: int, lag: int) -> float:
    """Correlation of an image with itself, ``lag`` voxels along an axis away."""
    moved = np.moveaxis(image, axis, 0)
    return float(np.corrcoef(moved[:-lag].ravel(), moved[lag:].ravel())[0, 1])

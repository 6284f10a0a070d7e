"""Fourier shell correlation equals a plain loop and crosses where theory says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, signal

from medsr.evaluate.metrics.resolution import THRESHOLD, ShellCorrelation
from medsr.types import Float32Array


def _noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> Float32Array:
    return rng.normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.4)])
def test_blur_and_noise_cross_at_the_analytic_frequency(
    spacing: tuple[float, float, float], rng: np.random.Generator
) -> None:
    # White truth X and result G X + N: FSC(f) = 1 / sqrt(1 + s^2 / G(f)^2), with the blur's
    # transfer function G(f) = exp(-2 (pi sigma f)^2).
    shape, sigma_mm, level = (72, 64, 68), 1.3, 0.3
    hr = _noise(rng, shape)
    sigma = [sigma_mm / step for step in spacing]
    blurred = np.fft.ifftn(ndimage.fourier_gaussian(np.fft.fftn(hr), sigma)).real
    sr = (blurred + level * _noise(rng, shape)).astype(np.float32)
    transfer = level * THRESHOLD / np.sqrt(1 - THRESHOLD**2)
    frequency = np.sqrt(-np.log(transfer) / 2) / (np.pi * sigma_mm)
    found = ShellCorrelation(hr, spacing).resolution_mm(sr)
    # Some hundred samples a shell leave the correlation uncertain by 0.05 to 0.1.
    assert found == pytest.approx((1 / (2 * frequency),) * 3, rel=0.08)
    assert max(spacing) < min(found)


def test_correlation_equals_a_plain_loop(rng: np.random.Generator) -> None:
    shape, spacing = (32, 36, 30), (1.0, 0.8, 1.5)  # lengths that are fast: nothing is padded
    hr = ndimage.gaussian_filter(_noise(rng, shape), 0.7)
    sr = hr + 0.4 * _noise(rng, shape)
    window = np.ones(shape)
    for axis, size in enumerate(shape):
        along = np.ones(3, dtype=int)
        along[axis] = size
        window = window * signal.windows.tukey(size, 0.5).reshape(along)
    spectra = [
        np.fft.fftn((each - np.sum(each * window) / window.sum()) * window) for each in (hr, sr)
    ]
    grids = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)), indexing="ij"
    )
    radius = np.sqrt(sum(grid**2 for grid in grids))
    curves = ShellCorrelation(hr.astype(np.float32), spacing).curves(sr.astype(np.float32))
    for axis, (frequency, correlation) in enumerate(curves):
        step = 1 / (shape[axis] * spacing[axis])
        cone = np.abs(grids[axis]) >= np.cos(np.radians(20)) * radius
        raw, samples = [], []
        for shell in range(1, shape[axis] // 2 + 1):
            chosen = cone & (np.rint(radius / step) == shell)
            one, other = (spectrum[chosen] for spectrum in spectra)
            power = np.sqrt(np.sum(np.abs(one) ** 2) * np.sum(np.abs(other) ** 2))
            raw.append(np.sum(one * other.conj()).real / power)
            samples.append(np.count_nonzero(chosen))
        kept = [(r, n) for r, n in zip(raw, samples, strict=True) if n >= 8]
        r, n = (np.array(part, dtype=float) for part in zip(*kept, strict=True))
        smooth = np.convolve(r * n, [1, 2, 1], "same") / np.convolve(n, [1, 2, 1], "same")
        np.testing.assert_allclose(correlation, smooth, atol=2e-4)
        assert np.all(np.diff(frequency) > 0)
        assert frequency[-1] <= 1 / (2 * spacing[axis]) + step / 2


def test_lost_detail_shows_along_its_axis_alone(rng: np.random.Generator) -> None:
    hr = _noise(rng, (60, 60, 60))
    spectrum = np.fft.fftn(hr)
    spectrum[:, :, np.abs(np.fft.fftfreq(60)) > 1 / 8] = 0  # what slices 4 voxels apart can hold
    sr = np.fft.ifftn(spectrum).real.astype(np.float32)
    x, y, z = ShellCorrelation(hr, (1.0, 1.0, 1.0)).resolution_mm(sr)
    assert z == pytest.approx(4.0, rel=0.15)
    assert (x, y) == (1.0, 1.0)
    thick = ShellCorrelation(hr, (0.7, 0.7, 0.7)).resolution_mm(sr)
    assert thick == pytest.approx((0.7, 0.7, 0.7 * z))


def test_the_truth_is_capped_at_nyquist_and_lossless_blur_is_not_seen(
    rng: np.random.Generator,
) -> None:
    hr = _noise(rng, (40, 44, 48))
    shells = ShellCorrelation(hr, (1.0, 1.2, 3.0))
    assert shells.resolution_mm(hr) == (1.0, 1.2, 3.0)
    for _, correlation in shells.curves(3 * hr + 100):
        np.testing.assert_allclose(correlation, 1.0, atol=1e-4)
    assert shells.resolution_mm(ndimage.gaussian_filter(hr, 0.6)) == (1.0, 1.2, 3.0)


def test_nothing_in_common_is_as_coarse_as_the_box_allows(rng: np.random.Generator) -> None:
    hr = _noise(rng, (40, 40, 40))
    shells = ShellCorrelation(hr, (1.0, 1.0, 1.0))
    assert min(shells.resolution_mm(_noise(rng, hr.shape))) > 5
    assert min(shells.resolution_mm(np.full_like(hr, 3.0))) > 5


def test_thin_boxes_tell_nothing_along_the_thin_axis(rng: np.random.Generator) -> None:
    hr = _noise(rng, (40, 40, 15))
    x, y, z = ShellCorrelation(hr, (1.0, 1.0, 1.0)).resolution_mm(hr)
    assert (x, y) == (1.0, 1.0)
    assert np.isnan(z)


def test_weights_leave_out_what_is_not_shared(rng: np.random.Generator) -> None:
    hr = _noise(rng, (48, 48, 48))
    sr = hr.copy()
    sr[:, :, 24:] = 0
    within = np.zeros_like(hr)
    within[:, :, :24] = np.hanning(26)[1:-1].astype(np.float32)
    assert ShellCorrelation(hr, (1.0, 1.0, 1.0), within).resolution_mm(sr) == (1.0, 1.0, 1.0)

"""Edge widths of known edges, in millimetres, beside a fit by scipy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, optimize, special

from medsr.evaluate.metrics.edges import (
    RISE,
    EdgeWidths,
    gradients,
    strong_edges,
)
from medsr.types import Float32Array

SHAPE = (48, 44, 40)


def _blocks(sigma_mm: float, spacing: tuple[float, float, float]) -> Float32Array:
    """A brick with erf faces of one width on all sides, at places off the grid."""
    volume = np.ones(SHAPE)
    for axis, (size, step) in enumerate(zip(SHAPE, spacing, strict=True)):
        x = np.arange(size) * step
        low, high = 0.27 * size * step, 0.74 * size * step
        root = sigma_mm * np.sqrt(2)
        profile = 0.5 * (special.erf((x - low) / root) - special.erf((x - high) / root))
        volume = volume * profile.reshape([-1 if i == axis else 1 for i in range(3)])
    return (100 + 800 * volume).astype(np.float32)


def _widths(hr: Float32Array, spacing: tuple[float, float, float]) -> EdgeWidths:
    parts = gradients(hr, spacing)
    edges = strong_edges(parts, np.ones(hr.shape, dtype=bool))
    return EdgeWidths(hr, parts, edges, spacing, 900.0)


def test_rise_is_that_of_the_normal_distribution() -> None:
    # 10 % and 90 % of the error function lie at -+1.2816 standard deviations.
    assert pytest.approx(2 * np.sqrt(2) * special.erfinv(0.8), rel=1e-12) == RISE


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.3)])
@pytest.mark.parametrize("sigma_mm", [0.8, 1.2, 2.0])
def test_an_erf_edge_has_its_width_along_every_axis(
    sigma_mm: float, spacing: tuple[float, float, float]
) -> None:
    widths = _widths(_blocks(0.8, spacing), spacing)
    assert min(widths.counts) > 100
    found = widths.widths_mm(_blocks(sigma_mm, spacing))
    assert found == pytest.approx((2.5631 * sigma_mm,) * 3, rel=0.03)


def test_only_the_blurred_axis_grows() -> None:
    hr = _blocks(0.8, (1.0, 1.0, 1.0))
    sr = ndimage.gaussian_filter1d(hr, 2.0, axis=2)
    x, y, z = _widths(hr, (1.0, 1.0, 1.0)).widths_mm(sr)
    assert (x, y) == pytest.approx((RISE * 0.8,) * 2, rel=0.03)
    assert z == pytest.approx(RISE * np.hypot(0.8, 2.0), rel=0.05)


def test_a_shift_and_a_scale_leave_widths_alone() -> None:
    hr = _blocks(1.0, (1.0, 1.0, 1.0))
    widths = _widths(hr, (1.0, 1.0, 1.0))
    shifted = np.roll(hr, 1, axis=0) * np.float32(0.7) + np.float32(50)
    assert widths.widths_mm(shifted) == pytest.approx(widths.widths_mm(hr), rel=0.02)


def test_noise_agrees_with_a_fit_by_scipy(rng: np.random.Generator) -> None:
    hr = _blocks(1.0, (1.0, 1.0, 1.0))
    sr = ndimage.gaussian_filter(hr, 1.0) + rng.normal(0, 15, SHAPE)
    widths = _widths(hr, (1.0, 1.0, 1.0))
    x = np.arange(-8, 9, dtype=float)

    def model(x: npt.NDArray[np.float64], a: float, b: float, c: float, s: float) -> object:
        return a + b * special.erf((x - c) / (s * np.sqrt(2)))

    sites = widths._sites[0]
    weight = np.exp(-0.5 * (x / 4) ** 2)
    fitted = []
    for line, sign in zip(sites.lines[:60], sites.sign[:60], strict=True):
        profile = sign * sr.reshape(-1)[line]
        best, _ = optimize.curve_fit(
            model, x, profile, p0=(0, 400, 0, 1), sigma=1 / np.sqrt(weight), maxfev=4000
        )
        fitted.append(abs(best[3]))
    mine = sites.model.fit(sr.reshape(-1)[sites.lines[:60]] * sites.sign[:60, None])
    np.testing.assert_allclose(mine.sigma_mm, fitted, rtol=0.06)
    assert np.median(mine.sigma_mm) == pytest.approx(np.sqrt(2), rel=0.05)


def test_thin_sheets_are_no_edges() -> None:
    volume = np.full(SHAPE, 100, dtype=np.float32)
    volume[20:22] = 900
    widths = _widths(volume, (1.0, 1.0, 1.0))
    assert widths.counts == (0, 0, 0)
    assert np.isnan(widths.widths_mm(volume)).all()


def test_a_result_without_edges_has_the_widest() -> None:
    hr = _blocks(0.8, (1.0, 1.0, 1.0))
    widths = _widths(hr, (1.0, 1.0, 1.0))
    flat = widths.widths_mm(np.full_like(hr, 5.0))
    inverted = widths.widths_mm(1000 - hr)
    assert min(flat) > 3 * RISE * 0.8
    assert min(inverted) > 3 * RISE * 0.8
    with pytest.raises(ValueError, match="shapes differ"):
        widths.widths_mm(hr[1:])


def test_strong_edges_are_the_longest_tenth_in_the_mask(rng: np.random.Generator) -> None:
    hr = rng.normal(0, 1, (20, 20, 20)).astype(np.float32)
    mask = np.zeros(hr.shape, dtype=bool)
    mask[:, :, 5:] = True
    spacing = (1.0, 2.0, 0.5)
    smooth = ndimage.gaussian_filter(hr, 1.0)
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(smooth, *spacing)))
    found = strong_edges(gradients(hr, spacing), mask)
    assert not found[~mask].any()
    assert found.sum() == pytest.approx(0.1 * mask.sum(), rel=0.01)
    assert slope[found].min() >= slope[mask & ~found].max() * (1 - 1e-4)

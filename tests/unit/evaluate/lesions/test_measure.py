"""What is measured of lesions, against closed forms and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
from scipy.integrate import quad
from scipy.special import erf

from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import UsageError
from medsr.evaluate.lesions import Lesion, LesionResult, insert, measure
from medsr.geometry import Geometry
from medsr.volume import Volume


def _empty(spacing: tuple[float, float, float], size_mm: float = 44.0) -> Volume:
    shape = [round(size_mm / s) for s in spacing]
    geometry = Geometry((shape[0], shape[1], shape[2]), np.diag([*spacing, 1.0]))
    return Volume(np.zeros(shape, np.float32), geometry, "CT", "HU")


def _lesion(diameter: float, centre: tuple[float, float, float], contrast: float) -> Lesion:
    return Lesion(centre, diameter, f"{contrast:+g} HU", contrast, "soft")


@pytest.mark.parametrize("diameter", [3.0, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.87, 2.0, 0.87)])
@pytest.mark.parametrize("contrast", [30.0, -100.0])
def test_what_keeps_everything_scores_one(
    diameter: float, spacing: tuple[float, float, float], contrast: float
) -> None:
    truth = _empty(spacing)
    noise = np.random.default_rng(1).normal(50, 20, truth.shape).astype(np.float32)
    truth = truth.replace(data=noise)
    lesion = _lesion(diameter, (21.3, 22.6, 20.9), contrast)
    (found,) = measure(insert(truth, [lesion]), truth, truth.geometry, [lesion])
    assert found.contrast_kept == pytest.approx(1.0, abs=1e-5)
    assert found.volume_kept == pytest.approx(1.0, abs=0.01)
    assert found.extent_kept == pytest.approx(1.0, abs=0.01)
    assert found.shift_mm < 0.01
    assert found.false_response < 1e-5
    assert (found.contrast, found.diameter_mm, found.tissue) == (lesion.contrast, diameter, "soft")


def test_a_method_that_shows_nothing_scores_zero() -> None:
    truth = _empty((1.0, 1.0, 1.0))
    lesion = _lesion(5.0, (22.0, 22.0, 22.0), 30.0)
    (found,) = measure(truth, truth, truth.geometry, [lesion])
    assert found.contrast_kept == 0
    assert found.volume_kept == 0
    assert math.isnan(found.extent_kept)
    assert math.isnan(found.shift_mm)


@pytest.mark.parametrize(("diameter", "sigma"), [(8.0, 2.0), (5.0, 2.0), (12.0, 3.0)])
def test_a_gaussian_blur_keeps_the_analytic_contrast(diameter: float, sigma: float) -> None:
    truth = _empty((0.5, 0.5, 0.5), size_mm=40.0)
    lesion = _lesion(diameter, (20.1, 19.9, 20.0), 100.0)
    changed = insert(truth, [lesion])
    blurred = changed.replace(data=scipy.ndimage.gaussian_filter(changed.data, sigma / 0.5))
    (found,) = measure(blurred, truth, truth.geometry, [lesion])

    radius, spread = diameter / 2, math.sqrt(2) * sigma

    def profile(r: float) -> float:
        """A ball of height 1 after a Gaussian, at distance r from its centre."""
        inside = (erf((radius + r) / spread) + erf((radius - r) / spread)) / 2
        tails = math.exp(-(((r - radius) / spread) ** 2)) - math.exp(
            -(((r + radius) / spread) ** 2)
        )
        return float(inside - sigma / (r * math.sqrt(2 * math.pi)) * tails)

    core = quad(lambda r: profile(r) * r**2, 1e-6, radius / 2)[0]
    expected = core / quad(lambda r: r**2, 0, radius / 2)[0]
    assert found.contrast_kept == pytest.approx(expected, rel=0.02)
    reach = max((r for r in np.linspace(1e-3, 2 * radius, 4000) if profile(r) > 0.5), default=0.0)
    assert found.volume_kept == pytest.approx((reach / radius) ** 3, abs=0.06)
    half = expected / 2
    extent = max(r for r in np.linspace(1e-3, 3 * radius, 4000) if profile(r) > half)
    assert found.extent_kept == pytest.approx((extent / radius) ** 3, rel=0.06)
    assert found.shift_mm < 0.1


def test_a_thick_slice_keeps_the_chord_over_its_thickness() -> None:
    # One slab of 8 mm that holds the whole lesion, repeated: every column is its mean.
    truth = _empty((0.5, 0.5, 0.5), size_mm=40.0)
    slab = build_degradation("ct_slab", factor=(1, 1, 16))
    diameter, radius = 6.0, 3.0
    # Centre of the third slab: 2.5 slabs of 8 mm, less half a voxel.
    lesion = _lesion(diameter, (20.0, 20.0, 19.75), 100.0)
    lr = degrade_volume(insert(truth, [lesion]), slab)
    changed = truth.replace(data=np.repeat(lr.data, 16, axis=2))
    (found,) = measure(changed, truth, truth.geometry, [lesion])

    def inner(rho: float) -> float:
        """Chord over thickness times the height of the core at this distance from the axis."""
        chord = 2 * math.sqrt(radius**2 - rho**2)
        height = 2 * math.sqrt((radius / 2) ** 2 - rho**2)
        return chord / 8.0 * height * 2 * math.pi * rho

    expected = quad(inner, 0, radius / 2)[0] / (4 / 3 * math.pi * (radius / 2) ** 3)
    assert found.contrast_kept == pytest.approx(expected, rel=0.02)


def test_a_response_in_another_place_is_shifted() -> None:
    truth = _empty((1.0, 1.0, 1.0))
    lesion = _lesion(8.0, (22.0, 22.0, 22.0), -50.0)
    moved = _lesion(8.0, (22.0, 22.0, 25.0), -50.0)
    (found,) = measure(insert(truth, [moved]), truth, truth.geometry, [lesion])
    assert found.shift_mm == pytest.approx(3.0, abs=0.1)
    assert found.false_response > 0.15
    assert found.volume_kept == pytest.approx(1.0, abs=0.05)
    assert found.extent_kept > 1.05  # at its true place it is weaker, so half of that is less


def test_a_halo_is_a_false_response_and_volume_is_not_won_by_it() -> None:
    truth = _empty((1.0, 1.0, 1.0))
    lesion = _lesion(8.0, (22.0, 22.0, 22.0), 50.0)
    ring = _lesion(14.0, (22.0, 22.0, 22.0), 50.0)
    data = 0.8 * insert(truth, [lesion]).data + 0.2 * insert(truth, [ring]).data
    (found,) = measure(data, truth.data, truth.geometry, [lesion])
    assert found.contrast_kept == pytest.approx(1.0, abs=1e-4)
    assert found.volume_kept < 1.2
    outside = 0.2**2 * ((14 / 8) ** 3 - 1)
    # The layer that voxels at the surface blur into is not counted as outside.
    assert 0.5 * outside < found.false_response < outside


def test_plain_contrast_needs_no_second_result_and_sees_the_anatomy() -> None:
    truth = _empty((1.0, 1.0, 1.0))
    lesion = _lesion(8.0, (22.0, 22.0, 22.0), 50.0)
    changed = insert(truth, [lesion])
    (found,) = measure(changed, truth, truth.geometry, [lesion])
    assert found.plain_contrast == pytest.approx(1.0, abs=0.02)
    r = np.linalg.norm(np.indices(truth.shape) - 22.0, axis=0, ord=2)
    vessel = np.where(r < 3.0, np.float32(25.0), np.float32(0.0))
    (found,) = measure(changed.data + vessel, vessel, truth.geometry, [lesion])
    assert found.contrast_kept == pytest.approx(1.0, abs=1e-4)
    assert found.plain_contrast == pytest.approx(1.5, abs=0.05)


def test_results_off_the_grid_are_refused() -> None:
    truth = _empty((1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="do not lie on a grid"):
        measure(truth.data[1:], truth.data, truth.geometry, [])
    assert measure(truth, truth, truth.geometry, []) == []
    assert LesionResult.__dataclass_fields__["contrast_kept"]

"""Slices of any ratio and profile, the filter between profiles, and the sampling of knots."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, signal

from medsr.degrade import CTSlab, SliceParams, SliceProfile, Slices
from medsr.degrade.base import coarse_centres
from medsr.degrade.slices import PROFILES, canonical_filter, sampling_rows, slice_rows


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ratio", [1.5, 2.7, 5.0])
def test_profiles_are_centred_and_as_wide_as_they_say(profile: str, ratio: float) -> None:
    fine = 40  # voxels for each of the ratio's, so that widths can be read off
    size = int(24 * ratio * fine)
    params = SliceParams(ratio * fine, thickness=0.8, profile=profile)
    centre = torch.tensor([size / 2 + 0.3], dtype=torch.float64)
    (row,) = slice_rows(size, centre, params).numpy()
    assert row.sum() == pytest.approx(1)
    assert (row * np.arange(size)).sum() == pytest.approx(float(centre), abs=0.3)
    above = np.flatnonzero(row >= row.max() / 2)
    width = (above[-1] - above[0] + 1) / (ratio * fine)
    # A Hamming-windowed partition is 1.81 / 1.21 times as wide as its unwindowed main lobe.
    expected = 0.8 * (1.815 / 1 if profile == "partition" else 1)
    assert width == pytest.approx(expected, rel=0.03)


def test_gaussian_and_box_are_those_of_the_other_degradations() -> None:
    hr = torch.rand(4, 4, 24, generator=torch.Generator().manual_seed(0))
    slices = Slices(factor=(1, 1, 4))
    for profile, other in (("gaussian", SliceProfile((1, 1, 4))), ("box", CTSlab((1, 1, 4)))):
        made = slices.apply(hr, SliceParams(4.0, profile=profile))
        torch.testing.assert_close(made, other.apply(hr, other.nominal()))


def test_triangle_is_that_of_scipy() -> None:
    line = np.random.default_rng(0).random(200)
    row = slice_rows(
        200, torch.tensor([100.0], dtype=torch.float64), SliceParams(8.0, 1.0, "triangle")
    )
    expected = ndimage.convolve1d(line, signal.windows.triang(15) / signal.windows.triang(15).sum())
    assert float(row[0] @ torch.from_numpy(line)) == pytest.approx(expected[100], abs=0.01)


def test_the_filter_brings_slices_near_to_nominal_ones() -> None:
    generator = torch.Generator().manual_seed(1)
    # An object with the prior's autocovariance, 12 fine voxels a slice.
    noise = torch.randn(200, 480, generator=generator, dtype=torch.float64).numpy()
    decay = math.exp(-1 / 24)
    line = torch.from_numpy(signal.lfilter([math.sqrt(1 - decay**2)], [1, -decay], noise)) * 0.2
    centres = coarse_centres(480, 12)
    nominal = SliceParams(12.0)
    wanted = line @ slice_rows(480, centres, nominal).T
    for params in (SliceParams(12.0, 0.6, "box"), SliceParams(12.0, 1.5), SliceParams(12.0, 0.8)):
        given = line @ slice_rows(480, centres, params).T
        filtered = given @ canonical_filter(40, params, nominal).T
        inside = slice(3, -3)
        before = (given - wanted)[:, inside].square().mean()
        after = (filtered - wanted)[:, inside].square().mean()
        assert after < 0.75 * before
    same = canonical_filter(20, nominal, nominal)
    assert (same @ wanted[:, :20].T - wanted[:, :20].T).abs().max() < 0.05


def test_constants_pass_the_filter() -> None:
    rows = canonical_filter(9, SliceParams(4.0, 1.6, "box", sigma=0.03), SliceParams(4.0))
    torch.testing.assert_close(rows.sum(1), torch.ones(9, dtype=torch.float64))


def test_slices_of_unknown_or_nominal_profile_are_left_as_they_are() -> None:
    slices, lr = Slices(), torch.rand(2, 2, 8)
    assert slices.canonical(lr, SliceParams(4.0, profile=None)) is lr
    assert slices.canonical(lr, SliceParams(4.0, 1.04)) is lr
    assert not torch.equal(slices.canonical(lr, SliceParams(4.0, 0.7)), lr)


def test_sampling_is_linear_interpolation_between_knots() -> None:
    knots = np.sort(np.random.default_rng(2).random(5 * 9))
    at = (np.arange(45) + 0.5) / 9 - 0.5
    places = np.array([-0.49, 0.0, 0.31, 2.5, 4.49])
    rows = sampling_rows(torch.from_numpy(places), 5, 9)
    np.testing.assert_allclose(
        rows @ torch.from_numpy(knots).float(), np.interp(places, at, knots), 1e-5
    )


def test_drawn_slices_are_as_the_options_say() -> None:
    slices = Slices(profiles={"box": 1, "partition": 0}, nominal=0.5, noise=(0.01, 0.02), clean=0.5)
    generator = torch.Generator().manual_seed(0)
    drawn = [slices.sample(generator, ratio=3.3) for _ in range(400)]
    assert {p.profile for p in drawn} == {"gaussian", "box"}
    assert 0.4 < np.mean([p.profile == "box" for p in drawn]) < 0.6
    assert 0.4 < np.mean([p.sigma == 0 for p in drawn]) < 0.6
    assert {p.ratio for p in drawn} == {3.3}
    told = [slices.told(p, generator) for p in drawn]
    hidden = [k.profile is None for p, k in zip(drawn, told, strict=True) if p.profile == "box"]
    assert 0.15 < np.mean(hidden) < 0.35
    assert any(k.sigma is None for k in told)


@pytest.mark.parametrize(
    "wrong",
    [{"factor": (2, 1, 4)}, {"profile": "cone"}, {"profiles": {"box": 0}}, {"ratio": (1.0, 4.0)}],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"factor|profile|ratios"):
        Slices(**wrong)  # type: ignore[arg-type]

"""Impulse responses of slice profile, slab and in-plane PSF against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from medsr.degrade import CTSlab, CTSlabParams, SliceProfile, SliceProfileParams


def _impulses(size: int) -> torch.Tensor:
    """One impulse after the other along Z, stacked along X: (size, 1, size)."""
    return torch.eye(size)[:, None, :]


@pytest.mark.parametrize(("separation", "thickness"), [(4, 1.0), (4, 0.7), (5, 1.4), (2, 1.0)])
def test_slice_profile_is_the_gaussian_of_its_thickness(separation: int, thickness: float) -> None:
    size, k = 16 * separation, 8
    degradation = SliceProfile(factor=(1, 1, separation))
    response = degradation.apply(_impulses(size), SliceProfileParams(thickness=thickness))
    profile = response[:, 0, k].numpy()
    centre = separation * k + (separation - 1) / 2
    sigma = thickness * separation / (2 * np.sqrt(2 * np.log(2)))
    position = np.arange(size)
    gaussian = scipy.stats.norm(loc=centre, scale=sigma)
    expected = np.where(np.abs(position - centre) <= 3 * sigma, gaussian.pdf(position), 0)
    assert profile == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_slice_profile_has_half_its_height_at_half_the_thickness() -> None:
    separation, thickness, k = 16, 0.8, 3
    degradation = SliceProfile(factor=(1, 1, separation))
    response = degradation.apply(_impulses(112), SliceProfileParams(thickness=thickness))
    profile = response[:, 0, k].numpy()
    fine = np.linspace(0, 111, 11101)
    curve = scipy.ndimage.map_coordinates(profile, fine[None], order=3)
    wide = fine[curve >= curve.max() / 2]
    assert wide[-1] - wide[0] == pytest.approx(thickness * separation, abs=0.05)
    assert (wide[-1] + wide[0]) / 2 == pytest.approx(separation * k + 7.5, abs=0.02)


def test_very_thin_slices_sample_the_nearest_voxels() -> None:
    hr = torch.rand((1, 1, 15), generator=torch.Generator().manual_seed(0))
    thin = SliceProfileParams(thickness=0.01)
    odd = SliceProfile(factor=(1, 1, 3)).apply(hr, thin)
    assert torch.allclose(odd, hr[..., 1::3])
    even = SliceProfile(factor=(1, 1, 2)).apply(hr, SliceProfileParams(thickness=0.2))
    assert torch.allclose(even, (hr[..., 0:14:2] + hr[..., 1:14:2]) / 2)


@pytest.mark.parametrize("thickness", [0.5, 1.0, 1.3, 2.0])
def test_slab_is_the_exact_integral_of_the_slices_it_covers(thickness: float) -> None:
    separation, size = 4, 40
    hr = np.random.default_rng(1).uniform(-1000, 1500, (3, 2, size))
    lr = CTSlab(factor=(1, 1, separation)).apply(
        torch.from_numpy(hr), CTSlabParams(thickness=thickness)
    )
    integral = np.concatenate([np.zeros((3, 2, 1)), hr.cumsum(axis=-1)], axis=-1)
    for k in range(1, size // separation - 1):
        middle = separation * (k + 0.5)
        edges = middle + np.array([-0.5, 0.5]) * thickness * separation
        for x, y in np.ndindex(3, 2):
            low, high = np.interp(edges, np.arange(size + 1), integral[x, y])
            expected = (high - low) / (edges[1] - edges[0])
            assert lr[x, y, k].item() == pytest.approx(expected, abs=1e-6)


def test_plain_slab_is_the_block_mean_and_never_clips() -> None:
    hr = torch.linspace(-2000, 4000, 2 * 3 * 12, dtype=torch.float64).reshape(2, 3, 12)
    degradation = CTSlab(factor=(1, 1, 4))
    lr = degradation.apply(hr, degradation.nominal())
    assert torch.allclose(lr, hr.reshape(2, 3, 3, 4).mean(dim=-1))
    assert lr.max() > 3800


def test_psf_is_the_gaussian_of_its_width_and_only_in_plane() -> None:
    hr = torch.zeros(25, 25, 4, dtype=torch.float64)
    hr[12, 12, 1] = 1.0
    fwhm = 2.5
    lr = CTSlab(factor=(1, 1, 2)).apply(hr, CTSlabParams(thickness=1.0, psf_voxels=fwhm))
    sigma = fwhm / (2 * np.sqrt(2 * np.log(2)))
    plane = scipy.ndimage.gaussian_filter(hr[:, :, 1].numpy(), sigma, truncate=11)
    assert lr[:, :, 0].numpy() == pytest.approx(plane / 2, abs=1e-8)
    assert lr[:, :, 1].abs().max() == 0

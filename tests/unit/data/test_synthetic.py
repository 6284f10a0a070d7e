"""Synthetic volumes: repeatable, in the range, with the spectra and borders that were asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from medsr.data.synthetic import (
    SyntheticStream,
    power_law_texture,
    soft_shape,
    synthetic_volume,
)
from medsr.degrade import CTSlab, SliceProfile
from medsr.recipe import PatchRecipe, SyntheticRecipe

PATCHES = PatchRecipe(size=(6, 5, 4), batch=4)
PLAIN = SyntheticRecipe(texture=(0, 0), noise=(0, 0))


def stream(seed: int = 0, rank: int = 0, recipe: SyntheticRecipe = PLAIN) -> SyntheticStream:
    return SyntheticStream({"MR": SliceProfile((1, 1, 4))}, PATCHES, recipe, seed, rank)


def test_a_step_always_gives_the_same_batch() -> None:
    first, again = stream().batch(3), stream().batch(3)
    assert torch.equal(first.lr, again.lr)
    assert torch.equal(first.hr, again.hr)
    for other in (stream().batch(4), stream(seed=1).batch(3), stream(rank=1).batch(3)):
        assert not torch.equal(first.hr, other.hr)


def test_pairs_have_the_sizes_of_patches_and_name_their_modality() -> None:
    degradations = {"MR": SliceProfile((1, 1, 4)), "CT": CTSlab((1, 1, 4))}
    batch = SyntheticStream(degradations, replace(PATCHES, batch=12), PLAIN, 0).batch(0)
    assert batch.lr.shape == (12, 1, 6, 5, 4)
    assert batch.hr.shape == (12, 1, 6, 5, 16)
    assert batch.lr.dtype == batch.hr.dtype == torch.float32
    assert set(batch.domains) == {"MR", "CT"}


def test_the_low_resolution_is_the_degraded_volume() -> None:
    # A slab of nominal thickness is the mean of its slices, also at a patch's borders.
    made = SyntheticStream({"CT": CTSlab((1, 1, 4))}, PATCHES, PLAIN, 0).batch(0)
    slabs = made.hr.unflatten(-1, (4, 4)).mean(dim=-1)
    torch.testing.assert_close(made.lr, slabs, rtol=1e-4, atol=1e-5)


def test_shapes_lie_in_the_networks_range() -> None:
    rng = np.random.default_rng(0)
    volumes = [synthetic_volume((12, 10, 16), PLAIN, rng) for _ in range(20)]
    assert all(volume.min() >= 0 and volume.max() <= 1 for volume in volumes)
    assert np.mean([volume.std() for volume in volumes]) > 0.05
    airy = [synthetic_volume((12, 10, 16), replace(PLAIN, air=a), rng) for a in (0.0, 1.0)]
    assert airy[0].min() > 0


def test_noise_is_as_strong_as_asked() -> None:
    noisy = SyntheticRecipe(shapes=(1, 1), texture=(0, 0), noise=(0.05, 0.05), air=1.0)
    quiet = replace(noisy, noise=(0, 0))
    pair = [
        synthetic_volume((24, 24, 24), recipe, np.random.default_rng(5))
        for recipe in (noisy, quiet)
    ]
    assert np.std(pair[0] - pair[1]) == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize("slope", [0.0, 2.0, 4.0])
def test_a_textures_power_falls_as_asked(slope: float) -> None:
    rng = np.random.default_rng(1)
    shape = (32, 32, 32)
    fields = [power_law_texture(shape, slope, rng) for _ in range(4)]
    power = np.mean([np.abs(np.fft.fftn(field)) ** 2 for field in fields], axis=0).ravel()
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    frequency = np.sqrt(sum(axis**2 for axis in axes)).ravel()
    inside = (frequency > 0.05) & (frequency < 0.5)
    fitted = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.15)
    for field in fields:
        assert field.std() == pytest.approx(1.0, abs=1e-6)
    if slope:
        assert abs(fields[0].mean()) < 1e-9


def test_a_softer_border_is_wider() -> None:
    axes = np.meshgrid(*(np.arange(n) for n in (40, 40, 40)), indexing="ij")
    grid = np.stack(axes, axis=-1).astype(np.float32)
    widths = []
    for softness in (0.3, 1.0, 3.0):
        covers = [soft_shape(grid, softness, np.random.default_rng(seed)) for seed in range(6)]
        assert all(cover.min() >= 0 and cover.max() <= 1 for cover in covers)
        widths.append(np.mean([((cover > 0.1) & (cover < 0.9)).mean() for cover in covers]))
    assert widths[0] < widths[1] < widths[2]
    sharp = soft_shape(grid, 0.0, np.random.default_rng(0))
    assert np.isfinite(sharp).all()

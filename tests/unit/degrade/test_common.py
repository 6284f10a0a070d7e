"""What every degradation keeps: constants, the grid, the random state, patches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from medsr.degrade import DEGRADATIONS, build_degradation, degrade_volume
from medsr.errors import UsageError
from medsr.geometry import Geometry
from medsr.volume import Volume

CASES: list[tuple[str, dict[str, Any]]] = [
    ("slice_profile", {"factor": (1, 1, 4)}),
    ("slice_profile", {"factor": (1, 1, 5), "thickness": 0.6}),
    ("slice_profile", {"factor": (2, 1, 3), "thickness": 1.3}),
    ("kspace", {"factor": (2, 2, 2)}),
    ("kspace", {"factor": (1, 2, 3), "window": "hamming"}),
    ("kspace", {"factor": (2, 2, 2), "window": "tukey", "mirror": True}),
    ("ct_slab", {"factor": (1, 1, 4)}),
    ("ct_slab", {"factor": (1, 1, 3), "thickness": 1.7, "psf_voxels": 2.0}),
    ("ct_slab", {"factor": (2, 1, 4), "thickness": 0.5}),
    ("mixture", {"factor": (1, 1, 4), "of": [{"kind": "ct_slab"}, {"kind": "slice_profile"}]}),
]
CASES += [(e.name, {"factor": (1, 1, 4), **e.small}) for e in DEGRADATIONS.entries()]
IDS = [f"{kind}-{index}" for index, (kind, _) in enumerate(CASES)]


def _oblique(shape: tuple[int, int, int]) -> Geometry:
    """An oblique, left-handed grid with three spacings."""
    rotation, _ = np.linalg.qr(np.random.default_rng(4).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.7, 0.9, 1.2])
    affine[:3, 3] = [-31.0, 12.5, 80.0]
    return Geometry(shape, affine)


def _volume(data: np.ndarray, geometry: Geometry) -> Volume:
    return Volume(
        data=data.astype(np.float32),
        geometry=geometry,
        modality="MR",
        units="arbitrary",
        source=None,
    )


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("shape", [(12, 12, 24), (11, 13, 23)])
def test_constants_survive_up_to_the_borders(
    kind: str, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    degradation = build_degradation(kind, **options)
    lr = degradation.apply(torch.full((2, 1, *shape), 3.25), degradation.nominal())
    expected = tuple(n // f for n, f in zip(shape, options["factor"], strict=True))
    assert lr.shape == (2, 1, *expected)
    assert (lr - 3.25).abs().max() < 1e-5


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
def test_grid_equals_coarsen_and_world_points_keep_their_place(
    kind: str, options: dict[str, Any]
) -> None:
    # A pattern that is a function of the world point must read the same on the coarse grid.
    shape = (36, 36, 62)
    geometry = _oblique(shape)
    factor = options["factor"]
    coarse = geometry.coarsen(factor)

    def pattern(grid: Geometry) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
        # Continuous index on the fine grid, found through the world.
        fine = geometry.world_to_voxel(grid.voxel_to_world(index.astype(np.float64)))
        if kind != "kspace":
            return np.asarray(fine @ [1.0, -0.5, 0.25])
        # One wave along each axis: periodic, or the one that is its own mirror image.
        halves, start = (1, 0.5) if options.get("mirror") else (2, 0.0)
        waves = [
            np.cos(halves * np.pi * (fine[..., axis] + start) / (n // f * f))
            for axis, (n, f) in enumerate(zip(shape, factor, strict=True))
        ]
        return np.asarray(sum(waves))

    degradation = build_degradation(kind, **options)
    lr = degrade_volume(_volume(pattern(geometry), geometry), degradation)
    assert lr.geometry.shape == coarse.shape == lr.data.shape
    assert np.allclose(lr.geometry.affine, coarse.affine, atol=1e-12)
    assert (lr.modality, lr.units) == ("MR", "arbitrary")

    expected = pattern(coarse)
    if kind == "kspace":
        # Hamming takes 2 to 3 % off the lowest frequency along each of two axes.
        tolerance = 0.055 if options.get("window") == "hamming" else 3e-5
        assert np.abs(lr.data - expected).max() < tolerance
    else:
        # A ramp is bent where the border cuts a profile; symmetric profiles keep it elsewhere.
        # The PSF, cut nowhere, reaches the first few in-plane voxels too.
        inside = (slice(5, -5), slice(6, -6), slice(3, -3))
        assert np.abs(lr.data - expected)[inside].max() < 2e-4


@pytest.mark.parametrize(
    ("kind", "options"),
    [case for case in CASES if case[0] != "kspace"],
    ids=[name for name in IDS if not name.startswith("kspace")],
)
def test_patch_with_margin_equals_the_whole_in_its_interior(
    kind: str, options: dict[str, Any]
) -> None:
    degradation = build_degradation(kind, **options)
    hr = torch.rand((1, 36, 36, 72), generator=torch.Generator().manual_seed(0))
    params = degradation.nominal()
    whole = degradation.apply(hr, params)
    factor, margin = degradation.factor, degradation.margin
    assert all(m % f == 0 for m, f in zip(margin, factor, strict=True))
    start = [m // f + 1 for m, f in zip(margin, factor, strict=True)]
    size = (4, 5, 3)
    fine = tuple(
        slice(s * f - m, (s + n) * f + m)
        for s, n, f, m in zip(start, size, factor, margin, strict=True)
    )
    assert all(part.stop <= n for part, n in zip(fine, hr.shape[1:], strict=True))
    patch = degradation.apply(hr[(slice(None), *fine)], params)
    inner = tuple(slice(m // f, m // f + n) for m, f, n in zip(margin, factor, size, strict=True))
    there = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    # The Gaussian PSF has no end; four sigmas leave out less than 1e-4 of it.
    tolerance = 1e-4 if options.get("psf_voxels") else 1e-6
    difference = patch[(slice(None), *inner)] - whole[(slice(None), *there)]
    assert difference.abs().max() < tolerance


def test_mirrored_kspace_patch_comes_close_to_the_whole() -> None:
    degradation = build_degradation("kspace", factor=(1, 1, 2), mirror=True)
    axis = torch.arange(160, dtype=torch.float32)
    hr = (torch.sin(axis / 3) + torch.sin(axis / 11 + 1)).expand(1, 2, 2, 160)
    params = degradation.nominal()
    whole = degradation.apply(hr, params)
    margin = degradation.margin[2]
    patch = degradation.apply(hr[..., 60 - margin : 100 + margin], params)
    inner = patch[..., margin // 2 : -(margin // 2)]
    assert inner.shape[-1] == 20
    assert (inner - whole[..., 30:50]).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["slice_profile", "kspace", "ct_slab"])
def test_sampling_is_apart_from_applying_and_both_replay(kind: str) -> None:
    degradation = build_degradation(kind, factor=(1, 1, 2), noise=(0.01, 0.1))
    draws = [degradation.sample(torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)]
    assert draws[0] == draws[1] != draws[2]
    assert 0.01 <= draws[0].sigma <= 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        draws[0].sigma = 0.0
    hr = torch.rand((1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    state, before = torch.get_rng_state(), hr.clone()
    first = degradation.apply(hr, draws[0])
    assert torch.equal(first, degradation.apply(hr, draws[1]))
    assert not torch.equal(first, degradation.apply(hr, draws[2]))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(hr, before)
    assert degradation.nominal().sigma == 0.0


def test_seed_of_a_scan_draws_and_replays() -> None:
    geometry = _oblique((8, 8, 8))
    data = np.random.default_rng(0).random((8, 8, 8))
    scan = _volume(data, geometry)
    degradation = build_degradation("ct_slab", factor=(1, 1, 2), noise=0.1)
    noisy = [degrade_volume(scan, degradation, seed=seed).data for seed in (1, 1, 2)]
    clean = degrade_volume(scan, degradation).data
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert np.allclose(clean, data.reshape(8, 8, 4, 2).mean(axis=-1), atol=1e-6)
    assert 0.05 < np.std(noisy[0] - clean) < 0.15


def test_bad_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="'blur' is unknown; known are ct_slab, kspace"):
        build_degradation("blur", factor=(1, 1, 2))
    with pytest.raises(UsageError, match="three integers from 1"):
        build_degradation("kspace", factor=(1, 1, 0))
    with pytest.raises(UsageError, match="gap"):
        build_degradation("slice_profile", factor=(1, 1, 2), gap=1)
    with pytest.raises(UsageError, match="thickness"):
        build_degradation("ct_slab", factor=(1, 1, 2), thickness=(2.0, 1.0))
    with pytest.raises(UsageError, match="'hann' is none of"):
        build_degradation("kspace", factor=(1, 1, 2), window="hann")
    degradation = build_degradation("slice_profile", factor=(1, 1, 4))
    with pytest.raises(UsageError, match="axis Z has 3 voxels"):
        degrade_volume(_volume(np.zeros((4, 4, 3)), _oblique((4, 4, 3))), degradation)

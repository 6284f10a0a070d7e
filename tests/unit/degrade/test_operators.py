"""The matrices of separable degradations: what ``apply`` does, and grids that no factor reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from medsr.degrade import Separable, build_degradation
from medsr.degrade.base import along_axis

CASES: list[tuple[str, dict[str, Any]]] = [
    ("slice_profile", {"factor": (1, 1, 4)}),
    ("slice_profile", {"factor": (2, 1, 3), "thickness": 0.1}),
    ("kspace", {"factor": (2, 2, 2)}),
    ("kspace", {"factor": (1, 2, 3), "window": "hamming", "mirror": True}),
    ("ct_slab", {"factor": (1, 1, 4)}),
    ("ct_slab", {"factor": (2, 1, 3), "thickness": 1.7, "psf_voxels": 2.0}),
    ("mixture", {"factor": (1, 1, 3), "of": [{"kind": "slice_profile", "thickness": 0.8}]}),
]
IDS = [f"{kind}-{index}" for index, (kind, _) in enumerate(CASES)]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
def test_the_matrices_do_what_apply_does(kind: str, options: dict[str, Any]) -> None:
    degradation = build_degradation(kind, **options)
    assert isinstance(degradation, Separable)
    coarse = (6, 5, 7)
    x, y, z = (n * f for n, f in zip(coarse, options["factor"], strict=True))
    hr = torch.randn((x, y, z), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    params = degradation.nominal()
    lr = hr
    for axis, matrix in enumerate(degradation.operators((x, y, z), coarse, params)):
        lr = lr if matrix is None else along_axis(lr, matrix, axis)
    torch.testing.assert_close(lr, degradation.apply(hr, params))


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("fine", [13, 23, 37])
def test_fractional_grids_keep_constants_and_ramps(
    kind: str, options: dict[str, Any], fine: int
) -> None:
    degradation = build_degradation(kind, **options)
    assert isinstance(degradation, Separable)
    coarse = 10
    (_, _, matrix) = degradation.operators((8, 8, fine), (8, 8, coarse), degradation.nominal())
    assert matrix is not None
    assert matrix.shape == (coarse, fine)
    rows = matrix.numpy()
    assert rows.sum(axis=1) == pytest.approx(np.ones(coarse))
    if kind == "kspace":
        # Periodic (or mirrored) along the axis: one slow wave over the extent comes through.
        halves = 1 if options.get("mirror") else 2
        window = 0.54 + 0.46 * np.cos(np.pi * 2 / coarse * halves / 2)
        gain = window if options.get("window") == "hamming" else 1.0
        fine_wave = np.cos(halves * np.pi * (np.arange(fine) + 0.5) / fine)
        wave = gain * np.cos(halves * np.pi * (np.arange(coarse) + 0.5) / coarse)
        assert rows @ fine_wave == pytest.approx(wave, abs=1e-9)
    else:
        # Away from the borders the mean position of a row is the centre of its coarse voxel.
        centres = (np.arange(coarse) + 0.5) * fine / coarse - 0.5
        middle = slice(3, -3)
        off = np.abs(rows @ np.arange(fine) - centres)[middle]
        # A thin profile falls between two fine voxels; a wide one is sampled well.
        assert off.max() < (0.51 if options.get("thickness") == 0.1 else 0.1)


def test_a_profile_keeps_its_width_between_fractional_grids() -> None:
    degradation = build_degradation("slice_profile", factor=(1, 1, 4), thickness=1.0)
    assert isinstance(degradation, Separable)
    fine, coarse = 146, 20  # 7.3 fine voxels apart
    _, _, matrix = degradation.operators((1, 1, fine), (1, 1, coarse), degradation.nominal())
    assert matrix is not None
    centre = (9 + 0.5) * 7.3 - 0.5
    sigma = 7.3 / (2 * np.sqrt(2 * np.log(2)))
    position = np.arange(fine)
    expected = scipy.stats.norm(loc=centre, scale=sigma).pdf(position)
    expected[np.abs(position - centre) > 3 * sigma] = 0
    assert matrix[9].numpy() == pytest.approx(expected / expected.sum(), abs=1e-9)


def test_a_slab_counts_what_it_covers_of_a_voxel() -> None:
    degradation = build_degradation("ct_slab", factor=(1, 1, 2))
    assert isinstance(degradation, Separable)
    x, y, matrix = degradation.operators((4, 4, 5), (4, 4, 2), degradation.nominal())
    assert x is None
    assert y is None
    assert matrix is not None
    assert matrix.numpy() == pytest.approx(np.array([[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]))


def test_a_psf_keeps_its_width_in_coarse_voxels() -> None:
    # On a grid twice finer in plane than the degradation's own, the PSF is twice as many voxels.
    degradation = build_degradation("ct_slab", factor=(1, 1, 2), psf_voxels=2.0)
    assert isinstance(degradation, Separable)
    params = degradation.nominal()
    own, _, _ = degradation.operators((40, 1, 2), (40, 1, 1), params)
    finer, _, _ = degradation.operators((80, 1, 2), (40, 1, 1), params)
    assert own is not None
    assert finer is not None

    def width(row: np.ndarray, unit: float) -> float:
        mean = (row * np.arange(row.size)).sum()
        return float(np.sqrt((row * (np.arange(row.size) - mean) ** 2).sum()) * unit)

    plain = width(own[20].numpy(), 1.0)
    wide = width(finer[20].numpy(), 0.5)
    assert plain == pytest.approx(2 / 2.354820045, rel=1e-3)
    # A box of one coarse voxel comes on top of the PSF (its two points lie 0.25 from the centre).
    assert wide == pytest.approx(np.sqrt(plain**2 + 0.25**2), rel=1e-3)

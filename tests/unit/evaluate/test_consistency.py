"""How far results are from their scans: numbers, map and the wrapped method."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import UsageError
from medsr.evaluate.consistency import consistency, consistent
from medsr.geometry import Geometry
from medsr.volume import Volume

SLAB = build_degradation("ct_slab", factor=(1, 1, 4))


def _truth(rng: np.random.Generator, shape: tuple[int, int, int] = (14, 12, 24)) -> Volume:
    data = (40 + 30 * rng.standard_normal(shape)).astype(np.float32)
    data[:5] = -1000.0  # air
    return Volume(data, Geometry(shape, np.diag([0.8, -0.8, 1.0, 1.0])), "CT", "HU")


def test_the_truth_is_consistent_and_an_offset_is_seen(rng: np.random.Generator) -> None:
    truth = _truth(rng)
    lr = degrade_volume(truth, SLAB)
    found, difference = consistency(truth, lr, SLAB)
    assert found["consistency_rmse"] < 1e-3
    assert difference.geometry == lr.geometry
    brighter = truth.replace(data=truth.data + np.float32(7.0))
    found, difference = consistency(brighter, lr, SLAB)
    assert found == pytest.approx({"consistency_rmse": 7.0, "consistency_max": 7.0}, rel=1e-4)
    assert difference.data == pytest.approx(7.0, rel=1e-4)  # signed: result minus scan
    assert difference.source is None


def test_only_the_body_counts_and_the_map_shows_all(rng: np.random.Generator) -> None:
    truth = _truth(rng)
    lr = degrade_volume(truth, SLAB)
    data = truth.data.copy()
    data[0, 0, 0:4] += 100.0  # in air
    data[8, 3, 4:8] -= 12.0
    found, difference = consistency(truth.replace(data=data), lr, SLAB)
    assert found["consistency_max"] == pytest.approx(12.0, rel=1e-4)
    body = np.count_nonzero(lr.data > -500)
    assert found["consistency_rmse"] == pytest.approx(12.0 / np.sqrt(body), rel=1e-3)
    assert difference.data[0, 0, 0] == pytest.approx(100.0, rel=1e-4)
    assert difference.data[8, 3, 1] == pytest.approx(-12.0, rel=1e-4)


def test_noise_of_the_scan_is_the_difference_and_not_drawn_again(rng: np.random.Generator) -> None:
    noisy = build_degradation("ct_slab", factor=(1, 1, 4), noise=20.0)
    truth = _truth(rng)
    params = noisy.sample(torch.Generator().manual_seed(5))
    lr = degrade_volume(truth, noisy, params)
    found, _ = consistency(truth, lr, noisy, params)
    noise = lr.data - degrade_volume(truth, SLAB).data
    expected = np.sqrt(np.square(noise[lr.data > -500].astype(float)).mean())
    assert expected > 3
    assert found["consistency_rmse"] == pytest.approx(expected, rel=1e-3)


def test_what_is_left_over_at_the_far_end_is_dropped(rng: np.random.Generator) -> None:
    truth = _truth(rng, (14, 12, 26))
    lr = degrade_volume(truth, SLAB)
    assert lr.shape == (14, 12, 6)
    assert consistency(truth, lr, SLAB)[0]["consistency_max"] < 1e-2
    with pytest.raises(UsageError, match="same extent"):
        consistency(truth, lr.crop((0, 0, 0), (14, 12, 5)), SLAB)


def test_a_wrapped_method_is_consistent_and_nearer_to_the_truth(rng: np.random.Generator) -> None:
    truth = _truth(rng)
    truth = truth.replace(data=scipy.ndimage.gaussian_filter(truth.data, 1.0))
    lr = degrade_volume(truth, SLAB)

    def linear(scan: Volume, grid: Geometry) -> Volume:
        data = scipy.ndimage.zoom(scan.data, (1, 1, 4), order=1, mode="nearest", grid_mode=True)
        return scan.replace(data=data, geometry=grid)

    plain = linear(lr, truth.geometry)
    better = consistent(linear, SLAB)(lr, truth.geometry)
    assert consistency(plain, lr, SLAB)[0]["consistency_max"] > 3.0
    assert consistency(better, lr, SLAB)[0]["consistency_max"] <= 1.0
    error = [np.square(sr.data - truth.data).mean() for sr in (plain, better)]
    assert error[1] < error[0]
    loose = consistent(linear, SLAB, tolerance=2.0)(lr, truth.geometry)
    assert consistency(loose, lr, SLAB)[0]["consistency_max"] == pytest.approx(2.0, rel=0.05)

"""Calibration: normal errors of known width, and maps that lie."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from medsr.errors import UsageError
from medsr.evaluate.calibration import LEVELS, calibration, calibration_of
from medsr.geometry import Geometry
from medsr.infer.upscale import UpscaleResult
from medsr.volume import Volume


@pytest.fixture
def sigma() -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 30, (40, 40, 25))


def test_normal_errors_are_as_often_within_k_sigma_as_expected(sigma: np.ndarray) -> None:
    error = np.random.default_rng(1).normal(0, sigma)
    found = calibration(error, sigma)
    wanted = [2 * stats.norm.cdf(level) - 1 for level in LEVELS]
    assert found.expected == pytest.approx(wanted)
    assert found.observed == pytest.approx(wanted, abs=0.01)
    assert found.difference < 0.01
    assert found.factor == pytest.approx(1, abs=0.01)
    assert found.rank_correlation > 0.4
    assert found.voxels == sigma.size
    assert found.sigma == pytest.approx(sigma.mean())


def test_a_map_that_promises_too_much_is_found_out(sigma: np.ndarray) -> None:
    error = np.random.default_rng(1).normal(0, 3 * sigma)
    found = calibration(error, sigma)
    assert found.factor == pytest.approx(3, rel=0.01)
    assert all(o < e for o, e in zip(found.observed, found.expected, strict=True))
    better = calibration(error, found.factor * sigma)
    assert better.difference < 0.01 < found.difference


def test_a_map_that_tells_nothing_has_no_rank_correlation(sigma: np.ndarray) -> None:
    error = np.random.default_rng(1).normal(0, sigma)
    shuffled = np.random.default_rng(2).permutation(sigma.ravel()).reshape(sigma.shape)
    assert abs(calibration(error, shuffled).rank_correlation) < 0.02
    assert math.isnan(calibration(error, np.full(sigma.shape, 3.0)).rank_correlation)


def test_only_the_mask_counts_and_the_figures_are_plain_data(sigma: np.ndarray) -> None:
    error = np.where(sigma > 10, 1e6, 0.5 * sigma)
    found = calibration(error, sigma, mask=sigma <= 10, levels=(0.4, 0.6))
    assert found.observed == (0.0, 1.0)
    assert found.voxels == int((sigma <= 10).sum())
    assert json.loads(json.dumps(found.to_dict()))["factor"] == pytest.approx(0.5)


def test_what_cannot_be_compared_is_refused(sigma: np.ndarray) -> None:
    with pytest.raises(UsageError, match="one shape"):
        calibration(sigma[1:], sigma)
    with pytest.raises(UsageError, match="no voxel"):
        calibration(sigma, sigma, mask=np.zeros(sigma.shape, dtype=bool))
    with pytest.raises(UsageError, match="above zero"):
        calibration(sigma, sigma - 2)
    with pytest.raises(UsageError, match="above zero"):
        calibration(sigma, sigma, levels=(0.0,))


def test_the_map_of_a_result_is_checked_in_the_body() -> None:
    rng = np.random.default_rng(2)
    grid = Geometry((30, 30, 30), np.eye(4))
    body = np.zeros(grid.shape, dtype=bool)
    body[5:25, 5:25, 5:25] = True
    truth = Volume(np.where(body, np.float32(800), np.float32(0)), grid, "MR")
    sigma = rng.uniform(5, 30, grid.shape).astype(np.float32)
    # In air the error is far larger than the map says.
    error = rng.normal(0, np.where(body, 2.0, 50.0) * sigma)
    sr = truth.replace(data=(truth.data + error).astype(np.float32))
    result = UpscaleResult(sr, {}, truth.replace(data=sigma))
    found = calibration_of(result, truth)
    assert found.voxels == body.sum()
    assert found.factor == pytest.approx(2.0, rel=0.03)
    everywhere = calibration_of(result, truth, np.ones(grid.shape, dtype=bool))
    assert everywhere.factor > 10
    with pytest.raises(UsageError, match="no map"):
        calibration_of(UpscaleResult(sr, {}), truth)
    with pytest.raises(UsageError, match="grid"):
        calibration_of(result, truth.flip(0))

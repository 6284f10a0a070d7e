"""GradientLoss against numpy differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medsr.errors import UsageError
from medsr.losses import GradientLoss


def _pair(shape: tuple[int, ...] = (2, 1, 6, 5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


@pytest.mark.parametrize(
    ("spacing", "weights"), [(None, (1, 1, 1)), ((1.0, 0.5, 2.0), (0.5, 1.0, 0.25))]
)
def test_equals_numpy(
    spacing: tuple[float, float, float] | None, weights: tuple[float, ...]
) -> None:
    sr, hr = _pair()
    expected = np.mean(
        [
            weight * np.abs(np.diff(sr.numpy(), axis=axis) - np.diff(hr.numpy(), axis=axis)).mean()
            for axis, weight in zip((2, 3, 4), weights, strict=True)
        ]
    )
    assert float(GradientLoss(spacing)(sr, hr)) == pytest.approx(expected, rel=1e-5)


def test_offset_is_free_and_a_ramp_costs_its_slope() -> None:
    hr = _pair()[1]
    assert float(GradientLoss()(hr + 0.25, hr)) == pytest.approx(0.0, abs=1e-6)
    ramp = 0.3 * torch.arange(hr.shape[-1])
    assert float(GradientLoss()(hr + ramp, hr)) == pytest.approx(0.1, abs=1e-6)


def test_axis_of_one_voxel_is_left_out() -> None:
    sr, hr = _pair((1, 1, 6, 5, 1))
    loss = GradientLoss()(sr, hr)
    flat = [np.abs(np.diff((sr - hr).numpy(), axis=axis)).mean() for axis in (2, 3)]
    assert float(loss) == pytest.approx(np.mean(flat), rel=1e-5)
    with pytest.raises(ValueError, match="one voxel along every axis"):
        GradientLoss()(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1))


def test_refuses_bad_spacing() -> None:
    with pytest.raises(UsageError, match="spacing"):
        GradientLoss((1.0, 0.0, 1.0))

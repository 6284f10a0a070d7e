"""Voxel-wise losses against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medsr.errors import UsageError
from medsr.losses import CharbonnierLoss, build_loss


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, 4, 5, 3)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def test_values_equal_numpy() -> None:
    sr, hr = _pair()
    difference = (sr - hr).numpy().astype(np.float64)
    expected = {
        "l1": np.abs(difference).mean(),
        "l2": (difference**2).mean(),
        "charbonnier": (np.sqrt(difference**2 + 0.01**2) - 0.01).mean(),
    }
    for name, value in expected.items():
        options = {"epsilon": 0.01} if name == "charbonnier" else {}
        assert float(build_loss(name, **options)(sr, hr)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["l1", "l2", "charbonnier", "gradient"])
def test_zero_for_equal_float32_and_differentiable(name: str) -> None:
    sr, hr = _pair()
    loss = build_loss(name)
    assert float(loss(hr, hr)) == pytest.approx(0.0, abs=1e-8)
    half = sr.to(torch.bfloat16).requires_grad_()
    value = loss(half, hr)
    value.backward()
    assert value.dtype == torch.float32
    assert value.ndim == 0
    assert half.grad is not None
    assert float(half.grad.abs().sum()) > 0


def test_charbonnier_gradient_is_finite_where_l1_has_a_kink() -> None:
    sr = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    CharbonnierLoss()(sr, torch.zeros(1, 1, 2, 2, 2)).backward()
    assert sr.grad is not None
    assert torch.equal(sr.grad, torch.zeros_like(sr.grad))


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(UsageError, match="'huber' is unknown; choose one of charbonnier"):
        build_loss("huber")
    with pytest.raises(UsageError, match="epsilom"):
        build_loss("charbonnier", epsilom=1.0)
    with pytest.raises(UsageError, match="epsilon is 0"):
        build_loss("charbonnier", epsilon=0)

"""Cosines between gradients of losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medsr.train.weights import gradient_cosines


def test_cosines_equal_those_of_the_gradients_themselves() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.rand(16, 4)
    parameters = list(network.parameters())
    output = network(x)
    losses = {
        "low": output.square().mean(),
        "high": (output - 2).square().mean(),
        "scaled": 3 * output.square().mean(),
        "constant": torch.tensor(1.0),
    }
    cosines = gradient_cosines(losses, parameters)
    assert cosines.keys() == {"low~high", "low~scaled", "high~scaled"}
    assert cosines["low~scaled"] == pytest.approx(1.0, abs=1e-5)
    assert all(p.grad is None for p in parameters)

    def gradient(name: str) -> torch.Tensor:
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(losses[name], parameters, retain_graph=True)]
        )

    low, high = gradient("low"), gradient("high")
    expected = float(low @ high / (low.norm() * high.norm()))
    assert cosines["low~high"] == pytest.approx(expected, abs=1e-5)
    assert -1 <= expected < 0.99
    sum(losses.values()).backward()  # the graph is still there


def test_opposed_losses_have_minus_one() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    losses = {"up": weight.sum(), "down": -weight.sum()}
    assert gradient_cosines(losses, [weight]) == {"up~down": pytest.approx(-1.0)}

"""Weights of losses: what they are when, and what is learned."""

from __future__ import annotations

import math

import pytest
import torch

from medsr.recipe import Learned, Ramp
from medsr.train.weights import LossWeights


def test_fixed_weights_multiply() -> None:
    weights = LossWeights({"a": 2.0, "b": 0.5})
    values = weights({"a": torch.tensor(3.0), "b": torch.tensor(4.0)}, 0.7)
    assert {name: float(value) for name, value in values.items()} == {"a": 6.0, "b": 2.0}
    assert weights.active(0.0) == {"a", "b"}
    assert list(weights.parameters()) == []


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 1), (0.2, 1), (0.3, 0.75), (0.4, 0.5), (0.6, 0), (1, 0)]
)
def test_a_ramp_moves_in_a_line(progress: float, expected: float) -> None:
    weights = LossWeights({"a": Ramp(1.0, 0.0, 0.2, 0.6)})
    assert weights.now("a", progress) == pytest.approx(expected)
    assert ("a" in weights.active(progress)) == (expected > 0)


def test_a_ramp_of_no_length_is_a_step() -> None:
    weights = LossWeights({"a": Ramp(1.0, 0.0, 0.8, 0.8)})
    assert [weights.now("a", p) for p in (0, 0.79, 0.8, 0.81, 1)] == [1, 1, 0, 0, 0]


def test_a_learned_weight_starts_as_told_and_finds_the_inverse_of_its_loss() -> None:
    weights = LossWeights({"loud": Learned(0.25), "quiet": Learned(1.0), "fixed": 1.0})
    assert weights.now("loud", 0.0) == pytest.approx(0.25)
    losses = {"loud": torch.tensor(5.0), "quiet": torch.tensor(0.1), "fixed": torch.tensor(1.0)}
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        torch.stack(list(weights(losses, 0.0).values())).sum().backward()
        optimiser.step()
    # exp(-s) L + s is smallest where exp(-s) = 1 / L.
    assert weights.now("loud", 0.0) == pytest.approx(0.2, rel=0.02)
    assert weights.now("quiet", 0.0) == pytest.approx(10.0, rel=0.02)
    value = float(weights(losses, 0.0)["quiet"])
    assert value == pytest.approx(1 + math.log(0.1), rel=0.01)

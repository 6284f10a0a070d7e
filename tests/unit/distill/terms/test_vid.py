"""Variational information: the likelihoods against scipy, what is learned, what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, Tap, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D

BATCH = Batch(torch.zeros(1), torch.zeros(1))
TAPS = {"student": "s", "teacher": "t"}
both = pytest.mark.parametrize("distribution", ["gaussian", "laplace"])


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _activations(features: Tensor) -> Activations:
    return Activations(features[:, :1], {"s": features, "t": features})


def _standardised(features: np.ndarray) -> np.ndarray:
    axes = (0, 2, 3, 4)
    centred = features - features.mean(axis=axes, keepdims=True)
    return centred / features.std(axis=axes, keepdims=True)


@both
def test_equals_the_likelihood_of_scipy(distribution: str) -> None:
    ours, theirs = _random(2, 3, 4, 3, 5, seed=1), 5 * _random(2, 4, 4, 3, 5, seed=2) + 1
    channels = {"student_channels": 3, "teacher_channels": 4}
    term = build_term("vid", **TAPS, **channels, distribution=distribution, epsilon=0.2)
    with torch.no_grad():
        term.raw_spread.copy_(torch.tensor([-2.0, 0.0, 1.0, 3.0]))
    value = term(_activations(ours), _activations(theirs), BATCH)
    weight = term.projection.weight.detach().numpy()[:, :, 0, 0, 0]
    mean = np.einsum("oi,bixyz->boxyz", weight, _standardised(ours.numpy()))
    positive = np.log1p(np.exp([-2.0, 0.0, 1.0, 3.0])).reshape(1, 4, 1, 1, 1)
    target = _standardised(theirs.numpy())
    if distribution == "gaussian":
        spread = np.sqrt(positive + 0.2**2)
        nats = -scipy.stats.norm.logpdf(target, mean, spread) - 0.5 * math.log(2 * math.pi)
    else:
        nats = -scipy.stats.laplace.logpdf(target, mean, positive + 0.2) - math.log(2)
    assert value.item() == pytest.approx(nats.mean() - math.log(0.2), rel=1e-4)


@both
def test_equal_features_are_the_least_for_the_spreads_and_zero_is_the_bound(
    distribution: str,
) -> None:
    features = _random(2, 4, 4, 4, 4)
    channels = {"student_channels": 4, "teacher_channels": 4}
    term = build_term("vid", **TAPS, **channels, distribution=distribution)
    equal = term(_activations(features), _activations(features), BATCH)
    assert equal.item() == pytest.approx(-math.log(0.1), rel=1e-4)
    changed = _activations(features + 0.1 * _random(2, 4, 4, 4, 4, seed=9))
    assert term(changed, _activations(features), BATCH).item() > equal.item()
    with torch.no_grad():
        term.raw_spread.fill_(-30.0)
    least = term(_activations(features), _activations(features), BATCH)
    assert least.item() == pytest.approx(0.0, abs=1e-4)


@both
def test_spreads_become_the_errors_that_stay(distribution: str) -> None:
    theirs = _random(1, 2, 12, 12, 12, seed=1)
    # The student sees the first channel exactly but for noise, and nothing of the second.
    seen = theirs[:, :1] + 0.5 * _random(1, 1, 12, 12, 12, seed=2)
    ours = torch.cat([seen, _random(1, 1, 12, 12, 12, seed=3)], dim=1)
    channels = {"student_channels": 2, "teacher_channels": 2}
    term = build_term("vid", **TAPS, **channels, distribution=distribution)
    optimiser = torch.optim.Adam(term.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        term(_activations(ours), _activations(theirs), BATCH).backward()
        optimiser.step()
    positive = torch.nn.functional.softplus(term.raw_spread)
    residual = math.sqrt(0.25 / 1.25)  # of the best linear prediction of the first channel
    if distribution == "gaussian":
        found, expected = (positive + 0.01).sqrt(), [residual, 1.0]
    else:
        mean_error = math.sqrt(2 / math.pi)  # of a normal error of deviation 1
        found, expected = positive + 0.1, [mean_error * residual, mean_error]
    assert found.tolist() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("options", [{}, {"hidden": 8, "distribution": "laplace"}], ids=str)
def test_student_and_prediction_learn_also_under_bf16(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=2)
    teacher = ResNet3D((1, 1, 2), width=32, blocks=1)
    term = build_term("vid", student="body.1", teacher="body.0", **options)
    assert term.needs == (Tap("body.1", "body.0"),)
    with pytest.raises(RuntimeError, match="setup"):
        term(_activations(_random(1, 1, 2, 2, 2)), _activations(_random(1, 1, 2, 2, 2)), BATCH)
    keys = set(student.state_dict())
    distiller = Distiller(student, teacher, [term])
    assert set(student.state_dict()) == keys
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(Batch(_random(2, 1, 5, 6, 4), _random(2, 1, 5, 6, 8))).losses["vid"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert 2 < loss.item() < 5
    assert student.head.weight.grad.abs().sum() > 0
    assert len(list(term.parameters())) >= 3
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="'normal' is none of gaussian, laplace"):
        build_term("vid", **TAPS, distribution="normal")
    with pytest.raises(UsageError, match="epsilon is 1; it must lie between"):
        build_term("vid", **TAPS, epsilon=1)
    with pytest.raises(UsageError, match="hidden is 0"):
        build_term("vid", **TAPS, hidden=0)
    with pytest.raises(UsageError, match="give both"):
        build_term("vid", **TAPS, student_channels=4)

"""Attention transfer: the value against numpy, per sample, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, Tap, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D

BATCH = Batch(torch.zeros(1), torch.zeros(1))
TAPS = {"student": "s", "teacher": "t"}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _activations(features: Tensor) -> Activations:
    return Activations(features[:, :1], {"s": features, "t": features})


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_equals_numpy(power: float) -> None:
    ours, theirs = _random(3, 5, 3, 2, 4, seed=1), _random(3, 7, 3, 2, 4, seed=2)
    term = build_term("attention", **TAPS, power=power)
    value = term(_activations(ours), _activations(theirs), BATCH)

    def unit(features: np.ndarray) -> np.ndarray:
        maps = (np.abs(features) ** power).sum(axis=1).reshape(len(features), -1)
        return maps / np.linalg.norm(maps, axis=1, keepdims=True)

    a, b = unit(ours.numpy()), unit(theirs.numpy())
    even = 1 / np.sqrt(b.shape[1])
    expected = ((a - b) ** 2).sum(axis=1).mean() / ((even - b) ** 2).sum(axis=1).mean()
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_zero_for_proportional_maps_and_one_for_an_even_one() -> None:
    theirs = _random(2, 4, 4, 3, 2)
    loud = theirs.flip(1) * torch.tensor([3.0, 0.1]).reshape(2, 1, 1, 1, 1)
    term = build_term("attention", **TAPS)
    assert term(_activations(loud), _activations(theirs), BATCH).item() == pytest.approx(
        0, abs=1e-6
    )
    even = torch.ones(2, 9, 4, 3, 2)
    assert term(_activations(even), _activations(theirs), BATCH).item() == pytest.approx(1, 1e-5)


def test_a_sample_does_not_see_its_neighbours() -> None:
    theirs = _random(2, 4, 4, 3, 2)
    ours = _random(2, 4, 4, 3, 2, seed=1).requires_grad_()
    louder = (ours.detach() * torch.tensor([1.0, 50.0]).reshape(2, 1, 1, 1, 1)).requires_grad_()
    term = build_term("attention", **TAPS)
    for features in (ours, louder):
        term(_activations(features), _activations(theirs), BATCH).backward()
    assert torch.allclose(ours.grad[0], louder.grad[0], rtol=1e-4)
    assert ours.grad.abs().sum() > 0


def test_maps_on_a_finer_grid_are_averaged() -> None:
    fine = _random(1, 3, 4, 4, 4)
    maps = fine.square().sum(dim=1, keepdim=True)
    coarse = torch.nn.functional.avg_pool3d(maps, 2).sqrt()
    term = build_term("attention", **TAPS)
    assert term(_activations(fine), _activations(coarse), BATCH).item() == pytest.approx(
        0, abs=1e-6
    )
    assert term(_activations(coarse), _activations(fine), BATCH).item() == pytest.approx(
        0, abs=1e-6
    )


def test_a_patch_of_air_does_not_explode() -> None:
    for level in (0.0, 0.3):
        air = torch.full((1, 3, 4, 4, 4), level)
        ours = _random(1, 3, 4, 4, 4).requires_grad_()
        value = build_term("attention", **TAPS)(_activations(ours), _activations(air), BATCH)
        value.backward()
        assert 0 < value.item() <= 200
        assert torch.isfinite(ours.grad).all()


def test_only_the_student_learns_also_under_bf16() -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=2)
    teacher = ResNet3D((1, 1, 2), width=32, blocks=1)
    term = build_term("attention", student="body.1", teacher="body.0")
    assert term.needs == (Tap("body.1", "body.0"),)
    distiller = Distiller(student, teacher, [term])
    assert list(term.parameters()) == []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(Batch(_random(2, 1, 5, 6, 4), _random(2, 1, 5, 6, 8))).losses["attention"]
    loss.backward()
    assert torch.isfinite(loss)
    assert student.head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="power is 0; it must be positive"):
        build_term("attention", **TAPS, power=0)

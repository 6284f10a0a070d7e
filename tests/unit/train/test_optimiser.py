"""Which optimiser moves what, and that adversaries are apart."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medsr.networks import RepPlain3D
from medsr.recipe import OptimiserRecipe
from medsr.train.optimiser import Optimiser


class _Pair(nn.Module):
    """A student and a network that learns against it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student = RepPlain3D((1, 1, 2), width=16, depth=1, branches=["identity"])
        self.adversary = nn.Conv3d(1, 4, 3)


def _gradients(pair: _Pair, seed: int = 0, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in pair.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def test_hidden_kernels_go_to_muon_adversaries_to_adam_and_the_rest_to_adamw() -> None:
    pair = _Pair()
    optimiser = Optimiser(pair, OptimiserRecipe(), [(pair.adversary, 2e-3)])
    assert optimiser.muon is not None
    assert optimiser.adam is not None
    (matrix,) = optimiser.muon.param_groups[0]["params"]
    assert matrix.data_ptr() == pair.student.body[0].weight.data_ptr()
    ours = {p.data_ptr() for p in optimiser.adamw.param_groups[0]["params"]}
    wanted = {p.data_ptr() for n, p in pair.student.named_parameters() if n != "body.0.weight"}
    assert ours == wanted
    (group,) = optimiser.adam.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in pair.adversary.parameters()}
    assert group["lr"] == 2e-3
    before = copy.deepcopy(pair.state_dict())
    _gradients(pair)
    optimiser.step(0.5)
    assert group["lr"] == 1e-3
    # Adam's first step has the length of its learning rate.
    moved = (pair.adversary.weight.detach() - before["adversary.weight"]).abs()
    assert moved.max() == pytest.approx(1e-3, rel=1e-3)
    assert all(not torch.equal(v, before[k]) for k, v in pair.state_dict().items())
    assert all(p.grad is None for p in pair.parameters())


def test_gradients_of_adversaries_are_clipped_apart() -> None:
    pair = _Pair()
    optimiser = Optimiser(pair, OptimiserRecipe(), [(pair.adversary, 1e-3)])
    _gradients(pair)
    for parameter in pair.adversary.parameters():
        parameter.grad *= 1e6
    student = torch.cat([p.grad.flatten() for p in pair.student.parameters()])
    assert optimiser.clip(1.0) == pytest.approx(float(student.norm()), rel=1e-5)
    for part in (pair.student, pair.adversary):
        norm = torch.cat([p.grad.flatten() for p in part.parameters()]).norm()
        assert norm == pytest.approx(1.0, rel=1e-4)
    _gradients(pair)
    pair.adversary.weight.grad[0] = float("nan")
    assert not torch.isfinite(torch.tensor(optimiser.clip(1.0)))


def test_the_state_round_trips_and_a_missing_optimiser_is_told() -> None:
    first, second = _Pair(), _Pair()
    ours = Optimiser(first, OptimiserRecipe(), [(first.adversary, 1e-3)])
    _gradients(first)
    ours.step(1.0)
    second.load_state_dict(first.state_dict())
    theirs = Optimiser(second, OptimiserRecipe(), [(second.adversary, 1e-3)])
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    for pair, optimiser in ((first, ours), (second, theirs)):
        _gradients(pair, seed=1)
        optimiser.step(1.0)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="adversaries"):
        Optimiser(second, OptimiserRecipe()).load_state_dict(ours.state_dict())

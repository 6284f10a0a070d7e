"""Spectral norms: against a singular value decomposition, their gradients, and resumed runs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Distiller, build_term
from medsr.distill.terms.spectral import Layer, power_iteration
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D
from medsr.networks.repplain import RepConv3d

GRID = (2, 3, 2)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _norm(kernel: Tensor, grid: Sequence[int] = GRID) -> float:
    """Largest singular value of the zero-padded correlation as a matrix, by scipy and numpy."""
    weights = kernel.detach().double().numpy()
    columns = []
    for channel in range(weights.shape[1]):
        for place in np.ndindex(*grid):
            impulse = np.zeros(grid)
            impulse[place] = 1.0
            answers = [scipy.signal.correlate(impulse, w[channel], mode="same") for w in weights]
            columns.append(np.concatenate([answer.ravel() for answer in answers]))
    return float(np.linalg.norm(np.stack(columns, axis=1), ord=2))


def _rouse(network: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def _networks(**options: Any) -> tuple[RepPlain3D, ResNet3D]:
    torch.manual_seed(1)
    student = RepPlain3D((1, 1, 2), width=16, depth=2, **options)
    teacher = ResNet3D((1, 1, 2), width=16, blocks=1)
    _rouse(student, 1)
    _rouse(teacher, 2)
    return student, teacher


def _batch() -> Batch:
    return Batch(_random(1, 1, 3, 3, 2), _random(1, 1, 3, 3, 4, seed=1))


def _start(channels: int) -> Tensor:
    start = _random(1, channels, *GRID, seed=7)
    return start / start.norm()


@pytest.mark.parametrize("branches", [False, True])
def test_power_iteration_finds_the_largest_singular_value(branches: bool) -> None:
    torch.manual_seed(0)
    module: Any = RepConv3d(3, 3) if branches else nn.Conv3d(3, 3, 3, padding=1)
    layer = Layer(module)
    kernel = layer.kernel()
    norm, vector = power_iteration(layer, kernel, _start(3), 500, 1e-7)
    assert norm.item() == pytest.approx(_norm(kernel), rel=1e-3)
    assert vector.norm().item() == pytest.approx(1.0, rel=1e-5)
    few, _ = power_iteration(layer, kernel, _start(3), 2)
    assert few.item() < norm.item()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1, "groups": 2},
    ],
    ids=str,
)
def test_the_adjoint_is_the_adjoint(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = Layer(nn.Conv3d(4, 6, bias=False, **options))
    x = _random(1, layer.channels, 5, 4, 6)
    kernel = layer.kernel()
    y = layer.apply(x, kernel)
    assert torch.equal(y, layer.module(x))
    other = _random(*y.shape, seed=3)
    left = (y * other).sum()
    right = (x * layer.adjoint(other, kernel, x.shape)).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-4)


def test_the_gradient_of_the_norm_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = nn.Conv3d(2, 2, 3, padding=1)
    layer = Layer(module)
    norm, _ = power_iteration(layer, layer.kernel(), _start(2), 2000, 1e-8)
    norm.backward()
    direction = _random(*module.weight.shape, seed=4)
    step = 1e-3
    higher, lower = (_norm(module.weight + sign * step * direction) for sign in (1, -1))
    slope = (higher - lower) / (2 * step)
    assert (module.weight.grad * direction).sum().item() == pytest.approx(slope, rel=2e-2)


def test_the_loss_is_the_squared_difference_of_the_norms_over_their_sum() -> None:
    student, teacher = _networks()
    pairs = [["body.0", "body.0.first"], ["body.1", "fuse"]]
    term = build_term("spectral", pairs=pairs, grid=GRID)
    distiller = Distiller(student, teacher, [term])
    for _ in range(30):
        loss = distiller(_batch()).losses["spectral"]
    ours = [_norm(layer.kernel()) for layer in student.body]
    theirs = [_norm(layer.weight) for layer in (teacher.body[0].first, teacher.fuse)]
    expected = np.mean([((a - b) / (a + b)) ** 2 for a, b in zip(ours, theirs, strict=True)])
    assert loss.item() == pytest.approx(expected, rel=2e-2)


def test_zero_for_equal_networks_and_one_for_a_silent_student() -> None:
    student, _ = _networks(branches=False)
    twin = copy.deepcopy(student)
    distiller = Distiller(student, twin, [build_term("spectral")])
    assert distiller(_batch()).losses["spectral"].item() < 1e-4
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    loss = distiller(_batch()).losses["spectral"]
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert torch.isfinite(student.head.weight.grad).all()


def test_layers_are_paired_by_depth() -> None:
    student, teacher = _networks()
    term = build_term("spectral", grid=GRID)
    Distiller(student, teacher, [term])
    # The teacher has head, two convolutions of a block, fuse and tail.
    assert term.pairs == (
        ("head", "head"),
        ("body.0", "body.0.first"),
        ("body.1", "fuse"),
        ("tail", "tail"),
    )


def test_descent_brings_the_norms_together_and_reaches_every_branch() -> None:
    student, teacher = _networks()
    distiller = Distiller(student, teacher, [build_term("spectral", grid=GRID)])
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = distiller(_batch()).losses["spectral"]
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]
    for name, parameter in student.named_parameters():
        if not name.endswith("bias"):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_the_vectors_are_the_terms_own_and_a_resumed_run_takes_the_same_steps() -> None:
    def made() -> tuple[Distiller, torch.optim.Optimizer]:
        student, teacher = _networks()
        distiller = Distiller(student, teacher, [build_term("spectral", grid=GRID)])
        return distiller, torch.optim.SGD(student.parameters(), lr=0.1)

    def train(distiller: Distiller, optimiser: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            distiller(_batch()).losses["spectral"].backward()
            optimiser.step()

    whole, optimiser = made()
    keys = set(_networks()[0].state_dict())
    assert set(whole.student.state_dict()) == keys
    assert {k for k in whole.state_dict() if "vector" in k} == {
        f"terms.spectral.vector_{i}" for i in range(4)
    }
    train(whole, optimiser, 2)
    saved = copy.deepcopy(whole.state_dict())
    train(whole, optimiser, 3)
    resumed, optimiser = made()
    assert any(not torch.equal(v, saved[k]) for k, v in resumed.state_dict().items())
    resumed.load_state_dict(saved)
    train(resumed, optimiser, 3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_copy_looks_at_its_own_student() -> None:
    distiller = Distiller(*_networks(), [build_term("spectral", grid=GRID)])
    twin = copy.deepcopy(distiller)
    with torch.no_grad():
        for parameter in twin.student.parameters():
            parameter.zero_()
    assert twin(_batch()).losses["spectral"].item() == pytest.approx(1.0)
    assert distiller(_batch()).losses["spectral"].item() != pytest.approx(1.0)


def test_bf16_autocast_keeps_the_norms_in_float32_and_random_numbers_are_left_alone() -> None:
    student, teacher = _networks()
    state = torch.get_rng_state()
    distiller = Distiller(student, teacher, [build_term("spectral", grid=GRID)])
    assert torch.equal(torch.get_rng_state(), state)
    twin = copy.deepcopy(distiller)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(_batch()).losses["spectral"]
    assert loss.dtype == torch.float32
    assert loss.item() == twin(_batch()).losses["spectral"].item()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="give three sizes"):
        build_term("spectral", grid=[4, 4])
    with pytest.raises(UsageError, match="iterations is 0"):
        build_term("spectral", iterations=0)
    for pairs in ([], ["ab"], [["head"]], [["head", 3]]):
        with pytest.raises(UsageError, match="lists of two names"):
            build_term("spectral", pairs=pairs)
    student, teacher = _networks()
    with pytest.raises(UsageError, match=r"'body.9' is no convolution of the student; it has head"):
        Distiller(student, teacher, [build_term("spectral", pairs=[["body.9", "fuse"]])])
    with pytest.raises(RuntimeError, match="bind"):
        build_term("spectral").student_norms()

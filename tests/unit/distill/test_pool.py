"""Several teachers as one: weights from errors, by domain, and who is asked about what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Distiller, OutputTerm
from medsr.distill.pool import NEGLIGIBLE, TeacherPool, inverse_error_weights
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D, SRNetwork


def teacher(seed: int, **options: Any) -> SRNetwork:
    torch.manual_seed(seed)
    network = ResNet3D((1, 1, 2), width=16, blocks=1, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def pool() -> TeacherPool:
    made = TeacherPool([teacher(1), teacher(2)]).eval()
    made.weigh({"MR/T1w": [1.0, 2.0], "MR/T2w": [3.0, 1.0], "CT": [1.0, 100.0]}, sharpness=1.0)
    return made


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 3.0])
def test_weights_are_inverse_powers_of_the_errors(sharpness: float) -> None:
    errors = [0.02, 0.03, 0.05]
    found = inverse_error_weights(errors, sharpness)
    powers = np.array(errors) ** -sharpness
    np.testing.assert_allclose(found, powers / powers.sum(), rtol=1e-12)


def test_a_sharp_weighting_leaves_the_best_alone() -> None:
    assert inverse_error_weights([0.1, 0.2], 50.0) == (1.0, 0.0)
    # No power is too large for numbers of the machine.
    assert inverse_error_weights([1e-9, 1e-3], 500.0) == (1.0, 0.0)
    low, high = inverse_error_weights([1.0, 2.0 / NEGLIGIBLE], 1.0)[::-1]
    assert (low, high) == (0.0, 1.0)


def test_the_inverse_error_is_the_best_mean_of_independent_answers() -> None:
    rng = np.random.default_rng(0)
    spreads = np.array([0.5, 1.0])
    answers = spreads * rng.standard_normal((200_000, 2))
    weights = np.array(inverse_error_weights([*(spreads**2)], 1.0))
    errors = {w: float(((answers @ [w, 1 - w]) ** 2).mean()) for w in (0.5, 0.7, 0.9, 1.0)}
    best = float(((answers @ weights) ** 2).mean())
    assert best < min(errors.values())


def test_what_was_not_measured_takes_its_modality_or_all(pool: TeacherPool) -> None:
    assert pool.weights_for("MR/T1w") == pytest.approx((2 / 3, 1 / 3))
    assert pool.weights_for("MR/PD") == pytest.approx((1.5 / 3.5, 2 / 3.5))
    assert pool.weights_for("CT/chest") == (1.0, 0.0)
    means = np.array([5 / 3, 103 / 3])
    assert pool.weights_for("") == pytest.approx(tuple((1 / means) / (1 / means).sum()))
    assert TeacherPool([teacher(1), teacher(2)]).weights_for("MR") == (0.5, 0.5)


def test_each_sample_gets_its_domains_mean(pool: TeacherPool) -> None:
    lr = torch.rand(3, 1, 4, 4, 3)
    domains = ("CT", "MR/T2w", "MR/T1w")
    with torch.no_grad():
        found = pool(lr, domains)
        ours, theirs = (network(lr) for network in pool.teachers)
    for row, domain in enumerate(domains):
        first, second = pool.weights_for(domain)
        expected = first * ours[row] + second * theirs[row]
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_without_weight_is_not_asked(pool: TeacherPool) -> None:
    asked: list[int] = []
    for number, network in enumerate(pool.teachers):
        network.register_forward_hook(
            lambda module, inputs, output, number=number: asked.append((number, len(inputs[0])))
        )
    with torch.no_grad():
        pool(torch.rand(3, 1, 4, 4, 3), ("CT", "CT", "MR/T1w"))
    assert asked == [(0, 3), (1, 1)]


def test_a_student_learns_from_the_pool_by_domain(pool: TeacherPool) -> None:
    student = RepPlain3D((1, 1, 2), width=16, depth=1)
    distiller = Distiller(student, pool, [OutputTerm(views=2)])
    assert not any(p.requires_grad for p in pool.parameters())
    lr, hr = torch.rand(1, 1, 4, 4, 4), torch.rand(1, 1, 4, 4, 8)
    losses = {name: distiller(Batch(lr, hr, (name,))).losses["output"] for name in ("CT", "MR/T2w")}
    flipped = lr.flip(2)
    with torch.no_grad():
        told = (pool(lr, ["CT"]) + pool(flipped, ["CT"]).flip(2)) / 2
        expected = (student(lr) - told).abs().mean()
    torch.testing.assert_close(losses["CT"].detach(), expected)
    assert losses["CT"].item() != losses["MR/T2w"].item()
    losses["CT"].backward()
    assert all(p.grad is None for p in pool.parameters())


def test_folds_of_all_teachers_are_met() -> None:
    made = TeacherPool([teacher(1, fold=(2, 2, 1)), teacher(2, fold=(3, 2, 1))])
    assert made.multiple_of == (6, 2, 1)


class Other(nn.Module):
    scale, multiple_of = (2, 2, 2), (1, 1, 1)

    def forward(self, lr: Tensor) -> Tensor:
        return lr


def test_what_does_not_go_together_is_refused(pool: TeacherPool) -> None:
    with pytest.raises(UsageError, match="at least one"):
        TeacherPool([])
    with pytest.raises(UsageError, match="must have one scale"):
        TeacherPool([teacher(1), Other()])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="3 errors in CT for 2 teachers"):
        pool.weigh({"CT": [1.0, 2.0, 3.0]}, 1.0)

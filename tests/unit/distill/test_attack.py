"""The attack: on a linear network the worst perturbation is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medsr.distill.attack import at_inference, pgd

RADIUS = 0.1


@pytest.fixture
def lr() -> Tensor:
    return torch.rand((2, 1, 4, 3, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def slope(lr: Tensor) -> Tensor:
    return torch.randn(lr.shape, generator=torch.Generator().manual_seed(1))


def test_reaches_the_known_worst_of_a_linear_loss(lr: Tensor, slope: Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    start = RADIUS * (2 * torch.rand(lr.shape, generator=generator) - 1)

    def harm(tried: Tensor) -> Tensor:
        return (slope * tried).flatten(1).sum(dim=1)

    found = pgd(harm, lr, RADIUS, 5, start)
    torch.testing.assert_close(found, lr + RADIUS * slope.sign())
    assert not found.requires_grad


def test_stays_in_the_box_and_above_the_lowest(lr: Tensor, slope: Tensor) -> None:
    lr = lr - 0.3

    def harm(tried: Tensor) -> Tensor:
        return (slope * tried).flatten(1).sum(dim=1)

    found = pgd(harm, lr, RADIUS, 4, torch.full_like(lr, 5.0), lowest=0.0)
    assert (found - lr).abs().max() <= RADIUS + 1e-6
    assert (found >= lr.clamp(max=0.0)).all()
    assert (found < lr).any()


def test_keeps_the_worst_that_it_met_for_each_volume(lr: Tensor) -> None:
    calls: list[Tensor] = []
    told = [torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]), torch.tensor([2.0, 3.0])]

    def harm(tried: Tensor) -> Tensor:
        calls.append(tried.detach().clone())
        return told[len(calls) - 1] + (tried - tried.detach()).flatten(1).sum(dim=1)

    found = pgd(harm, lr, RADIUS, 2, -RADIUS * torch.ones_like(lr))
    assert len(calls) == 3
    assert torch.equal(found[0], calls[1][0])
    assert torch.equal(found[1], calls[0][1])
    assert not torch.equal(calls[0], calls[1])


def test_without_steps_or_radius_nothing_is_climbed(lr: Tensor, slope: Tensor) -> None:
    def harm(tried: Tensor) -> Tensor:
        return (slope * tried).flatten(1).sum(dim=1)

    start = RADIUS * slope.sign()
    assert torch.equal(pgd(harm, lr, RADIUS, 0, start), lr + start)
    torch.testing.assert_close(pgd(harm, lr, 0.0, 3, start), lr)


def test_parameters_get_no_gradient(lr: Tensor) -> None:
    network = nn.Conv3d(1, 1, 3, padding=1)
    found = pgd(lambda x: network(x).abs().flatten(1).mean(1), lr, RADIUS, 2, torch.zeros_like(lr))
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert (found - lr).abs().max() == pytest.approx(RADIUS, abs=1e-6)


def test_inference_mode_is_put_back_module_by_module() -> None:
    network = nn.Sequential(nn.BatchNorm3d(1), nn.Dropout())
    network[1].eval()
    before = network[0].running_mean.clone()
    with at_inference(network) as quiet:
        assert not any(module.training for module in network.modules())
        quiet(torch.rand(2, 1, 3, 3, 3) + 4)
    assert [module.training for module in network.modules()] == [True, True, False]
    assert torch.equal(network[0].running_mean, before)


def _fail(network: nn.Module) -> None:
    with at_inference(network):
        raise KeyError


def test_inference_mode_ends_with_an_error_too() -> None:
    network = nn.Dropout().train()
    with pytest.raises(KeyError):
        _fail(network)
    assert network.training

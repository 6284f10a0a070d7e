"""Spectral normalisation as an option of the plain network: norms held, merged exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medsr.errors import ModelError
from medsr.networks import RepPlain3D, build_network
from medsr.networks.grow import grow
from medsr.networks.repplain import RepConv3d, matrix_norm


def _network(seed: int = 3, **options: Any) -> RepPlain3D:
    torch.manual_seed(seed)
    network = RepPlain3D((1, 1, 2), width=16, depth=2, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def test_the_norm_is_the_largest_singular_value() -> None:
    kernel = torch.randn(16, 8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = np.linalg.norm(kernel.numpy().reshape(16, -1), ord=2)
    assert matrix_norm(kernel).item() == pytest.approx(expected, rel=1e-5)
    assert matrix_norm(kernel.double()).dtype == torch.float64
    nothing = torch.zeros(4, 4, 3, 3, 3, requires_grad=True)
    matrix_norm(nothing).backward()
    assert torch.isfinite(nothing.grad).all()


@pytest.mark.parametrize("branches", [True, False, ("identity",)])
def test_kernels_are_held_in_training_and_merged_exactly(
    branches: bool | tuple[str, ...],
) -> None:
    free, network = (_network(branches=branches, spectral_norm=limit) for limit in (None, 0.7))
    norms = [
        matrix_norm(layer.kernel() if isinstance(layer, RepConv3d) else layer.weight).item()
        for layer in free.body
    ]
    assert min(norms) > 0.7
    merged = network.merged()
    assert merged.spectral_norm is None
    for layer, plain in zip(network.body, merged.body, strict=True):
        assert type(plain) is torch.nn.Conv3d
        assert torch.equal(plain.weight, layer.kernel())
        assert matrix_norm(plain.weight).item() == pytest.approx(0.7, rel=1e-4)
    lr = torch.rand(1, 1, 5, 4, 3)
    with torch.no_grad():
        assert (merged(lr) - network(lr)).abs().max() < 1e-6
        assert (merged(lr) - free(lr)).abs().max() > 1e-3
    options = network.merged_options({"width": 16, "depth": 2, "spectral_norm": 0.7})
    build_network("RepPlain3D", (1, 1, 2), **options).load_state_dict(merged.state_dict())


def test_kernels_below_the_limit_stay_as_they_are() -> None:
    free, network = (_network(spectral_norm=limit) for limit in (None, 100.0))
    lr = torch.rand(1, 1, 5, 4, 3)
    with torch.no_grad():
        assert torch.equal(free(lr), network(lr))
    assert list(free.state_dict()) == list(network.state_dict())


def test_branches_sum_to_the_limited_kernel() -> None:
    torch.manual_seed(0)
    layer = RepConv3d(16, 16, limit=0.5)
    x = torch.randn(1, 16, 4, 3, 2)
    with torch.no_grad():
        layer.bias.normal_()
        assert (layer(x) - layer.forward_branches(x)).abs().max() < 1e-5


def test_gradients_reach_every_branch_and_the_norm_holds_after_a_step() -> None:
    network = _network(spectral_norm=0.7)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    network(torch.rand(1, 1, 4, 4, 3)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    # A kernel at its limit cannot be made larger or smaller: only its direction has a slope.
    layer = network.body[0]
    kernel = layer._summed().detach().requires_grad_()
    held = kernel * layer._share(kernel, 0.7)
    (held * torch.randn_like(held)).sum().backward()
    assert (kernel.grad * kernel).sum().abs() < 1e-3 * kernel.grad.norm() * kernel.norm()
    optimiser.step()
    assert all(matrix_norm(layer.kernel()).item() < 0.7001 for layer in network.body)


def test_what_cannot_be_is_refused() -> None:
    for limit in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ModelError, match=r"spectral_norm is .*must be positive"):
            build_network("RepPlain3D", (1, 1, 2), spectral_norm=limit)
    with pytest.raises(ValueError, match="cannot be grown"):
        grow(_network(), RepPlain3D((1, 1, 2), width=32, depth=2, spectral_norm=1.0))

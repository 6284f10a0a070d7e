"""A grown network starts as the small one's function and can learn with all its weights."""

from __future__ import annotations

import pytest
import torch

from medsr.networks import RepPlain3D
from medsr.networks.grow import grow


def _small(**options: object) -> RepPlain3D:
    torch.manual_seed(3)
    small = RepPlain3D((1, 1, 2), width=16, depth=2, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return small


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False, ("identity",)])
@pytest.mark.parametrize(("width", "depth"), [(16, 2), (32, 2), (16, 4), (48, 5)])
def test_the_function_is_kept_borders_included(
    before: bool, after: bool | tuple[str, ...], width: int, depth: int
) -> None:
    small = _small(branches=before)
    large = RepPlain3D((1, 1, 2), width=width, depth=depth, branches=after)
    x = torch.rand(1, 1, 7, 6, 5)
    assert not torch.allclose(large(x), small(x), atol=1e-3)
    grow(small, large)
    torch.testing.assert_close(large(x), small(x), atol=1e-4, rtol=1e-4)


def test_every_new_weight_is_reached_by_a_gradient_after_two_steps() -> None:
    large = RepPlain3D((1, 1, 2), width=32, depth=3, branches=False)
    grow(_small(), large)
    before = {name: p.detach().clone() for name, p in large.named_parameters()}
    optimiser = torch.optim.SGD(large.parameters(), lr=0.1)
    for step in range(3):
        torch.manual_seed(step)
        loss = (large(torch.rand(2, 1, 6, 6, 6)) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, parameter in large.named_parameters():
        assert (parameter != before[name]).float().mean() > 0.5, name


def test_a_smaller_or_different_network_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        grow(_small(), RepPlain3D((1, 1, 2), width=16, depth=1))
    with pytest.raises(ValueError, match="scale"):
        grow(_small(), RepPlain3D((1, 1, 4), width=16, depth=2))

"""Air is left out where the network says that nothing changes there, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from medsr.infer.engine.background import RIPPLE, TOLERANCE, find_background
from medsr.infer.engine.engine import Engine
from medsr.networks import SRNetwork, build_network


def network(bias: float = 0.0, scale: tuple[int, int, int] = (1, 1, 2)) -> SRNetwork:
    """Zero in, zero out, unless the tail has a bias."""
    torch.manual_seed(2)
    net = build_network("RepPlain3D", scale, width=16, depth=1, branches=False).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
        net.tail.bias.fill_(bias)  # type: ignore[union-attr]
    return net


@pytest.fixture
def head() -> torch.Tensor:
    """A textured ball in nothing."""
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in (72, 64, 56)), indexing="ij"))
    inside = ((grid - torch.tensor([30, 36, 24]).view(3, 1, 1, 1)) ** 2).sum(0) < 14**2
    return torch.where(inside, torch.rand(72, 64, 56) + 0.2, torch.tensor(0.0))


def test_air_is_left_out_and_nothing_changes(head: torch.Tensor) -> None:
    net = network()
    engine = Engine(net, precision="fp32")
    plan = engine.plan_for(head)
    assert 0.5 < plan.background_share < 1
    skipped = engine.run(head, plan=plan)
    full = Engine(net, precision="fp32", skip_background=False).run(head)
    assert float((skipped - full).abs().max()) <= 1e-5
    assert Engine(net, precision="fp32", skip_background=False).plan_for(head).background_share == 0


@pytest.mark.parametrize("core", [24, (72, 20, 56)])
def test_every_tile_gets_its_own_box(head: torch.Tensor, core: object) -> None:
    net = network()
    engine = Engine(net, precision="fp32", core=core)  # type: ignore[arg-type]
    whole = Engine(net, precision="fp32").plan_for(head)
    assert engine.plan_for(head).background_share >= whole.background_share
    full = Engine(net, precision="fp32", skip_background=False).run(head)
    assert float((engine.run(head) - full).abs().max()) <= 1e-5


def test_native_units_and_faint_noise(head: torch.Tensor) -> None:
    torch.manual_seed(1)
    net = network()
    noisy = head + (torch.rand_like(head) - 0.5) * 0.9 * RIPPLE
    native = noisy * 2048 - 1024
    units = {"offset": -1024.0, "divisor": 2048.0}
    engine = Engine(net, precision="fp32")
    assert engine.plan_for(native, **units).background_share > 0.5
    full = Engine(net, precision="fp32", skip_background=False).run(native, **units)
    assert float((engine.run(native, **units) - full).abs().max()) <= TOLERANCE * 2048


def test_a_network_that_answers_something_else_to_nothing_is_run_everywhere(
    head: torch.Tensor,
) -> None:
    assert Engine(network(bias=2 * TOLERANCE)).plan_for(head).background_share == 0


def test_noise_is_not_air(head: torch.Tensor) -> None:
    torch.manual_seed(1)
    noisy = head + 4 * RIPPLE * torch.rand_like(head)
    assert Engine(network()).plan_for(noisy).background_share == 0


@pytest.mark.parametrize("shape", [(72, 64, 56), (71, 61, 13), (70, 9, 56)])
@pytest.mark.parametrize("scale", [(1, 1, 2), (2, 3, 1)])
def test_edges_where_padding_shows_are_as_the_network_has_them(
    shape: tuple[int, int, int], scale: tuple[int, int, int]
) -> None:
    """A constant other than zero meets zero padding at the volume's edge."""
    torch.manual_seed(0)
    net = network(scale=scale)
    with torch.no_grad():
        for convolution in net.chain()[1:]:  # type: ignore[index]
            # Kernels that sum to zero answer zero to a constant inside, but not at an edge.
            convolution.weight -= convolution.weight.mean(dim=(2, 3, 4), keepdim=True)
    native = torch.full(shape, 5.0)
    native[30:42, 4:7, 5:9] += torch.rand(12, 3, 4)
    native = native * 2048 - 1024
    units = {"offset": -1024.0, "divisor": 2048.0}
    engine = Engine(net, precision="fp32")
    air = find_background(native, net.halo, lambda block: net(block), **units)
    assert air is not None
    assert air.empty[0].all()
    assert air.empty[:, -1, -1].any()
    plan = engine.plan_for(native, **units)
    assert plan.background_share > 0.5
    full = Engine(net, precision="fp32", skip_background=False).run(native, **units)
    nearest = native
    for axis, factor in enumerate(scale):
        nearest = nearest.repeat_interleave(factor, axis)
    assert float((nearest[0] - full[0, 0]).abs().max()) > 10 * TOLERANCE * 2048
    assert float((engine.run(native, plan=plan, **units) - full).abs().max()) <= 1e-5 * 2048


def test_a_volume_of_nothing_at_all() -> None:
    engine = Engine(network(), precision="fp32")
    lr = torch.zeros(64, 64, 48)
    plan = engine.plan_for(lr)
    assert plan.background_share == 1
    assert plan.as_dict()["count"] == 0
    assert torch.equal(engine.run(lr, plan=plan), torch.zeros(1, 64, 64, 96))

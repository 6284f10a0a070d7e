"""Streaming gives what the network gives on the whole block, whatever the axis and the step."""

from __future__ import annotations

import pytest
import torch

from medsr.infer.engine.engine import Engine
from medsr.infer.engine.stream import ChainStream, chain_of
from medsr.networks import SRNetwork, build_network

CPU = torch.device("cpu")


def network(scale: tuple[int, int, int] = (1, 1, 4), **options: object) -> SRNetwork:
    torch.manual_seed(5)
    built = build_network("RepPlain3D", scale, **{"width": 16, "depth": 3, **options})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return built.eval().merged().eval()


def streamed(
    net: SRNetwork, lr: torch.Tensor, axis: int, step: int, **units: float
) -> torch.Tensor:
    out = torch.full([n * s for n, s in zip(lr.shape, net.scale, strict=True)], torch.nan)
    whole = (slice(0, lr.shape[0]), slice(0, lr.shape[1]), slice(0, lr.shape[2]))
    with torch.no_grad():
        ChainStream(net, axis, "fp32", CPU).run(lr, out, whole, step=step, **units)
    return out


@pytest.mark.parametrize("scale", [(1, 1, 4), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("step", [1, 2, 5, 40])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_equals_the_network(axis: int, step: int, scale: tuple[int, int, int]) -> None:
    net = network(scale)
    lr = torch.rand(13, 9, 11)
    with torch.no_grad():
        expected = net(lr[None, None])[0, 0]
    torch.testing.assert_close(streamed(net, lr, axis, step), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 9, 2), (4, 3, 1)])
def test_blocks_thinner_than_the_receptive_field(shape: tuple[int, int, int]) -> None:
    net = network((2, 2, 2))
    lr = torch.rand(*shape)
    with torch.no_grad():
        expected = net(lr[None, None])[0, 0]
    for axis in range(3):
        torch.testing.assert_close(streamed(net, lr, axis, 3), expected, rtol=0, atol=1e-5)


def test_native_units_go_in_and_come_out() -> None:
    net = network()
    lr = torch.rand(9, 8, 7)
    expected = streamed(net, lr, 0, 2) * 2048 - 1024
    found = streamed(net, lr * 2048 - 1024, 0, 2, offset=-1024.0, divisor=2048.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_a_window_alone_is_written() -> None:
    net = network((1, 1, 2))
    lr = torch.rand(9, 8, 7)
    with torch.no_grad():
        expected = net(lr[None, None])[0, 0]
    fine = torch.full((9, 8, 14), -7.0)
    window = (slice(2, 6), slice(1, 8), slice(3, 5))
    ChainStream(net, 1, "fp32", CPU).run(lr, fine[2:6, 1:8, 6:10], window, step=2)
    torch.testing.assert_close(fine[2:6, 1:8, 6:10], expected[2:6, 1:8, 6:10], rtol=0, atol=1e-5)
    fine[2:6, 1:8, 6:10] = -7.0
    assert (fine == -7.0).all()


def test_only_plain_chains_are_streamed() -> None:
    assert len(chain_of(network()) or ()) == 5
    unmerged = build_network("RepPlain3D", (1, 1, 2), width=16, depth=1)
    others = [
        unmerged,
        network(fold=(2, 2, 1)),
        network(interpolation="linear"),
        network(head="gaussian"),
        build_network("ResNet3D", (1, 1, 2), width=16, blocks=1),
        torch.nn.Conv3d(1, 1, 3),
    ]
    assert [chain_of(net) for net in others] == [None] * len(others)
    with pytest.raises(ValueError, match="chain"):
        ChainStream(unmerged, 0, "fp32", CPU)


@pytest.mark.parametrize("core", [None, 5, (8, 4, 11)])
def test_the_engine_streams_blocks_of_any_core_alike(core: object) -> None:
    net = network()
    lr = torch.rand(21, 15, 11)
    with torch.no_grad():
        expected = net(lr[None, None])[0]
    engine = Engine(net, precision="fp32", core=core)  # type: ignore[arg-type]
    assert engine.streams
    torch.testing.assert_close(engine.run(lr), expected, rtol=0, atol=1e-5)
    # The same plan gives the same bits.
    assert torch.equal(engine.run(lr), engine.run(lr))


def test_what_streaming_keeps_is_bounded_by_planes() -> None:
    stream = ChainStream(network(), 0, "fp32", CPU)
    short, long = stream.working_bytes((20, 16, 16), 4), stream.working_bytes((2000, 16, 16), 4)
    assert short == long
    kept = sum(layer.inputs for layer in stream.layers) * 6 * 16 * 16 * 4
    assert kept < short < 3 * kept

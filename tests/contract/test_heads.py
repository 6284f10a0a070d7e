"""What every network promises when its head says a distribution."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from medsr.errors import ModelError, NoUncertaintyError
from medsr.infer.monai_inferer import TiledInferer
from medsr.networks import NETWORKS, SRNetwork, build_network
from medsr.networks.heads import MeanAndSigma, build_readout, with_head

HEADS: dict[str, Any] = {
    "gaussian": "gaussian",
    "bins": "bins",
    "few bins": {"kind": "bins", "bins": 8, "reach": 0.5},
}
WITH_HEADS = sorted(
    name for name, cls in NETWORKS.items() if "head" in inspect.signature(cls).parameters
)

every_network = pytest.mark.parametrize("name", WITH_HEADS)
every_head = pytest.mark.parametrize("head", sorted(HEADS))


def _build(name: str, head: Any, **options: Any) -> SRNetwork:
    torch.manual_seed(0)
    return build_network(name, (1, 1, 2), **NETWORKS.find(name).small, head=head, **options)


def _rousing(name: str, head: str, **options: Any) -> SRNetwork:
    network = _build(name, HEADS.get(head, head), **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network.eval()


def _scan(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_networks_of_the_field_have_heads() -> None:
    assert set(NETWORKS) - {"DAM3D"} <= set(WITH_HEADS)


@every_network
@every_head
def test_mean_and_sigma_lie_on_the_fine_grid(name: str, head: str) -> None:
    network = _rousing(name, head, fold=(2, 1, 1))
    lr = _scan(2, 1, 5, 4, 3)
    with torch.no_grad():
        sr = network(lr)
        mean, sigma = network.distribution(lr)
    assert torch.equal(mean, sr)
    assert sigma.shape == sr.shape == (2, 1, 5, 4, 6)
    assert sigma.dtype == sr.dtype == torch.float32
    assert 0 < sigma.min() < sigma.max() < 2


@every_network
@every_head
def test_the_readout_is_a_tap_and_the_state_holds_nothing_of_it(name: str, head: str) -> None:
    network, plain = _rousing(name, head, fold=(2, 1, 1)), _build(name, "value", fold=(2, 1, 1))
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert plain.readout is None
    assert "readout" not in dict(plain.named_modules())
    seen: list[Tensor] = []
    network.get_submodule("readout").register_forward_hook(lambda m, i, output: seen.append(output))
    with torch.no_grad():
        sr = network(_scan(1, 1, 5, 4, 3))
    channels = network.values_per_voxel
    assert seen[0].shape == (1, channels, *sr.shape[2:])
    assert network.out_channels == channels * plain.out_channels
    rebuilt = build_readout(network.head_options)
    assert rebuilt is not None
    assert rebuilt.options == network.head_options


@every_network
@every_head
def test_merging_keeps_the_distribution(name: str, head: str) -> None:
    network = _rousing(name, head)
    merged = network.merged()
    lr = _scan(1, 1, 5, 4, 3)
    assert merged.head_options == network.head_options
    assert network.merged_options({"head": HEADS[head]})["head"] == HEADS[head]
    with torch.no_grad():
        for ours, theirs in zip(merged.distribution(lr), network.distribution(lr), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@every_network
@every_head
def test_a_fresh_head_gives_the_interpolated_scan(name: str, head: str) -> None:
    network = _build(name, HEADS[head]).eval()
    lr = _scan(1, 1, 4, 3, 2)
    with torch.no_grad():
        torch.testing.assert_close(network(lr), lr.repeat_interleave(2, dim=4), rtol=0, atol=1e-6)


@every_network
@every_head
def test_tiled_maps_equal_the_whole(name: str, head: str) -> None:
    network = _rousing(name, head).merged().eval()
    lr = _scan(1, 1, 11, 6, 5)
    with torch.no_grad():
        whole = torch.cat(network.distribution(lr), dim=1)
    tiled = TiledInferer((4, 6, 3), precision="fp32")(lr, MeanAndSigma(network))
    assert tiled.shape == (1, 2, 11, 6, 10)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@every_network
@every_head
def test_a_value_network_given_a_head_keeps_its_mean(name: str, head: str) -> None:
    network = _rousing(name, "value").merged().eval()
    lr = _scan(1, 1, 5, 4, 3)
    with torch.no_grad():
        plain = lr.repeat_interleave(2, dim=4)
        # A residual of up to 0.1, well inside of what the bins cover.
        for parameter in network.tail.parameters():  # type: ignore[union-attr]
            parameter.mul_(0.1 / (network(lr) - plain).abs().max())
        network.tail.bias.zero_()  # type: ignore[union-attr,operator]
        given = with_head(network, HEADS[head]).eval()
        before, after = network(lr), given(lr)
    assert (before - plain).abs().max() > 0.03
    atol = {"gaussian": 1e-5, "bins": 1e-4, "few bins": 0.03}[head]
    torch.testing.assert_close(after, before, rtol=0, atol=atol)
    assert network.readout is None
    with pytest.raises(ValueError, match="cannot be given a head"):
        with_head(given, "gaussian")


@pytest.mark.parametrize("head", sorted(HEADS))
def test_bf16_autocast_is_finite_and_near_fp32(head: str) -> None:
    network = _rousing("RepPlain3D", head)
    lr = _scan(1, 1, 7, 6, 5)
    with torch.no_grad():
        expected = network.distribution(lr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network.distribution(lr)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02)


def test_a_value_network_says_that_it_has_no_sigma() -> None:
    network = _build("RepPlain3D", "value")
    with pytest.raises(NoUncertaintyError, match="gives values and no distribution"):
        network.distribution(_scan(1, 1, 2, 2, 2))
    with pytest.raises(NoUncertaintyError):
        MeanAndSigma(network)
    with pytest.raises(ModelError, match="none of value, gaussian, bins"):
        _build("RepPlain3D", "laplace")

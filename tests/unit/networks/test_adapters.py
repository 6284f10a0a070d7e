"""Low-rank adapters: a start without change, few trained parameters, an exact merge."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import Tensor, nn

from medsr.networks import NETWORKS, SRNetwork, build_network
from medsr.networks.adapters import LowRankUpdate, add_adapters, merge_adapters

SMALL: dict[str, dict[str, Any]] = {
    "RepPlain3D": {"width": 16, "depth": 2},
    "ResNet3D": {"width": 16, "blocks": 1},
    "RRDBNet3D": {"width": 16, "growth": 16, "blocks": 1},
}
every_network = pytest.mark.parametrize("name", sorted(NETWORKS))


def trained(name: str, scale: tuple[int, int, int] = (1, 1, 2)) -> SRNetwork:
    """A merged network none of whose parameters is zero, as after training."""
    torch.manual_seed(3)
    network = build_network(name, scale, **SMALL.get(name, {})).merged()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network


def disturb(network: nn.Module) -> None:
    """Give the adapters values, as after some steps."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def scan(*shape: int) -> Tensor:
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(5))


@every_network
def test_a_fresh_adapter_changes_no_bit(name: str) -> None:
    network = trained(name)
    lr = scan(7, 5, 4)
    with torch.no_grad():
        before = network(lr)
        add_adapters(network)
        assert torch.equal(network(lr), before)


@every_network
def test_the_adapters_alone_are_trained(name: str) -> None:
    network = trained(name)
    plain = copy.deepcopy(network.state_dict())
    count = add_adapters(network, rank=2)
    learning = [p for p in network.parameters() if p.requires_grad]
    assert count == sum(p.numel() for p in learning)
    assert count < 0.25 * sum(value.numel() for value in plain.values())
    optimiser = torch.optim.Adam(learning, lr=1e-4)
    lr = scan(6, 6, 4)
    losses = []
    for _ in range(3):
        loss = ((network.train()(lr) - 0.5) ** 2).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    after = {
        k.replace("parametrizations.weight.original", "weight"): v
        for k, v in network.state_dict().items()
    }
    assert plain.keys() <= after.keys()
    for key, value in plain.items():
        assert torch.equal(after[key], value), key
    for key, parameter in network.named_parameters():
        assert (parameter.grad is not None) == key.endswith((".up", ".down")), key


@every_network
def test_the_merged_network_is_plain_and_equal_up_to_the_borders(name: str) -> None:
    network = trained(name)
    names = {k: v.shape for k, v in network.state_dict().items()}
    add_adapters(network, rank=3, alpha=6.0)
    disturb(network)
    state = copy.deepcopy(network.state_dict())
    lr = scan(3, 4, 2)  # smaller than the receptive field: every voxel sees the border
    plain = merge_adapters(network)
    assert {k: v.shape for k, v in plain.state_dict().items()} == names
    with torch.no_grad():
        unmerged, merged, base = network(lr), plain(lr), trained(name)(lr)
    assert torch.equal(unmerged, merged)
    assert (merged - base).abs().max() > 1e-3
    fresh = build_network(name, network.scale, **network.merged_options(SMALL.get(name, {})))
    fresh.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.merged()(lr), merged)
    # The adapted network is left as it was, and can go on learning.
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    network(lr).sum().backward()
    disturb(network)
    with torch.no_grad():
        assert not torch.equal(network(lr), merged)
        assert torch.equal(plain(lr), merged)


def test_an_update_is_the_two_convolutions_of_the_paper() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv3d(4, 6, 3, padding=1)
    kernel = convolution.weight.detach().clone()
    add_adapters(convolution, rank=2, alpha=3.0)
    disturb(convolution)
    update = convolution.parametrizations.weight[0]  # type: ignore[union-attr, index]
    assert isinstance(update, LowRankUpdate)
    x = torch.rand(1, 4, 5, 4, 3)
    with torch.no_grad():
        ours = convolution(x)[0].numpy()
    down, up = update.down.detach().numpy(), update.up.detach().numpy()

    def convolve(kernels: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                sum(correlate(x[0, c].numpy(), k[c], mode="constant") for c in range(4))
                for k in kernels
            ]
        )

    low = convolve(down.reshape(2, 4, 3, 3, 3))
    expected = convolve(kernel.numpy()) + 3.0 / 2 * np.einsum("or,rxyz->oxyz", up, low)
    expected += convolution.bias.detach().numpy()[:, None, None, None]  # type: ignore[union-attr]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_rank_is_lowered_where_a_kernel_is_small() -> None:
    assert LowRankUpdate((4, 32, 3, 3, 3), rank=8, alpha=8).up.shape == (4, 2)
    assert LowRankUpdate((1, 32, 3, 3, 3), rank=8, alpha=8).up.shape == (1, 1)
    assert LowRankUpdate((32, 32, 3, 3, 3), rank=8, alpha=8).down.shape == (8, 32 * 27)


def test_layers_are_chosen_by_pattern() -> None:
    network = trained("ResNet3D")
    add_adapters(network, layers=["body.*.first", "tail"])
    names = {k.partition(".parametrizations")[0] for k in network.state_dict() if "param" in k}
    assert names == {"body.0.first", "tail"}


def test_a_copy_is_merged_without_harm_to_the_original() -> None:
    network = trained("ResNet3D")
    add_adapters(network)
    disturb(network)
    twin = copy.deepcopy(network)
    lr = scan(4, 4, 4)
    with torch.no_grad():
        expected = network(lr)
        merge_adapters(merge_adapters(twin))
        assert torch.equal(network(lr), expected)
        assert torch.equal(twin(lr), expected)


def test_bf16_keeps_small_updates() -> None:
    convolution = nn.Conv3d(2, 2, 3)
    kernel = convolution.weight.detach().clone()
    add_adapters(convolution, rank=1)
    update = convolution.parametrizations.weight[0]  # type: ignore[union-attr, index]
    with torch.no_grad():
        update.up.fill_(1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        adapted = convolution.weight
    assert adapted.dtype == torch.float32
    exact = kernel + 4.0 * (update.up @ update.down).detach().view_as(kernel)
    assert torch.equal(adapted.detach(), exact)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": float("nan")}, "alpha nan"),
        ({"layers": ["tale"]}, "no convolution fits the layers tale"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    network = trained("ResNet3D")
    with pytest.raises(ValueError, match=message):
        add_adapters(network, **arguments)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_adapters_are_not_stacked() -> None:
    network = trained("ResNet3D")
    add_adapters(network)
    with pytest.raises(ValueError, match=r"weight of head is parametrised already"):
        add_adapters(network)

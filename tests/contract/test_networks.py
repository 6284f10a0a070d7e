"""What every network of the table promises to the engine, the trainer and the distiller."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor, nn

from medsr.errors import ModelError
from medsr.networks import NETWORKS, SRNetwork, build_network
from medsr.networks.repplain import RepConv3d
from medsr.types import Triple

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "folded": {"fold": (2, 2, 1)},
    "linear": {"interpolation": "linear"},
    "folded-linear": {"fold": (1, 3, 2), "interpolation": "linear"},
}
SCALES: list[Triple] = [(1, 1, 4), (2, 2, 2), (1, 3, 2), (1, 1, 1)]

every_network = pytest.mark.parametrize("name", sorted(NETWORKS))
every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))


def _fresh(name: str, variant: str, scale: Triple = (1, 1, 4), seed: int = 0) -> SRNetwork:
    torch.manual_seed(seed)
    return build_network(name, scale, **NETWORKS.find(name).small, **VARIANTS[variant])


def _rousing(name: str, variant: str, scale: Triple = (1, 1, 4), seed: int = 0) -> SRNetwork:
    """A network whose zero-initialised tail has values, as after some training."""
    network = _fresh(name, variant, scale, seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network


def _scan(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@every_network
@every_variant
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_output_has_the_scaled_shape_for_any_size(name: str, variant: str, scale: Triple) -> None:
    network = _rousing(name, variant, scale).eval()
    assert network.scale == scale
    for shape in [(1, 1, 1), (5, 3, 2), (4, 7, 1), (6, 6, 4)]:
        with torch.no_grad():
            sr = network(_scan(2, 1, *shape))
        assert sr.shape == (2, 1, *(n * s for n, s in zip(shape, scale, strict=True)))
        assert sr.dtype == torch.float32
        assert torch.isfinite(sr).all()


@every_network
def test_batch_members_do_not_see_each_other(name: str) -> None:
    network = _rousing(name, "folded").eval()
    lr = _scan(2, 1, 5, 4, 3)
    with torch.no_grad():
        together = network(lr)
        alone = torch.cat([network(lr[:1]), network(lr[1:])])
    assert (together - alone).abs().max() < 1e-5


@every_network
@every_variant
@pytest.mark.parametrize("scale", [(1, 1, 4), (2, 3, 1)], ids=str)
def test_fresh_network_is_the_interpolation_it_adds_to(
    name: str, variant: str, scale: Triple
) -> None:
    network = _fresh(name, variant, scale).eval()
    with torch.no_grad():
        constant = network(torch.full((1, 1, 5, 4, 3), 0.7))
        assert (constant - 0.7).abs().max() < 1e-6
        lr = _scan(1, 1, 5, 4, 3)
        sr = network(lr)[0, 0].numpy()
    order = 1 if "linear" in variant else 0
    expected = scipy.ndimage.zoom(
        lr[0, 0].numpy(), scale, order=order, mode="nearest", grid_mode=True
    )
    assert np.abs(sr - expected).max() < 1e-5


@every_network
@every_variant
def test_bf16_autocast_is_finite_and_near_fp32(name: str, variant: str) -> None:
    network = _rousing(name, variant).eval()
    lr = _scan(1, 1, 7, 6, 5)
    with torch.no_grad():
        expected = network(lr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            sr = network(lr)
    assert sr.dtype == torch.float32
    assert torch.isfinite(sr).all()
    span = expected.max() - expected.min()
    assert (sr - expected).abs().max() < 0.05 * span


@every_network
@every_variant
def test_gradients_reach_every_parameter_within_two_steps(name: str, variant: str) -> None:
    network = _fresh(name, variant).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    lr, hr = _scan(2, 1, 6, 6, 4), _scan(2, 1, 6, 6, 16, seed=1)
    for _ in range(2):  # the first step wakes the tail, which starts at zero
        optimiser.zero_grad()
        (network(lr) - hr).square().mean().backward()
        optimiser.step()
    silent = [
        key
        for key, parameter in network.named_parameters()
        if parameter.grad is None
        or not torch.isfinite(parameter.grad).all()
        or parameter.grad.abs().sum() == 0
    ]
    # What a network is told of slices is zero here; its weights are tested where it is not.
    assert [key for key in silent if not (key.startswith("tell.") and "weight" in key)] == []


@every_network
@every_variant
def test_state_round_trips_into_a_fresh_network(name: str, variant: str) -> None:
    network = _rousing(name, variant, seed=1).eval()
    other = _rousing(name, variant, seed=2).eval()
    lr = _scan(1, 1, 5, 4, 3)
    with torch.no_grad():
        assert not torch.equal(network(lr), other(lr))
        state = {key: value.clone() for key, value in network.state_dict().items()}
        other.load_state_dict(state, strict=True)
        assert torch.equal(network(lr), other(lr))


@every_network
@every_variant
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_halo_is_exactly_the_reach_of_the_gradient(name: str, variant: str, axis: int) -> None:
    network = _rousing(name, variant, (1, 2, 1)).double().eval()
    halo, fold = network.halo[axis], network.multiple_of[axis]
    cells = halo // fold + 2
    shape = [2, 2, 2]
    shape[axis] = (2 * cells + 1) * fold
    lr = _scan(1, 1, *shape).double().requires_grad_()
    sr = network(lr)
    reaches = []
    # Voxels of one folded cell reach differently far to either side.
    for voxel in range(cells * fold, (cells + 1) * fold):
        factor = network.scale[axis]
        part = sr.narrow(2 + axis, voxel * factor, factor)
        weights = torch.randn(part.shape, generator=torch.Generator().manual_seed(1))
        (gradient,) = torch.autograd.grad((weights * part).sum(), lr, retain_graph=True)
        others = [d for d in range(5) if d != 2 + axis]
        touched = gradient.abs().sum(dim=others).nonzero().flatten()
        reaches += [voxel - int(touched.min()), int(touched.max()) - voxel]
    assert max(reaches) == halo


@every_network
@every_variant
def test_a_tile_with_halo_equals_the_whole(name: str, variant: str) -> None:
    network = _rousing(name, variant).eval()
    halo, multiple, scale = network.halo, network.multiple_of, network.scale
    for axis in range(3):
        size = [3, 3, 3]
        size[axis] = 4 * halo[axis] + 7  # odd, and no multiple of the fold
        lr = _scan(1, 1, *size)
        with torch.no_grad():
            whole = network(lr)
            for core in [
                (0, 3),
                (2 * halo[axis] + 1, 2 * halo[axis] + 4),
                (size[axis] - 2, size[axis]),
            ]:
                step = multiple[axis]
                start = max(core[0] - halo[axis], 0) // step * step
                stop = min(-(-(core[1] + halo[axis]) // step) * step, size[axis])
                tile = network(lr.narrow(2 + axis, start, stop - start))
                factor, length = scale[axis], core[1] - core[0]
                ours = tile.narrow(2 + axis, (core[0] - start) * factor, length * factor)
                theirs = whole.narrow(2 + axis, core[0] * factor, length * factor)
                assert (ours - theirs).abs().max() < 1e-5


@every_network
def test_tiles_off_the_fold_would_differ(name: str) -> None:
    network = _rousing(name, "folded").eval()
    stride = network.stride
    assert network.multiple_of == (2 * stride[0], 2 * stride[1], stride[2])
    assert _fresh(name, "plain").multiple_of == stride
    halo, step = network.halo[0], network.multiple_of[0]
    lr = _scan(1, 1, 4 * halo + 4 * step, 2, 2)
    with torch.no_grad():
        whole = network(lr)
        aligned, shifted = network(lr[:, :, step:]), network(lr[:, :, 1:])
    core = slice(2 * halo, 2 * halo + 4)
    low = 2 * halo - step
    assert (aligned[:, :, low : low + 4] - whole[:, :, core]).abs().max() < 1e-5
    assert (shifted[:, :, 2 * halo - 1 : 2 * halo + 3] - whole[:, :, core]).abs().max() > 1e-4


@every_network
@every_variant
@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 1, 2)], ids=str)
def test_merged_equals_unmerged_at_the_borders_too(name: str, variant: str, shape: Triple) -> None:
    network = _rousing(name, variant).eval()
    merged = network.merged()
    lr = _scan(1, 1, *shape)
    with torch.no_grad():
        assert (merged(lr) - network(lr)).abs().max() < 1e-5
    for attribute in ("scale", "halo", "multiple_of", "taps"):
        assert getattr(merged, attribute) == getattr(network, attribute)
    assert not merged.training
    kinds = {type(module) for module in merged.modules() if not list(module.children())}
    # A linear layer tells of the slices, once a scan, and is folded into convolutions.
    assert kinds <= {nn.Conv3d, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Linear}
    ours = sum(p.numel() for p in merged.parameters())
    assert ours <= sum(p.numel() for p in network.parameters())


@every_network
def test_merging_leaves_the_network_as_it_was(name: str) -> None:
    network = _rousing(name, "plain").train()
    before = copy.deepcopy(network.state_dict())
    merged = network.merged()
    if merged is not network:
        with torch.no_grad():
            for parameter in merged.parameters():
                parameter.zero_()
    assert network.training
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


@every_network
@every_variant
def test_taps_are_submodules_that_give_features_on_the_networks_grids(
    name: str, variant: str
) -> None:
    network = _rousing(name, variant).eval()
    assert len(network.taps) == len(set(network.taps)) > 0
    seen: dict[str, Tensor] = {}
    for tap in network.taps:
        network.get_submodule(tap).register_forward_hook(
            lambda module, inputs, output, tap=tap: seen.__setitem__(tap, output)
        )
    with torch.no_grad():
        network(_scan(2, 1, 5, 4, 3))
    assert set(seen) == set(network.taps)
    padded = [-(-n // m) * m for n, m in zip((5, 4, 3), network.multiple_of, strict=True)]
    for features in seen.values():
        assert features.shape[0] == 2
        assert features.shape[1] % 16 == 0
        # The folded grid, or a coarser one that the network's stride allows.
        for n, size, f, m in zip(
            padded, features.shape[2:], network.fold, network.multiple_of, strict=True
        ):
            cell = n // size
            assert cell * size == n
            assert cell % f == 0
            assert m % cell == 0


@every_network
def test_bad_options_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="multiple of 16"):
        build_network(name, (1, 1, 2), width=24)
    with pytest.raises(ModelError, match="three integers from 1"):
        build_network(name, (1, 1, 0))
    with pytest.raises(ModelError, match="'cubic'"):
        build_network(name, (1, 1, 2), interpolation="cubic")
    with pytest.raises(ModelError, match="widht"):
        build_network(name, (1, 1, 2), widht=16)


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'UNet' is unknown; known are .*RepPlain3D"):
        build_network("UNet", (1, 1, 2))


@pytest.mark.parametrize("channels", [(16, 16), (16, 32)], ids=str)
def test_branches_of_a_convolution_sum_to_its_kernel_at_the_borders_too(
    channels: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    convolution = RepConv3d(*channels)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        x = torch.randn(2, channels[0], 4, 3, 2)
        branches = convolution.forward_branches(x)
        span = branches.abs().max()
        assert (convolution(x) - branches).abs().max() < 1e-5 * span
        assert (convolution.merge()(x) - branches).abs().max() < 1e-5 * span

"""What makes each student the network of its name, against independent computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from torch import nn
from torch.nn import functional

from medsr.networks import build_network
from medsr.networks.blocks import conv3, he_normal, voxel_shuffle
from medsr.networks.fsrcnn import FSRCNN3D
from medsr.networks.mobilenet import InvertedResidual
from medsr.networks.plain25d import Plain25D
from medsr.networks.shufflenet import ShuffleUnit, interleave
from medsr.networks.span import AttentionBlock, Span3D, attention
from medsr.recipe import read_recipe

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "students"


def _scan(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def test_he_weights_keep_the_mean_square_through_rectifiers() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 64, 12, 12, 12)
    with torch.no_grad():
        for _ in range(4):
            x = functional.relu(he_normal(conv3(64, 64))(x))
    inside = x[..., 4:-4, 4:-4, 4:-4]  # what the zero padding has not reached
    assert 0.5 < float(inside.square().mean()) < 2


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last_3d])
def test_interleaving_is_a_concatenation_and_a_channel_shuffle(
    format_: torch.memory_format,
) -> None:
    first, second = (torch.randn(2, 6, 4, 3, 5).contiguous(memory_format=format_) for _ in "ab")
    expected = nn.ChannelShuffle(2)(torch.cat((first, second), dim=1).flatten(2))
    assert torch.equal(interleave(first, second).flatten(2), expected)


def test_a_shuffle_unit_keeps_half_of_its_channels() -> None:
    x = torch.randn(1, 32, 3, 3, 3)
    with torch.no_grad():
        out = ShuffleUnit(32)(x)
    assert torch.equal(out[:, ::2], x[:, :16])
    assert not torch.equal(out[:, 1::2], x[:, 16:])


def test_an_inverted_residual_filters_channels_one_by_one_in_the_wide_place() -> None:
    torch.manual_seed(0)
    block = InvertedResidual(16, 2)
    shapes = {name: tuple(p.shape) for name, p in block.named_parameters() if p.ndim == 5}
    assert shapes == {
        "expand.weight": (32, 16, 1, 1, 1),
        "depthwise.weight": (32, 1, 3, 3, 3),
        "project.weight": (16, 32, 1, 1, 1),
    }
    x = torch.randn(1, 16, 3, 3, 3)
    with torch.no_grad():
        block.project.bias.fill_(-100.0)
        # The projection is linear, so that even a strong negative bias passes.
        assert float((block(x) - x).max()) < -50


@pytest.mark.parametrize("scale", [(1, 1, 4), (3, 1, 2)], ids=str)
def test_a_deconvolution_is_a_convolution_and_a_voxel_shuffle(scale: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 5, 4, 3, 6, dtype=torch.float64)
    sx, sy, sz = scale
    kernel = torch.randn(5, 1, 3 * sx, 3 * sy, 3 * sz, dtype=torch.float64)
    expected = functional.conv_transpose3d(x, kernel, stride=scale, padding=scale)
    taps = kernel.reshape(5, 3, sx, 3, sy, 3, sz).flip(1, 3, 5)
    dense = taps.permute(2, 4, 6, 0, 1, 3, 5).reshape(sx * sy * sz, 5, 3, 3, 3)
    ours = voxel_shuffle(functional.conv3d(x, dense, padding=1), scale)
    assert (ours - expected).abs().max() < 1e-12


def test_fsrcnn_maps_at_the_shrunken_width() -> None:
    network = FSRCNN3D((1, 1, 4), width=32, shrink=16, maps=2)
    assert network.head.convolution.kernel_size == (5, 5, 5)
    widths = [(m.in_channels, m.out_channels) for m in network.modules() if type(m) is nn.Conv3d]
    assert widths == [(1, 32), (32, 16), (16, 16), (16, 16), (16, 32), (32, 4)]


def test_attention_is_odd_and_multiplies_the_sum() -> None:
    x = torch.linspace(-8, 8, 33, dtype=torch.float64)
    assert (attention(x) + attention(-x)).abs().max() < 1e-15
    block = AttentionBlock(16, (), 2).double()
    with torch.no_grad():
        block.third.weight.zero_()
        block.third.bias.copy_(torch.linspace(-2, 2, 16))
        scan = torch.randn(1, 16, 3, 3, 3, dtype=torch.float64)
        out = block(scan, block.first(scan)).numpy()
    constant = np.linspace(-2, 2, 16)[None, :, None, None, None]
    expected = (constant + scan.numpy()) * (scipy.special.expit(constant) - 0.5)
    assert np.abs(out - expected).max() < 1e-6


def test_span_trains_through_branches_that_merge_away() -> None:
    network = Span3D((1, 1, 4), width=16, blocks=1)
    merged = network.merged()
    assert merged.branches == ()
    assert network.merged_options({"width": 16, "expansion": 3}) == {
        "width": 16,
        "branches": False,
    }
    assert set(merged.state_dict()) < set(network.state_dict())


def test_views_see_their_planes_alone() -> None:
    torch.manual_seed(0)
    network = Plain25D((1, 1, 4), width=16, depth=2).double()
    lr = _scan(1, 1, 9, 9, 9).double().requires_grad_()
    features: list[torch.Tensor] = []
    network.fuse.register_forward_hook(lambda module, inputs, output: features.append(output))
    network(lr)
    weights = torch.randn(16, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((features[0][0, :, 4, 4, 4] * weights).sum(), lr)
    touched = gradient[0, 0] != 0
    assert touched.any(dim=2)[4].sum() == touched.any(dim=2)[:, 4].sum() == 7
    off_both = touched.clone()
    off_both[4] = off_both[:, 4] = False
    assert not off_both.any()


@pytest.mark.parametrize("fold", [(1, 1, 1), (2, 2, 1)], ids=str)
def test_the_two_views_exchange_places_with_the_axes(fold: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = Plain25D((1, 1, 2), width=16, depth=2, fold=fold).double().eval()
    seen: list[torch.Tensor] = []
    network.fuse.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    lr = _scan(1, 1, 8, 6, 4).double()
    with torch.no_grad():
        network(lr)
        network(lr.transpose(2, 3))
    xz, yz = seen[0].chunk(2, dim=1)
    xz_exchanged, yz_exchanged = seen[1].transpose(2, 3).chunk(2, dim=1)
    assert (xz - yz_exchanged).abs().max() < 1e-12
    assert (yz - xz_exchanged).abs().max() < 1e-12
    assert (xz - yz).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["fsrcnn", "mobilenet", "plain25d", "shufflenet", "span"])
def test_recipes_build_students_of_about_the_shipped_size(name: str) -> None:
    recipe = read_recipe(CONFIGS / f"mr-z4-{name}.yaml")
    network = build_network(
        recipe.network.name, recipe.degradation.factor, **recipe.network.options
    )
    plain = build_network("RepPlain3D", (1, 1, 4), width=32, depth=8, branches=False)
    ours, shipped = (
        sum(p.numel() for p in model.parameters()) for model in (network.merged(), plain)
    )
    assert abs(ours - shipped) < 0.12 * shipped

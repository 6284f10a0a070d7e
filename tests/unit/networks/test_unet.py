"""The U-Net's reach, its step up, and the grids of its features."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from medsr.errors import ModelError
from medsr.networks import UNet3D, build_network
from medsr.networks.unet import Join, reach


@pytest.mark.parametrize(("levels", "blocks"), [(1, 1), (1, 2), (2, 1), (3, 1)])
def test_reach_is_that_of_the_gradient_for_any_depth(levels: int, blocks: int) -> None:
    torch.manual_seed(0)
    network = UNet3D((1, 1, 1), width=16, levels=levels, blocks=blocks).double()
    with torch.no_grad():
        network.tail.weight.normal_()
    cell = 2**levels
    cells = reach(levels, blocks) // cell + 2
    lr = torch.rand(1, 1, (2 * cells + 1) * cell, 1, 1, dtype=torch.float64, requires_grad=True)
    sr = network(lr)[0, 0, :, 0, 0]
    furthest = 0
    for voxel in range(cells * cell, (cells + 1) * cell):
        (gradient,) = torch.autograd.grad(sr[voxel], lr, retain_graph=True)
        touched = gradient.flatten().nonzero().flatten()
        furthest = max(furthest, voxel - int(touched.min()), int(touched.max()) - voxel)
    assert furthest == reach(levels, blocks)


def test_the_step_up_is_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    join = Join(16)
    coarse, fine = torch.randn(2, 32, 3, 2, 1), torch.randn(2, 16, 6, 4, 2)
    weight = join.up.weight.detach().reshape(16, 2, 2, 2, 32).permute(4, 0, 1, 2, 3)
    seen: list[torch.Tensor] = []
    join.mix.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        join.up.bias.zero_()  # type: ignore[union-attr]
        join(coarse, fine)
        raised = functional.conv_transpose3d(coarse, weight, stride=2)
    torch.testing.assert_close(seen[0][:, :16], raised, rtol=0, atol=1e-5)
    assert torch.equal(seen[0][:, 16:], fine)


def test_taps_go_down_and_up_again() -> None:
    network = UNet3D((1, 1, 2), width=16, levels=2, fold=(2, 2, 1))
    assert network.multiple_of == (8, 8, 4)
    sizes = []
    for tap in network.taps:
        network.get_submodule(tap).register_forward_hook(
            lambda module, inputs, output: sizes.append(tuple(output.shape[1:]))
        )
    with torch.no_grad():
        network(torch.rand(1, 1, 16, 8, 4))
    assert network.taps == ("encoder.0", "encoder.1", "bottom", "decoder.1", "decoder.0")
    assert sizes == [(16, 8, 4, 4), (32, 4, 2, 2), (64, 2, 1, 1), (32, 4, 2, 2), (16, 8, 4, 4)]


@pytest.mark.parametrize("option", ["levels", "blocks"])
def test_no_level_or_block_is_refused(option: str) -> None:
    with pytest.raises(ModelError, match=f"{option} is 0"):
        build_network("UNet3D", (1, 1, 2), **{option: 0})

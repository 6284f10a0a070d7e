"""Tiled inference equals whole-volume inference, for every network, shape, fold and tile size."""

from __future__ import annotations

import pytest
import torch

from medsr.infer.monai_inferer import TiledInferer
from medsr.networks import NETWORKS, SRNetwork, build_network

FOLDS = [(1, 1, 1), (2, 2, 1)]


def randomised(name: str, scale: tuple[int, int, int], **options: object) -> SRNetwork:
    """A small network whose tail is not zero, so that its detail shows."""
    torch.manual_seed(3)
    network = build_network(name, scale, **NETWORKS.find(name).small, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval().merged().eval()


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_tile_size_gives_the_whole_volume_result(
    name: str, fold: tuple[int, int, int], interpolation: str
) -> None:
    network = randomised(name, (1, 1, 4), fold=fold, interpolation=interpolation)
    lr = torch.rand(1, 1, 21, 15, 11)
    with torch.no_grad():
        whole = network(lr)
    assert whole.std() > 0
    for core in (5, (8, 4, 11), (21, 6, 3)):
        tiled = TiledInferer(core, precision="fp32")(lr, network)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 9, 7), (5, 1, 2), (17, 3, 1)])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_thin_volumes(name: str, shape: tuple[int, int, int]) -> None:
    network = randomised(name, (2, 2, 2), fold=(2, 2, 2))
    lr = torch.rand(1, 1, *shape)
    with torch.no_grad():
        whole = network(lr)
    tiled = TiledInferer(3, precision="fp32")(lr, network)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_stated_halo_is_needed_and_enough(name: str) -> None:
    network = randomised(name, (1, 1, 1))
    halo = network.halo[0]
    size = 2 * halo + 9
    lr = torch.rand(1, 1, size, 3, 3, requires_grad=True)
    centre = size // 2
    network(lr)[0, 0, centre].sum().backward()
    assert lr.grad is not None
    reach = lr.grad[0, 0].abs().sum(dim=(1, 2)).nonzero().flatten()
    assert centre - int(reach.min()) <= halo
    assert int(reach.max()) - centre <= halo

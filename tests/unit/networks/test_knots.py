"""The network for slices of any kind equals the plain network that it becomes."""

from __future__ import annotations

import torch

from medsr.degrade.slices import sampling_rows
from medsr.networks import KnotPlain3D, RepPlain3D
from medsr.networks.knots import knots_from


def _network(seed: int = 0) -> KnotPlain3D:
    torch.manual_seed(seed)
    network = KnotPlain3D((1, 1, 9), width=16, depth=2)
    for layer in (*network.tell, network.tail):
        for parameter in layer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def test_told_network_is_plain_and_equal() -> None:
    network, lr, condition = _network(), torch.rand(2, 1, 9, 8, 5), torch.randn(8)
    expected = network(lr, condition.expand(2, 8))
    told = network.told(condition)
    assert type(told) is RepPlain3D
    assert told.chain() is not None
    torch.testing.assert_close(told(lr), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.merged()(lr, condition.expand(2, 8)), expected)


def test_patches_of_a_batch_are_told_apart() -> None:
    network, lr = _network(), torch.rand(1, 1, 8, 8, 4)
    conditions = torch.randn(2, 8)
    both = network(lr.expand(2, -1, -1, -1, -1), conditions)
    for one, condition in zip(both, conditions, strict=True):
        torch.testing.assert_close(one[None], network(lr, condition[None]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both[0], both[1])
    torch.testing.assert_close(network(lr), network(lr, torch.zeros(1, 8)))


def test_a_network_of_a_whole_factor_becomes_one_of_knots() -> None:
    torch.manual_seed(1)
    plain = RepPlain3D((1, 1, 4), width=16, depth=2, branches=False)
    torch.nn.init.normal_(plain.tail.weight, std=0.1)
    lr = torch.rand(1, 1, 8, 8, 6)
    knots = knots_from(plain, 9)(lr)
    places = (torch.arange(24, dtype=torch.float64) + 0.5) / 4 - 0.5
    sampled = knots @ sampling_rows(places, 6, 9).T
    # Between knots that lie on lines through the four values: exact but beside their corners.
    detail = (plain(lr) - lr.repeat_interleave(4, dim=4)).abs().max()
    assert (sampled - plain(lr)).abs().max() < 0.3 * detail

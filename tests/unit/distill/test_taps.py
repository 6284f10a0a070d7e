"""FeatureTaps: what hooks fetch, and that nothing outlives a step."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from medsr.distill import Distiller, FeatureTaps, build_term
from medsr.errors import UsageError
from medsr.networks import build_network


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 1))


def test_records_the_named_outputs() -> None:
    network = _network()
    taps = FeatureTaps(network, ["0", "1", "0"])
    x = torch.rand(1, 1, 3, 4, 5)
    with taps.record() as features:
        network(x)
    assert list(features) == ["0", "1"]
    assert torch.equal(features["0"], network[0](x))
    assert torch.equal(features["1"], network[0](x).relu())


def test_silent_outside_a_recording_and_each_recording_is_new() -> None:
    network = _network()
    taps = FeatureTaps(network, ["0"])
    with taps.record() as first:
        network(torch.rand(1, 1, 3, 3, 3))
    kept = first["0"]
    network(torch.rand(1, 1, 3, 3, 3))
    with taps.record() as second:
        pass
    assert first["0"] is kept
    assert second == {}


def test_nothing_is_kept_after_a_recording() -> None:
    network = _network()
    taps = FeatureTaps(network, ["0"])
    with taps.record() as features:
        network(torch.rand(1, 1, 3, 3, 3)).sum().backward()
    alive = weakref.ref(features["0"])
    del features
    gc.collect()
    assert alive() is None


def test_recording_ends_when_the_network_fails() -> None:
    network = _network()
    taps = FeatureTaps(network, ["0"])
    with pytest.raises(RuntimeError), taps.record() as features:
        network(torch.rand(1, 2, 3, 3, 3))
    network(torch.rand(1, 1, 3, 3, 3))
    assert features == {}


def test_remove_leaves_no_hook() -> None:
    network = _network()
    taps = FeatureTaps(network, ["0", "1"])
    assert sum(len(module._forward_hooks) for module in network.modules()) == 2
    taps.remove()
    assert sum(len(module._forward_hooks) for module in network.modules()) == 0


def test_a_copy_of_the_network_does_not_report_to_the_original() -> None:
    network = _network()
    taps = FeatureTaps(network, ["0"])
    twin = copy.deepcopy(network)
    with taps.record() as features:
        twin(torch.rand(1, 1, 3, 3, 3))
    assert features == {}


def test_refuses_unknown_places_and_modules_without_one_tensor() -> None:
    with pytest.raises(UsageError, match=r"'9' is no submodule of the student Sequential"):
        FeatureTaps(_network(), ["9"], "student")
    network = nn.Sequential(nn.LSTM(3, 3))
    taps = FeatureTaps(network, ["0"])
    with pytest.raises(UsageError, match="returns tuple"), taps.record():
        network(torch.rand(2, 1, 3))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_place_that_gives_nothing_is_told_before_the_first_step(role: str) -> None:
    networks = [build_network("RepPlain3D", (1, 1, 2), width=16, depth=2) for _ in range(2)]
    taps = {"student": "body.1", "teacher": "body.1"} | {role: "body"}
    with pytest.raises(UsageError, match=f"tap 'body' of the {role} gives nothing"):
        Distiller(networks[0], networks[1], [build_term("attention", **taps)])

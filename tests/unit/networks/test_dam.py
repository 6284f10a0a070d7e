"""The pair: one stem, two answers, and a student that stands alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medsr.errors import ModelError
from medsr.networks import DAM3D, RepPlain3D, build_network


def made(**options: object) -> DAM3D:
    torch.manual_seed(0)
    given = {"width": 32, "depth": 2, "student_width": 16, "student_depth": 3, "shared": 1}
    network = build_network("DAM3D", (1, 1, 2), **given | options)
    assert isinstance(network, DAM3D)
    return network


def rouse(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def test_the_trunk_adds_to_what_the_student_says() -> None:
    network = made().eval()
    rouse(network)
    lr = torch.rand(1, 1, 5, 6, 4)
    with torch.no_grad():
        alone, together = network.pupil(lr), network(lr)
        assert (together - alone).abs().max() > 1e-3
        for parameter in network.tail.parameters():
            parameter.zero_()
        torch.testing.assert_close(network(lr), alone)


def test_both_learn_through_the_stem() -> None:
    network = made()
    rouse(network)
    network(torch.rand(1, 1, 4, 4, 4)).square().mean().backward()
    stem = {id(p) for p in (*network.pupil.head.parameters(), *network.pupil.body[0].parameters())}
    with_trunk = {id(p): p.grad.clone() for p in network.parameters() if id(p) in stem}
    network.zero_grad()
    network.pupil(torch.rand(1, 1, 4, 4, 4)).square().mean().backward()
    assert all(p.grad is None for p in network.body.parameters())
    assert all(gradient.abs().sum() > 0 for gradient in with_trunk.values())


def test_the_student_is_an_ordinary_network_of_its_own() -> None:
    network = made(fold=(2, 2, 1)).eval()
    rouse(network)
    student = network.student().eval()
    assert type(student) is RepPlain3D
    again = build_network("RepPlain3D", (1, 1, 2), **network.student_options()).eval()
    again.load_state_dict(student.state_dict())
    lr = torch.rand(1, 1, 5, 6, 4)
    with torch.no_grad():
        torch.testing.assert_close(again(lr), network.pupil(lr), rtol=1e-4, atol=1e-5)
    ours = {p.data_ptr() for p in network.parameters()}
    assert not any(p.data_ptr() in ours for p in student.parameters())


@pytest.mark.parametrize("shared", [-1, 3])
def test_a_stem_must_leave_the_student_something(shared: int) -> None:
    with pytest.raises(ModelError, match=f"shared is {shared}"):
        made(shared=shared)
    with pytest.raises(ModelError, match="depth is 0"):
        made(depth=0)

"""Mutual learning: both directions, each with its own gradient, and a peer that stays behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medsr.batch import Batch
from medsr.distill import Distiller, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D

PEER = {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}}


def made(**options: Any) -> tuple[Distiller, Any]:
    torch.manual_seed(2)
    student = RepPlain3D((1, 1, 2), width=16, depth=1)
    term = build_term("mutual", **{"peer": PEER} | options)
    distiller = Distiller(student, None, [term])
    with torch.no_grad():
        for parameter in distiller.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return distiller, term


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand((2, 1, 6, 5, 4), generator=generator)
    return Batch(lr, torch.rand((2, 1, 6, 5, 8), generator=generator))


def gradients(network: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in network.parameters()]


def test_each_learns_from_the_other_and_the_peer_from_the_truth(batch: Batch) -> None:
    distiller, term = made(truth=2.0)
    assert term.needs_teacher is False
    result = distiller(batch)
    result.losses["mutual"].backward()
    found = gradients(distiller.student), gradients(term.peer)
    distiller.zero_grad()

    ours, theirs = distiller.student(batch.lr), term.peer(batch.lr)
    apart = (ours - theirs.detach()).abs().mean()
    peers = (theirs - ours.detach()).abs().mean() + 2 * (theirs - batch.hr).abs().mean()
    torch.testing.assert_close(result.losses["mutual"], apart + peers)
    apart.backward()
    peers.backward()
    for got, network in zip(found, (distiller.student, term.peer), strict=True):
        for gradient, wanted in zip(got, gradients(network), strict=True):
            torch.testing.assert_close(gradient, wanted)
    assert any(gradient.abs().sum() > 0 for gradient in found[0])


def test_the_peer_is_trained_but_no_part_of_the_student(batch: Batch) -> None:
    distiller, term = made()
    trained = {id(p) for p in distiller.trainable_parameters()}
    assert {id(p) for p in term.peer.parameters()} <= trained
    assert not any("peer" in name for name in distiller.student.state_dict())
    assert distiller.student.state_dict().keys() == (
        RepPlain3D((1, 1, 2), width=16, depth=1).state_dict().keys()
    )


def test_a_peer_of_the_same_kind_starts_elsewhere() -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=2)
    term: Any = build_term("mutual", peer=PEER)
    Distiller(student, None, [term])
    assert not torch.equal(student.head.weight, term.peer.head.weight)


def test_it_is_finite_under_bf16(batch: Batch) -> None:
    distiller, _ = made(loss="charbonnier", epsilon=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(batch).losses["mutual"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in distiller.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peer": {"name": "Fog"}}, "network 'Fog' is unknown"),
        ({"peer": {}}, "peer: give the name of a network"),
        ({"peer": PEER | {"optoins": {}}}, "peer.optoins: unknown key"),
        ({"peer": PEER | {"options": [16]}}, "a mapping of options"),
        ({"peer": PEER | {"options": {"width": 20}}}, "multiple of 16"),
        ({"truth": 0.0}, "truth is 0"),
        ({"loss": "fog"}, "loss 'fog' is unknown"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(**options)
    assert "\n" not in str(caught.value)

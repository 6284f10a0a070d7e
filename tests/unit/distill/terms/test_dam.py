"""Domain-aware attention: the formula, the normalisation, the adversary, and the pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, build_term
from medsr.distill.terms.dam import DomainAttention
from medsr.errors import UsageError
from medsr.networks import DAM3D, RepPlain3D, ResNet3D

OPTIONS: dict[str, Any] = {"student": "body.1", "teacher": "fuse", "domains": ["MR/T1w", "CT"]}
PAIR: dict[str, Any] = {"student": "pupil.body.2", "teacher": "body.1", "pair": True}


def rouse(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def made(**options: Any) -> tuple[Distiller, Any]:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=2, branches=False)
    teacher = ResNet3D((1, 1, 2), width=32, blocks=1)
    term = build_term("dam", **OPTIONS | options)
    distiller = Distiller(student, teacher, [term])
    rouse(distiller)
    rouse(teacher)
    return distiller, term


def pair(**options: Any) -> tuple[Distiller, Any]:
    torch.manual_seed(0)
    network = DAM3D((1, 1, 2), width=32, depth=2, student_width=16, student_depth=3, shared=1)
    term = build_term("dam", **PAIR | options)
    distiller = Distiller(network, None, [term])
    rouse(distiller)
    return distiller, term


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand((2, 1, 8, 6, 4), generator=generator)
    hr = torch.rand((2, 1, 8, 6, 8), generator=generator)
    return Batch(lr, hr, ("MR/T1w", "CT"))


def reached(network: nn.Module) -> bool:
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_attention_equals_numpy() -> None:
    attention = DomainAttention(3, hidden=5, domains=["CT"], floor=0.2)
    rouse(attention)
    ours, theirs = random(2, 3, 4, 3, 2, seed=1), random(2, 3, 4, 3, 2, seed=2)
    with torch.no_grad():
        found = attention(ours, theirs, ("CT", "PET")).numpy()
    values = {name: value.detach().double().numpy() for name, value in attention.named_parameters()}
    both = np.concatenate([theirs.numpy(), ours.numpy()], axis=1)
    fused = np.einsum("oi,bixyz->boxyz", values["fuse.weight"][:, :, 0, 0, 0], both)
    fused += values["fuse.bias"][:, None, None, None]
    table = values["modulation.weight"][[1, 0]][..., None, None, None]  # PET is unknown
    u = np.maximum((1 + table[:, :5]) * fused + table[:, 5:], 0)
    gate = np.einsum("oi,bixyz->boxyz", values["gate.weight"][:, :, 0, 0, 0], u)
    gate = 1 / (1 + np.exp(-gate - values["gate.bias"]))
    expected = 0.2 + 0.8 * gate / gate.mean(axis=(1, 2, 3, 4), keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_attention_cannot_vanish() -> None:
    attention = DomainAttention(4, floor=0.25)
    ours, theirs = random(2, 4, 6, 6, 4, seed=1), random(2, 4, 6, 6, 4, seed=2)
    error = (ours - theirs).abs()
    optimiser = torch.optim.Adam(attention.parameters(), lr=0.05)
    before = float((attention(ours, theirs) * error).mean().detach())
    for _ in range(60):
        optimiser.zero_grad()
        loss = (attention(ours, theirs) * error).mean()
        loss.backward()
        optimiser.step()
    after = attention(ours, theirs).detach()
    torch.testing.assert_close(after.mean(dim=(1, 2, 3, 4)), torch.ones(2))
    assert float(after.min()) >= 0.25
    assert 0.25 * float(error.mean()) < float((after * error).mean()) < before


def test_domains_have_an_attention_of_their_own() -> None:
    attention = DomainAttention(3, domains=["MR/T1w", "CT"])
    ours, theirs = random(1, 3, 4, 4, 4, seed=1), random(1, 3, 4, 4, 4, seed=2)
    with torch.no_grad():
        assert torch.equal(attention(ours, theirs, ["CT"]), attention(ours, theirs, ["MR/T1w"]))
        rouse(attention)
        maps = [attention(ours, theirs, names) for names in (["CT"], ["MR/T1w"], ["PET"], [])]
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
    assert torch.equal(maps[2], maps[3])


def test_it_is_zero_when_the_features_agree() -> None:
    features = random(2, 4, 4, 4, 4, seed=3)
    same = Activations(features[:, :1], {"s": features, "t": features})
    term: Any = build_term("dam", student="s", teacher="t")
    term.setup(same, same)
    empty = Batch(torch.zeros(1), torch.zeros(1))
    assert term(same, same, empty).item() == 0.0
    other = Activations(features[:, :1], {"s": features.flip(2), "t": features})
    assert term(other, same, empty).item() > 0.1


def test_the_gradient_reaches_student_and_term_alone(batch: Batch) -> None:
    distiller, term = made()
    result = distiller(batch)
    assert result.adversaries == {}
    result.losses["dam"].backward()
    assert reached(distiller.student)
    assert reached(term.projection)
    assert reached(term.attention)
    assert not reached(distiller.teacher)
    assert distiller.student.tail.weight.grad is None


def test_the_discriminator_plays_against_the_student(batch: Batch) -> None:
    distiller, term = made(adversarial=0.1, learning_rate=1e-3)
    assert term.adversary_learning_rate == 1e-3
    result = distiller(batch)
    result.losses["dam"].backward()
    assert reached(distiller.student)
    assert not reached(term.adversary)
    distiller.zero_grad()
    result = distiller(batch)
    result.adversaries["dam"].backward()
    assert reached(term.adversary)
    assert not reached(distiller.student)
    assert not reached(term.projection)
    trained = {id(p) for p in distiller.trainable_parameters()}
    assert not trained & {id(p) for p in term.adversary.parameters()}


def test_a_pair_learns_together(batch: Batch) -> None:
    distiller, _ = pair(truth=0.0)
    network: Any = distiller.student
    distiller(batch).losses["dam"].backward()
    # The teacher's trunk is what is imitated, and moves for no imitation.
    assert not reached(network.body)
    assert not reached(network.tail)
    assert reached(network.pupil.body)
    assert not reached(network.pupil.tail)

    distiller, _ = pair(truth=1.0)
    network = distiller.student
    alone = float(pair(truth=0.0)[0](batch).losses["dam"].detach())
    loss = distiller(batch).losses["dam"]
    with torch.no_grad():
        own = (network.pupil(batch.lr) - batch.hr).abs().mean()
    assert loss.item() == pytest.approx(alone + float(own), rel=1e-5)
    loss.backward()
    assert reached(network.pupil.tail)


def test_nothing_of_the_term_is_in_the_network() -> None:
    distiller, term = pair(adversarial=0.1)
    names = distiller.student.state_dict()
    assert not any("attention" in name or "adversary" in name for name in names)
    assert not any("pupil" in name for name in term.state_dict())


@pytest.mark.parametrize("build", [made, pair])
def test_it_is_finite_under_bf16(batch: Batch, build: Any) -> None:
    distiller, _ = build(adversarial=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = distiller(batch)
    loss = result.losses["dam"]
    (loss + result.adversaries["dam"]).backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in distiller.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"floor": 1.0}, "floor is 1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"adversarial": -1.0}, "adversarial is -1"),
        ({"learning_rate": 0.0}, "learning_rate 0"),
        ({"student": "body.9"}, "'body.9' is no submodule of the student"),
        ({"teacher": "body.9"}, "'body.9' is no submodule of the teacher"),
        ({"pair": True, "teacher": "body.0"}, "pair needs a network that holds its student"),
        ({"loss": "fog"}, "loss 'fog' is unknown"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(**options)
    assert "\n" not in str(caught.value)

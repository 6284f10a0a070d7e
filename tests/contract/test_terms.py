"""What every distillation term of the table promises to the distiller and the trainer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Distiller, build_term
from medsr.distill.terms import TERMS
from medsr.networks import SRNetwork, build_network

SCALE = (1, 1, 2)
TAPS = {"student": "body.1", "teacher": "body.2"}

# Every term, and variants that take another path through the code.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, dict(TERMS.find(name).small)) for name in TERMS},
    "adversarial-r1": ("adversarial", {"width": 4, "strides": 1, "real": "both", "r1": 0.1}),
    "affinity-softmax": ("affinity", {"temperature": 0.5, **TAPS}),
    "confidence-views": ("confidence", {"sigma": "views", "views": 4}),
    "contrastive-input": ("contrastive", {"negatives": "input"}),
    "output-views": ("output", {"views": 8, "loss": "charbonnier"}),
    "robust-noise": ("robust", {"attack": "noise", "noise": "rician"}),
    "vid-laplace": ("vid", {"distribution": "laplace", "hidden": 8, **TAPS}),
}
every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))


def _rouse(network: nn.Module, size: float) -> None:
    """Give every parameter a value, so that no gradient is zero because a tail starts at zero."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn_like(parameter))


def _distiller(variant: str) -> Distiller:
    name, options = VARIANTS[variant]
    torch.manual_seed(0)
    head = TERMS.find(name).head
    student = build_network(
        "RepPlain3D", SCALE, width=16, depth=2, branches=["identity"], head=head
    )
    teacher = build_network("RepPlain3D", SCALE, width=32, depth=3, branches=False)
    _rouse(student, 0.05)
    _rouse(teacher, 0.002)  # nearly right, so that a student can be less sure than it
    return Distiller(student, teacher, [build_term(name, **copy.deepcopy(options))])


def _batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand((2, 1, 8, 8, 4), generator=generator)
    hr = lr.repeat_interleave(2, dim=4) + 0.01 * torch.randn((2, 1, 8, 8, 8), generator=generator)
    return Batch(lr, hr, ("MR/T1w", "MR/T2w"))


def _step(distiller: Distiller, optimiser: torch.optim.Optimizer, number: int) -> list[float]:
    """Take a step with what random numbers it needs drawn from the step's own seed."""
    torch.manual_seed(100 + number)
    result = distiller(_batch(number))
    losses = [*result.losses.values(), *result.adversaries.values()]
    optimiser.zero_grad()
    torch.stack(losses).sum().backward()
    optimiser.step()
    return [float(loss.detach()) for loss in losses]


def _optimiser(distiller: Distiller) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in distiller.parameters() if p.requires_grad], lr=1e-3)


def _values(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


@every_variant
def test_the_teacher_is_the_same_after_training(variant: str) -> None:
    distiller = _distiller(variant).train()
    teacher = distiller.teacher
    assert teacher is not None
    before = _values(teacher)
    optimiser = _optimiser(distiller)
    for number in range(2):
        _step(distiller, optimiser, number)
    assert all(torch.equal(before[name], value) for name, value in _values(teacher).items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    ours = {id(p) for p in distiller.parameters()}
    assert not ours & {id(p) for p in teacher.parameters()}


@every_variant
def test_the_students_state_holds_the_student_alone(variant: str) -> None:
    distiller = _distiller(variant)
    student = distiller.student
    assert isinstance(student, SRNetwork)
    head = TERMS.find(VARIANTS[variant][0]).head
    bare = build_network("RepPlain3D", SCALE, width=16, depth=2, branches=["identity"], head=head)
    assert student.state_dict().keys() == bare.state_dict().keys()
    own = {id(p) for p in student.parameters()}
    for name, parameter in distiller.terms.named_parameters():
        assert id(parameter) not in own, name


@every_variant
def test_losses_are_finite_scalars_under_bf16_autocast(variant: str) -> None:
    distiller = _distiller(variant).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = distiller(_batch())
    losses = [*result.losses.values(), *result.adversaries.values()]
    assert losses
    for loss in losses:
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
    torch.stack(losses).sum().backward()
    gradients = [p.grad for p in distiller.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@every_variant
def test_the_gradient_reaches_the_student(variant: str) -> None:
    distiller = _distiller(variant).train()
    # What a term builds for itself may start at zero and let nothing through at first.
    _step(distiller, optimiser := _optimiser(distiller), 0)
    optimiser.zero_grad()
    result = distiller(_batch())
    torch.stack(list(result.losses.values())).sum().backward()
    reached = [
        name
        for name, parameter in distiller.student.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    ]
    assert any(name.startswith("body") for name in reached)
    # No loss of the student's moves its adversary.
    for adversary in distiller.adversaries.values():
        assert all(p.grad is None for p in adversary.parameters())


@every_variant
def test_adversaries_learn_without_moving_the_student(variant: str) -> None:
    distiller = _distiller(variant).train()
    result = distiller(_batch())
    if not distiller.adversaries:
        assert result.adversaries == {}
        return
    torch.stack(list(result.adversaries.values())).sum().backward()
    assert all(p.grad is None for p in distiller.student.parameters())
    for adversary in distiller.adversaries.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adversary.parameters())


@every_variant
def test_training_goes_on_from_a_state(variant: str) -> None:
    ours = _distiller(variant).train()
    optimiser = _optimiser(ours)
    _step(ours, optimiser, 0)
    state, moments = copy.deepcopy(ours.state_dict()), copy.deepcopy(optimiser.state_dict())
    expected = [_step(ours, optimiser, number) for number in (1, 2)]

    other = _distiller(variant).train()
    other.load_state_dict(state, strict=True)
    resumed = _optimiser(other)
    resumed.load_state_dict(moments)
    assert [_step(other, resumed, number) for number in (1, 2)] == expected


@every_variant
def test_the_terms_parameters_are_there_from_the_start(variant: str) -> None:
    distiller = _distiller(variant)
    before = [name for name, _ in distiller.named_parameters()]
    optimiser = _optimiser(distiller)
    _step(distiller, optimiser, 0)
    assert [name for name, _ in distiller.named_parameters()] == before

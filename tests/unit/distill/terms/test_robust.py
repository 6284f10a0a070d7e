"""The robust term: what it disturbs, what it compares, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.degrade.noise import add_rician
from medsr.distill import Activations, Distiller
from medsr.distill.terms.robust import RobustTerm
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D


class Spy(nn.Module):
    """A student that repeats slices and remembers what it was shown."""

    scale = (1, 1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1)
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.seen: list[Tensor] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.seen.append(lr.detach().clone())
        return self.gain * self.norm(lr).repeat_interleave(2, dim=4)


def _lr() -> Tensor:
    return torch.rand((2, 1, 6, 5, 4), generator=torch.Generator().manual_seed(1))


def _batch() -> Batch:
    return Batch(_lr(), torch.zeros(2, 1, 6, 5, 8))


def _answer(term: RobustTerm, student: nn.Module, target: Tensor) -> Tensor:
    term.bind(student, None)
    output = Activations(target)
    value: Tensor = term(output, output, _batch())
    return value


def _target() -> Tensor:
    return torch.rand((2, 1, 6, 5, 8), generator=torch.Generator().manual_seed(2))


def test_attacks_stay_in_the_box_and_hurt() -> None:
    values = {}
    for attack, options in {
        "none": {"radius": 0.0},
        "pgd": {"radius": 0.05, "steps": 4},
        "noise": {"attack": "noise", "sigma": 0.05 / 3**0.5},
    }.items():
        student = Spy()
        values[attack] = _answer(RobustTerm(**options), student, _target()).item()
        moved = (student.seen[-1] - _lr()).abs()
        if attack != "noise":
            assert moved.max() <= options["radius"] + 1e-6
        else:
            assert moved.square().mean().sqrt() == pytest.approx(options["sigma"], rel=0.15)
    # The attack finds far worse than noise of the same strength.
    assert values["pgd"] > values["noise"] + 0.01
    assert values["pgd"] > values["none"] + 0.03


def test_undisturbed_and_equal_is_zero() -> None:
    student = Spy().eval()
    target = student(_lr()).detach()
    assert _answer(RobustTerm(radius=0.0), student, target).item() == 0.0
    assert _answer(RobustTerm(attack="noise", sigma=0.0), student, target).item() == 0.0


def test_statistics_and_modes_of_the_student_are_left_alone() -> None:
    student = Spy().train()
    student.norm.eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    _answer(RobustTerm(steps=2), student, _target())
    student.norm.train()
    _answer(RobustTerm(attack="noise"), student, _target())
    assert all(torch.equal(value, before[k]) for k, value in student.state_dict().items())
    assert [module.training for module in student.modules()] == [True, True]


def test_gradients_reach_the_student_once() -> None:
    student = Spy().eval()
    term = RobustTerm(steps=3)
    _answer(term, student, _target()).backward()
    shown = student.seen[-1]
    (expected,) = torch.autograd.grad((student(shown) - _target()).abs().mean(), student.gain)
    assert student.gain.grad is not None
    torch.testing.assert_close(student.gain.grad, expected)
    assert not list(term.parameters())
    assert not list(term.children())[1:]  # the loss alone; the student is no child


@pytest.mark.parametrize("options", [{"steps": 2}, {"attack": "noise"}, {"noise": "rician"}])
def test_the_global_generator_decides(options: dict[str, Any]) -> None:
    student, term = Spy(), RobustTerm(**options)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = _answer(term, student, _target()).item()
    second = _answer(term, student, _target()).item()
    torch.set_rng_state(state)
    assert _answer(term, student, _target()).item() == first
    assert first != second


def test_rician_noise_is_that_of_the_degradations() -> None:
    student = Spy()
    term = RobustTerm(attack="noise", noise="rician", sigma=0.1)
    torch.manual_seed(3)
    _answer(term, student, _target())
    torch.manual_seed(3)
    torch.rand(())  # the level, drawn first
    seed = int(torch.randint(2**31 - 1, ()))
    assert torch.equal(student.seen[-1], add_rician(_lr(), 0.1, seed))


@pytest.mark.parametrize("attack", ["pgd", "noise"])
def test_trains_under_bf16(attack: str) -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=1)
    teacher = ResNet3D((1, 1, 2), width=16, blocks=1)
    with torch.no_grad():
        for parameter in (*student.parameters(), *teacher.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    distiller = Distiller(student, teacher, [RobustTerm(attack=attack)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(_batch()).losses["robust"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert student.head.weight.grad.abs().sum() > 0
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_needs_to_be_bound() -> None:
    with pytest.raises(RuntimeError, match="bind"):
        RobustTerm()(Activations(_target()), Activations(_target()), _batch())


@pytest.mark.parametrize(
    "options",
    [
        {"attack": "fgsm"},
        {"noise": "pink"},
        {"radius": -0.1},
        {"steps": 0},
        {"sigma": (0.2, 0.1)},
        {"correlation_voxels": -1},
        {"loss": "fog"},
    ],
)
def test_wrong_options_are_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        RobustTerm(**options)
    assert "\n" not in str(caught.value)

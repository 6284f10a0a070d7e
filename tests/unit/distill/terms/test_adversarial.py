"""The adversarial term: who moves whom, and that the discriminator learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from medsr.batch import Batch
from medsr.distill import Activations, Distiller
from medsr.distill.terms.adversarial import AdversarialTerm
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D


def _term(**options: Any) -> AdversarialTerm:
    torch.manual_seed(0)
    return AdversarialTerm(**{"width": 4, **options})


def _random(seed: int) -> Tensor:
    return torch.rand((2, 1, 8, 8, 8), generator=torch.Generator().manual_seed(seed))


def _batch() -> Batch:
    return Batch(_random(1)[..., :4], _random(2))


def _distiller(term: AdversarialTerm) -> Distiller:
    torch.manual_seed(1)
    student = RepPlain3D((1, 1, 2), width=16, depth=1)
    teacher = ResNet3D((1, 1, 2), width=16, blocks=1)
    with torch.no_grad():
        for parameter in (*student.parameters(), *teacher.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Distiller(student, teacher, [term])


@pytest.mark.parametrize("r1", [0.0, 0.5])
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_stay_apart(r1: float, bf16: bool) -> None:
    term = _term(r1=r1)
    distiller = _distiller(term)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        result = distiller(_batch())
    ours, theirs = result.losses["adversarial"], result.adversaries["adversarial"]
    student, critic = [*distiller.student.parameters()], [*term.adversary.parameters()]
    ours.backward(retain_graph=True)
    assert all(p.grad is None for p in critic)
    assert all(torch.isfinite(p.grad).all() for p in student)
    assert student[0].grad.abs().sum() > 0
    distiller.zero_grad()
    theirs.backward()
    assert all(p.grad is None for p in student)
    assert all(torch.isfinite(p.grad).all() for p in critic)
    assert any(p.grad.abs().sum() > 0 for p in critic)
    assert ours.dtype == theirs.dtype == torch.float32
    assert all(p.grad is None for p in distiller.teacher.parameters())


@pytest.mark.parametrize("loss", ["hinge", "least_squares"])
@pytest.mark.parametrize("spectral", [False, True])
def test_the_discriminator_learns_to_tell_smooth_from_rough(loss: str, spectral: bool) -> None:
    term = _term(loss=loss, spectral=spectral)
    optimiser = torch.optim.Adam(term.adversary.parameters(), lr=5e-3)
    rough = Activations(_random(3))
    smooth = Activations(torch.full((2, 1, 8, 8, 8), 0.5))
    batch, values = _batch(), []
    for _ in range(60):
        value = term.adversary_loss(smooth, rough, batch)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
    term.adversary.eval()
    assert term.adversary(rough.output).mean() > term.adversary(smooth.output).mean() + 0.5
    # Whoever is told apart pays more than whoever is not.
    assert term(smooth, rough, batch) > term(rough, rough, batch)


def test_losses_are_the_formulas() -> None:
    batch, ours, theirs = _batch(), Activations(_random(4)), Activations(_random(5))
    hinge, square = _term(), _term(loss="least_squares")
    for term in (hinge, square):
        term.adversary.eval()  # no further power iteration
    made, real = (hinge.adversary(a.output).detach().numpy() for a in (ours, theirs))
    truth = hinge.adversary(batch.hr).detach().numpy()
    assert hinge(ours, theirs, batch).item() == pytest.approx(-made.mean(), rel=1e-4)
    assert square(ours, theirs, batch).item() == pytest.approx(
        0.5 * ((made - 1) ** 2).mean(), rel=1e-4
    )
    fooled = (1 + made).clip(min=0).mean()
    expected = {
        "teacher": (1 - real).clip(min=0).mean(),
        "hr": (1 - truth).clip(min=0).mean(),
        "both": 0.5 * ((1 - real).clip(min=0).mean() + (1 - truth).clip(min=0).mean()),
    }
    for shown, value in expected.items():
        hinge.real = shown
        loss = hinge.adversary_loss(ours, theirs, batch)
        assert loss.item() == pytest.approx(fooled + value, rel=1e-4)
    loss = square.adversary_loss(ours, theirs, batch)
    expected_square = 0.5 * (((real - 1) ** 2).mean() + (made**2).mean())
    assert loss.item() == pytest.approx(expected_square, rel=1e-4)


def test_r1_is_the_slope_at_real_volumes() -> None:
    batch, ours, theirs = _batch(), Activations(_random(4)), Activations(_random(5))
    plain, sloped = _term(spectral=False), _term(spectral=False, r1=3.0)
    volume = theirs.output.clone().requires_grad_()
    judged = plain.adversary(volume)
    (slope,) = torch.autograd.grad(judged.sum(), volume)
    expected = 0.5 * 3.0 * slope.square().sum().item() / judged.numel()
    values = [term.adversary_loss(ours, theirs, batch).item() for term in (sloped, plain)]
    assert values[0] - values[1] == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-3


def test_only_hr_needs_no_teacher() -> None:
    assert _term().needs_teacher
    assert _term(real="both").needs_teacher
    term = _term(real="hr")
    distiller = Distiller(RepPlain3D((1, 1, 2), width=16, depth=1), None, [term])
    result = distiller(_batch())
    assert set(result.adversaries) == {"adversarial"}
    theirs = {id(p) for p in term.adversary.parameters()}
    assert not theirs & {id(p) for p in distiller.trainable_parameters()}


@pytest.mark.parametrize(
    "options",
    [{"real": "fake"}, {"loss": "log"}, {"r1": -1}, {"learning_rate": 0}, {"strides": 0}],
)
def test_wrong_options_are_one_line(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="adversarial term") as caught:
        AdversarialTerm(**options)
    assert "\n" not in str(caught.value)

"""Entropy and confidence: against torch.distributions, and who has to say what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.distributions import Normal

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D, SRNetwork

SCALE = (1, 1, 2)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _batch() -> Batch:
    return Batch(_random(2, 1, 6, 5, 4, seed=1), _random(2, 1, 6, 5, 8, seed=2))


def _rouse(network: SRNetwork) -> SRNetwork:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def _student(head: Any = "gaussian", seed: int = 1) -> SRNetwork:
    torch.manual_seed(seed)
    return _rouse(RepPlain3D(SCALE, width=16, depth=1, head=head))


def _teacher(head: Any = "gaussian", seed: int = 2) -> SRNetwork:
    torch.manual_seed(seed)
    return _rouse(ResNet3D(SCALE, width=16, blocks=1, head=head))


def _value(term: str, student: nn.Module, teacher: nn.Module, **options: Any) -> Tensor:
    distiller = Distiller(student, teacher, [build_term(term, **options)])
    loss: Tensor = distiller(_batch()).losses[term]
    distiller.close()
    return loss


def test_excess_entropy_equals_torch_distributions() -> None:
    student, teacher = _student(), _teacher()
    value = _value("entropy", student, teacher)
    with torch.no_grad():
        ours, theirs = (Normal(*n.distribution(_batch().lr)) for n in (student, teacher))
    expected = (ours.entropy() - theirs.entropy()).relu().mean()
    assert expected > 0.01
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_student_as_sure_as_its_teacher_or_surer_loses_nothing() -> None:
    student, teacher = _student(), _student()
    assert _value("entropy", student, teacher).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        student.tail.bias[2:].sub_(1.0)  # type: ignore[union-attr,operator,index]
    assert _value("entropy", student, teacher).item() == pytest.approx(0, abs=1e-6)
    assert _value("entropy", teacher, student).item() > 0.1


def test_the_teachers_local_error_stands_in_for_its_head() -> None:
    student, teacher = _student(), _teacher("value")
    value = _value("entropy", student, teacher, sigma="error", window=1)
    batch = _batch()
    with torch.no_grad():
        error = (teacher(batch.lr) - batch.hr).abs().clamp_min(1e-3)
        ours = Normal(*student.distribution(batch.lr)).entropy()
    expected = (ours - Normal(0.0, error).entropy()).relu().mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_local_error_is_a_root_mean_square_over_the_cube() -> None:
    from medsr.distill.terms._confidence import TeacherSigma

    batch = _batch()
    told = _random(2, 1, 6, 5, 8, seed=5)
    found = TeacherSigma("entropy", "error", 3, 2)(Activations(told), batch)
    squares = ((told - batch.hr) ** 2).numpy()
    mean = ndimage.uniform_filter(squares, size=(1, 1, 3, 3, 3), mode="constant")
    inside = (slice(None), slice(None), *(slice(1, -1),) * 3)
    assert found.numpy()[inside] == pytest.approx(mean[inside] ** 0.5, rel=1e-4)


def test_views_tell_where_the_teacher_disagrees_with_itself() -> None:
    student, teacher = _student(), _teacher("value")
    batch = _batch()
    term = build_term("entropy", sigma="views", views=3)
    distiller = Distiller(student, teacher, [term])
    told = distiller._ask_teacher(batch, {3}, Activations(batch.hr))[3]
    with torch.no_grad():
        answers = [teacher(batch.lr)]
        answers += [teacher(batch.lr.flip(axis)).flip(axis) for axis in (2, 3)]
    stack = torch.stack(answers)
    assert told.spread is not None
    torch.testing.assert_close(told.output, stack.mean(0))
    torch.testing.assert_close(told.spread, stack.std(0, correction=0), atol=1e-6, rtol=1e-3)
    ours = Normal(*student.distribution(batch.lr)).entropy()
    floor = Normal(0.0, told.spread.clamp_min(1e-3)).entropy()
    value = distiller(batch).losses["entropy"]
    assert value.item() == pytest.approx((ours - floor).relu().mean().item(), rel=1e-3)


def test_confidence_moves_weight_from_doubtful_voxels_to_sure_ones() -> None:
    student, teacher = _student("value"), _teacher()
    batch = _batch()
    with torch.no_grad():
        mean, sigma = teacher.distribution(batch.lr)
        difference = (student(batch.lr) - mean).abs()
    weight = (-2.0 * sigma / sigma.mean()).exp()
    expected = (weight * difference).sum() / weight.sum()
    value = _value("confidence", student, teacher, sigma="head", sharpness=2.0)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    even = _value("confidence", student, teacher, sigma="error", sharpness=0.0)
    assert even.item() == pytest.approx(difference.mean().item(), rel=1e-5)


def test_confidence_turns_away_from_where_the_teacher_is_wrong() -> None:
    batch = _batch()
    told = batch.hr.clone()
    told[..., :4] += 0.5
    term = build_term("confidence", sigma="error", window=1, sharpness=3.0)
    half = torch.zeros_like(told)
    half[..., :4] = 0.1
    wrong = term(Activations(told + half), Activations(told), batch)
    right = term(Activations(told + 0.1 - half), Activations(told), batch)
    assert wrong.item() < 0.01 * right.item()
    assert term(Activations(told), Activations(told), batch).item() == 0


@pytest.mark.parametrize("name", ["entropy", "confidence"])
@pytest.mark.parametrize("sigma", ["head", "error", "views"])
@pytest.mark.parametrize("head", ["gaussian", "bins"])
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_reach_the_student_alone(name: str, sigma: str, head: str, bf16: bool) -> None:
    student, teacher = _student(head), _teacher(head)
    with torch.no_grad():  # a teacher that is sure of the interpolated scan
        for parameter in teacher.tail.parameters():  # type: ignore[union-attr]
            parameter.zero_()
        teacher.tail.bias[2:4] = -3.0  # type: ignore[union-attr,operator,index]
    batch = Batch(_batch().lr, teacher(_batch().lr).detach())
    term = build_term(name, sigma=sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        value = Distiller(student, teacher, [term])(batch).losses[name]
    assert value.dtype == torch.float32
    value.backward()
    gradients = [p.grad for p in student.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    assert all(p.grad is None for p in teacher.parameters())
    assert [*term.parameters()] == []


@pytest.mark.parametrize(
    ("name", "options", "heads", "words"),
    [
        ("entropy", {"sigma": "luck"}, "gg", "'luck'; choose head, error, views"),
        ("entropy", {"window": 4}, "gg", "window is 4"),
        ("entropy", {"views": 1}, "gg", "views is 1"),
        ("entropy", {}, "vg", "student gives values"),
        ("entropy", {}, "gv", "teacher gives values .* sigma: error or views"),
        ("confidence", {"sigma": "head"}, "vv", "teacher gives values"),
        ("confidence", {"sharpness": -1}, "vv", "sharpness is -1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    name: str, options: dict[str, Any], heads: str, words: str
) -> None:
    student, teacher = ({"g": "gaussian", "v": "value"}[letter] for letter in heads)
    with pytest.raises(UsageError, match=words) as found:
        Distiller(_student(student), _teacher(teacher), [build_term(name, **options)])
    assert "\n" not in str(found.value)

"""Soft labels: against torch.distributions, and where a temperature has a meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from medsr.batch import Batch
from medsr.distill import Distiller, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D, SRNetwork
from medsr.networks.heads import BinnedReadout

SCALE = (1, 1, 2)
LR = torch.rand((2, 1, 5, 4, 3), generator=torch.Generator().manual_seed(1))
BATCH = Batch(LR, torch.zeros(2, 1, 5, 4, 6))
Spec = dict[str, Any]


def _rouse(network: SRNetwork) -> SRNetwork:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return network


def _student(seed: int = 1, **options: Any) -> SRNetwork:
    torch.manual_seed(seed)
    return _rouse(RepPlain3D(SCALE, width=16, depth=1, **{"head": "bins", **options}))


def _teacher(head: Any = "bins", **options: Any) -> SRNetwork:
    torch.manual_seed(2)
    return _rouse(ResNet3D(SCALE, width=16, blocks=1, head=head, **options))


def _value(student: SRNetwork, teacher: SRNetwork, **options: Any) -> Tensor:
    distiller = Distiller(student, teacher, [build_term("soft_label", **options)])
    loss: Tensor = distiller(BATCH).losses["soft_label"]
    distiller.close()
    return loss


def _said(network: SRNetwork) -> Tensor:
    """Log probabilities with the bins last."""
    seen: list[Tensor] = []
    assert isinstance(network.readout, BinnedReadout)
    handle = network.readout.register_forward_hook(lambda m, i, output: seen.append(output))
    with torch.no_grad():
        network(LR)
    handle.remove()
    return seen[0].movedim(1, -1)


@pytest.mark.parametrize("temperature", [None, 1.0, 4.0])
def test_divergence_of_histograms_equals_torch_distributions(temperature: float | None) -> None:
    student, teacher = _student(), _teacher()
    value = _value(student, teacher, temperature=temperature)
    t = temperature or 1.0
    ours, theirs = (Categorical(logits=_said(n) / t) for n in (student, teacher))
    expected = kl_divergence(theirs, ours).mean() * t**2
    assert expected > 1e-4
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)


def test_equal_networks_have_nothing_to_learn() -> None:
    assert _value(_student(), _student(), temperature=2.0).item() == pytest.approx(0, abs=1e-6)


def test_a_value_is_spread_over_the_bins() -> None:
    student, teacher = _student(), _teacher("value", interpolation="linear")
    value = _value(student, teacher, spread=0.05)
    said = _said(student)
    readout = student.readout
    assert isinstance(readout, BinnedReadout)
    with torch.no_grad():
        plain = student(LR)[:, 0] - (said.exp() * readout.centres).sum(-1)
        aim = (teacher(LR)[:, 0] - plain).numpy()
    edges = readout.edges.numpy().astype(float)
    edges[0], edges[-1] = -np.inf, np.inf
    label = np.diff(stats.norm.cdf(edges, aim[..., None], 0.05), axis=-1)
    expected = stats.entropy(label, said.exp().numpy(), axis=-1).mean()
    assert value.item() == pytest.approx(expected, rel=1e-3)


def test_a_gaussian_teacher_brings_its_own_width() -> None:
    student = RepPlain3D(SCALE, width=16, depth=1, head="bins")
    teacher = ResNet3D(SCALE, width=16, blocks=1, head="gaussian")
    # Fresh networks give the interpolated scan; a fresh histogram is 0.1 wide.
    values = {}
    for sigma, logit in ((0.1, 0.6931), (0.004, -1.38)):
        with torch.no_grad():
            teacher.tail.bias[2:] = logit
            assert teacher.distribution(LR)[1].mean().item() == pytest.approx(sigma, rel=0.03)
        values[sigma] = _value(student, teacher).item()
    assert values[0.1] < 0.01
    assert values[0.004] > 1


@pytest.mark.parametrize(
    ("head", "options"),
    [("bins", {"temperature": 2.0}), ("gaussian", {}), ("value", {"spread": 0.05})],
)
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_reach_the_student_alone(head: str, options: Spec, bf16: bool) -> None:
    student, teacher = _student(), _teacher(head)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        value = _value(student, teacher, **options)
    assert value.dtype == torch.float32
    value.backward()
    gradients = [p.grad for p in student.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "options", "words"),
    [
        ({}, {"head": "value"}, {"temperature": 2}, "temperature .* no meaning"),
        ({}, {"head": "gaussian"}, {"temperature": 2}, "temperature .* no meaning"),
        ({}, {"head": "value"}, {}, "give the option spread"),
        ({}, {}, {"spread": 0.1}, "leave out spread"),
        ({}, {}, {"temperature": 0}, "temperature is 0"),
        ({}, {}, {"spread": -1}, "spread is -1"),
        ({"head": "value"}, {}, {}, "student gives values"),
        ({"head": "gaussian"}, {}, {}, "head: bins"),
        ({"head": {"kind": "bins", "bins": 9}}, {}, {}, "are not the teacher's"),
        ({"interpolation": "linear"}, {}, {}, "one interpolation"),
    ],
)
def test_what_does_not_go_together_is_refused(
    student: Spec, teacher: Spec, options: Spec, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as found:
        Distiller(_student(**student), _teacher(**teacher), [build_term("soft_label", **options)])
    assert "\n" not in str(found.value)


def test_the_output_term_says_why_it_has_no_temperature() -> None:
    with pytest.raises(UsageError, match=r"no meaning for intensities; .*soft_label"):
        build_term("output", temperature=4.0)

"""Student branches: what they compute, what their gradient reaches, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Distiller, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, build_network

STUDENT = {"name": "RepPlain3D", "options": {"width": 16, "depth": 3, "branches": False}}
OPTIONS: dict[str, Any] = {"student": STUDENT, "taps": {"body.1": "body.0", "body.2": "body.1"}}


def rouse(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def made(**options: Any) -> tuple[Distiller, Any]:
    torch.manual_seed(3)
    network = RepPlain3D((1, 1, 2), width=32, depth=4, branches=False)
    term = build_term("student_branches", **OPTIONS | options)
    distiller = Distiller(network, None, [term])
    rouse(distiller)
    return distiller, term


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand((2, 1, 6, 5, 4), generator=generator)
    return Batch(lr, torch.rand((2, 1, 6, 5, 8), generator=generator))


def features_of(network: nn.Module, name: str, lr: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_hook(lambda *a: found.append(a[2]))
    network(lr)
    handle.remove()
    return found[0]


def test_a_branch_is_the_students_later_layers_on_projected_features(batch: Batch) -> None:
    distiller, term = made(truth=1.0, own=0.5)
    result = distiller(batch)
    expected = []
    for (place, own_place), branch in zip(term.taps.items(), term.branches, strict=True):
        kept = branch.network
        # The copy that starts after the tap, built by hand out of the same layers.
        x = torch.relu(branch.projection(features_of(distiller.student, place, batch.lr)))
        for layer in kept.body[int(own_place[-1]) + 1 :]:
            x = torch.relu(layer(x))
        detail = kept.tail(x).unflatten(1, (1, 2)).movedim(2, -1).flatten(-2)
        answer = batch.lr.repeat_interleave(2, dim=-1) + detail
        to_truth, to_own = (answer - batch.hr).abs(), (answer - result.output).abs()
        expected.append(to_truth.mean() + 0.5 * to_own.mean())
    assert expected[0].item() > 0.1
    torch.testing.assert_close(result.losses["student_branches"], sum(expected) / 2)


def test_the_gradient_reaches_the_network_up_to_its_taps_and_the_later_layers(
    batch: Batch,
) -> None:
    distiller, term = made(taps={"body.1": "body.1"})
    distiller(batch).losses["student_branches"].backward()
    reached = {
        name
        for name, parameter in distiller.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    branch = "terms.student_branches.branches.0"
    wanted = {"student.head", "student.body.0", "student.body.1", f"{branch}.projection"}
    wanted |= {f"{branch}.network.body.2", f"{branch}.network.tail"}
    assert reached == {f"{name}.{kind}" for name in wanted for kind in ("weight", "bias")}
    # What no gradient reaches is left to no optimiser.
    trained = {id(p) for p in distiller.trainable_parameters()}
    silent = term.branches[0].network.body[0].weight
    assert id(silent) not in trained


def test_its_own_output_is_a_fixed_target(batch: Batch) -> None:
    distiller, _ = made(truth=0.0)
    distiller(batch).losses["student_branches"].backward()
    assert distiller.student.tail.weight.grad is None
    assert distiller.student.body[1].weight.grad.abs().sum() > 0


def test_branches_stay_out_of_the_network(batch: Batch) -> None:
    distiller, _ = made()
    plain = RepPlain3D((1, 1, 2), width=32, depth=4, branches=False)
    assert distiller.student.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(distiller(batch).output, distiller.student(batch.lr))


def test_it_is_finite_under_bf16(batch: Batch) -> None:
    distiller, _ = made()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(batch).losses["student_branches"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in distiller.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": {}}, "taps is empty"),
        ({"taps": {"body.9": "body.0"}}, "'body.9' is no submodule of the student RepPlain3D"),
        ({"taps": {"body.1": "body.9"}}, "'body.9' is no submodule of the student"),
        ({"truth": -1.0}, "neither may be negative"),
        ({"truth": 0.0, "own": 0.0}, "nor both zero"),
        ({"taps": ["body.1"]}, "give a mapping"),
        ({"student": {"name": "Fog"}}, "network 'Fog' is unknown"),
        ({"student": STUDENT | {"width": 16}}, "student.width: unknown key"),
        ({"student": STUDENT | {"options": {"fog": 1}}}, "fog"),
        ({"student": STUDENT | {"options": {"fold": [2, 2, 1]}}}, "one fold"),
        ({"loss": "fog"}, "loss 'fog' is unknown"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        made(**options)
    assert "\n" not in str(caught.value)


def test_a_folded_student_learns_from_a_folded_network(batch: Batch) -> None:
    student = {"name": "RepPlain3D", "options": {"width": 16, "depth": 2, "fold": [2, 2, 1]}}
    network = build_network("ResNet3D", (1, 1, 2), width=16, blocks=2, fold=(2, 2, 1))
    term = build_term("student_branches", student=student, taps={"body.0": "body.0"})
    loss = Distiller(network, None, [term])(batch).losses["student_branches"]
    assert loss.isfinite()

"""The distiller as a whole, with the package's own networks."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, Tap, Term, build_term
from medsr.distill.self_ensemble import Transform, transforms_for
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D

SCALE = (1, 1, 2)


def _rouse(network: nn.Module, seed: int) -> None:
    """Give every parameter a value, so that no gradient is zero because a tail starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def _student() -> RepPlain3D:
    torch.manual_seed(1)
    student = RepPlain3D(SCALE, width=16, depth=2)
    _rouse(student, 1)
    return student


def _teacher() -> ResNet3D:
    torch.manual_seed(2)
    teacher = ResNet3D(SCALE, width=32, blocks=1)
    _rouse(teacher, 2)
    return teacher


def _distiller() -> Distiller:
    return Distiller(
        _student(),
        _teacher(),
        [
            build_term("output"),
            build_term("feature", student="body.0", teacher="body.0"),
            build_term("feature", student="body.1", teacher="fuse"),
        ],
    )


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    return Batch(
        torch.rand((2, 1, 5, 4, 3), generator=generator),
        torch.rand((2, 1, 5, 4, 6), generator=generator),
    )


def test_returns_the_student_output_and_named_losses() -> None:
    distiller = _distiller()
    lr = _batch().lr
    result = distiller(_batch())
    losses = result.losses
    assert torch.equal(result.output, distiller.student(lr))
    assert result.adversaries == {}
    assert list(losses) == ["output", "feature", "feature_2"]
    assert all(loss.dtype == torch.float32 and loss.ndim == 0 for loss in losses.values())
    expected = (distiller.student(lr) - distiller.teacher(lr)).abs().mean()
    assert losses["output"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_reach_student_and_projections_only() -> None:
    distiller = _distiller()
    before = {name: value.clone() for name, value in distiller.teacher.state_dict().items()}
    parameters = list(distiller.trainable_parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        losses = distiller(_batch()).losses
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    wanted = {id(p) for p in distiller.student.parameters()}
    wanted |= {id(p) for name, p in distiller.named_parameters() if "projection" in name}
    assert {id(p) for p in parameters} == wanted
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    assert all(p.grad is None and not p.requires_grad for p in distiller.teacher.parameters())
    for name, value in distiller.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_each_term_alone_moves_the_student() -> None:
    for term in (
        build_term("output"),
        build_term("feature", student="body.1", teacher="fuse"),
    ):
        distiller = Distiller(_student(), _teacher(), [term])
        losses = distiller(_batch()).losses
        losses[term.name].backward()
        assert distiller.student.head.weight.grad.abs().sum() > 0


def test_projections_exist_for_the_optimiser_and_not_in_the_students_state() -> None:
    distiller = _distiller()
    projections = [n for n, _ in distiller.named_parameters() if n.startswith("terms.")]
    assert projections == [
        "terms.feature.projection.weight",
        "terms.feature.projection.bias",
        "terms.feature_2.projection.weight",
        "terms.feature_2.projection.bias",
    ]
    assert distiller.terms["feature"].projection.weight.shape == (32, 16, 1, 1, 1)
    assert distiller.student.state_dict().keys() == _student().state_dict().keys()


def test_teacher_is_in_no_state_and_the_state_round_trips() -> None:
    distiller = _distiller()
    tensors = {value.data_ptr() for value in distiller.state_dict(keep_vars=True).values()}
    assert not tensors & {value.data_ptr() for value in distiller.teacher.parameters()}
    assert all(name.startswith(("student.", "terms.")) for name in distiller.state_dict())
    other = Distiller(
        RepPlain3D(SCALE, width=16, depth=2),
        _teacher(),
        [
            build_term("output"),
            build_term("feature", student="body.0", teacher="body.0"),
            build_term("feature", student="body.1", teacher="fuse"),
        ],
    )
    other.load_state_dict(distiller.state_dict())
    for ours, theirs in zip(
        distiller(_batch()).losses.values(), other(_batch()).losses.values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_teacher_stays_in_evaluation_mode() -> None:
    distiller = _distiller()
    assert not any(module.training for module in distiller.teacher.modules())
    distiller.train()
    assert distiller.student.training
    assert not any(module.training for module in distiller.teacher.modules())
    distiller.teacher.train()
    distiller(_batch())
    assert not any(module.training for module in distiller.teacher.modules())


def test_building_keeps_the_students_mode_and_the_random_state() -> None:
    student = _student().train()
    student.body[0].eval()
    widths = {"student_channels": 16, "teacher_channels": 32}
    term = build_term("feature", student="body.0", teacher="fuse", **widths)
    teacher = _teacher()
    state = torch.get_rng_state()
    Distiller(student, teacher, [term])
    assert student.training
    assert not student.body[0].training
    assert torch.equal(torch.get_rng_state(), state)


def test_to_moves_the_teacher_too() -> None:
    distiller = _distiller().to(torch.float64)
    assert next(distiller.teacher.parameters()).dtype == torch.float64
    assert next(distiller.student.parameters()).dtype == torch.float64
    meta = copy.deepcopy(distiller).to("meta")
    assert all(p.device.type == "meta" for p in meta.teacher.parameters())
    assert all(p.device.type == "cpu" for p in distiller.teacher.parameters())


def test_no_feature_outlives_a_step() -> None:
    distiller = _distiller()
    seen: list[weakref.ref[Tensor]] = []
    for network in (distiller.student, distiller.teacher):
        for name in ("body.0", "head"):
            network.get_submodule(name).register_forward_hook(
                lambda module, inputs, output: seen.append(weakref.ref(output))
            )
    losses = distiller(_batch()).losses
    torch.stack(list(losses.values())).sum().backward()
    del losses
    gc.collect()
    assert len(seen) == 4
    assert all(reference() is None for reference in seen)


@pytest.mark.parametrize("scale", [(1, 1, 2), (2, 2, 2), (1, 2, 3)], ids=str)
def test_views_are_all_symmetries_of_the_scale(scale: tuple[int, int, int]) -> None:
    views = transforms_for(scale)
    assert len(views) == len(set(views)) == {(1, 1, 2): 16, (2, 2, 2): 48, (1, 2, 3): 8}[scale]
    assert views[0] == Transform()
    volume = torch.rand(2, 1, 5, 4, 3)
    # A mapping that keeps its meaning under a view: enlarging by repetition.
    fine = volume
    for axis, factor in enumerate(scale, start=2):
        fine = fine.repeat_interleave(factor, dim=axis)
    for view in views:
        assert torch.equal(view.undo(view.apply(volume)), volume)
        seen = view.apply(volume)
        for axis, factor in enumerate(scale, start=2):
            seen = seen.repeat_interleave(factor, dim=axis)
        assert torch.equal(view.undo(seen), fine)
    distinct = {view.apply(volume).flatten().numpy().tobytes() for view in views}
    assert len(distinct) == len(views)


@pytest.mark.parametrize("count", [2, 8, 16])
def test_the_teachers_answers_are_averaged_over_views(count: int) -> None:
    batch = _batch()
    term = build_term("output", loss="l2", views=count)
    distiller = Distiller(_student(), _teacher(), [term, build_term("output")])
    answers = []
    for order in ((0, 1, 2), (1, 0, 2)):
        for axes in [(), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)]:
            seen = batch.lr.permute(0, 1, *(a + 2 for a in order)).flip(axes)
            answer = distiller.teacher(seen).flip(axes)
            answers.append(answer.permute(0, 1, *(a + 2 for a in order)))
    target = torch.stack(answers[:count]).mean(dim=0)
    assert (target - answers[0]).abs().max() > 1e-4
    result = distiller(batch)
    expected = (result.output - target).square().mean().item()
    assert result.losses["output"].item() == pytest.approx(expected, rel=1e-4)
    plain = (result.output - answers[0]).abs().mean().item()
    assert result.losses["output_2"].item() == pytest.approx(plain, rel=1e-5)


def test_features_are_those_of_the_scan_itself() -> None:
    options = {"student": "body.1", "teacher": "fuse"}
    values = []
    for terms in ([], [build_term("output", views=3)]):
        torch.manual_seed(3)
        feature = build_term("feature", student_channels=16, teacher_channels=32, **options)
        distiller = Distiller(_student(), _teacher(), [feature, *terms])
        values.append(distiller(_batch()).losses["feature"].item())
    assert values[0] == values[1]


def test_without_active_terms_only_the_student_runs() -> None:
    distiller = _distiller()
    calls: list[int] = []
    distiller.teacher.register_forward_hook(lambda *_: calls.append(1))
    result = distiller(_batch(), active=())
    assert torch.equal(result.output, distiller.student(_batch().lr))
    assert result.losses == {}
    assert calls == []
    assert distiller(_batch(), active={"feature_2"}).losses.keys() == {"feature_2"}
    assert calls == [1]


def test_bf16_autocast_trains() -> None:
    distiller = _distiller()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = distiller(_batch()).losses
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.dtype == torch.float32
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in distiller.trainable_parameters())


def test_folded_teacher_meets_the_student_on_the_coarser_grid() -> None:
    teacher = ResNet3D(SCALE, width=16, blocks=1, fold=(2, 2, 1))
    term = build_term("feature", student="body.1", teacher="body.0")
    distiller = Distiller(_student(), teacher, [term])
    lr = torch.rand(1, 1, 6, 4, 3)
    losses = distiller(Batch(lr, torch.rand(1, 1, 6, 4, 6))).losses
    losses["feature"].backward()
    assert distiller.student.head.weight.grad.abs().sum() > 0


def test_close_takes_every_hook_off() -> None:
    distiller = _distiller()
    networks = (distiller.student, distiller.teacher)
    assert sum(len(m._forward_hooks) for network in networks for m in network.modules()) == 4
    distiller.close()
    assert sum(len(m._forward_hooks) for network in networks for m in network.modules()) == 0


def test_refuses_what_cannot_be_distilled() -> None:
    student = _student()
    with pytest.raises(UsageError, match="share parameters"):
        Distiller(student, student, [])
    with pytest.raises(UsageError, match=r"\(1, 1, 2\).*\(2, 2, 2\).*one scale"):
        Distiller(student, ResNet3D((2, 2, 2), width=16, blocks=1), [])
    with pytest.raises(UsageError, match=r"'output': 17 views of the scan.*have 16"):
        Distiller(student, _teacher(), [build_term("output", views=17)])
    with pytest.raises(UsageError, match="'output' needs a teacher"):
        Distiller(student, None, [build_term("output")])
    with pytest.raises(UsageError, match=r"'body.7' is no submodule of the student RepPlain3D"):
        Distiller(student, _teacher(), [build_term("feature", student="body.7", teacher="fuse")])
    with pytest.raises(UsageError, match="Identity is no distillation term"):
        Distiller(student, _teacher(), [nn.Identity()])  # type: ignore[list-item]


class _Custom(Term):
    """A term as a third party would write it, with none of the members that are optional."""

    name = "custom"

    @property
    def needs(self) -> tuple[Tap, ...]:
        return (Tap(student="tail", teacher="tail"),)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        assert teacher.features.keys() == {"tail"}
        return (
            student.features["tail"] - teacher.features["tail"]
        ).abs().mean() + 0 * batch.hr.mean()


def test_a_term_of_another_package_works() -> None:
    term = _Custom()
    distiller = Distiller(_student(), _teacher(), [term])
    losses = distiller(_batch()).losses
    assert losses["custom"].item() > 0


class _Judged(Term):
    """A term with an adversary that tells the student's output from the teacher's."""

    name = "judged"
    adversary_learning_rate = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.adversary = nn.Conv3d(1, 1, 3)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return -self.adversary(student.output).mean()

    def adversary_loss(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        told = self.adversary(student.output).mean() - self.adversary(teacher.output).mean()
        return told + self.adversary.weight.square().sum()


def test_an_adversary_learns_apart_from_the_student() -> None:
    term = _Judged()
    distiller = Distiller(_student(), _teacher(), [term])
    ours, theirs = list(distiller.student.parameters()), list(term.adversary.parameters())
    assert {id(p) for p in distiller.trainable_parameters()} == {id(p) for p in ours}
    assert distiller.adversaries == {"judged": term.adversary}
    gradients = {}
    for part in ("losses", "adversaries", "both"):
        distiller.zero_grad()
        result = distiller(_batch())
        chosen = [] if part == "adversaries" else [result.losses["judged"]]
        chosen += [] if part == "losses" else [result.adversaries["judged"]]
        torch.stack(chosen).sum().backward()
        gradients[part] = [None if p.grad is None else p.grad.clone() for p in (*ours, *theirs)]
    mine = len(ours)
    assert all(g is None for g in gradients["losses"][mine:])
    assert all(g is None for g in gradients["adversaries"][:mine])
    apart = gradients["losses"][:mine] + gradients["adversaries"][mine:]
    for alone, together in zip(apart, gradients["both"], strict=True):
        assert torch.equal(alone, together)
    assert gradients["both"][0].abs().sum() > 0
    assert term.adversary.weight.requires_grad


class _Alone(Term):
    """A term that needs no teacher and looks at the networks itself."""

    name = "alone"
    needs_teacher = False
    bound: tuple[nn.Module, nn.Module | None] = ()  # type: ignore[assignment]

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.bound = (student, teacher)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        assert not teacher.output.requires_grad
        assert torch.equal(student.output, teacher.output)
        return (student.output - batch.hr).abs().mean()


def test_a_term_may_do_without_a_teacher() -> None:
    term = _Alone()
    distiller = Distiller(_student(), None, [term])
    assert distiller.teacher is None
    assert term.bound == (distiller.student, None)
    distiller(_batch()).losses["alone"].backward()
    assert distiller.student.head.weight.grad.abs().sum() > 0
    assert all(name.startswith("student.") for name in distiller.state_dict())
    distiller.to(torch.float64).close()

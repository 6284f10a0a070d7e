"""What is minimised: names and options by their path, and starting from a trained model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medsr.errors import CheckpointError, RecipeError, UnknownModelError
from medsr.model import SpacingRange
from medsr.networks import RepPlain3D, ResNet3D, SRNetwork
from medsr.recipe import Recipe
from medsr.train.cohort import Cohort
from medsr.train.finish import save_model
from medsr.train.objective import build_objective, warm_start


def rouse(network: nn.Module) -> None:
    """Give every parameter a value, so that no branch is silent."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def store(network: SRNetwork, recipe: Recipe, folder: Path) -> Path:
    from medsr.data.transforms import PreparedScan
    from medsr.model import Intensity

    scan = PreparedScan({}, "someone", "scan", 2, (1.0, 1.0, 1.0), 1, 0.08)
    cohort = Cohort(Intensity.for_modality("MR"), (scan,), ())
    model = save_model(network.merged(), recipe, cohort, folder)
    assert model.spec.trained_spacing_mm == SpacingRange((1.0, 1.0), (2.0, 2.0))
    return folder


@pytest.fixture
def teacher(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> Path:
    network = ResNet3D((1, 1, 2), width=16, blocks=1)
    rouse(network)
    recipe = make_recipe(network={"name": "ResNet3D", "options": {"width": 16, "blocks": 1}})
    return store(network, recipe, tmp_path / "teacher")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network", {"name": "Fog"}, "network: network 'Fog' is unknown"),
        ("network", {"name": "RepPlain3D", "options": {"fog": 1}}, "network: .*fog"),
        ("network", {"name": "RepPlain3D", "options": {"width": 20}}, "network: .*20"),
        ("losses", [{"name": "l1"}, {"name": "fog"}], r"losses\.1: loss 'fog' is unknown"),
        ("losses", [{"name": "l1", "options": {"fog": 1}}], r"losses\.0: .*fog"),
        ("losses", [{"name": "charbonnier", "options": {"epsilon": -1}}], r"losses\.0: .*-1"),
        ("losses", [{"name": "l1"}, {"name": "l1"}], r"losses\.1: l1 is given twice"),
    ],
)
def test_what_cannot_be_built_is_named_by_its_path(
    make_recipe: Callable[..., Recipe], key: str, value: object, message: str
) -> None:
    with pytest.raises(RecipeError, match=f"^recipe: {message}"):
        build_objective(make_recipe(**{key: value}))


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"name": "fog"}, r"terms\.1: .*'fog' is unknown"),
        ({"name": "output", "options": {"loss": "fog"}}, r"terms\.1: loss 'fog' is unknown"),
        ({"name": "feature"}, r"terms\.1: .*student"),
        (
            {"name": "feature", "options": {"student": "body.9", "teacher": "fuse"}},
            "terms: .*body.9",
        ),
    ],
)
def test_terms_that_cannot_be_built_are_named_by_their_path(
    make_recipe: Callable[..., Recipe], teacher: Path, term: dict[str, object], message: str
) -> None:
    recipe = make_recipe(teacher=str(teacher), terms=[{"name": "output"}, term])
    with pytest.raises(RecipeError, match=f"^recipe: {message}"):
        build_objective(recipe)


def test_a_teacher_that_is_not_there_is_told(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(UnknownModelError, match=r"^teacher: model 'no-such-model'"):
        build_objective(make_recipe(teacher="no-such-model", terms=[{"name": "output"}]))
    start = {"name": "RepPlain3D", "start": "no-such-model"}
    with pytest.raises(UnknownModelError, match=r"^network\.start: model 'no-such-model'"):
        build_objective(make_recipe(network=start))


@pytest.mark.parametrize("key", ["losses", "terms"])
def test_patches_that_are_too_small_for_a_loss_are_told_with_its_key(
    make_recipe: Callable[..., Recipe], teacher: Path, key: str
) -> None:
    ssim = {"name": "ssim", "options": {"window": 5}}
    parts = {"losses": [{"name": "l1"}], "terms": [{"name": "output"}]} | {key: [ssim]}
    objective = build_objective(make_recipe(teacher=str(teacher), **parts))
    with pytest.raises(RecipeError, match=f"^recipe: {key}: .*thinner than the window"):
        objective(torch.rand(1, 1, 4, 8, 4), torch.rand(1, 1, 4, 8, 8))


def test_losses_are_weighted_and_named(make_recipe: Callable[..., Recipe], teacher: Path) -> None:
    recipe = make_recipe(
        losses=[{"name": "l1", "weight": 2.0}, {"name": "l2", "weight": 0.5}],
        teacher=str(teacher),
        terms=[{"name": "output", "weight": 0.25, "options": {"loss": "l1"}}],
    )
    objective = build_objective(recipe)
    assert objective.distiller is not None
    lr, hr = torch.rand(1, 1, 4, 4, 2), torch.rand(1, 1, 4, 4, 4)
    values = objective(lr, hr)
    with torch.no_grad():
        sr, told = objective.network(lr), objective.distiller.teacher(lr)
    assert values.keys() == {"l1", "l2", "distill_output"}
    torch.testing.assert_close(values["l1"], 2 * (sr - hr).abs().mean())
    torch.testing.assert_close(values["l2"], 0.5 * ((sr - hr) ** 2).mean())
    torch.testing.assert_close(values["distill_output"], 0.25 * (sr - told).abs().mean())


def test_the_teacher_is_no_part_of_the_objective(
    make_recipe: Callable[..., Recipe], teacher: Path
) -> None:
    objective = build_objective(make_recipe(teacher=str(teacher), terms=[{"name": "output"}]))
    student = sum(p.numel() for p in objective.network.parameters())
    assert sum(p.numel() for p in objective.trainable_parameters()) == student
    assert {name.split(".")[1] for name in objective.state_dict()} == {"student"}


def test_a_warm_start_is_the_same_function(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    trained = RepPlain3D((1, 1, 2), width=16, depth=2)
    rouse(trained)
    folder = store(trained, make_recipe(), tmp_path / "start")
    network = {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}, "start": str(folder)}
    student = build_objective(make_recipe(network=network, seed=9)).network
    scan = torch.rand(1, 1, 6, 5, 4)
    with torch.no_grad():
        torch.testing.assert_close(student(scan), trained(scan), rtol=1e-4, atol=1e-5)
    # And every branch can still be learnt: a silent one has a gradient or feeds one that has.
    student(scan).square().mean().backward()
    assert all(p.grad is not None for p in student.parameters())
    assert student.body[0].expand.grad.abs().sum() > 0  # type: ignore[index,union-attr]


def test_a_warm_start_from_another_shape_is_refused(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    trained = ResNet3D((1, 1, 2), width=16, blocks=1)
    folder = store(
        trained,
        make_recipe(network={"name": "ResNet3D", "options": {"width": 16, "blocks": 1}}),
        tmp_path / "start",
    )
    with pytest.raises(CheckpointError, match=r"network\.start: .* do not fit network\.options"):
        warm_start(RepPlain3D((1, 1, 2), width=32, depth=2), str(folder))


def test_patches_that_do_not_fit_the_folds_are_refused_by_their_path(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    options = {"width": 16, "blocks": 1, "fold": [5, 1, 1]}
    recipe = make_recipe(network={"name": "ResNet3D", "options": options})
    folded = ResNet3D((1, 1, 2), width=16, blocks=1, fold=(5, 1, 1))
    folder = store(folded, recipe, tmp_path / "folded")
    distilled = make_recipe(teacher=str(folder), terms=[{"name": "output"}])
    with pytest.raises(RecipeError, match=r"patches\.size\.0: .* is no multiple"):
        build_objective(distilled)


def test_a_larger_student_grows_from_a_smaller_model(
    make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    small = RepPlain3D((1, 1, 2), width=16, depth=2)
    rouse(small)
    folder = store(small, make_recipe(), tmp_path / "small")
    large = RepPlain3D((1, 1, 2), width=32, depth=3)
    warm_start(large, str(folder))
    x = torch.rand(1, 1, 6, 5, 4)
    torch.testing.assert_close(large(x), small(x), atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match="growing keeps scale"):
        warm_start(RepPlain3D((1, 1, 4), width=32, depth=2), str(folder))

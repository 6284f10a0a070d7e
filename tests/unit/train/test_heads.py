"""Recipes whose network says distributions: warm starts, and who teaches sigma."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medsr.errors import CheckpointError, RecipeError
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import RepPlain3D, SRNetwork, build_network
from medsr.recipe import Recipe
from medsr.train.objective import build_objective, warm_start

SMALL = {"width": 16, "depth": 2}
NLL = [{"name": "nll", "weight": 0.1}]


def _store(name: str, folder: Path, **options: Any) -> SRNetwork:
    """Write a small model with random weights and return its merged network."""
    torch.manual_seed(5)
    network = build_network(name, (1, 1, 2), **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    merged = network.eval().merged()
    spec = ModelSpec(
        name="start",
        version="0",
        network=name,
        options=network.merged_options(options),
        scale=(1, 1, 2),
        modality="MR",
        role="student",
        intensity=Intensity.for_modality("MR"),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange((1, 1), (2, 2)),
        trained_degradation={},
        parameters=1,
        training={},
        description="random weights",
    )
    SRModel(merged, spec).save(folder)
    return merged


def _network(head: Any, start: Path | None = None, **options: Any) -> dict[str, Any]:
    network = {"name": "RepPlain3D", "options": {**SMALL, "head": head, **options}}
    return network if start is None else {**network, "start": str(start)}


@pytest.mark.parametrize("head", ["gaussian", "bins", {"kind": "bins", "bins": 21, "reach": 2.0}])
@pytest.mark.parametrize("grown", [{}, {"width": 32, "depth": 3}], ids=["same", "grown"])
def test_a_value_model_starts_a_network_with_a_head(
    head: Any, grown: dict[str, int], make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    trained = _store("RepPlain3D", tmp_path / "start", **SMALL)
    recipe = make_recipe(network=_network(head, tmp_path / "start", **grown), terms=NLL)
    student = build_objective(recipe).network
    scan = torch.rand(1, 1, 6, 5, 4)
    with torch.no_grad():
        expected = trained(scan)
        mean, sigma = student(scan), student.distribution(scan)[1]
        fresh = RepPlain3D((1, 1, 2), **SMALL, head=head).distribution(scan)[1]
    assert (expected - scan.repeat_interleave(2, dim=4)).abs().max() > 0.05
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-5 if head == "gaussian" else 1e-3)
    torch.testing.assert_close(sigma, fresh, rtol=0.1, atol=0)


@pytest.mark.parametrize("head", ["gaussian", "bins"])
def test_a_model_with_a_head_is_saved_loaded_and_started_from(
    head: str, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    trained = _store("ResNet3D", tmp_path / "start", width=16, blocks=1, head=head)
    loaded = SRModel.load(tmp_path / "start").module
    scan = torch.rand(1, 1, 6, 5, 4)
    with torch.no_grad():
        for ours, theirs in zip(loaded.distribution(scan), trained.distribution(scan), strict=True):
            torch.testing.assert_close(ours, theirs)
    student = build_network("ResNet3D", (1, 1, 2), width=16, blocks=1, head=head)
    warm_start(student, str(tmp_path / "start"))
    with torch.no_grad():
        torch.testing.assert_close(student(scan), trained(scan))
    plain = build_network("ResNet3D", (1, 1, 2), width=16, blocks=1)
    with pytest.raises(CheckpointError, match="do not fit"):
        warm_start(plain, str(tmp_path / "start"))


def test_a_head_that_nothing_teaches_is_refused(make_recipe: Callable[..., Recipe]) -> None:
    for changes in ({}, {"terms": [{"name": "student_branches"}]}):
        recipe = make_recipe(network=_network("gaussian"), **changes)
        with pytest.raises(RecipeError, match=r"head: no term teaches .* nll|terms"):
            build_objective(recipe)
    objective = build_objective(make_recipe(network=_network("gaussian"), terms=NLL))
    lr, hr = torch.rand(1, 1, 4, 4, 2), torch.rand(1, 1, 4, 4, 4)
    assert objective(lr, hr).keys() == {"l1", "distill_nll"}
    assert {key.split(".")[1] for key in objective.state_dict()} == {"student"}


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("laplace", "none of value, gaussian, bins"),
        ({"kind": "bins", "bins": 1}, "1 bins"),
        ({"kind": "gaussian", "sigma": [0.1, 0.01]}, "0 < low < high"),
        ({"kind": "gaussian", "bins": 3}, "does not take these options"),
    ],
)
def test_wrong_heads_name_the_key(
    head: Any, words: str, make_recipe: Callable[..., Recipe]
) -> None:
    with pytest.raises(RecipeError, match=rf"recipe: network: .*{words}"):
        build_objective(make_recipe(network=_network(head), terms=NLL))

"""Training with low-rank adapters: what the recipe, the optimiser and the average make of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medsr.errors import CheckpointError, RecipeError
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.recipe import Recipe
from medsr.train.objective import build_objective
from medsr.train.state import TrainState

OPTIONS = {"width": 16, "depth": 2, "branches": False}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose network has values everywhere."""
    torch.manual_seed(0)
    network = build_network("RepPlain3D", (1, 1, 2), **OPTIONS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    spec = ModelSpec(
        name="base",
        version="0",
        network="RepPlain3D",
        options=OPTIONS,
        scale=(1, 1, 2),
        modality="MR",
        role="student",
        intensity=Intensity("percentile"),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange((1.0, 1.0), (2.0, 2.0)),
        trained_degradation={"kind": "slice_profile", "factor": [1, 1, 2]},
        parameters=sum(p.numel() for p in network.parameters()),
        training={},
        description="",
    )
    return SRModel(network, spec).save(tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapting(make_recipe: Callable[..., Recipe], base: Path) -> Callable[..., Recipe]:
    """Return a function that makes a recipe with adapters; keys of the network can be replaced."""

    def make(**changes: Any) -> Recipe:
        network = {
            "name": "RepPlain3D",
            "options": OPTIONS,
            "start": str(base),
            "adapters": {"rank": 2},
        }
        return make_recipe(network=network | changes)

    return make


@pytest.mark.parametrize("branches", [False, True], ids=["plain", "branches"])
def test_the_objective_starts_as_the_base(
    adapting: Callable[..., Recipe], base: Path, branches: bool
) -> None:
    network = build_objective(adapting(options=OPTIONS | {"branches": branches})).network
    lr = torch.rand(1, 1, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network(lr), SRModel.load(base).module(lr))


def test_adamw_has_the_adapters_and_muon_nothing(adapting: Callable[..., Recipe]) -> None:
    state = TrainState.fresh(adapting(), CPU)
    assert state.optimiser.muon is None
    names = [n for n, p in state.objective.named_parameters() if p.requires_grad]
    assert len(state.optimiser.parameters) == len(names) == 2 * 4
    assert all(name.endswith((".up", ".down")) for name in names)


def test_the_average_follows_the_adapters_and_is_merged_without_harm(
    adapting: Callable[..., Recipe], base: Path
) -> None:
    state = TrainState.fresh(adapting(), CPU)
    plain = SRModel.load(base).module
    lr = torch.rand(1, 1, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    for step in range(3):
        with torch.no_grad():
            for parameter in state.objective.trainable_parameters():
                parameter.add_(0.05)
        state.ema.update_parameters(state.objective.network)
        averaged = state.averaged()
        assert averaged.state_dict().keys() == plain.state_dict().keys()
        with torch.no_grad():
            assert torch.equal(averaged(lr), state.ema.module.eval()(lr)), step
            assert not torch.equal(averaged(lr), plain(lr))
    frozen = {n: p for n, p in state.ema.module.named_parameters() if not p.requires_grad}
    for name, value in plain.state_dict().items():
        own = name if name in frozen else name.replace("weight", "parametrizations.weight.original")
        assert torch.equal(frozen[own], value), name


def test_adapters_need_a_start(adapting: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"^recipe: network: adapters change a trained model"):
        adapting(start=None)


def test_layers_that_fit_nothing_are_named(adapting: Callable[..., Recipe]) -> None:
    recipe = adapting(adapters={"layers": ["skull.*"]})
    with pytest.raises(RecipeError, match=r"network\.adapters: no convolution fits .*skull"):
        build_objective(recipe)


def test_a_checkpoint_from_before_a_key_came_is_taken_up(
    adapting: Callable[..., Recipe], make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe()
    state = TrainState.fresh(recipe, CPU)
    state.step = 5
    state.save(tmp_path, recipe)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert "adapters: null" in stored["recipe"]
    stored["recipe"] = stored["recipe"].replace("  adapters: null\n", "")
    torch.save(stored, tmp_path / "checkpoint.pt")
    later = TrainState.fresh(recipe, CPU)
    later.restore(tmp_path, recipe)
    assert later.step == 5
    with pytest.raises(CheckpointError, match="another recipe"):
        TrainState.fresh(adapting(), CPU).restore(tmp_path, adapting())

"""Checkpoints: whole or not at all, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medsr.errors import CheckpointError, OutputNotWritableError
from medsr.recipe import DataRecipe, LoopRecipe, Recipe
from medsr.train.checkpoint import (
    CHECKPOINT_FILE,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)
from medsr.train.state import TrainState

CPU = torch.device("cpu")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint({"step": 3, "weights": {"a": torch.arange(4.0)}}, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 3
    assert torch.equal(loaded["weights"]["a"], torch.arange(4.0))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None
    remove_checkpoint(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError("killed"), KeyboardInterrupt()])
def test_a_crash_while_writing_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save_checkpoint({"step": 3}, tmp_path)

    def half(state: Any, file: Any) -> None:
        file.write(b"PK half a file")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(type(error)):
            save_checkpoint({"step": 4}, tmp_path)
    assert load_checkpoint(tmp_path) == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT_FILE]
    save_checkpoint({"step": 5}, tmp_path)
    assert load_checkpoint(tmp_path) == {"step": 5}


def test_a_full_disk_is_told_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint({"step": 3}, tmp_path)

    def full(state: Any, file: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputNotWritableError, match="No space left on device"):
        save_checkpoint({"step": 4}, tmp_path)
    assert load_checkpoint(tmp_path) == {"step": 3}


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "cut"])
def test_damage_is_told(tmp_path: Path, content: bytes | None) -> None:
    save_checkpoint({"weights": torch.arange(1000.0)}, tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(CheckpointError, match=r"damaged.*--restart"):
        load_checkpoint(tmp_path)


class Trap:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('ran')",))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"step": Trap()}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("muon", [0.0, 0.01])
def test_state_comes_back_whole(
    tmp_path: Path, make_recipe: Callable[..., Recipe], muon: float
) -> None:
    recipe = make_recipe(optimiser={"muon_learning_rate": muon})
    state = TrainState.fresh(recipe, CPU)
    state.objective(torch.rand(1, 1, 4, 4, 2), torch.rand(1, 1, 4, 4, 4))["l1"].backward()
    state.optimiser.step(1.0)
    state.ema.update_parameters(state.objective.network)
    state.step, state.running = 1, {"l1": 0.25}
    state.save(tmp_path, recipe)

    other = TrainState.fresh(replace(recipe, seed=5), CPU)
    other.restore(tmp_path, recipe)
    assert (other.step, other.running) == (1, {"l1": 0.25})
    assert int(other.ema.n_averaged) == 1
    for ours, theirs in [(state.objective, other.objective), (state.ema, other.ema)]:
        found = theirs.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in ours.state_dict().items())
    moments = other.optimiser.state_dict()
    assert set(moments) == ({"adamw", "muon"} if muon else {"adamw"})
    for name, part in state.optimiser.state_dict().items():
        assert len(part["state"]) > 0
        for number, values in part["state"].items():
            found = moments[name]["state"][number]
            assert all(torch.equal(value, found[key]) for key, value in values.items())


def test_other_recipes_are_refused(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    state = TrainState.fresh(recipe, CPU)
    state.save(tmp_path, recipe)
    for changed in (
        replace(recipe, seed=1),
        replace(recipe, loop=LoopRecipe(steps=7)),
        replace(recipe, data=replace(recipe.data, train_split="other")),
    ):
        with pytest.raises(CheckpointError, match="another recipe"):
            state.restore(tmp_path, changed)


def test_what_changes_no_weight_may_change(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe()
    state = TrainState.fresh(recipe, CPU)
    state.step = 3
    state.save(tmp_path, recipe)
    changed = replace(
        recipe,
        loop=LoopRecipe(log_every=1, checkpoint_every=1, validate_every=1),
        data=DataRecipe("moved/manifest.csv", "MR"),
        description="said otherwise",
    )
    other = TrainState.fresh(changed, CPU)
    other.restore(tmp_path, changed)
    assert other.step == 3


@pytest.mark.parametrize("state", [{"step": 3}, [1, 2], {"recipe": "- a list"}])
def test_files_that_are_no_checkpoint_of_ours_are_refused(
    tmp_path: Path, make_recipe: Callable[..., Recipe], state: Any
) -> None:
    torch.save(state, tmp_path / CHECKPOINT_FILE)
    recipe = make_recipe()
    with pytest.raises(CheckpointError, match=r"--restart"):
        TrainState.fresh(recipe, CPU).restore(tmp_path, recipe)


def test_the_seed_decides_the_initial_weights(make_recipe: Callable[..., Recipe]) -> None:
    first, again, other = (
        TrainState.fresh(make_recipe(seed=seed), CPU).objective.network.head.weight  # type: ignore[union-attr]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_average_starts_as_the_network(make_recipe: Callable[..., Recipe]) -> None:
    state = TrainState.fresh(make_recipe(), CPU)
    scan = torch.rand(1, 1, 5, 4, 3)
    with torch.no_grad():
        torch.testing.assert_close(state.averaged()(scan), state.objective.network.eval()(scan))

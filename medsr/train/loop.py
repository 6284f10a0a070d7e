"""The one training loop, on Lightning Fabric: setup, fit, and nothing hidden.

The batch of a step depends on the seed and the step alone, the learning rate on the step alone;
what else a run needs to go on exactly as if it had never stopped is in :class:`TrainState`, which
is the checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medsr.data.patches import Batch, PatchStream
from medsr.degrade import build_degradation
from medsr.errors import Interrupted, MedsrError, MissingExtraError
from medsr.infer.engine import resolve_device, resolve_precision
from medsr.recipe import Recipe, read_recipe
from medsr.train.cohort import Cohort, load_cohort
from medsr.train.finish import save_model
from medsr.train.logs import RunLog
from medsr.train.schedule import learning_rate
from medsr.train.state import TrainState
from medsr.train.stop import StopRequest
from medsr.train.validate import validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
MODEL_FOLDER = "model"


def run(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = True,
    device: str = "auto",
    devices: int = 1,
    quiet: bool = False,
) -> Path:
    """Train (or distil) a model as a recipe says.

    Args:
        recipe: Recipe, or path of its YAML file.
        overrides: ``key=value`` strings, only with a path.
        out: Run folder; by default ``runs/<name>``.
        resume: Go on from the folder's checkpoint; otherwise start again.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: Processes or GPUs, started by Fabric's launcher.
        quiet: No progress bar.

    Returns:
        Folder of the trained model (weights, spec), inside the run folder.

    Raises:
        RecipeError: The recipe is wrong.
        CohortError: The manifest is wrong or a patient stands in two splits.
        CheckpointError: The folder's checkpoint is damaged or belongs to another recipe.
        MissingExtraError: The extra ``train`` is not installed.
        Interrupted: Ctrl-C; the checkpoint of the last finished step is kept.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError(
            "training needs lightning-fabric, which is not installed; pip install 'medsr[train]'"
        ) from error
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, overrides)
    found = resolve_device(device)
    half = resolve_precision(recipe.loop.precision, found) == "bf16"
    fabric = Fabric(
        accelerator=found.type, devices=devices, precision="bf16-mixed" if half else "32-true"
    )
    fabric.launch()
    cohort = load_cohort(recipe)
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    state = TrainState.fresh(recipe, fabric.device)
    if resume:
        state.restore(folder, recipe)
    fit(fabric, recipe, cohort, state, folder, quiet=quiet)
    if fabric.is_global_zero:
        save_model(state.averaged(), recipe, cohort, folder / MODEL_FOLDER)
    return folder / MODEL_FOLDER


def fit(
    fabric: Fabric,
    recipe: Recipe,
    cohort: Cohort,
    state: TrainState,
    folder: Path,
    *,
    quiet: bool = False,
) -> None:
    """Take the steps that are left.

    Args:
        fabric: Launched Fabric.
        recipe: What to do.
        cohort: Prepared scans.
        state: Fresh or restored; changed in place.
        folder: Run folder for log and checkpoint.
        quiet: No progress bar.

    Raises:
        MedsrError: The loss is not finite.
        Interrupted: Ctrl-C, after the step in hand was finished and saved.
    """
    loop = recipe.loop
    degradation = build_degradation(
        recipe.degradation.kind, recipe.degradation.factor, **recipe.degradation.options
    )
    stream = PatchStream(cohort.train, degradation, recipe.patches, recipe.seed, fabric.global_rank)
    module, optimiser = fabric.setup(state.objective, state.optimiser)
    log = RunLog(folder, state.step, loop.steps, main=fabric.is_global_zero, quiet=quiet)
    if fabric.is_global_zero:
        (folder / RECIPE_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
    clock = time.perf_counter()
    with StopRequest() as stop, log, ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(stream.batch, state.step)
        while state.step < loop.steps:
            batch, upcoming = upcoming.result(), ahead.submit(stream.batch, state.step + 1)
            values = take_step(fabric, recipe, module, optimiser, batch, state)
            for name, value in values.items():
                state.running[name] = state.running.get(name, 0.0) + float(value)
            if state.step % loop.log_every == 0:
                means = {f"train/{k}": v / loop.log_every for k, v in state.running.items()}
                if not math.isfinite(sum(means.values())):
                    raise MedsrError(
                        f"the loss is not finite at step {state.step}; "
                        "lower optimiser.learning_rate and start again with --restart"
                    )
                rate = loop.log_every / (time.perf_counter() - clock)
                log.write(state.step, means | {"train/steps_per_second": rate})
                log.advance(state.step, means)
                state.running, clock = {}, time.perf_counter()
            last = stop.asked or state.step == loop.steps
            if fabric.is_global_zero and (last or state.step % loop.checkpoint_every == 0):
                state.save(folder, recipe)
            if stop.asked and state.step < loop.steps:
                raise Interrupted(f"stopped after step {state.step}; the same command goes on")
            if fabric.is_global_zero and (last or state.step % loop.validate_every == 0):
                scores = validate(state.averaged(), cohort.validation, degradation, recipe)
                log.write(state.step, scores)
                logger.info("step %d: %s", state.step, scores)
                clock = time.perf_counter()


def take_step(
    fabric: Fabric,
    recipe: Recipe,
    module: Any,
    optimiser: Any,
    batch: Batch,
    state: TrainState,
) -> dict[str, torch.Tensor]:
    """Take one optimiser step and return its weighted losses by name."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(state.step, recipe.loop.steps, recipe.optimiser)
    values: dict[str, torch.Tensor] = module(batch.lr.to(fabric.device), batch.hr.to(fabric.device))
    fabric.backward(torch.stack(list(values.values())).sum())
    fabric.clip_gradients(module, optimiser, max_norm=recipe.optimiser.clip_norm)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    state.ema.update_parameters(state.objective.network)
    state.step += 1
    return {name: value.detach() for name, value in values.items()}

"""The one training loop, on Lightning Fabric: setup, fit, and nothing hidden.

``run`` reads a recipe, ``fit`` takes the steps. The batch of a step depends on the seed and the
step alone, the learning rate on the step alone; what else a run needs to go on exactly as if it
had never stopped is in the ``state`` dictionary, which is the checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medsr.data.patches import PatchStream
from medsr.degrade import build_degradation
from medsr.errors import CheckpointError, Interrupted, MedsrError, MissingExtraError
from medsr.infer.engine import resolve_precision
from medsr.networks import SRNetwork, build_network
from medsr.recipe import Recipe, read_recipe
from medsr.train.checkpoint import load_checkpoint, save_checkpoint
from medsr.train.cohort import Cohort, load_cohort
from medsr.train.finish import save_model
from medsr.train.logs import RunLog
from medsr.train.objective import Objective, build_objective
from medsr.train.schedule import learning_rate
from medsr.train.validate import validate

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"


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
        CheckpointError: The folder's checkpoint belongs to another recipe.
        MissingExtraError: The extra ``train`` is not installed.
        Interrupted: Ctrl-C; the checkpoint of the last finished step is kept.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError(
            "training needs lightning-fabric; pip install 'medsr[train]'"
        ) from error
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, overrides)
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = "cuda" if device == "auto" and torch.cuda.is_available() else device
    accelerator = "cpu" if accelerator == "auto" else accelerator
    half = resolve_precision(recipe.loop.precision, torch.device(accelerator)) == "bf16"
    fabric = Fabric(
        accelerator=accelerator, devices=devices, precision="bf16-mixed" if half else "32-true"
    )
    fabric.launch()
    cohort = load_cohort(recipe)
    model_folder = folder / "model"
    fit(fabric, recipe, cohort, folder, resume=resume, quiet=quiet)
    return model_folder


def fit(
    fabric: Any, recipe: Recipe, cohort: Cohort, folder: Path, *, resume: bool, quiet: bool
) -> None:
    """Take the recipe's steps, from the start or from the folder's checkpoint."""
    degradation = build_degradation(
        recipe.degradation.kind, recipe.degradation.factor, **recipe.degradation.options
    )
    stream = PatchStream(cohort.train, degradation, recipe.patches, recipe.seed, fabric.global_rank)
    objective = build_objective(recipe)
    objective = objective.to(fabric.device)
    objective = objective.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        objective.trainable_parameters(),
        lr=recipe.optimiser.learning_rate,
        betas=recipe.optimiser.betas,
        weight_decay=recipe.optimiser.weight_decay,
    )
    ema = moving_average(objective.network, recipe)
    start = restore(folder, recipe, objective, optimiser, ema) if resume else 0
    module, optimiser = fabric.setup(objective, optimiser)
    if fabric.is_global_zero:
        (folder / RECIPE_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
    log = RunLog(folder, start, recipe.loop.steps, quiet or not fabric.is_global_zero)
    running: dict[str, float] = {}
    clock = time.perf_counter()
    done = start
    with log, ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(stream.batch, start)
        try:
            for step in range(start, recipe.loop.steps):
                batch, upcoming = upcoming.result(), ahead.submit(stream.batch, step + 1)
                lr, hr = batch.lr.to(fabric.device), batch.hr.to(fabric.device)
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(step, recipe.loop.steps, recipe.optimiser)
                values = module(lr, hr)
                total = torch.stack(list(values.values())).sum()
                fabric.backward(total)
                fabric.clip_gradients(module, optimiser, max_norm=recipe.optimiser.clip_norm)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                ema.update_parameters(objective.network)
                done = step + 1
                for name, value in values.items():
                    running[name] = running.get(name, 0.0) + float(value.detach())
                if done % recipe.loop.log_every == 0:
                    means = {f"train/{k}": v / recipe.loop.log_every for k, v in running.items()}
                    if not math.isfinite(sum(means.values())):
                        raise MedsrError(
                            f"loss is not finite at step {done}; lower the learning rate"
                        )
                    rate = recipe.loop.log_every / (time.perf_counter() - clock)
                    log.write(done, means | {"train/steps_per_second": rate})
                    log.advance(done, " ".join(f"{k[6:]} {v:.4f}" for k, v in means.items()))
                    running, clock = {}, time.perf_counter()
                if fabric.is_global_zero and done % recipe.loop.checkpoint_every == 0:
                    save(folder, recipe, objective, optimiser, ema, done, running)
                if done % recipe.loop.validate_every == 0 or done == recipe.loop.steps:
                    scores = validate(averaged(ema), cohort.validation, degradation, recipe)
                    log.write(done, scores)
                    logger.info("step %d: %s", done, scores)
                    clock = time.perf_counter()
        except KeyboardInterrupt as error:
            raise Interrupted(f"stopped after step {done}; the same command goes on") from error
        finally:
            upcoming.cancel()
            if fabric.is_global_zero and done > start:
                save(folder, recipe, objective, optimiser, ema, done, running)
    if fabric.is_global_zero:
        save_model(averaged(ema), recipe, cohort, folder / "model")


def moving_average(network: SRNetwork, recipe: Recipe) -> AveragedModel:
    """Return the moving average of a network's weights, starting from its present ones."""
    shadow = build_network(recipe.network.name, network.scale, **recipe.network.options)
    shadow.load_state_dict(network.state_dict())
    shadow = shadow.to(next(network.parameters()).device)
    average = get_ema_multi_avg_fn(recipe.optimiser.ema_decay)  # type: ignore[no-untyped-call]
    return AveragedModel(shadow, multi_avg_fn=average)


def averaged(ema: AveragedModel) -> SRNetwork:
    """Return the moving average as a merged network in evaluation mode."""
    network: SRNetwork = ema.module  # type: ignore[assignment]
    merged = network.merged()
    return merged.eval() if merged is not network else network.eval()


def save(
    folder: Path,
    recipe: Recipe,
    objective: Objective,
    optimiser: Any,
    ema: AveragedModel,
    step: int,
    running: dict[str, float],
) -> None:
    """Write the checkpoint: all that the next step depends on."""
    state = {
        "step": step,
        "recipe": recipe.to_yaml(),
        "objective": objective.state_dict(),
        "optimiser": optimiser.state_dict(),
        "ema": ema.module.state_dict(),
        "ema_updates": ema.n_averaged,
        "running": dict(running),
        "random": torch.get_rng_state(),
    }
    save_checkpoint(state, folder)


def restore(
    folder: Path,
    recipe: Recipe,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    ema: AveragedModel,
) -> int:
    """Load the folder's checkpoint where there is one; return the step to go on from.

    Raises:
        CheckpointError: It was made by another recipe (more steps are no other recipe).
    """
    state = load_checkpoint(folder)
    if state is None:
        return 0
    if _comparable(state["recipe"]) != _comparable(recipe.to_yaml()):
        raise CheckpointError(
            f"run folder {folder.name} holds a checkpoint of another recipe; "
            "choose another --out or start again with --restart"
        )
    objective.load_state_dict(state["objective"])
    optimiser.load_state_dict(state["optimiser"])
    ema.module.load_state_dict(state["ema"])
    ema.n_averaged.copy_(state["ema_updates"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def _comparable(text: str) -> dict[str, Any]:
    """Return what must agree between a checkpoint and its recipe."""
    import yaml

    plain: dict[str, Any] = yaml.safe_load(text)
    for free in ("log_every", "checkpoint_every", "validate_every"):
        plain["loop"].pop(free, None)
    plain.pop("description", None)
    plain["data"].pop("manifest", None)
    return plain

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

from medsr.batch import Batch
from medsr.degrade import Degradation
from medsr.degrade.slices import Slices
from medsr.distill.pool import TeacherPool
from medsr.errors import Interrupted, MedsrError, MissingExtraError, OutputNotWritableError
from medsr.infer.engine.device import resolve_device, resolve_precision
from medsr.io.atomic import atomic_file
from medsr.networks import SRNetwork
from medsr.networks.knots import KnotPlain3D
from medsr.recipe import Recipe, read_recipe
from medsr.train.assistants import MODEL_FOLDER as MODEL_FOLDER
from medsr.train.assistants import Stage, check_stages, stages
from medsr.train.checkpoint import remove_checkpoint
from medsr.train.cohort import Cohort, load_cohort
from medsr.train.finish import outcome, save_model
from medsr.train.logs import RunLog
from medsr.train.optimiser import learning_rate_share
from medsr.train.source import open_stream, simulations
from medsr.train.state import TrainState
from medsr.train.stop import StopRequest
from medsr.train.teachers import weigh_teachers
from medsr.train.validate import validate
from medsr.train.validate_slices import validate_slices

if TYPE_CHECKING:
    from lightning_fabric import Fabric

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
FIGHTING = -0.1
"""Two losses whose gradients have a cosine below this are reported as fighting."""


def run(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = True,
    device: str = "auto",
    devices: int = 1,
    quiet: bool = False,
    cohort: Cohort | None = None,
) -> Path:
    """Train (or distil) a model as a recipe says.

    Args:
        recipe: Recipe, or path of its YAML file.
        overrides: ``key=value`` strings, only with a path.
        out: Run folder; by default ``runs/<name>``.
        resume: Go on from the folder's checkpoint; otherwise start again.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        devices: Processes or GPUs, started by Fabric's launcher, which runs the script again in
            each of them.
        quiet: No progress bar.
        cohort: The recipe's scans, where they are in memory already.

    Returns:
        Folder of the trained model (weights, spec), inside the run folder.

    Raises:
        RecipeError: The recipe is wrong.
        CohortError: The manifest is wrong or a patient stands in two splits.
        CheckpointError: The folder's checkpoint is damaged or belongs to another recipe.
        OutputNotWritableError: The run folder cannot be made or written.
        MissingExtraError: The extra ``train`` is not installed.
        Interrupted: Ctrl-C; the checkpoint of the last finished step is kept.

    Examples:
        >>> import tempfile
        >>> from medsr import SRModel
        >>> from medsr.recipe import recipe_from_dict
        >>> from medsr.train import run
        >>> recipe = recipe_from_dict(
        ...     {
        ...         "name": "tiny",
        ...         "data": {"modality": "CT", "synthetic": {}, "validation_split": None},
        ...         "degradation": {"kind": "ct_slab", "factor": [1, 1, 4]},
        ...         "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 1}},
        ...         "losses": [],  # without scans the teacher alone teaches
        ...         "teacher": "ct-z4",
        ...         "terms": [{"name": "output"}],
        ...         "patches": {"size": [6, 6, 3], "batch": 1},
        ...         "loop": {"steps": 2, "precision": "fp32"},
        ...     }
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = SRModel.load(run(recipe, out=folder, device="cpu", quiet=True))
        >>> model.spec.name, model.spec.scale
        ('tiny', (1, 1, 4))
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtraError(
            "training needs lightning-fabric, which is not installed; pip install 'medsr[train]'"
        ) from error
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe, overrides)
    place = resolve_device(device)
    half = resolve_precision(recipe.loop.precision, place) == "bf16"
    fabric = Fabric(
        accelerator=place.type,
        devices=[place.index] if ":" in str(place) and devices == 1 else devices,
        precision="bf16-mixed" if half else "32-true",
    )
    fabric.launch()
    # What a wrong recipe or checkpoint can show is looked at before the scans are loaded.
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    simulations(recipe)
    chain = stages(recipe, folder)
    check_stages(chain)
    for stage in chain:
        state = TrainState.fresh(stage.recipe, fabric.device, stage.teacher())
        if resume:
            state.restore(stage.folder, stage.recipe)
        finished = stage.is_whole and state.step == stage.recipe.loop.steps
        if finished and stage is not chain[-1]:
            continue
        cohort = cohort or load_cohort(recipe)
        train_stage(fabric, stage, cohort, state, resume=resume, quiet=quiet)
    return chain[-1].model


def train_stage(
    fabric: Fabric, stage: Stage, cohort: Cohort, state: TrainState, *, resume: bool, quiet: bool
) -> None:
    """Take the steps of one stage that are left, and save its model.

    Args:
        fabric: Launched Fabric.
        stage: Recipe and folder.
        cohort: Prepared scans.
        state: Fresh or restored; changed in place.
        resume: Whether what lies in the folder may be used.
        quiet: No progress bar.
    """
    if fabric.is_global_zero:
        prepare_folder(stage.folder, keep=resume)
    distiller = state.objective.distiller
    if distiller is not None and isinstance(distiller.teacher, TeacherPool):
        if fabric.is_global_zero:
            weigh_teachers(distiller.teacher, stage.recipe, stage.folder, keep=resume)
        fabric.barrier()
        if not fabric.is_global_zero:
            weigh_teachers(distiller.teacher, stage.recipe, stage.folder, keep=True)
    fit(fabric, stage.recipe, cohort, state, stage.folder, quiet=quiet)
    if fabric.is_global_zero:
        save_model(state.averaged(), stage.recipe, cohort, stage.model)
    fabric.barrier()


def prepare_folder(folder: Path, *, keep: bool) -> None:
    """Make the run folder; take an old checkpoint away unless it is to be kept.

    Raises:
        OutputNotWritableError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not keep:
            remove_checkpoint(folder)
    except OSError as error:
        raise OutputNotWritableError(
            f"run folder {folder}: cannot be made ({error.strerror}); choose another --out"
        ) from error


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
        MedsrError: The loss or its gradient is not finite.
        Interrupted: Ctrl-C, after the step in hand was finished and saved.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lightning_fabric import Fabric
        >>> from medsr.recipe import recipe_from_dict
        >>> from medsr.train import fit
        >>> from medsr.train.cohort import load_cohort
        >>> from medsr.train.state import TrainState
        >>> recipe = recipe_from_dict(
        ...     {
        ...         "name": "tiny",
        ...         "data": {"modality": "CT", "synthetic": {}, "validation_split": None},
        ...         "degradation": {"kind": "ct_slab", "factor": [1, 1, 4]},
        ...         "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 1}},
        ...         "losses": [],
        ...         "teacher": "ct-z4",
        ...         "terms": [{"name": "output"}],
        ...         "patches": {"size": [6, 6, 3], "batch": 1},
        ...         "loop": {"steps": 2, "precision": "fp32"},
        ...     }
        ... )
        >>> fabric = Fabric(accelerator="cpu", devices=1)
        >>> state = TrainState.fresh(recipe, fabric.device)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit(fabric, recipe, load_cohort(recipe), state, Path(folder), quiet=True)
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['checkpoint.pt', 'log.csv', 'recipe.yaml', 'tensorboard']
        >>> state.step
        2
    """
    loop, main = recipe.loop, fabric.is_global_zero
    degradations = simulations(recipe)
    stream = open_stream(recipe, cohort, fabric.global_rank)
    module = fabric.setup_module(state.objective)
    log = RunLog(folder, state.step, loop.steps, main=main, quiet=quiet)
    if main:
        with atomic_file(folder / RECIPE_FILE, overwrite=True) as temporary:
            temporary.write_text(recipe.to_yaml(), encoding="utf-8")

    def look() -> None:
        """Validate where this step is due."""
        due = state.step == loop.steps or state.step % loop.validate_every == 0
        if main and due and not log.knows(state.step, "validation/"):
            # Merging a network draws initial weights; the training's random state stays untouched.
            with torch.random.fork_rng(devices=[]):
                network = outcome(state.averaged(), recipe)
                scores = _scores(network, cohort, degradations, recipe)
            log.write(state.step, scores)
            logger.info("step %d: %s", state.step, scores)

    with StopRequest() as stop, log, ThreadPoolExecutor(1) as ahead:
        if state.step > 0:
            look()  # A step is saved before it is validated, and the run may have ended in between.
        clock, since = time.perf_counter(), state.step
        upcoming = ahead.submit(stream.batch, state.step)
        while state.step < loop.steps:
            batch, upcoming = upcoming.result(), ahead.submit(stream.batch, state.step + 1)
            values = take_step(fabric, recipe, module, batch, state)
            for name, value in values.items():
                state.running[name] = state.running.get(name, 0.0) + value
            if state.step % loop.log_every == 0:
                means = {f"train/{k}": v / loop.log_every for k, v in state.running.items()}
                rate = (state.step - since) / (time.perf_counter() - clock)
                log.write(state.step, means | beside(state) | {"train/steps_per_second": rate})
                log.advance(state.step, means)
                state.running, clock, since = {}, time.perf_counter(), state.step
            stopped, last = agreed(fabric, stop.asked), state.step == loop.steps
            if main and (stopped or last or state.step % loop.checkpoint_every == 0):
                state.save(folder, recipe)
            if stopped and not last:
                fabric.barrier()
                raise Interrupted(f"stopped after step {state.step}; the same command goes on")
            before = time.perf_counter()
            look()
            clock += time.perf_counter() - before


def _scores(
    network: SRNetwork, cohort: Cohort, degradations: dict[str, Degradation[Any]], recipe: Recipe
) -> dict[str, float]:
    """Validate by what the network is for."""
    slices = {name: own for name, own in degradations.items() if isinstance(own, Slices)}
    if isinstance(network, KnotPlain3D) and slices:
        return validate_slices(network, cohort.validation, slices, recipe)
    return validate(network, cohort.validation, degradations, recipe)


def take_step(
    fabric: Fabric, recipe: Recipe, module: Any, batch: Batch, state: TrainState
) -> dict[str, float]:
    """Take one optimiser step and return its weighted losses by name.

    Raises:
        MedsrError: The loss or its gradient is not finite; the weights are left as they were.
    """
    batch = batch.to(fabric.device)
    progress = state.step / recipe.loop.steps
    compare = (state.step + 1) % recipe.loop.log_every == 0
    losses: dict[str, torch.Tensor] = module(
        batch.lr, batch.hr, batch.domains, progress, compare, batch.condition, batch.sampling
    )
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    fabric.backward(torch.stack(list(losses.values())).sum())
    norm = state.optimiser.clip(recipe.optimiser.clip_norm)
    if not (math.isfinite(sum(values.values())) and math.isfinite(norm)):
        raise MedsrError(
            f"the loss or its gradient is not finite at step {state.step + 1}; lower "
            "optimiser.learning_rate and optimiser.muon_learning_rate"
        )
    state.optimiser.step(learning_rate_share(state.step, recipe.loop.steps, recipe.optimiser))
    state.ema.update_parameters(state.objective.network)
    state.step += 1
    return values


def beside(state: TrainState) -> dict[str, float]:
    """Return what is logged beside the losses: learned weights, and whether gradients fight."""
    weights = state.objective.weights
    learned = {f"train/weight/{name}": weights.now(name, 1.0) for name in weights.log_scale}
    for pair, cosine in state.objective.cosines.items():
        if cosine < FIGHTING:
            logger.info("step %d: gradients of %s fight, cosine %.2f", state.step, pair, cosine)
    cosines = state.objective.cosines
    return learned | {f"train/cosine/{pair}": value for pair, value in cosines.items()}


def agreed(fabric: Fabric, asked: bool) -> bool:
    """Return whether any process was asked to stop, so that all stop after the same step."""
    if fabric.world_size == 1:
        return asked
    votes = fabric.all_reduce(torch.tensor(float(asked), device=fabric.device), reduce_op="sum")
    return bool(torch.as_tensor(votes).item() > 0)

"""The pieces of work of the distillation benchmark, each a function that any process can run.

Scans and cohort are kept by the process, so that they are prepared once in each. Which pieces there
are, and what becomes of their results, is in ``distillation``; processes are in ``workers``.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from medsr import zoo
from medsr.benchmark.arms import Scoring, fingerprint
from medsr.benchmark.held_scans import HeldScans, Row
from medsr.benchmark.workers import stop_if_asked
from medsr.evaluate.baselines import Interpolation
from medsr.infer.engine.device import resolve_device
from medsr.model import SRModel
from medsr.recipe import Recipe
from medsr.spec import SPEC_FILE
from medsr.train.cohort import Cohort, load_cohort
from medsr.train.loop import MODEL_FOLDER, run
from medsr.train.objective import build_student
from medsr.train.timing import seconds_per_step

SPENT_FILE = "spent.json"
"""What a run has cost so far; it outlives an interruption as the checkpoint does."""

_cohorts: dict[str, Cohort] = {}
_held: dict[str, HeldScans] = {}


def make_start(recipe: Recipe, teacher: str, folder: Path) -> Path:
    """Write the untrained student from which all arms of a seed start, unless it is there.

    Args:
        recipe: The reference arm's recipe; its seed decides the weights.
        teacher: Model whose spec tells of the task.
        folder: Where to write.

    Returns:
        The folder.
    """
    if (folder / SPEC_FILE).is_file():
        return folder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build_student(recipe, start=None).merged().eval()
    teacher_spec = SRModel.load(teacher).spec
    spec = replace(
        teacher_spec,
        name=f"start-{recipe.seed}",
        network=recipe.network.name,
        options=network.merged_options(recipe.network.options),
        role="student",
        halo=network.halo,
        multiple_of=network.multiple_of,
        parameters=sum(p.numel() for p in network.parameters()),
        training={},
        description="Untrained student.",
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    SRModel(network, spec).save(folder)
    return folder


def time_steps(recipes: list[Recipe], device: str) -> list[float]:
    """Return the seconds of a step of each recipe, see ``medsr.train.timing``."""
    return list(seconds_per_step(recipes, _cohort(recipes[0]), device=device))


def score_interpolation(recipe: Recipe, scoring: Scoring, method: Interpolation) -> list[Row]:
    """Score an interpolation on the held-out scans."""
    return _scans(recipe, scoring).score_interpolation(method)


def score_shipped(recipe: Recipe, scoring: Scoring, model: str, device: str) -> list[Row]:
    """Score a model, by name or folder, on the held-out scans."""
    loaded = SRModel.load(zoo.resolve(model), device=resolve_device(device))
    return _scans(recipe, scoring).score_model(loaded, device=device)


def train_and_score(recipe: Recipe, scoring: Scoring, folder: Path, device: str) -> dict[str, Any]:
    """Train a student, from its checkpoint where there is one, and score it.

    Args:
        recipe: What to train.
        scoring: What to score on.
        folder: Run folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        ``rows``; ``seconds``, the training's cost (processor time on a processor, else wall time);
        ``wall_seconds``; ``parameters`` at inference.

    Raises:
        Interrupted: The work was stopped; the same call goes on from the checkpoint.
    """
    cohort = _cohort(recipe)
    held = _scans(recipe, scoring)
    stop_if_asked()
    resolved = resolve_device(device)
    spent = _spent(folder)
    wall, cost = time.perf_counter(), time.process_time()
    try:
        run(recipe, out=folder, device=device, quiet=True, cohort=cohort)
    finally:
        wall, cost = time.perf_counter() - wall, time.process_time() - cost
        spent["wall_seconds"] += wall
        spent["seconds"] += cost if resolved.type == "cpu" else wall
        if folder.is_dir():
            (folder / SPENT_FILE).write_text(json.dumps(spent), encoding="utf-8")
    model = SRModel.load(folder / MODEL_FOLDER, device=resolved)
    rows = held.score_model(model, device=device)
    return {"rows": rows, "parameters": model.spec.parameters, **spent}


def _spent(folder: Path) -> dict[str, float]:
    """What an earlier, interrupted run in this folder cost."""
    try:
        plain = json.loads((folder / SPENT_FILE).read_text(encoding="utf-8"))
        return {name: float(plain[name]) for name in ("seconds", "wall_seconds")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"seconds": 0.0, "wall_seconds": 0.0}


def _cohort(recipe: Recipe) -> Cohort:
    """The recipe's training scans; validation is left out, since the whole split is scored."""
    plain = recipe.to_dict()
    data = {name: plain["data"][name] for name in ("manifest", "modality", "train_split")}
    data |= {name: plain["data"][name] for name in ("contrasts", "synthetic")}
    key = fingerprint([data, plain["degradation"]["factor"]])
    if key not in _cohorts:
        bare = replace(recipe, data=replace(recipe.data, validation_split=None))
        _cohorts[key] = load_cohort(bare)
    return _cohorts[key]


def _scans(recipe: Recipe, scoring: Scoring) -> HeldScans:
    plain = recipe.to_dict()
    key = fingerprint([plain["data"]["manifest"], plain["degradation"], asdict(scoring)])
    if key not in _held:
        _held[key] = HeldScans(recipe, scoring)
    return _held[key]

"""Who teaches: the recipe's teacher, or its several teachers with weights from what they can do.

Each of several teachers is scored once, at the start of a run, on validation scans of every domain.
The scores lie in the run folder, so that a run that goes on has exactly the same target. How the
answers become one is :mod:`medsr.distill.pool`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medsr import zoo
from medsr.data.cohort import read_cohort
from medsr.data.manifest import ScanRecord
from medsr.distill.pool import TeacherPool
from medsr.errors import CheckpointError, CohortError, ModelError
from medsr.io.atomic import atomic_file
from medsr.model import SRModel
from medsr.networks import SRNetwork
from medsr.recipe import Recipe, at_key
from medsr.spec import WEIGHTS_FILE
from medsr.train.checkpoint import CHECKPOINT_FILE
from medsr.train.cohort import load_validation
from medsr.train.source import simulations
from medsr.train.validate import foreground_errors

logger = logging.getLogger(__name__)

ERRORS_FILE = "teachers.json"


def load_teacher(recipe: Recipe) -> nn.Module | None:
    """Load the recipe's teacher, or its teachers as a pool in which all count alike as yet.

    Returns:
        A network in evaluation mode; None where the recipe names no teacher.

    Raises:
        ModelError: A teacher cannot be loaded.
        RecipeError: The teachers do not go together.
    """
    if recipe.teacher is not None:
        return load_named(recipe.teacher, "teacher").module
    if not recipe.teachers:
        return None
    with at_key("teachers"):
        models = [load_named(name, str(n)) for n, name in enumerate(recipe.teachers)]
        return TeacherPool([model.module for model in models]).eval()


def load_named(model: str, key: str) -> SRModel:
    """Load a model that a recipe names.

    Args:
        model: Folder or shipped name.
        key: The recipe's key, for messages.

    Raises:
        ModelError: It cannot be loaded.
    """
    try:
        return SRModel.load(model)
    except ModelError as error:
        raise type(error)(f"{key}: {error}") from error


def weigh_teachers(pool: TeacherPool, recipe: Recipe, folder: Path, *, keep: bool) -> None:
    """Weigh a pool by its teachers' validation errors, from the run folder or measured now.

    Args:
        pool: Changed in place.
        recipe: Validation scans, degradations, weighting.
        folder: Run folder, where the errors are kept.
        keep: Whether errors that lie there may be used.

    Raises:
        CheckpointError: The run has begun with other teachers than these.
        CohortError: There is no validation scan.
    """
    if recipe.teacher_weighting.by == "equal":
        return
    path = folder / ERRORS_FILE
    files = [zoo.resolve(name) / WEIGHTS_FILE for name in recipe.teachers]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    stored: dict[str, Any] | None = None
    if keep and path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            stored = None  # torn; measured again
    if stored is None or stored.get("weights_sha256") != hashes:
        if keep and (folder / CHECKPOINT_FILE).is_file():
            raise CheckpointError(
                f"run folder {folder.name}: its teachers or their scores have changed since it "
                "began; start again with --restart"
            )
        errors = measure(pool, recipe)
        stored = {"teachers": list(recipe.teachers), "weights_sha256": hashes, "mse": errors}
        with atomic_file(path, overwrite=True) as temporary:
            temporary.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    pool.weigh(stored["mse"], recipe.teacher_weighting.sharpness)
    for domain in stored["mse"]:
        shares = ", ".join(f"{weight:.2f}" for weight in pool.weights_for(domain))
        logger.info("teachers' weights in %s: %s", domain, shares)


def measure(pool: TeacherPool, recipe: Recipe) -> dict[str, list[float]]:
    """Return each teacher's mean squared error in the body, by domain, in the network's range.

    At most ``data.validation_scans`` scans of each domain are used, one at a time.

    Raises:
        CohortError: There is no validation scan.
    """
    if recipe.data.manifest is None:
        raise CohortError("the recipe names no manifest; teachers are scored on its scans")
    degradations = simulations(recipe)
    domains: dict[str, list[ScanRecord]] = {}
    for record in read_cohort(recipe.data.manifest, check_files=False):
        chosen = recipe.data.takes(record.modality, record.contrast)
        if chosen and record.split == recipe.data.validation_split:
            domains.setdefault(record.domain, []).append(record)
    errors: dict[str, list[float]] = {}
    with torch.random.fork_rng(devices=[]):
        for domain, records in sorted(domains.items()):
            rows = []
            for scan in load_validation(recipe, records):
                measured = [
                    foreground_errors(teacher, scan, degradations, recipe)
                    for teacher in _networks(pool)
                ]
                rows += [[error[0] for error in measured if error is not None]]
            rows = [row for row in rows if row]
            if rows:
                errors[domain] = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    if not errors:
        raise CohortError(
            f"split {recipe.data.validation_split!r} holds no scan to score the teachers on; "
            "name another, or give teacher_weighting: {by: equal}"
        )
    return errors


def _networks(pool: TeacherPool) -> Sequence[SRNetwork]:
    return [teacher for teacher in pool.teachers if isinstance(teacher, SRNetwork)]

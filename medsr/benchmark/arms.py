"""The arms of the distillation benchmark: one base recipe, and what each arm changes in it.

The file of arms is YAML with ``base`` (a recipe without terms), ``arms`` (changes by name, merged
over the base) and ``scoring``. Nothing is trained or scored here; see ``arm_work`` and
``distillation``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from medsr.errors import RecipeError
from medsr.model import SRModel
from medsr.recipe import Recipe, apply_override, merge, recipe_from_dict

REFERENCE = "undistilled"
"""The arm that all others are compared with; it changes nothing."""
LONGER = "longer"
"""Name of the arm that spends a teacher's cost on more steps of the reference's training."""

_KEYS = frozenset({"base", "arms", "scoring"})
_VOLATILE = ("validate_every", "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Scoring:
    """What is scored, and how much of it.

    Attributes:
        split: Split of the manifest that is not learnt from.
        axes: ``rotate`` coarsens each scan along one of its sharp axes, in turn; ``all`` along
            each of them.
        limit: At most so many scans, spread evenly over the split; None for all.
    """

    split: str = "dev"
    axes: Literal["rotate", "all"] = "rotate"
    limit: int | None = None


@dataclass(frozen=True)
class Arm:
    """One way to train the student.

    Attributes:
        name: How tables call it.
        about: One sentence for the reader.
        changes: What is merged over the base recipe; lists are replaced as a whole.
        as_long_as: Arm whose wall time this one's steps are to fill; None for the base's steps.
    """

    name: str
    about: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    as_long_as: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A whole benchmark as data.

    Attributes:
        base: Recipe without terms, plain data; its teacher is the one to learn from.
        arms: All arms by name; :data:`REFERENCE` is the first.
        scoring: What is scored.
    """

    base: Mapping[str, Any]
    arms: Mapping[str, Arm]
    scoring: Scoring

    @property
    def teacher(self) -> str:
        """Name or folder of the teacher."""
        return str(self.base["teacher"])

    def recipe(
        self, arm: str, seed: int, *, start: str | None = None, steps: int | None = None
    ) -> Recipe:
        """Return the whole recipe of an arm.

        Args:
            arm: Name of an arm.
            seed: Seed of initialisation and batches.
            start: Model from which every arm starts; an arm that names its own keeps that.
            steps: Optimiser steps in place of the recipe's.

        Raises:
            RecipeError: The merged recipe is wrong.
        """
        plain = merge(self.base, self.arms[arm].changes)
        plain |= {"name": f"{arm}-{seed}", "role": "student", "seed": seed}
        if not plain.get("terms"):
            # A teacher that no term asks would be loaded for nothing.
            plain |= {"teacher": None, "teachers": []}
        elif plain.get("teachers"):
            plain["teacher"] = None
        plain["network"] = {"start": start} | plain.get("network", {})
        if steps is not None:
            plain["loop"] = plain.get("loop", {}) | {"steps": steps}
        return recipe_from_dict(plain, source=f"arms.{arm}")

    def key(self, recipe: Recipe) -> str:
        """Return a name for all that the result of a recipe depends on.

        The folders of one machine, the names of runs and how often a run logs are no part of it;
        the teachers' weights are.
        """
        plain = recipe.to_dict()
        for name in ("name", "description"):
            plain.pop(name)
        for name in _VOLATILE:
            plain["loop"].pop(name)
        plain["data"]["manifest"] = _file_name(plain["data"]["manifest"])
        if recipe.network.start is not None:
            plain["network"]["start"] = "the benchmark's"
        teachers = [name for name in (recipe.teacher, *recipe.teachers) if name is not None]
        plain["weights"] = [_weights(name) for name in teachers]
        return fingerprint({"recipe": plain, "scoring": vars(self.scoring)})

    def shown_base(self) -> dict[str, Any]:
        """Return the base as results show it: without folders of one machine."""
        plain = deepcopy(dict(self.base))
        plain["data"] = plain["data"] | {"manifest": _file_name(plain["data"].get("manifest"))}
        return cast("dict[str, Any]", json.loads(json.dumps(plain)))


def read_benchmark(path: str | Path, overrides: Sequence[str] = ()) -> Benchmark:
    """Read a file of arms and check every arm's recipe.

    Args:
        path: YAML file.
        overrides: ``key=value`` strings, such as ``base.loop.steps=100`` or ``scoring.limit=2``.

    Raises:
        RecipeError: The file cannot be read, or a key is wrong.
    """
    path = Path(path)
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path}: is no valid YAML; correct the file") from error
    if not isinstance(plain, dict) or not {"base", "arms"} <= plain.keys() <= _KEYS:
        raise RecipeError(f"{path}: give base and arms, and perhaps scoring; no other key")
    for override in overrides:
        apply_override(plain, override)
    base, arms = plain["base"], plain["arms"]
    if not isinstance(base, dict) or not isinstance(arms, dict) or base.get("terms"):
        raise RecipeError(f"{path}: base is a recipe without terms, arms a mapping of names")
    for key in ("data", "teacher"):
        if not base.get(key):
            raise RecipeError(f"{path}: base.{key}: missing; give it a value")
    benchmark = Benchmark(base, _arms(arms, path), _scoring(plain.get("scoring") or {}, path))
    for name in benchmark.arms:
        benchmark.recipe(name, 0)
    return benchmark


def fingerprint(value: Any) -> str:
    """Return a short hash of plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _arms(plain: Mapping[str, Any], path: Path) -> dict[str, Arm]:
    by_name = {REFERENCE: Arm(REFERENCE)}
    for name, changes in plain.items():
        if changes is not None and not isinstance(changes, dict):
            raise RecipeError(f"{path}: arms.{name}: is no mapping of keys")
        rest = dict(changes or {})
        about, target = str(rest.pop("about", "")), rest.pop("as_long_as", None)
        if target is not None and (target not in plain or plain[target].get("as_long_as")):
            raise RecipeError(f"{path}: arms.{name}.as_long_as: {target!r} is no arm to time")
        by_name[str(name)] = Arm(str(name), about, rest, target)
    if by_name[REFERENCE].changes:
        raise RecipeError(f"{path}: arms.{REFERENCE}: is the base as it is; change the base")
    return by_name


def _scoring(plain: Mapping[str, Any], path: Path) -> Scoring:
    try:
        scoring = Scoring(**plain)
    except TypeError as error:
        raise RecipeError(f"{path}: scoring: takes split, axes and limit alone") from error
    if scoring.axes not in ("rotate", "all") or scoring.split.lower() == "train":
        raise RecipeError(
            f"{path}: scoring: axes is rotate or all, and split one that is not learnt from"
        )
    limit: object = scoring.limit
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise RecipeError(f"{path}: scoring.limit: give a whole number from 1, or null")
    return scoring


@cache
def _weights(model: str) -> str:
    return SRModel.load(model).weight_hash


def _file_name(path: str | None) -> str | None:
    return None if path is None else Path(path).name

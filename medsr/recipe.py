"""``Recipe``: the whole of a training run as data.

Python and YAML build the same frozen objects. Unknown keys, wrong types and values out of range
are errors that name the key's path. ``key=value`` overrides use the same dotted paths. The
resolved recipe is saved beside every checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from medsr.errors import MedsrError, RecipeError

Modality = Literal["MR", "CT"]
Triple = tuple[
    Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]
]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]

_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class DataRecipe:
    """Which scans are learnt from.

    Attributes:
        manifest: CSV manifest; a relative path is relative to the working folder.
        modality: Scans of this modality are used.
        train_split: Split to learn from.
        validation_split: Split for validation during training; None for none.
        validation_scans: At most so many scans are validated on.
        validation_size: Central crop in high-resolution voxels that is validated on.
    """

    manifest: str
    modality: Modality
    train_split: str = "train"
    validation_split: str | None = "dev"
    validation_scans: Count = 4
    validation_size: Triple = (128, 128, 128)


@dataclass(frozen=True, config=_CONFIG)
class DegradationRecipe:
    """How low resolution is simulated; see :mod:`medsr.degrade`.

    Attributes:
        kind: Name of the degradation.
        factor: Factors along (in-plane, in-plane, slice) axis.
        options: The degradation's own arguments.
    """

    kind: str
    factor: Triple
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class PatchRecipe:
    """What one training step sees.

    Attributes:
        size: Patch in low-resolution voxels.
        batch: Patches a step (per process).
        foreground: Share of patches centred on the body.
        intensity_jitter: Intensities are multiplied by 1 ± this.
        flips: Flip along each axis with probability one half.
        rotations: Turn by multiples of 90° in plane (all planes for isotropic factors).
    """

    size: Triple = (24, 24, 12)
    batch: Count = 8
    foreground: Fraction = 0.9
    intensity_jitter: Fraction = 0.1
    flips: bool = True
    rotations: bool = True


@dataclass(frozen=True, config=_CONFIG)
class NetworkRecipe:
    """A network by name and its options.

    Attributes:
        name: Name in ``medsr.networks.NETWORKS``.
        options: The network's own arguments, without the scale.
        start: Folder or name of a model whose weights are taken as the start; None for none. A
            larger ``RepPlain3D`` is grown from a smaller one.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    start: str | None = None


@dataclass(frozen=True, config=_CONFIG)
class WeightedTerm:
    """A loss or distillation term by name, with its weight and options."""

    name: str
    weight: Positive = 1.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class OptimiserRecipe:
    """Muon for hidden kernels and AdamW for the rest: warm-up, plateau, cosine.

    Attributes:
        learning_rate: AdamW's peak learning rate.
        muon_learning_rate: Muon's peak learning rate, on AdamW's scale (its updates have the same
            root mean square); 0 leaves all parameters to AdamW.
        plateau: Share of the steps at the peak before the cosine begins.
        final_share: The cosine ends at this share of the peaks.
        warmup_steps: Linear warm-up.
        weight_decay: AdamW's decoupled weight decay.
        muon_weight_decay: Muon's decoupled weight decay.
        betas: Adam's momenta.
        clip_norm: Gradients are scaled to at most this norm.
        ema_decay: Decay of the moving average of the weights, which is what is validated and
            saved; 0 switches it off.
    """

    learning_rate: Positive = 1e-3
    muon_learning_rate: Annotated[float, Field(ge=0)] = 1e-3
    plateau: BelowOne = 0.3
    final_share: Fraction = 0.01
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    muon_weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.99)
    clip_norm: Positive = 0.5
    ema_decay: BelowOne = 0.99


@dataclass(frozen=True, config=_CONFIG)
class LoopRecipe:
    """How long to train, and how often to look.

    Attributes:
        steps: Optimiser steps in all.
        precision: ``auto`` takes bf16 where the processor or GPU has it.
        validate_every: Steps between validations on whole scans.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
    """

    steps: Count = 4000
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validate_every: Count = 1000
    checkpoint_every: Count = 250
    log_every: Count = 50


@dataclass(frozen=True, config=_CONFIG)
class Recipe:
    """A whole training run.

    Attributes:
        name: Name of the model that comes out.
        role: ``teacher`` or ``student``; recorded in the model's spec.
        seed: Seed of initialisation, data order and noise, from 0.
        data: Which scans.
        degradation: How low resolution is simulated.
        network: What is trained.
        losses: Losses against the truth.
        teacher: Folder or name of the teacher; only for distillation.
        terms: Distillation terms; only together with a teacher.
        patches: What a step sees.
        optimiser: How weights move.
        loop: How long.
        description: One sentence for the model's spec.
    """

    name: str
    data: DataRecipe
    degradation: DegradationRecipe
    network: NetworkRecipe
    role: Literal["teacher", "student"] = "student"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    losses: tuple[WeightedTerm, ...] = (WeightedTerm("l1"),)
    teacher: str | None = None
    terms: tuple[WeightedTerm, ...] = ()
    patches: PatchRecipe = field(default_factory=PatchRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    description: str = ""

    def __post_init__(self) -> None:
        """Check what no single key can show."""
        if bool(self.terms) != (self.teacher is not None):
            raise ValueError("teacher and terms belong together: give both or neither")
        if not self.losses and not self.terms:
            raise ValueError("losses and terms are both empty; nothing would be learnt")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data."""
        plain: dict[str, Any] = _RECIPE.dump_python(self, mode="json")
        return plain

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False)
        return text


_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def recipe_from_dict(plain: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """Build a recipe from plain data.

    Args:
        plain: Nested mapping as YAML gives it.
        source: What messages call it.

    Raises:
        RecipeError: The first wrong key, by its dotted path.
    """
    try:
        return _RECIPE.validate_python(dict(plain))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        path = ".".join(str(part) for part in first["loc"]) or "(whole recipe)"
        more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
        if first["type"] == "unexpected_keyword_argument":
            message = "unknown key; remove it or correct its spelling"
        elif first["type"] in ("missing", "missing_argument"):
            message = "missing; give it a value"
        elif not first["loc"]:
            message = first["msg"].removeprefix("Value error, ")
        else:
            message = f"{first['msg']}, found {_short(first['input'])}"
        raise RecipeError(f"{source}: {path}: {message}{more}") from error


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a YAML recipe and apply ``key=value`` overrides.

    Args:
        path: YAML file.
        overrides: Strings such as ``loop.steps=100`` or ``network.options.width=48``; values are
            read as YAML.

    Raises:
        RecipeError: If the file cannot be read or parsed, or a key is wrong.
    """
    path = Path(path)
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"recipe {path}: cannot be read ({error.strerror}); check the path"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date of month 13, or no UTF-8
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise RecipeError(f"recipe {path}: is no valid YAML{where}; correct the file") from error
    if not isinstance(plain, dict):
        raise RecipeError(f"recipe {path}: holds no mapping of keys; see docs/reference/recipes.md")
    for override in overrides:
        _apply_override(plain, override)
    return recipe_from_dict(plain, source=path.name)


@contextmanager
def at_key(path: str) -> Iterator[None]:
    """Name a recipe's key in whatever is refused while its value is put to use.

    Args:
        path: Dotted path such as ``losses.0``.

    Raises:
        RecipeError: What was built within the ``with`` block did not take its name or options.
    """
    try:
        yield
    except (MedsrError, TypeError, ValueError) as error:
        raise RecipeError(f"recipe: {path}: {error}") from error


def _apply_override(plain: dict[str, Any], override: str) -> None:
    """Set one dotted key in place."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"override {override!r}: write it as key=value, such as loop.steps=100")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"override {key}: {text!r} is no valid YAML value") from error
    *parents, last = key.split(".")
    node: Any = plain
    for depth, parent in enumerate(parents):
        index: Any = int(parent) if isinstance(node, list) and parent.isdecimal() else parent
        try:
            node = node.setdefault(index, {}) if isinstance(node, dict) else node[index]
        except (IndexError, TypeError, KeyError) as error:
            raise RecipeError(
                f"override {key}: {'.'.join(parents[: depth + 1])} is absent"
            ) from error
    if isinstance(node, list) and last.isdecimal() and int(last) < len(node):
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise RecipeError(f"override {key}: {'.'.join(parents)} holds no keys")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "..."

"""The models that ``compression`` compares, and how each is made from the one before it.

Everything that is made lies in one work folder under names that hold a digest of all that it
depends on, so nothing is made twice and nothing stale is taken for new.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from medsr.compress import QuantisedModel, calibration_patches, prune, quantise
from medsr.errors import UsageError
from medsr.model import ModelSpec, SRModel
from medsr.recipe import Recipe, read_recipe, recipe_from_dict
from medsr.spec import SPEC_FILE
from medsr.train import run as train
from medsr.types import Triple

Training = Literal["none", "plain", "distilled"]

SCHEMA = 1
MODEL_FOLDER = "model"
"""Where a run leaves its model, within its own folder."""
_WORDS: dict[Training, str] = {"none": "", "plain": "trained on", "distilled": "distilled"}
_TERMS = [{"name": "output", "weight": 0.5}]


@dataclass(frozen=True)
class Variant:
    """One row: what is done to a model.

    Attributes:
        base: Label of the model that it starts from.
        role: ``teacher`` or ``student``.
        width: Channels that pruning leaves; None for no pruning.
        training: Further training after pruning: none, on the truth alone, or with the teacher.
        int8: Whether it is quantised in the end.
    """

    base: str
    role: Literal["teacher", "student"]
    width: int | None = None
    training: Training = "none"
    int8: bool = False

    @property
    def label(self) -> str:
        """A short name for tables, such as ``mr-z4, width 16, distilled, int8``."""
        width = f"width {self.width}" if self.width else ""
        words = (self.base, width, _WORDS[self.training], "int8" if self.int8 else "")
        return ", ".join(word for word in words if word)


@dataclass(frozen=True)
class Settings:
    """What all rows have in common.

    Attributes:
        cohort: Manifest; the training split serves to train and to calibrate.
        work: Folder of the models and runs that come about.
        split: Split to score on.
        limit: At most so many scans are scored; None for all.
        steps: Training steps after pruning.
        recipe: Recipe to train by; None takes the one in the model's spec.
        overrides: ``key=value`` strings, only with a recipe.
        shape: Low-resolution voxels of the volume that is timed.
        runs: How often it is timed.
        device: Where networks run and train.
        precision: Of the float models.
    """

    cohort: Path
    work: Path
    split: str = "dev"
    limit: int | None = None
    steps: int = 1000
    recipe: Path | None = None
    overrides: tuple[str, ...] = ()
    shape: Triple = (128, 128, 32)
    runs: int = 5
    device: str = "cpu"
    precision: str = "auto"


def variants(
    teacher: str, students: Sequence[str], widths: dict[str, int | None]
) -> tuple[Variant, ...]:
    """List the rows.

    Args:
        teacher: The teacher's label.
        students: The students' labels.
        widths: Channels to prune each to; None where it cannot be pruned.
    """
    rows: list[Variant] = []
    roles: list[tuple[str, Literal["teacher", "student"]]] = [(teacher, "teacher")]
    for label, role in [*roles, *((student, "student") for student in students)]:
        rows += [Variant(label, role), Variant(label, role, int8=True)]
        width = widths[label]
        if width is not None:
            ways: tuple[Training, ...] = ("none", "plain", "distilled")
            rows += [Variant(label, role, width, way) for way in ways]
            rows.append(Variant(label, role, width, "distilled", int8=True))
    return tuple(rows)


@dataclass
class Workshop:
    """Makes the models of the rows, each from the one before it.

    Attributes:
        settings: What all rows have in common.
        teacher: The teacher's label.
        folders: Model folder of every label.
    """

    settings: Settings
    teacher: str
    folders: dict[str, Path]
    _loaded: dict[str, SRModel] = field(default_factory=dict)

    def base(self, label: str) -> SRModel:
        """Return a loaded base model."""
        if label not in self._loaded:
            self._loaded[label] = SRModel.load(self.folders[label])
        return self._loaded[label]

    def key(self, variant: Variant) -> str:
        """Return a digest of all that a row depends on, but the machine."""
        settings = asdict(self.settings)
        for name in ("work", "cohort", "recipe", "overrides"):
            settings.pop(name)
        inputs = {
            "schema": SCHEMA,
            "variant": asdict(variant),
            "settings": settings,
            "cohort": hashlib.sha256(self.settings.cohort.read_bytes()).hexdigest(),
            "base": self.base(variant.base).weight_hash,
        }
        if variant.training != "none":
            plain = self.recipe(variant, start="").to_dict()
            plain.pop("teacher")
            plain["data"].pop("manifest")
            inputs |= {"recipe": plain, "teacher": self.base(self.teacher).weight_hash}
        text = json.dumps(inputs, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def make(self, variant: Variant) -> tuple[SRModel, Path]:
        """Make a row's model.

        Returns:
            The model and the folder that it is saved in.

        Raises:
            Interrupted: Ctrl-C during training; its checkpoint is kept.
            MissingExtraError: The extra ``compress`` or ``train`` is not installed.
        """
        if variant == Variant(variant.base, variant.role):
            return self.base(variant.base), self.folders[variant.base]
        folder = self.settings.work / f"{_slug(variant.label)}-{self.key(variant)[:8]}"
        trained = variant.training != "none" and not variant.int8
        saved = folder / MODEL_FOLDER if trained else folder
        # The spec is the last file of a model to be written.
        if not (saved / SPEC_FILE).exists():
            if variant.int8:
                self._quantise(variant, folder)
            elif trained:
                start = self.make(Variant(variant.base, variant.role, variant.width))[1]
                recipe = self.recipe(variant, start=str(start))
                train(recipe, out=folder, device=self.settings.device, quiet=True)
            else:
                pruned = prune(self.base(variant.base), width=variant.width)
                pruned.save(folder, dtype=_stored(pruned))
        # What is measured is what a user would load.
        loader = QuantisedModel if variant.int8 else SRModel
        return loader.load(saved), saved

    def recipe(self, variant: Variant, *, start: str) -> Recipe:
        """Return the recipe by which a pruned model is trained on.

        Args:
            variant: The row.
            start: Folder of the pruned model.

        Raises:
            RecipeError: The recipe is wrong.
            UsageError: There is none.
        """
        settings, spec = self.settings, self.base(variant.base).spec
        if settings.recipe is not None:
            plain = read_recipe(settings.recipe, settings.overrides).to_dict()
        elif "recipe" in spec.training:
            plain = dict(spec.training["recipe"])
        else:
            raise UsageError(
                f"model {spec.name} carries no recipe to train by after pruning; name one with "
                "--recipe"
            )
        branches = plain["network"]["options"].get("branches")
        options = {**spec.options, "width": variant.width}
        if branches is not None and "branches" in spec.options:
            options["branches"] = branches
        distilled = variant.training == "distilled"
        changes = {
            "name": _slug(variant.label),
            "role": spec.role,
            "description": f"{variant.label} ({settings.steps} steps)",
            "data": {
                **plain["data"],
                "manifest": str(settings.cohort),
                "modality": spec.modality,
                "synthetic": None,
            },
            "degradation": _degradation(spec, plain["degradation"]),
            "network": {"name": spec.network, "options": options, "start": start or None},
            "teacher": str(self.folders[self.teacher]) if distilled else None,
            "teachers": [],
            "assistants": [],
            "terms": (plain.get("terms") or _TERMS) if distilled else [],
            "losses": plain.get("losses") or [{"name": "l1"}],
            "loop": {**plain.get("loop", {}), "steps": settings.steps},
        }
        return recipe_from_dict({**plain, **changes}, source=f"recipe of {variant.label}")

    def _quantise(self, variant: Variant, folder: Path) -> None:
        float_twin = Variant(variant.base, variant.role, variant.width, variant.training)
        model, _ = self.make(float_twin)
        quantise(model, calibration_patches(self.settings.cohort, model.spec)).save(folder)


def _stored(model: SRModel) -> torch.dtype | None:
    """Teachers are stored in half precision, as training leaves them."""
    return torch.float16 if model.spec.role == "teacher" else None


def _degradation(spec: ModelSpec, fallback: dict[str, Any]) -> dict[str, Any]:
    """Return a spec's degradation as a recipe writes it, so that one recipe serves all tasks."""
    options = dict(spec.trained_degradation)
    kind = options.pop("kind", None)
    options.pop("factor", None)
    if kind is None:
        return fallback
    return {"kind": kind, "factor": list(spec.scale), "options": options}


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")

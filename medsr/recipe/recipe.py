"""``Recipe``: the whole of a training run as one frozen object."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from medsr.recipe.data import DataRecipe, DegradationRecipe
from medsr.recipe.parts import (
    Learned,
    LoopRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    PatchRecipe,
    WeightedTerm,
)
from medsr.recipe.teaching import AssistantRecipe, TeacherWeighting


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
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
        terms: Distillation terms; most need a teacher.
        teachers: Folders or names of several teachers, which give one answer; in place of
            ``teacher``.
        teacher_weighting: How the answers of several teachers become one.
        assistants: Networks between teacher and student, trained one after the other with the
            recipe's losses and terms, each under the one before; the student learns from the last.
        patches: What a step sees.
        optimiser: How weights move.
        loop: How long.
        description: One sentence for the model's spec.

    Examples:
        >>> from medsr import Recipe
        >>> from medsr.recipe import DataRecipe, DegradationRecipe, LoopRecipe, NetworkRecipe
        >>> recipe = Recipe(
        ...     name="my-mr-z4",
        ...     data=DataRecipe(manifest="cohort.csv", modality="MR"),
        ...     degradation=DegradationRecipe("slice_profile", (1, 1, 4), {"thickness": 0.9}),
        ...     network=NetworkRecipe("RepPlain3D", {"width": 32, "depth": 8}),
        ...     loop=LoopRecipe(steps=2000),
        ... )
        >>> recipe.losses[0].name, recipe.patches.size  # what is not given has a default
        ('l1', (24, 24, 12))
        >>> print(recipe.to_yaml().splitlines()[0])
        name: my-mr-z4
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
    teachers: tuple[str, ...] = ()
    teacher_weighting: TeacherWeighting = field(default_factory=TeacherWeighting)
    assistants: tuple[AssistantRecipe, ...] = ()
    patches: PatchRecipe = field(default_factory=PatchRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    description: str = ""

    def __post_init__(self) -> None:
        """Check what no single key can show."""
        taught = self.teacher is not None or bool(self.teachers)
        if self.teacher is not None and self.teachers:
            raise ValueError("teacher and teachers are both given; keep one of them")
        if taught and not self.terms:
            raise ValueError("a teacher without terms teaches nothing: give terms too")
        if self.assistants and not taught:
            raise ValueError("assistants stand between a teacher and the student: give a teacher")
        learned = [w for w in (*self.losses, *self.terms) if isinstance(w.weight, Learned)]
        if len(learned) == 1:
            raise ValueError(
                f"the weight of {learned[0].name} is the only learned one, and only how learned "
                "weights stand to each other is learned: give one to another loss too"
            )
        measured = self.teachers and self.teacher_weighting.by == "validation_error"
        if measured and None in (self.data.manifest, self.data.validation_split):
            raise ValueError(
                "teachers are weighted by their errors on validation scans, and there are none: "
                "give data.manifest and data.validation_split, or teacher_weighting: {by: equal}"
            )
        if self.data.synthetic is not None and (self.losses or not taught):
            raise ValueError(
                "synthetic volumes hold no truth worth learning, only the teacher teaches: "
                "give a teacher, and losses: []"
            )
        if not self.losses and not self.terms:
            raise ValueError("losses and terms are both empty; nothing would be learnt")

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data."""
        plain: dict[str, Any] = RECIPE.dump_python(self, mode="json")
        return plain

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML."""
        text: str = yaml.safe_dump(self.to_dict(), sort_keys=False)
        return text


RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)

"""``Recipe``: the whole of a training run as data.

Python and YAML build the same frozen objects. Unknown keys, wrong types and values out of range
are errors that name the key's path. A file may name another as its ``base`` and give what differs
alone. ``key=value`` overrides use the same dotted paths. The
resolved recipe is saved beside every checkpoint.
"""

from __future__ import annotations

from medsr.recipe.data import DataRecipe, DegradationRecipe, SimulationRecipe, SyntheticRecipe
from medsr.recipe.parts import (
    AdapterRecipe,
    Learned,
    LoopRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    PatchRecipe,
    Ramp,
    Weight,
    WeightedTerm,
)
from medsr.recipe.read import (
    apply_override,
    at_key,
    merge,
    read_plain,
    read_recipe,
    recipe_from_dict,
    with_overrides,
)
from medsr.recipe.recipe import Recipe
from medsr.recipe.teaching import AssistantRecipe, TeacherWeighting

__all__ = [
    "AdapterRecipe",
    "AssistantRecipe",
    "DataRecipe",
    "DegradationRecipe",
    "Learned",
    "LoopRecipe",
    "NetworkRecipe",
    "OptimiserRecipe",
    "PatchRecipe",
    "Ramp",
    "Recipe",
    "SimulationRecipe",
    "SyntheticRecipe",
    "TeacherWeighting",
    "Weight",
    "WeightedTerm",
    "apply_override",
    "at_key",
    "merge",
    "read_plain",
    "read_recipe",
    "recipe_from_dict",
    "with_overrides",
]

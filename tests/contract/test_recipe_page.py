"""The reference of recipes lists every key with its default, and no key that is not there."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from medsr import recipe
from medsr.degrade import DEGRADATIONS
from medsr.distill.terms import TERMS
from medsr.losses import LOSSES
from medsr.networks import NETWORKS
from medsr.plugins import Registry
from medsr.recipe import recipe_from_dict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "recipes.md"
ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", re.MULTILINE)
SECTIONS = {
    "data": recipe.DataRecipe,
    "data.synthetic": recipe.SyntheticRecipe,
    "degradation": recipe.DegradationRecipe,
    "network": recipe.NetworkRecipe,
    "patches": recipe.PatchRecipe,
    "optimiser": recipe.OptimiserRecipe,
    "loop": recipe.LoopRecipe,
    "teacher_weighting": recipe.TeacherWeighting,
}
SMALLEST = {
    "name": "x",
    "data": {"manifest": "x.csv", "modality": "MR"},
    "degradation": {"kind": "kspace", "factor": [2, 2, 2]},
    "network": {"name": "RepPlain3D"},
}
WITHOUT_SCANS = {
    "data": {"modality": "MR", "synthetic": {}},
    "losses": [],
    "teacher": "x",
    "terms": [{"name": "output"}],
}


def documented() -> dict[str, str]:
    return dict(ROW.findall(PAGE.read_text(encoding="utf-8")))


def test_every_key_is_listed_once() -> None:
    keys = {field.name for field in dataclasses.fields(recipe.Recipe)}
    for section, cls in SECTIONS.items():
        keys |= {f"{section}.{field.name}" for field in dataclasses.fields(cls)}
    listed = [key for key, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]
    assert sorted(listed) == sorted(keys)


# Options that the page tells of once for all of a kind, and those that no recipe gives.
COMMON = {"scale", "factor", "name", "fold", "interpolation", "head", "views", "options"}
COMMON |= {"args", "kwargs", "mirror", "student_channels", "teacher_channels"}


@pytest.mark.parametrize("registry", [NETWORKS, DEGRADATIONS, LOSSES, TERMS], ids=lambda r: r.what)
def test_all_that_is_registered_is_there_with_its_options(registry: Registry[Any]) -> None:
    told = set(re.findall(r"`([\w.]+)(?:=[^`]*)?`", PAGE.read_text(encoding="utf-8")))
    for entry in registry.entries():
        assert entry.name in told, entry.name
        missing = set(inspect.signature(entry.factory).parameters) - COMMON - told
        assert not missing, f"{entry.name}: {sorted(missing)}"


def test_the_listed_defaults_are_those_of_the_smallest_recipe() -> None:
    smallest = recipe_from_dict(SMALLEST).to_dict()
    free = recipe_from_dict(SMALLEST | WITHOUT_SCANS).to_dict()
    compared = 0
    for key, text in documented().items():
        if not text.startswith("`"):
            continue
        value = free if key.startswith("data.synthetic.") else smallest
        for part in key.split("."):
            value = value[part]
        expected = yaml.safe_load(text.strip("`"))
        if key == "losses":
            value = [{"name": entry["name"]} for entry in value]
        assert value == expected, key
        compared += 1
    assert compared > 20

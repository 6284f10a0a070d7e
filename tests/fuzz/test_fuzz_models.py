"""Model folders and recipes that somebody sent: damaged weights, specs and settings."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medsr.model import SRModel
from medsr.recipe import read_plain, read_recipe

Edits = list[list[Any]]
VALUES: list[Any] = [None, True, -1, 0, 1, 3, 10**12, 1e308, float("nan"), "", "x", "../x", [], {}]
VALUES += [[1], [1, 1, 4, 4], [0, 0, 0], [-1, 1, 2], ["a"], {"width": 10**9}, {"x": 1}]


def propose(rng: np.random.Generator, propose_spoil: Callable[..., Edits]) -> Edits:
    """A setting changed or left out; or damaged bytes in the weights or the settings."""
    kind = rng.random()
    if kind < 0.6:
        return [["set", round(float(rng.random()), 6), VALUES[rng.integers(len(VALUES))]]]
    if kind < 0.7:
        return [["drop", round(float(rng.random()), 6)]]
    name = str(rng.choice(["text", "weights"]))
    within = 0.1 if name == "weights" and rng.random() < 0.7 else 1.0
    return [["in", name], *propose_spoil(rng, within=within)]


def change(tree: Any, edits: Edits) -> Any:
    """Change a place of a tree of dictionaries, given as a share of all its places."""
    for kind, *what in edits:
        if kind not in ("set", "drop"):
            continue
        places = list(_places(tree))
        holder, key = places[int(what[0] * len(places))]
        if kind == "set":
            holder[key] = what[1]
        else:
            del holder[key]
    return tree


def _places(tree: Any) -> Any:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield tree, key
        yield from _places(value)


@pytest.fixture
def build_model(
    tiny_model: Callable[..., Path], spoil: Callable[[bytes, Edits], bytes]
) -> Callable[..., Path]:
    """Writes a model folder with its faults."""
    model = tiny_model()

    def build(edits: Edits, folder: Path) -> Path:
        target = folder / "model"
        target.mkdir()
        spec = json.dumps(change(json.loads((model / "spec.json").read_text()), edits)).encode()
        weights = (model / "weights.safetensors").read_bytes()
        if ["in", "text"] in edits:
            spec = spoil(spec, edits)
        elif ["in", "weights"] in edits:
            weights = spoil(weights, edits)
        (target / "spec.json").write_bytes(spec)
        (target / "weights.safetensors").write_bytes(weights)
        return target

    return build


def use_model(path: Path) -> None:
    """Load it."""
    SRModel.load(path)


def test_models(
    fuzz: Any, build_model: Callable[..., Path], propose_spoil: Callable[..., Edits]
) -> None:
    torch.zeros(1)  # its libraries are there before memory is bounded
    fuzz.run("model", lambda rng: propose(rng, propose_spoil), build_model, use_model)


def test_models_corpus(fuzz: Any, build_model: Callable[..., Path]) -> None:
    fuzz.replay("model", build_model, use_model)


KEYS = ("name", "role", "description", "seed", "data", "degradation", "network", "losses")
KEYS += ("patches", "optimiser", "loop")


@pytest.fixture
def build_recipe(repository: Path, spoil: Callable[[bytes, Edits], bytes]) -> Callable[..., Path]:
    """Writes a recipe with its faults."""
    plain = read_plain(repository / "configs" / "students" / "mr-z4-fsrcnn.yaml")
    good = {key: plain[key] for key in KEYS}  # edits name places by their order

    def build(edits: Edits, folder: Path) -> Path:
        path = folder / "recipe.yaml"
        text = yaml.safe_dump(change(copy.deepcopy(good), edits)).encode()
        path.write_bytes(spoil(text, edits))
        return path

    return build


def test_recipes(
    fuzz: Any, build_recipe: Callable[..., Path], propose_spoil: Callable[..., Edits]
) -> None:
    fuzz.run("recipe", lambda rng: propose(rng, propose_spoil), build_recipe, read_recipe)


def test_recipes_corpus(fuzz: Any, build_recipe: Callable[..., Path]) -> None:
    fuzz.replay("recipe", build_recipe, read_recipe)

"""A tiny recipe for tests of the training's parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medsr.recipe import Recipe, recipe_from_dict


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """Return a function that builds a tiny recipe; top-level keys can be replaced."""

    def make(**changes: Any) -> Recipe:
        plain: dict[str, Any] = {
            "name": "tiny",
            "data": {"manifest": "manifest.csv", "modality": "MR"},
            "degradation": {"kind": "slice_profile", "factor": [1, 1, 2]},
            "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}},
        }
        return recipe_from_dict(plain | changes)

    return make

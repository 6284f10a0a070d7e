"""Recipes that say who teaches, for several modalities, or without scans."""

from __future__ import annotations

from typing import Any

import pytest

from medsr.errors import RecipeError
from medsr.recipe import AssistantRecipe, DataRecipe, SyntheticRecipe, recipe_from_dict

PLAIN: dict[str, Any] = {
    "name": "tiny",
    "data": {"manifest": "manifest.csv", "modality": "MR"},
    "degradation": {"kind": "slice_profile", "factor": [1, 1, 4]},
    "network": {"name": "RepPlain3D", "options": {"width": 16}},
}
TERMS: dict[str, Any] = {"terms": [{"name": "output"}]}
FREE: dict[str, Any] = {
    **TERMS,
    "data": {"modality": "MR", "synthetic": {}},
    "losses": [],
    "teacher": "t",
}
ASSISTANT = {"network": {"name": "RepPlain3D"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": ["a", "b"]}, "a teacher without terms"),
        (TERMS | {"teacher": "a", "teachers": ["b"]}, "teacher and teachers are both given"),
        (
            TERMS | {"teachers": ["a"], "data": PLAIN["data"] | {"validation_split": None}},
            "weighted by their errors on validation scans.*by: equal",
        ),
        (
            TERMS | {"teachers": ["a"], "teacher_weighting": {"by": "fog"}},
            "weighting.by: .*'equal'",
        ),
        (TERMS | {"teachers": ["a"], "teacher_weighting": {"sharpness": -1}}, "sharpness: .*-1"),
        ({"assistants": [ASSISTANT]}, "assistants stand between"),
        (
            TERMS | {"teacher": "t", "assistants": [{"steps": 3}]},
            r"assistants\.0\.network: missing",
        ),
        (
            TERMS | {"teacher": "t", "assistants": [ASSISTANT | {"name": "a/b"}]},
            r"assistants\.0\.name: .*a/b",
        ),
        ({"data": {"modality": "MR"}}, r"data\.manifest: missing"),
        ({"data": {"modality": "MR", "manifest": None}}, "data: manifest is null"),
        ({"data": PLAIN["data"] | {"modality": ["MR", "PET"]}}, r"data\.modality\.1: .*PET"),
        ({"data": PLAIN["data"] | {"modality": []}}, r"data\.modality: .*at least 1"),
        ({"data": PLAIN["data"] | {"modality": ["CT", "CT"]}}, "data: modality names one twice"),
        (FREE | {"losses": [{"name": "l1"}]}, "synthetic volumes hold no truth"),
        (FREE | {"teacher": None}, "synthetic volumes hold no truth"),
        (
            FREE | {"data": {"modality": "MR", "synthetic": {"noise": [0.3, 0.1]}}},
            r"data\.synthetic: noise is \[0.3, 0.1\]",
        ),
        (
            {"degradation": PLAIN["degradation"] | {"by_modality": {"PET": {"kind": "kspace"}}}},
            r"degradation\.by_modality\.PET",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        recipe_from_dict(PLAIN | changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        TERMS | {"teachers": ["a", "b"], "teacher_weighting": {"sharpness": 1}},
        TERMS | {"teacher": "t", "assistants": [ASSISTANT | {"name": "middle", "steps": 3}]},
        {"data": PLAIN["data"] | {"modality": ["CT", "MR"], "contrasts": ["T1w"]}},
        {"degradation": PLAIN["degradation"] | {"by_modality": {"CT": {"kind": "ct_slab"}}}},
        FREE,
        FREE | {"teacher": None, "teachers": ["a", "b"], "teacher_weighting": {"by": "equal"}},
    ],
)
def test_the_round_trip_keeps_everything(changes: dict[str, Any]) -> None:
    recipe = recipe_from_dict(PLAIN | changes)
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_defaults() -> None:
    recipe = recipe_from_dict(PLAIN | TERMS | {"teacher": "t", "assistants": [ASSISTANT]})
    assert recipe.assistants == (AssistantRecipe(recipe.assistants[0].network, "assistant", None),)
    assert recipe_from_dict(PLAIN | FREE).data.manifest is None
    assert recipe_from_dict(PLAIN | FREE).data.synthetic == SyntheticRecipe()


def test_data_says_which_scans_it_takes() -> None:
    data = DataRecipe("m.csv", ("CT", "MR"), contrasts=("T1w", "chest"))
    assert data.modalities == ("CT", "MR")
    assert DataRecipe("m.csv", "MR").modalities == ("MR",)
    taken = [("MR", "T1w"), ("CT", "chest"), ("MR", "FLAIR"), ("CT", "")]
    assert [data.takes(*scan) for scan in taken] == [True, True, False, False]
    assert DataRecipe("m.csv", "MR").takes("MR", "FLAIR")
    assert not DataRecipe("m.csv", "MR").takes("CT", "chest")

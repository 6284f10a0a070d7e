"""Which model and which grid: every automatic refusal gives its reason, a named model warns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from medsr.errors import OutOfScopeError, UsageError
from medsr.geometry import Geometry
from medsr.infer.choose import choose, find_target, hazards, misfits, named_target, settle
from medsr.model import ModelSpec, SpacingRange

MakeSpec = Callable[..., ModelSpec]


def grid(*spacing: float, shape: tuple[int, int, int] = (50, 60, 20)) -> Geometry:
    return Geometry(shape, np.diag([*spacing, 1.0]))


@pytest.fixture
def specs(make_spec: MakeSpec) -> list[ModelSpec]:
    iso = {"scale": (2, 2, 2), "trained_spacing_mm": SpacingRange((0.8, 2), (0.8, 2))}
    return [
        make_spec("ct-z4", modality="CT", trained_spacing_mm=SpacingRange((0.5, 1), (2.5, 5))),
        make_spec("mr-iso2", **iso),
        make_spec("mr-z2", scale=(1, 1, 2)),
        make_spec("mr-z4"),
        make_spec("mr-z4-teacher", role="teacher"),
    ]


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [((1, 1, 1.9), "mr-z2"), ((1, 1, 2.0), "mr-z2"), ((1, 1, 2.5), "mr-z4"), ((1, 1, 8), "mr-z4")],
)
def test_the_smallest_sufficient_factor_is_taken(
    specs: list[ModelSpec], spacing: tuple[float, float, float], expected: str
) -> None:
    geometry = grid(*spacing)
    target = find_target(geometry, spacing="iso", scale=None)
    assert choose(specs, geometry, "MR", target).name == expected


def test_modality_and_axes_decide(specs: list[ModelSpec]) -> None:
    thick = grid(0.7, 0.7, 3)
    target = find_target(thick, spacing="iso", scale=None)
    assert choose(specs, thick, "CT", target).name == "ct-z4"
    cube = grid(1, 1, 1)
    target = find_target(cube, spacing="iso", scale=(2, 2, 2))
    assert choose(specs, cube, "MR", target).name == "mr-iso2"


@pytest.mark.parametrize(
    ("spacing", "modality", "scale", "reason"),
    [
        ((1, 1, 1), "MR", None, "already isotropic"),
        ((1, 2, 2), "MR", None, "without one thick slice axis"),
        ((1, 1, 1), "MR", (1, 1, 4), "already isotropic"),
        ((0.2, 0.2, 3), "MR", None, "in-plane spacing of 0.2 mm"),
        ((4, 4, 12), "MR", None, "in-plane spacing of 4 mm"),
        ((1, 1, 8), "MR", (2, 2, 2), "slice spacing of 8 mm"),
        ((1, 1, 4), "MR", (2, 1, 1), "refines by 2 x 1 x 1"),
        ((0.7, 0.7, 3), "CT", (2, 2, 2), "no shipped CT model refines"),
    ],
)
def test_an_automatic_choice_outside_the_training_is_refused(
    specs: list[ModelSpec], spacing: Any, modality: Any, scale: Any, reason: str
) -> None:
    geometry = grid(*spacing)
    target = find_target(geometry, spacing="iso", scale=scale)
    with pytest.raises(OutOfScopeError, match=reason):
        choose(specs, geometry, modality, target)


def test_without_models_of_the_modality(specs: list[ModelSpec]) -> None:
    geometry = grid(1, 1, 4)
    target = find_target(geometry, spacing="iso", scale=None)
    with pytest.raises(OutOfScopeError, match=r"no shipped model is for CT .*mr-z4"):
        choose(specs[1:], geometry, "CT", target)
    with pytest.raises(OutOfScopeError, match="none"):
        choose([], geometry, "CT", target)


def test_misfits_name_each_reason_once(specs: list[ModelSpec]) -> None:
    z4 = specs[3]
    assert misfits(z4, grid(1, 1, 4), "MR") == []
    assert misfits(z4, grid(1, 1, 9), "MR") == []
    assert len(misfits(z4, grid(5, 5, 20), "CT")) == 2


def test_targets_are_geometry_refine() -> None:
    geometry = grid(0.9, 0.8, 6.0)
    iso = find_target(geometry, spacing="iso", scale=None)
    assert iso.geometry == geometry.refine((1, 1, 6.0 / 0.85))
    given = find_target(geometry, spacing=(0.45, 0.8, 2), scale=None)
    assert given.geometry == geometry.refine((2, 1, 3))
    scaled = find_target(geometry, spacing="iso", scale=(1, 1, 4))
    assert scaled.geometry == geometry.refine((1, 1, 4))
    assert find_target(geometry, spacing=None, scale=None).geometry is None


@pytest.mark.parametrize(
    ("spacing", "scale"),
    [
        ((1, 1, 1), (1, 1, 2)),
        ("finest", None),
        ((1, 1), None),
        ((1, 1, -1), None),
        ("iso", (1, 1, float("nan"))),
        ("iso", ("a", 1, 1)),
        ("iso", (1, 1, 0.5)),
        ((2, 2, 8), None),
    ],
)
def test_unusable_options(spacing: Any, scale: Any) -> None:
    with pytest.raises(UsageError):
        find_target(grid(1, 1, 4), spacing=spacing, scale=scale)


def test_going_beyond_the_model_warns_once(specs: list[ModelSpec]) -> None:
    geometry = grid(0.9, 0.9, 6)
    target = find_target(geometry, spacing="iso", scale=None)
    settled, warnings = settle(target, specs[3], geometry)
    assert settled == geometry.refine((1, 1, 6 / 0.9))
    assert len(warnings) == 1
    assert "interpolated" in warnings[0]
    assert (
        settle(find_target(grid(1, 1, 3), spacing="iso", scale=None), specs[3], geometry)[1] == []
    )


def test_a_named_model_brings_its_factor(specs: list[ModelSpec]) -> None:
    geometry = grid(1, 1, 4)
    target = find_target(geometry, spacing="iso", scale=None)
    assert named_target(target, specs[3], default=True) == target
    own = named_target(target, specs[1], default=True)
    assert settle(own, specs[1], geometry)[0] == geometry.refine(2)
    cube = grid(1, 1, 1)
    target = find_target(cube, spacing="iso", scale=None)
    assert settle(target, specs[3], cube)[0] == cube.refine((1, 1, 4))


@pytest.mark.parametrize(
    ("recipe", "warned"),
    [
        ({}, False),
        ({"terms": []}, False),
        ({"terms": [{"name": "output", "options": {"loss": "l1"}}]}, False),
        ({"terms": [{"name": "output"}, {"name": "adversarial", "weight": 0.01}]}, True),
    ],
)
def test_a_model_that_may_invent_texture_warns_of_it(
    make_spec: MakeSpec, recipe: dict[str, Any], warned: bool
) -> None:
    sentences = hazards(make_spec("m", training={"recipe": recipe}))
    assert [("m was trained to fool" in s, "invented" in s) for s in sentences] == (
        [(True, True)] if warned else []
    )
    assert hazards(make_spec("m", training={})) == []

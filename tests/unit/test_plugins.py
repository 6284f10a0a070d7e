"""Networks, degradations and terms of other packages are found by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from medsr.degrade import SliceProfile, build_degradation
from medsr.distill import OutputTerm, build_term
from medsr.errors import MedsrError, ModelError, UsageError
from medsr.losses import build_loss
from medsr.networks import ResNet3D, build_network
from medsr.plugins import check_options

# What is built, the group, where the class of another package would lie, its type, the refusal.
CASES = [
    (
        lambda name: build_network(name, (1, 1, 2), width=16, blocks=1),
        "medsr.networks",
        "medsr.networks.resnet:ResNet3D",
        ResNet3D,
        ModelError,
    ),
    (
        lambda name: build_degradation(name, (1, 1, 2), thickness=1.1),
        "medsr.degradations",
        "medsr.degrade.slice_profile:SliceProfile",
        SliceProfile,
        UsageError,
    ),
    (
        lambda name: build_term(name, loss="l2"),
        "medsr.distill_terms",
        "medsr.distill.terms.output:OutputTerm",
        OutputTerm,
        UsageError,
    ),
]
BUILT_IN = {"medsr.networks": "ResNet3D", "medsr.degradations": "slice_profile"}


@pytest.mark.parametrize(("build", "group", "place", "kind", "error"), CASES)
def test_entry_points_are_asked_only_when_the_table_misses(
    monkeypatch: pytest.MonkeyPatch,
    build: Callable[[str], Any],
    group: str,
    place: str,
    kind: type,
    error: type[MedsrError],
) -> None:
    asked: list[str] = []

    def entry_points(*, group: str) -> tuple[EntryPoint, ...]:
        asked.append(group)
        broken = EntryPoint("broken", "no_such_package:Thing", group)
        return (EntryPoint("theirs", place, group), broken)

    monkeypatch.setattr("medsr.plugins.entry_points", entry_points)
    assert isinstance(build(BUILT_IN.get(group, "output")), kind)
    assert asked == []
    assert isinstance(build("theirs"), kind)
    assert asked == [group]
    with pytest.raises(error, match=r"'other' is unknown; known are .*theirs"):
        build("other")
    with pytest.raises(error, match="no_such_package"):
        build("broken")


def _network(**options: Any) -> object:
    return build_network("RepPlain3D", (1, 1, 2), **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: _network(width="wide"), "width is 'wide'; give a whole number"),
        (lambda: _network(width=16.0), "width is 16.0; give a whole number"),
        (lambda: _network(depth=True), "depth is True; give a whole number"),
        (lambda: _network(fold=2), "fold is 2; give a list"),
        (lambda: _network(head=["bins"]), "head is .*; give a text or a mapping"),
        (lambda: build_term("output", views=2.5), "views is 2.5; give a whole number"),
        (lambda: build_term("robust", steps=1.5), "steps is 1.5; give a whole number"),
        (lambda: build_term("spectral", grid=4), "grid is 4; give a list"),
        (
            lambda: build_term("dam", student="a", teacher="b", domains="MR/T1w"),
            "domains is 'MR/T1w'; give a list",
        ),
        (lambda: build_term("dam", student="a", teacher="b", pair="yes"), "give true or false"),
        (lambda: build_term("mutual", peer="RepPlain3D"), "peer is 'RepPlain3D'; give a mapping"),
        (lambda: build_term("affinity", student=5, teacher="b"), "student is 5; give a text"),
        (
            lambda: build_term("output", loss="charbonnier", epsilon="1e-3"),
            "epsilon is '1e-3'; give a number .YAML reads 1e-3 as text; write 1.0e-3",
        ),
        (lambda: build_loss("wavelet", levels=1.5), "levels is 1.5; give a whole number"),
        (
            lambda: build_degradation("slice_profile", (1, 1, 2), noise="loud"),
            "noise is 'loud'; give a number or a list",
        ),
    ],
)
def test_options_of_another_type_are_refused_in_one_line(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises((ModelError, UsageError), match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_options_of_a_fitting_type_pass() -> None:
    assert build_term("vid", student="a", teacher="b", hidden=None, epsilon=np.float32(0.5))
    assert build_loss("gradient", spacing=np.ones(3))
    assert _network(branches=["identity"], fold=(1, 1, 1), head={"kind": "bins", "bins": 5})
    assert build_degradation("slice_profile", (1, 1, 2), noise=0, thickness=[1, 2])


def test_annotations_that_cannot_be_resolved_let_everything_pass() -> None:
    def theirs(number: Unknown) -> None:  # type: ignore[name-defined]  # noqa: F821
        """A factory of a package that imports its types for checkers alone."""

    check_options(theirs, {"number": "one"})

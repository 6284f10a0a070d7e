"""Networks, degradations and terms of other packages are found by their entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from medsr.degrade import SliceProfile, build_degradation
from medsr.distill import OutputTerm, build_term
from medsr.errors import MedsrError, ModelError, UsageError
from medsr.networks import ResNet3D, build_network

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

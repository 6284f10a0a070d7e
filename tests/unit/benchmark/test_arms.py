"""Arms are changes of one base recipe; their keys tell what a result depends on, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medsr.benchmark.arms import REFERENCE, Benchmark, fingerprint, read_benchmark
from medsr.distill.terms import TERMS
from medsr.errors import RecipeError
from medsr.recipe import merge
from medsr.train.objective import build_objective

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "configs" / "benchmarks" / "distillation.yaml"


def plain() -> dict[str, Any]:
    return {
        "scoring": {"limit": 2},
        "base": {
            "data": {"manifest": "scans/manifest.csv", "modality": "MR"},
            "degradation": {"kind": "slice_profile", "factor": [1, 1, 4]},
            "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}},
            "teacher": "mr-z4",
            "loop": {"steps": 10},
        },
        "arms": {
            "undistilled": None,
            "longer": {"as_long_as": "output"},
            "output": {"about": "Its answer.", "terms": [{"name": "output"}]},
            "head": {
                "network": {"options": {"head": "gaussian"}},
                "terms": [{"name": "nll"}, {"name": "output"}],
            },
        },
    }


def read(folder: Path, value: Any, *overrides: str) -> Benchmark:
    path = folder / "arms.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return read_benchmark(path, overrides)


def test_an_arm_is_the_base_with_its_changes(tmp_path: Path) -> None:
    benchmark = read(tmp_path, plain())
    assert next(iter(benchmark.arms)) == REFERENCE
    bare = benchmark.recipe("undistilled", 3, start="start")
    assert (bare.seed, bare.teacher, bare.terms, bare.network.start) == (3, None, (), "start")
    output = benchmark.recipe("output", 3, start="start")
    assert output.teacher == "mr-z4"
    assert output.network == bare.network
    assert output.loop == bare.loop
    head = benchmark.recipe("head", 0)
    assert head.network.options == {"width": 16, "depth": 2, "head": "gaussian"}
    assert benchmark.recipe("longer", 0, steps=17).loop.steps == 17
    assert benchmark.arms["longer"].as_long_as == "output"
    assert benchmark.base == plain()["base"]


def test_mappings_are_merged_and_the_rest_replaced() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merge(base, {"a": {"c": [3]}, "e": {}}) == {"a": {"b": 1, "c": [3]}, "d": 4, "e": {}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert fingerprint({"x": 1, "y": 2}) == fingerprint({"y": 2, "x": 1}) != fingerprint({"x": 1})


def test_a_key_tells_what_a_result_depends_on(tmp_path: Path) -> None:
    first = read(tmp_path, plain())
    key = first.key(first.recipe("output", 0, start="here"))
    assert key == first.key(first.recipe("output", 0, start="there"))
    same = read(tmp_path, plain(), "base.data.manifest=other/manifest.csv", "base.loop.log_every=7")
    assert key == same.key(same.recipe("output", 0, start="here"))
    others = {
        first.key(first.recipe("output", 1, start="here")),
        first.key(first.recipe("output", 0)),
        first.key(first.recipe("undistilled", 0, start="here")),
    }
    for change in ("base.loop.steps=11", "scoring.limit=1", "base.teacher=mr-z4-teacher"):
        changed = read(tmp_path, plain(), change)
        others.add(changed.key(changed.recipe("output", 0, start="here")))
    assert key not in others
    assert len(others) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": None}, "base is a recipe without terms, arms a mapping"),
        ({"more": 1}, "no other key"),
        ({"arms": {"x": {"as_long_as": "y"}}}, "arms.x.as_long_as: 'y' is no arm"),
        ({"arms": {"undistilled": {"seed": 1}}}, "change the base"),
        ({"arms": {"x": {"loop": {"stepps": 1}}}}, "arms.x: loop.stepps: unknown key"),
        ({"arms": {"x": 3}}, "arms.x: is no mapping"),
        ({"scoring": {"axis": "x"}}, "split, axes and limit alone"),
        ({"scoring": {"split": "train"}}, "not learnt from"),
        ({"scoring": {"limit": 0}}, "whole number from 1"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, plain() | change)


def test_a_base_without_a_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"base\.teacher: missing"):
        read(tmp_path, plain(), "base.teacher=null")


COMMON = ["base.teacher=mr-z4", "arms.multi-teacher.teachers=[mr-z4, ct-z4]"]


def test_the_committed_arms_cover_every_term() -> None:
    benchmark = read_benchmark(COMMITTED, COMMON)
    used = {t.name for name in benchmark.arms for t in benchmark.recipe(name, 0).terms}
    # A student-friendly teacher is another training of the teacher.
    assert used == set(TERMS) - {"student_branches"}
    assert benchmark.arms["longer"].as_long_as == "output"
    assert all(arm.about for arm in benchmark.arms.values())


@pytest.mark.parametrize("name", sorted(read_benchmark(COMMITTED, COMMON).arms))
def test_a_committed_arm_can_be_trained(name: str) -> None:
    objective = build_objective(read_benchmark(COMMITTED, COMMON).recipe(name, 0))
    lr, hr = torch.rand(1, 1, 12, 12, 4), torch.rand(1, 1, 12, 12, 16)
    losses = objective.train()(lr, hr, ("MR/T1w",), 0.5)
    torch.stack(list(losses.values())).sum().backward()
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in objective.network.parameters()
    )

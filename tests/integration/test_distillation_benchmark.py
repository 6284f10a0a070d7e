"""The benchmark of methods as a whole: one start for all, resuming, failures, and its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from medsr.benchmark import distillation
from medsr.cli.main import main
from medsr.errors import UsageError
from medsr.evaluate.cohort import evaluate
from medsr.evaluate.plan import Plan
from medsr.model import SRModel


@pytest.fixture(scope="module")
def arms(world: Path) -> Path:
    """A file of arms on the tiny scans."""
    base = yaml.safe_load((world / "tiny.yaml").read_text())
    base["teacher"] = str(world / "teacher" / "model")
    base["network"]["options"]["branches"] = ["identity"]
    base["loop"]["steps"] = 3
    plain = {
        "scoring": {"axes": "all"},
        "base": base,
        "arms": {
            "undistilled": None,
            "longer": {"as_long_as": "output"},
            "output": {"about": "Its answer.", "terms": [{"name": "output"}]},
            "wrong": {"terms": [{"name": "output", "options": {"views": 99}}]},
        },
    }
    path = world / "arms.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture(scope="module")
def finished(arms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of two seeds has left its results."""
    folder = tmp_path_factory.mktemp("benchmark")
    told: list[tuple[int, int]] = []
    distillation.run(
        arms,
        folder / "results.json",
        seeds=2,
        folder=folder / "runs",
        progress=lambda done, total, what: told.append((done, total)),
    )
    assert told[-1] == (8, 8)
    return folder


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_every_arm_is_trained_and_scored(finished: Path) -> None:
    found = read(finished)
    assert [(run["arm"], run["seed"]) for run in found["runs"]] == [
        (arm, seed) for arm in ("undistilled", "longer", "output") for seed in (0, 1)
    ]
    for run in found["runs"]:
        assert len(run["rows"]) == 3
        assert run["seconds"] > 0
    assert {f["arm"] for f in found["failures"]} == {"wrong"}
    assert "views" in found["failures"][0]["error"]
    timing = found["timing"]["longer"]
    assert timing["steps"] == max(1, round(3 * timing["ratio"]))
    assert found["summary"]["longer"]["steps"] == timing["steps"]
    difference = found["summary"]["output"]["difference"]
    assert difference["by_seed"].keys() == {"0", "1"}
    assert difference["significant"] is None  # one patient says nothing of others


def test_all_arms_of_a_seed_start_alike(finished: Path) -> None:
    starts = {0: set[str](), 1: set[str]()}
    for folder in (finished / "runs").glob("*-?-*"):
        if folder.name.startswith("start"):
            continue
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
        starts[recipe["seed"]].add(recipe["network"]["start"])
    (first,), (second,) = starts[0], starts[1]
    ours, theirs = (load_file(Path(s) / "weights.safetensors") for s in (first, second))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_scores_are_those_of_the_evaluation(world: Path, finished: Path) -> None:
    found = read(finished)
    model = next((finished / "runs").glob("output-0-*")) / "model"
    plan = Plan(
        world / "manifest.csv",
        split="dev",
        scale=(1, 1, 2),
        models=[model],
        baselines=("bspline",),
        parts=(),
        device="cpu",
    )
    results = evaluate(plan)
    expected = {
        (case.method, case.axis): case.metrics["psnr"]
        for case in results.cases
        if case.method != "linear"
    }
    rows = next(r for r in found["runs"] if (r["arm"], r["seed"]) == ("output", 0))["rows"]
    label = SRModel.load(model).spec.name
    for row in rows:
        assert row["psnr"] == pytest.approx(expected[label, row["axis"]], abs=1e-3)
    for row in found["references"]["bspline"]:
        assert row["psnr"] == pytest.approx(expected["bspline", row["axis"]], abs=1e-3)


def test_a_run_goes_on_with_what_is_missing(
    arms: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(finished)
    trained: list[str] = []
    whole = distillation.train_and_score

    def watched(recipe: Any, *arguments: Any) -> Any:
        trained.append(recipe.name)
        return whole(recipe, *arguments)

    monkeypatch.setattr(distillation, "train_and_score", watched)
    options: dict[str, Any] = {"seeds": 2, "folder": finished / "runs"}
    target = finished / "results.json"
    distillation.run(arms, target, methods=["longer", "output"], **options)
    assert trained == []
    assert read(finished)["runs"] == before["runs"]
    change = 'arms.output.terms=[{"name": "output", "weight": 0.3}]'
    distillation.run(arms, target, [change], methods=["output"], **options)
    assert trained == ["output-0", "output-1"]
    after = read(finished)
    assert [r["key"] for r in after["runs"] if r["arm"] != "output"] == [
        r["key"] for r in before["runs"] if r["arm"] != "output"
    ]


def test_results_of_another_base_are_left_alone(arms: Path, finished: Path, tmp_path: Path) -> None:
    before = (finished / "results.json").read_bytes()
    with pytest.raises(UsageError, match="another base"):
        distillation.run(arms, finished / "results.json", ["base.loop.steps=2"], folder=tmp_path)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(UsageError, match="no result of this benchmark"):
        distillation.run(arms, other, folder=tmp_path)
    assert (finished / "results.json").read_bytes() == before
    with pytest.raises(UsageError, match="'nobody' is no arm"):
        distillation.run(arms, tmp_path / "new.json", methods=["nobody"], folder=tmp_path)


def test_the_command_writes_result_page_and_table(
    arms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "distillation", "base.loop.steps=1", "--recipe", str(arms)]
    words += ["--json", str(tmp_path / "r.json"), "--page", str(tmp_path / "r.md")]
    words += ["--seeds", "1", "--methods", "output", "--out", str(tmp_path / "runs")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "| output |" in shown
    assert "[JSON](r.json)" in (tmp_path / "r.md").read_text(encoding="utf-8")

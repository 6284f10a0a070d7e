"""The benchmark of networks counts right, compares within rounds, and renders what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch

from medsr.benchmark import networks as benchmark
from medsr.cli.main import main
from medsr.errors import DeviceError, OutputExistsError, UsageError
from medsr.networks import build_network
from medsr.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[3]
TINY = {
    "RepPlain3D": {"width": 16, "depth": 1},
    "ShuffleNet3D": {"width": 32, "blocks": 1},
}


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    return benchmark.run(shape=(6, 5, 4), networks=TINY, rounds=3, threads=1)


def test_students_are_those_of_the_recipes() -> None:
    recipes = [read_recipe(path) for path in (ROOT / "configs" / "students").glob("[!_]*.yaml")]
    # KnotPlain3D runs as RepPlain3D.
    written = [
        (recipe.network.name, recipe.network.options)
        for recipe in recipes
        if recipe.network.name != "KnotPlain3D"
    ]
    assert {name for name, _ in written} == set(benchmark.STUDENTS)
    for name, options in benchmark.STUDENTS.items():
        assert (name, dict(options)) in written


def test_multiply_accumulates_are_the_kernels_sizes() -> None:
    network = build_network("ShuffleNet3D", (1, 1, 4), width=32, blocks=1)
    head, tail, fuse = 27 * 32, 27 * 32 * 4, 32 * 32
    unit = 2 * 16 * 16 + 27 * 16  # a depthwise kernel sees one channel
    assert benchmark.macs_per_voxel(network) == head + unit + fuse + tail
    folded = build_network("RepPlain3D", (1, 1, 4), width=16, depth=1, fold=(2, 2, 1)).merged()
    assert benchmark.macs_per_voxel(folded) == 27 * (4 * 16 + 16 * 16 + 16 * 16) / 4


def test_both_views_of_the_planar_network_count() -> None:
    network = build_network("Plain25D", (1, 1, 4), width=16, depth=2)
    views = 2 * (9 * 16 + 2 * 9 * 16 * 16)
    assert benchmark.macs_per_voxel(network) == views + 32 * 16 + 27 * 16 * 4


def test_ratios_are_taken_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"RepPlain3D": iter([9.0, 1.0, 2.0, 4.0]), "ShuffleNet3D": iter([9.0, 3.0, 4.0, 4.0])}
    monkeypatch.setattr(
        benchmark, "_time", lambda network, lr, reduced: next(clock[type(network).__name__])
    )
    told: list[tuple[int, int]] = []
    found = benchmark.run(
        shape=(4, 4, 4),
        networks=TINY,
        precisions=["fp32"],
        rounds=3,
        progress=lambda done, total: told.append((done, total)),
    )
    plain, shuffle = (network["speed"]["fp32"] for network in found["networks"])
    assert plain["seconds"] == [1.0, 2.0, 4.0]  # the first pass warms up
    assert plain["ratios"] == [1.0, 1.0, 1.0]
    assert shuffle["ratios"] == [3.0, 2.0, 1.0]
    assert shuffle["median_seconds"] == 4.0
    assert shuffle["median_ratio"] == 2.0
    assert shuffle["ratio_range"] == [1.0, 3.0]
    macs = found["networks"][1]["macs_per_voxel"]
    assert shuffle["gflops"] == pytest.approx(2 * macs * 4**3 / 4.0 / 1e9)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_run_says_what_it_measured(results: dict) -> None:
    assert [network["name"] for network in results["networks"]] == list(TINY)
    assert results["machine"]["threads"] == 1
    for network in results["networks"]:
        merged = build_network(network["name"], (1, 1, 4), **network["options"]).merged()
        assert network["parameters"] == sum(p.numel() for p in merged.parameters())
        assert network["halo"] == list(merged.halo)
        assert list(network["speed"]) == ["fp32", "bf16"]
        for speed in network["speed"].values():
            assert len(speed["seconds"]) == 3
            assert min(speed["seconds"]) > 0
            assert speed["median_seconds"] == median(speed["seconds"])


def test_a_run_leaves_the_process_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    other = threads + 1
    found = benchmark.run(
        shape=(3, 3, 3), networks=TINY, precisions=["fp32"], rounds=1, threads=other
    )
    assert found["machine"]["threads"] == other
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_results_are_saved_whole_and_never_over_others(results: dict, tmp_path: Path) -> None:
    path = benchmark.save(results, tmp_path / "networks.json")
    assert json.loads(path.read_text(encoding="utf-8")) == results
    with pytest.raises(OutputExistsError, match=r"networks\.json"):
        benchmark.save(results, path)
    assert benchmark.save(results, path, overwrite=True) == path


def test_the_table_has_a_row_a_network_with_its_ratio(results: dict) -> None:
    lines = benchmark.table(results).splitlines()
    assert len(lines) == 2 + len(TINY)
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert {len(row) for row in cells} == {8}
    assert cells[2][0] == "`RepPlain3D`"
    assert cells[2][5] == cells[2][7] == "1.00 (1.00 … 1.00)"
    speed = results["networks"][1]["speed"]["bf16"]
    assert cells[3][7].startswith(f"{speed['median_ratio']:.2f} (")


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UsageError, match="RepPlain3D is not among"):
        benchmark.run(networks={"ShuffleNet3D": {}})
    with pytest.raises(UsageError, match="start at 1"):
        benchmark.run(networks=TINY, rounds=0)
    with pytest.raises(UsageError, match="'fp8'"):
        benchmark.run(networks=TINY, precisions=["fp8"])
    with pytest.raises(DeviceError, match="'abacus'"):
        benchmark.run(networks=TINY, device="abacus")


def test_the_command_saves_and_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark", "networks", "--shape", "4,4,4", "--rounds", "1", "--threads", "1"]
    words += ["--json", str(tmp_path / "n.json"), "--table", str(tmp_path / "n.md")]
    assert main(words) == 0
    saved = json.loads((tmp_path / "n.json").read_text(encoding="utf-8"))
    assert [network["name"] for network in saved["networks"]] == list(benchmark.STUDENTS)
    assert (tmp_path / "n.md").read_text(encoding="utf-8") == benchmark.table(saved)
    assert capsys.readouterr().out == benchmark.table(saved)
    assert main(words) == OutputExistsError.exit_code

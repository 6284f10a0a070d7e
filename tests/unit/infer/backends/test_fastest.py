"""The fastest backend is measured once, trusted only where it agrees, and remembered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medsr.errors import BackendError, UsageError
from medsr.infer import cache
from medsr.infer.backends import BACKENDS, choose, missing_packages
from medsr.infer.backends.choose import Ranking, choose_backend, fastest, measure, signature
from medsr.infer.backends.torch import TorchBackend
from medsr.networks import build_network

TILE = (6, 5, 4)


class Fake(TorchBackend):
    """torch with something done to its results."""

    def __init__(self, name: str, change: Callable[[Tensor], Tensor]):
        self.name = name
        self.change = change
        self.prepared = 0

    def prepare(self, network, tile_shape, **options):  # type: ignore[no-untyped-def]
        self.prepared += 1
        runner = super().prepare(network, tile_shape, **options)
        return lambda block: self.change(runner(block))


class Slow(Fake):
    def __init__(self, name: str, seconds: float):
        super().__init__(name, lambda sr: (time.sleep(seconds), sr)[1])


def fail(sr: Tensor) -> Tensor:
    raise BackendError("no such operation\nand more")


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("RepPlain3D", (1, 1, 2), width=16, depth=1).eval()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Fake]:
    """Three backends, of which ``quick`` is clearly the fastest; an empty cache."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    fakes = {
        "quick": Slow("quick", 0.0),
        "slow": Slow("slow", 0.02),
        "torch": Slow("torch", 0.04),
    }
    monkeypatch.setattr(choose, "BACKENDS", fakes)
    return fakes


def test_the_quickest_is_taken_and_measured_once(table: dict[str, Fake]) -> None:
    ranking = fastest(network(), TILE, seconds=0.2)
    assert ranking.name == "quick"
    assert list(ranking.seconds) == ["quick", "slow", "torch"]
    assert 0.02 <= ranking.seconds["slow"] < ranking.seconds["torch"]
    again = fastest(network(), TILE, seconds=0.2)
    assert again == ranking
    assert [fake.prepared for fake in table.values()] == [1, 1, 1]


def test_another_tile_network_or_precision_is_measured_anew(table: dict[str, Fake]) -> None:
    fastest(network(), TILE, seconds=0.0)
    fastest(network(), (5, 5, 5), seconds=0.0)
    fastest(network(), TILE, "bf16", seconds=0.0)
    other = build_network("RepPlain3D", (1, 1, 2), width=16, depth=2).eval()
    fastest(other, TILE, seconds=0.0)
    assert table["quick"].prepared == 4


def test_other_weights_are_no_other_network() -> None:
    assert signature(network()) == signature(
        build_network("RepPlain3D", (1, 1, 2), width=16, depth=1)
    )
    assert signature(network()) != signature(
        build_network("RepPlain3D", (1, 1, 2), width=16, depth=1, interpolation="linear")
    )


@pytest.mark.parametrize("text", ["{}", '{"seconds": {"abacus": 1.0}, "refused": {}}', "nonsense"])
def test_a_damaged_answer_is_measured_anew(table: dict[str, Fake], text: str) -> None:
    ranking = fastest(network(), TILE, seconds=0.0)
    folder = cache.cache_folder()
    assert folder is not None
    (kept,) = folder.iterdir()
    assert json.loads(kept.read_text())["seconds"] == ranking.seconds
    kept.write_text(text)
    assert fastest(network(), TILE, seconds=0.0).name == "quick"
    assert table["quick"].prepared == 2


def test_without_a_cache_it_is_measured_each_time(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert fastest(network(), TILE, seconds=0.0).name == "quick"
    assert fastest(network(), TILE, seconds=0.0).name == "quick"
    assert table["quick"].prepared == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sr: sr + 0.01 * sr.abs().max(), "differs from torch"),
        (lambda sr: sr * float("nan"), "differs from torch"),
        (lambda sr: sr[..., 1:], "differs from torch"),
        (fail, "no such operation"),
    ],
)
def test_a_backend_with_other_numbers_is_not_taken(
    table: dict[str, Fake], change: Callable[[Tensor], Tensor], reason: str
) -> None:
    table["quick"].change = change
    ranking = fastest(network(), TILE, seconds=0.0)
    assert ranking.name == "slow"
    assert reason in ranking.refused["quick"]
    assert "\n" not in ranking.refused["quick"]
    assert "quick" not in ranking.seconds


def test_what_cannot_be_used_is_told_and_not_measured(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table["quick"], "packages", ("no_such_package",))
    monkeypatch.setattr(table["slow"], "lacks", lambda precision, device: "lacks a beard")
    ranking = fastest(network(), TILE)
    assert ranking.name == "torch"
    assert "no_such_package" in ranking.refused["quick"]
    assert ranking.refused["slow"] == "lacks a beard"
    assert ranking.seconds == {}
    assert all(fake.prepared == 0 for fake in table.values())
    # Once it is there, it is found.
    monkeypatch.setattr(table["quick"], "packages", ())
    assert fastest(network(), TILE, seconds=0.0).name == "quick"


def test_torch_keeps_a_draw() -> None:
    assert Ranking({"openvino": 0.98, "torch": 1.0}, {}).name == "torch"
    assert Ranking({"openvino": 0.90, "torch": 1.0}, {}).name == "openvino"
    assert Ranking({"openvino": 0.90}, {"torch": "broken"}).name == "openvino"
    assert Ranking({}, {}).name == "torch"


def test_torch_that_streams_is_judged_by_what_it_computes() -> None:
    ranking = Ranking({"openvino": 0.60, "torch": 1.0}, {})
    assert ranking.best(0.7) == "openvino"
    assert ranking.best(0.5) == "torch"


def test_auto_takes_the_fastest_and_a_name_takes_itself(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "TILE", 5)
    folding = build_network("RepPlain3D", (1, 1, 2), width=16, depth=1, fold=(2, 2, 1)).eval()
    assert choose_backend("auto", folding).name == "quick"
    # Of a large halo next to nothing is left to torch that streams.
    folding.radius = 200
    assert choose_backend("auto", folding, streams=True).name == "torch"
    assert choose_backend("torch", folding).name == "torch"
    with pytest.raises(UsageError, match="auto, onnxruntime"):
        choose_backend("abacus", folding)
    if missing_packages(BACKENDS["onnxruntime"]):
        return
    with pytest.raises(BackendError, match="fp32 only"):
        choose_backend("onnxruntime", folding, "bf16")


def test_a_budget_bounds_the_runs(table: dict[str, Fake]) -> None:
    runs: list[int] = []
    table["torch"].change = lambda sr: (runs.append(1), time.sleep(0.03), sr)[2]
    measure(network(), TILE, "fp32", ["torch"], seconds=0.05)
    # One to warm up, and two until 0.05 s are spent.
    assert len(runs) == 3
    runs.clear()
    measure(network(), TILE, "fp32", ["torch"], seconds=60)
    assert len(runs) == 1 + choose.RUNS


def test_the_real_backends_can_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    ranking = fastest(network(), TILE, seconds=0.05, threads=1)
    assert ranking.seconds.keys() | ranking.refused.keys() == BACKENDS.keys()
    assert ranking.name in BACKENDS

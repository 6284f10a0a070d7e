"""The fastest backend is told from a piece of the real plan, and trusted where it agrees."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medsr.errors import BackendError, UsageError
from medsr.infer.engine import cache
from medsr.infer.engine import engine as engine_module
from medsr.infer.engine.backends import BACKENDS, choose, missing_packages
from medsr.infer.engine.backends.choose import Ranking, fastest, signature
from medsr.infer.engine.backends.torch import TorchBackend
from medsr.infer.engine.engine import Engine
from medsr.networks import build_network


class Fake(TorchBackend):
    """torch by tiles, with something done to its results."""

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
    """No chain, so that torch works by tiles as the fakes do."""
    torch.manual_seed(0)
    return build_network("ResNet3D", (1, 1, 2), width=16, blocks=1).eval()


def ranking_of(net: nn.Module, *, edge: int = 10, **options: object) -> Ranking:
    lr = torch.rand(edge + 2, edge, 8, generator=torch.Generator().manual_seed(1))
    engine = Engine(net, backend="torch", **options)  # type: ignore[arg-type]
    return fastest(engine, engine.plan_for(lr), lr)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Fake]:
    """Three backends, of which ``quick`` is clearly the fastest; a cache, a quiet machine."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "QUIET_SHARE", 1.0)
    fakes = {
        "quick": Slow("quick", 0.0),
        "slow": Slow("slow", 0.03),
        "torch": Slow("torch", 0.06),
    }
    # Both modules hold the one table.
    monkeypatch.setattr(choose, "WORTH_COMPARING", 0.0)
    monkeypatch.setattr(choose, "PRICE", math.inf)
    for name in list(BACKENDS):
        monkeypatch.delitem(BACKENDS, name)
    for name, fake in fakes.items():
        monkeypatch.setitem(BACKENDS, name, fake)
    return fakes


def test_the_quickest_is_taken_and_measured_once(table: dict[str, Fake]) -> None:
    ranking = ranking_of(network())
    assert ranking.name == "quick"
    assert list(ranking.seconds) == ["quick", "slow", "torch"]
    assert 0.03 <= ranking.seconds["slow"] < ranking.seconds["torch"]
    runs: list[int] = []
    table["slow"].change = lambda sr: (runs.append(1), sr)[1]
    again = ranking_of(network())
    assert again == ranking
    assert not runs


def test_another_network_precision_or_size_is_measured_anew(table: dict[str, Fake]) -> None:
    runs: list[int] = []
    table["quick"].change = lambda sr: (runs.append(1), sr)[1]
    ranking_of(network())
    first = len(runs)
    ranking_of(network(), precision="bf16")
    second = len(runs)
    ranking_of(build_network("ResNet3D", (1, 1, 2), width=16, blocks=2).eval())
    third = len(runs)
    ranking_of(network(), edge=20)
    assert 0 < first < second < third < len(runs)


def test_other_weights_are_no_other_network() -> None:
    net = build_network("RepPlain3D", (1, 1, 2), width=16, depth=1)
    assert signature(net) == signature(build_network("RepPlain3D", (1, 1, 2), width=16, depth=1))
    assert signature(net) != signature(
        build_network("RepPlain3D", (1, 1, 2), width=16, depth=1, interpolation="linear")
    )


@pytest.mark.parametrize("text", ["{}", '{"factor": -1.0}', '{"factor": "x"}', "nonsense"])
def test_a_damaged_answer_is_measured_anew(table: dict[str, Fake], text: str) -> None:
    ranking_of(network())
    folder = cache.cache_folder()
    assert folder is not None
    kept = list(folder.iterdir())
    assert len(kept) == 3
    for file in kept:
        assert json.loads(file.read_text())["factor"] > 0
        file.write_text(text)
    assert ranking_of(network()).name == "quick"
    assert all(json.loads(file.read_text())["factor"] > 0 for file in kept)


def test_without_a_cache_it_is_measured_each_time(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, "off")
    assert ranking_of(network()).name == "quick"
    table["quick"].change = lambda sr: (time.sleep(0.2), sr)[1]
    assert ranking_of(network()).name == "slow"


def test_what_was_measured_on_a_busy_machine_does_not_stay(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "QUIET_SHARE", -1.0)
    assert ranking_of(network()).name == "quick"
    table["quick"].change = lambda sr: (time.sleep(0.2), sr)[1]
    assert ranking_of(network()).name == "quick"  # within the hour
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 2 * 3600)
    assert ranking_of(network()).name == "slow"


def test_what_was_measured_on_a_quiet_machine_stays_for_days(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ranking_of(network()).name == "quick"
    table["quick"].change = lambda sr: (time.sleep(0.2), sr)[1]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 2 * 3600)
    assert ranking_of(network()).name == "quick"
    monkeypatch.setattr(time, "time", lambda: now() + (cache.KEPT_DAYS + 1) * 86400)
    assert ranking_of(network()).name == "slow"


def test_work_of_other_programs_is_seen() -> None:
    """Another process that spins takes at least some of a processor; sleeping takes none."""
    code = "import time; end = time.time() + 20\nwhile time.time() < end: pass"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    spinning = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(usable or 1)]
    try:
        time.sleep(0.5)
        with cache.Disturbance() as others:
            time.sleep(1.0)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert others.share > 0.3
    assert others.days == cache.BUSY_DAYS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sr: sr + 0.05 * sr.abs().max(), "differs from torch"),
        (lambda sr: sr * float("nan"), "differs from torch"),
        (fail, "no such operation"),
    ],
)
def test_a_backend_with_other_numbers_is_not_taken(
    table: dict[str, Fake], change: Callable[[Tensor], Tensor], reason: str
) -> None:
    table["quick"].change = change
    ranking = ranking_of(network())
    assert ranking.name == "slow"
    assert reason in ranking.refused["quick"]
    assert "\n" not in ranking.refused["quick"]
    assert "quick" not in ranking.seconds


def test_what_cannot_be_used_is_told_and_not_measured(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table["quick"], "packages", ("no_such_package",))
    monkeypatch.setattr(table["slow"], "lacks", lambda precision, device: "lacks a beard")
    ranking = ranking_of(network())
    assert ranking.name == "torch"
    assert "no_such_package" in ranking.refused["quick"]
    assert ranking.refused["slow"] == "lacks a beard"
    assert ranking.seconds == {}
    assert all(fake.prepared == 0 for fake in table.values())
    # Once it is there, it is found.
    monkeypatch.setattr(table["quick"], "packages", ())
    assert ranking_of(network()).name == "quick"


def test_torch_keeps_a_draw() -> None:
    assert Ranking({"openvino": 0.98, "torch": 1.0}, {}).name == "torch"
    assert Ranking({"openvino": 0.90, "torch": 1.0}, {}).name == "openvino"
    assert Ranking({"openvino": 0.90}, {"torch": "broken"}).name == "openvino"
    assert Ranking({}, {}).name == "torch"


def test_the_whole_volume_decides_and_not_a_tile(table: dict[str, Fake]) -> None:
    """torch streams a chain and leaves out air: a backend that is faster on a tile loses."""
    table["torch"].change = table["quick"].change = lambda sr: sr
    torch.manual_seed(0)
    chain = build_network("RepPlain3D", (1, 1, 2), width=16, depth=6, branches=False).eval()
    lr = torch.zeros(96, 96, 96)
    lr[44:52, 44:52, 44:52] = torch.rand(8, 8, 8)
    with torch.no_grad():
        for parameter in chain.parameters():
            if parameter.ndim == 1:
                parameter.zero_()  # without biases zeros give zeros, which is air
    engine = Engine(chain, backend="torch", core=32)
    plan = engine.plan_for(lr)
    assert plan.background_share > 0.5
    seconds = fastest(engine, plan, lr).seconds
    assert min(seconds, key=seconds.__getitem__) == "torch"
    # By tiles it is all of the volume, each tile with its halo.
    voxels = sum(t.shape[0] * t.shape[1] * t.shape[2] for t in plan.tiles)
    by_tiles = engine.with_backend("quick").plan_for(lr)
    assert sum(t.shape[0] * t.shape[1] * t.shape[2] for t in by_tiles.tiles) > 2 * voxels


def test_auto_takes_the_fastest_once_and_a_name_takes_itself(table: dict[str, Fake]) -> None:
    lr = torch.rand(12, 10, 8)
    engine = Engine(network(), backend="auto")
    assert engine.plan_for(lr).backend == "quick"
    table["quick"].change = lambda sr: (time.sleep(0.2), sr)[1]
    assert engine.plan_for(lr).backend == "quick"  # slabs of one volume go one way
    assert Engine(network(), backend="torch").plan_for(lr).backend == "torch"
    torch.testing.assert_close(
        Engine(network(), backend="auto").run(lr), Engine(network(), backend="torch").run(lr)
    )
    with pytest.raises(UsageError, match="auto, quick"):
        Engine(network(), backend="abacus")


def test_small_volumes_are_not_measured(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "WORTH_COMPARING", 3.0)
    assert Engine(network(), backend="auto").plan_for(torch.rand(12, 10, 8)).backend == "torch"
    assert all(fake.prepared == 0 for fake in table.values())


def test_measuring_never_takes_longer_than_the_volume(
    table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of a volume that is hardly larger cost several times what they could spare."""
    net, small, large = network(), torch.rand(12, 10, 8), torch.rand(200, 200, 64)
    monkeypatch.setattr(choose, "PRICE", 1.0)
    assert Engine(net, backend="auto").plan_for(small).backend == "torch"
    assert all(fake.prepared == 0 for fake in table.values())
    # Of a large volume, 48 voxels along each edge are little.
    assert Engine(net, backend="auto").plan_for(large).backend == "quick"
    # What is known already costs nothing.
    monkeypatch.setattr(choose, "PRICE", math.inf)
    assert Engine(net, backend="auto").plan_for(small).backend == "quick"
    monkeypatch.setattr(choose, "PRICE", 1.0)
    assert Engine(net, backend="auto").plan_for(small).backend == "quick"


def test_a_backend_lacks_a_precision() -> None:
    if missing_packages(BACKENDS["onnxruntime"]):
        pytest.skip("onnxruntime is not installed")
    with pytest.raises(BackendError, match="fp32 only"):
        Engine(network(), backend="onnxruntime", precision="bf16")


def test_a_budget_bounds_the_runs(table: dict[str, Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    for name in ("quick", "slow"):
        monkeypatch.setattr(table[name], "packages", ("no_such_package",))
    table["extra"] = Slow("extra", 0.0)
    monkeypatch.setitem(BACKENDS, "extra", table["extra"])
    table["torch"].change = lambda sr: (runs.append(1), time.sleep(0.03), sr)[2]
    monkeypatch.setattr(choose, "SECONDS", 0.05)
    lr = torch.rand(6, 5, 4)
    engine = Engine(network(), backend="torch")
    fastest(engine, engine.plan_for(lr), lr)
    # One to warm up, one to judge the other, and two until 0.05 s are spent.
    assert len(runs) == 4


def test_the_real_backends_can_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(choose, "WORTH_COMPARING", 0.0)
    monkeypatch.setattr(choose, "PRICE", math.inf)
    ranking = ranking_of(build_network("RepPlain3D", (1, 1, 2), width=16, depth=1).eval())
    assert ranking.seconds.keys() | ranking.refused.keys() == BACKENDS.keys()
    assert ranking.name in BACKENDS
    assert engine_module.BACKENDS is choose.BACKENDS

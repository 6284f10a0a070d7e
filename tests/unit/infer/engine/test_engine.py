"""The engine as a MONAI inferer: batches, affines, progress, precision, memory, refusals."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer

from medsr.errors import DeviceError, MemoryLimitError, UsageError
from medsr.geometry import Geometry
from medsr.infer.engine.device import resolve_device, resolve_precision
from medsr.infer.engine.engine import Engine
from medsr.infer.engine.executors import working_bytes
from medsr.infer.monai_inferer import TiledInferer
from medsr.model import SRModel

MakeModel = Callable[..., SRModel]


@pytest.fixture
def network(make_model: MakeModel) -> torch.nn.Module:
    return make_model(scale=(1, 1, 2)).module.eval()


def test_is_a_monai_inferer_and_takes_batches(network: torch.nn.Module) -> None:
    inferer = TiledInferer(6, precision="fp32")
    assert isinstance(inferer, Inferer)
    lr = torch.rand(2, 1, 9, 8, 7)
    sr = inferer(lr, network)
    assert sr.shape == (2, 1, 9, 8, 14)
    assert sr.dtype == torch.float32
    assert not sr.requires_grad
    torch.testing.assert_close(sr[1:], inferer(lr[1:], network))
    assert not torch.equal(sr[0], sr[1])


def test_the_input_is_left_alone_when_a_network_returns_it() -> None:
    class Same(torch.nn.Module):
        scale, halo, multiple_of = (1, 1, 1), (1, 1, 1), (1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    lr = torch.rand(1, 1, 9, 8, 7)
    copy = lr.clone()
    sr = TiledInferer(4, precision="fp32")(lr, Same())
    torch.testing.assert_close(sr, copy)
    torch.testing.assert_close(lr, copy)
    assert sr.data_ptr() != lr.data_ptr()


@pytest.mark.parametrize("batched", [False, True])
def test_a_meta_tensor_gets_the_affine_of_its_new_grid(
    network: torch.nn.Module, batched: bool
) -> None:
    affine = np.diag([1.0, -2.0, 3.0, 1.0])
    affine[:3, 3] = (4, 5, 6)
    stack = torch.as_tensor(np.stack([affine] * 2) if batched else affine)
    lr = MetaTensor(torch.rand(2 if batched else 1, 1, 5, 6, 7), affine=stack)
    sr = TiledInferer(precision="fp32")(lr, network)
    assert isinstance(sr, MetaTensor)
    expected = Geometry((5, 6, 7), affine).refine((1, 1, 2)).affine
    found = sr.affine[0] if batched else sr.affine
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(lr.affine[0] if batched else lr.affine, affine)


def test_progress_counts_every_tile(network: torch.nn.Module) -> None:
    calls: list[tuple[int, int]] = []
    inferer = TiledInferer(
        (4, 8, 7), precision="fp32", progress=lambda done, total: calls.append((done, total))
    )
    inferer(torch.rand(1, 1, 12, 8, 7), network)
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_bf16_stays_close_and_keeps_the_interpolated_part_exact(network: torch.nn.Module) -> None:
    lr = torch.rand(1, 1, 8, 8, 8)
    full = TiledInferer(precision="fp32")(lr, network)
    reduced = TiledInferer(precision="bf16")(lr, network)
    assert reduced.dtype == torch.float32
    assert not torch.equal(full, reduced)
    detail = (full - lr.repeat_interleave(2, dim=4)).abs().max()
    assert (full - reduced).abs().max() < 0.05 * detail + 1e-6


def test_memory_limit_makes_tiles_smaller_with_the_same_result(network: torch.nn.Module) -> None:
    lr = torch.rand(1, 1, 40, 30, 8)
    free = TiledInferer(precision="fp32")
    limit = working_bytes(network, (20, 20, 8), "fp32") + 4 * lr.numel() * 2
    tight = TiledInferer(precision="fp32", max_memory_bytes=limit)
    assert len(free.engine(network).plan((40, 30, 8)).tiles) == 1
    plan = tight.engine(network).plan((40, 30, 8))
    assert len(plan.tiles) > 1
    assert all(working_bytes(network, tile.shape, "fp32") <= limit for tile in plan.tiles)
    torch.testing.assert_close(tight(lr, network), free(lr, network), rtol=0, atol=1e-5)


def test_a_hopeless_memory_limit_is_refused(network: torch.nn.Module) -> None:
    with pytest.raises(MemoryLimitError, match="MiB"):
        TiledInferer(max_memory_bytes=1000)(torch.rand(1, 1, 9, 9, 9), network)


def test_networks_that_do_not_say_their_halo_are_refused() -> None:
    with pytest.raises(UsageError, match="halo"):
        TiledInferer()(torch.rand(1, 1, 4, 4, 4), torch.nn.Conv3d(1, 1, 3))
    with pytest.raises(UsageError, match="B, 1, X, Y, Z"):
        TiledInferer()(torch.rand(4, 4, 4), torch.nn.Identity())
    with pytest.raises(UsageError, match="torch module"):
        TiledInferer()(torch.rand(1, 1, 4, 4, 4), lambda x: x)


def test_further_arguments_are_refused(network: torch.nn.Module) -> None:
    with pytest.raises(UsageError, match="alone"):
        TiledInferer()(torch.rand(1, 1, 4, 4, 4), network, 3)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta"])
def test_devices_that_are_not_there(device: str) -> None:
    with pytest.raises(DeviceError):
        resolve_device(device)


def test_automatic_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for capabilities, expected in (
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_f": True}, "fp32"),
        ({}, "fp32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c, raising=False)
        assert resolve_precision("auto", cpu) == expected
        assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(UsageError, match="fp16"):
        resolve_precision("fp16", cpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_gpu_agrees_with_the_processor(make_model: MakeModel) -> None:
    network = make_model(scale=(1, 1, 2)).module.eval()
    lr = torch.rand(1, 1, 24, 20, 9)
    expected = TiledInferer(precision="fp32")(lr, network)
    found = TiledInferer(8, precision="fp32")(lr, network.to("cuda"))
    assert found.device == lr.device
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    there = TiledInferer(precision="fp32")(lr.to("cuda"), network)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), expected, rtol=0, atol=1e-3)


class Hungry(torch.nn.Module):
    """Runs out of memory on blocks larger than it bears."""

    scale, halo, multiple_of = (1, 1, 1), (1, 1, 1), (1, 1, 1)

    def __init__(self, bears: int) -> None:
        super().__init__()
        self.bears = bears
        self.blocks: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.blocks.append(x.numel())
        if x.numel() > self.bears:
            raise torch.OutOfMemoryError("no room")
        return x + 1


def test_out_of_memory_is_met_with_smaller_blocks_and_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = Hungry(bears=1500)
    lr = torch.rand(20, 20, 20)
    sr = Engine(network, precision="fp32", skip_background=False).run(lr)
    torch.testing.assert_close(sr[0], lr + 1)
    assert max(network.blocks) == 8000
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_a_failed_block_held_is_free_before_the_next() -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    class Holding(Hungry):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            alive.extend(reference() is not None for reference in held)
            scratch = x.clone()
            held.append(weakref.ref(scratch))
            return super().forward(scratch)

    Engine(Holding(bears=1500), precision="fp32", skip_background=False).run(torch.rand(20, 20, 20))
    assert len(held) > 2
    assert not any(alive)


def test_no_room_for_the_question_about_air_is_no_failure() -> None:
    lr = torch.zeros(48, 48, 48)
    assert Engine(Hungry(bears=10**9), precision="fp32").run(lr)[0, 0, 0, 0] == 1
    assert Engine(Hungry(bears=0), precision="fp32").plan_for(lr).background_share == 0


@pytest.mark.parametrize("limit_bytes", [None, 2**24])
def test_a_full_gpu_is_left_for_good(limit_bytes: int | None) -> None:
    engine = Engine(Hungry(bears=10**9), precision="fp32", core=6, max_memory_bytes=limit_bytes)
    plan = dataclasses.replace(engine.plan((6, 6, 6)), device=torch.device("cuda"))
    engine.device = plan.device
    humbler = engine._smaller_plan(plan, torch.OutOfMemoryError("no room"))
    assert humbler.device == torch.device("cpu") == engine.device


def test_the_callers_network_stays_where_it_is(network: torch.nn.Module) -> None:
    engine = Engine(network, precision="fp32")
    assert engine._network_on(torch.device("cpu")) is network
    elsewhere = engine._network_on(torch.device("meta"))
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}
    assert {p.device.type for p in network.parameters()} == {"cpu"}


def test_memory_that_never_suffices_is_refused() -> None:
    with pytest.raises(MemoryLimitError, match="does not fit"):
        Engine(Hungry(bears=0), precision="fp32", skip_background=False).run(torch.rand(6, 6, 6))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_without_room_leaves_the_work_to_the_processor() -> None:
    class Homely(Hungry):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.bears = 0 if x.is_cuda else 10**9
            return super().forward(x)

    lr = torch.rand(6, 6, 6)
    sr = Engine(Homely(0), device="cuda", precision="fp32").run(lr)
    torch.testing.assert_close(sr[0], lr + 1)

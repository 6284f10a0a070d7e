"""Every backend gives torch's numbers, on blocks of the size that it was made for."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medsr.errors import BackendError, MissingExtraError, UsageError
from medsr.infer.engine import backends
from medsr.infer.engine.backends import (
    BACKENDS,
    missing_packages,
    precision_for,
    resolve_backend,
    why_not,
)
from medsr.infer.engine.backends import onnxruntime as onnxruntime_backend
from medsr.infer.engine.backends import openvino as openvino_backend
from medsr.networks import SRNetwork, build_network
from medsr.networks.heads import MeanAndSigma

CUDA = torch.device("cuda")

# The first is trained through branches, which are merged; the second has an odd tile, a stride and
# a fold; the third a long skip.
NETWORKS: list[tuple[str, tuple[int, int, int], dict[str, Any]]] = [
    ("RepPlain3D", (1, 1, 4), {"width": 16, "depth": 2}),
    ("RepPlain3D", (2, 2, 2), {"width": 16, "depth": 1, "fold": (2, 2, 1), "branches": False}),
    ("ResNet3D", (2, 2, 2), {"width": 16, "blocks": 1, "interpolation": "linear"}),
]
TILE = (9, 8, 7)


def random_network(name: str, scale: tuple[int, int, int], **options: Any) -> SRNetwork:
    torch.manual_seed(11)
    network = build_network(name, scale, **options).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def block_of(shape: tuple[int, int, int] = TILE) -> Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(2))


def usable(name: str) -> backends.Backend:
    backend = BACKENDS[name]
    missing = missing_packages(backend)
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (extra {backend.extra!r})")
    return backend


def detail(network: nn.Module, sr: Tensor, block: Tensor) -> Tensor:
    """What the network adds to the interpolated scan, where errors would hide behind the scan."""
    from medsr.networks.blocks import enlarge

    assert isinstance(network, SRNetwork)
    return sr - enlarge(block, network.scale, network.interpolation)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("kind", "scale", "options"), NETWORKS)
def test_fp32_gives_torchs_numbers(
    name: str, kind: str, scale: tuple[int, int, int], options: dict[str, Any]
) -> None:
    backend = usable(name)
    network, block = random_network(kind, scale, **options), block_of()
    wanted = network(block)
    given = block.clone()
    runner = backend.prepare(network, TILE, precision="fp32", threads=1)
    found = runner(block)
    assert found.shape == (1, 1, *(n * s for n, s in zip(TILE, scale, strict=True)))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    expected = detail(network, wanted, block)
    error = (detail(network, found, block) - expected).abs().max()
    assert error <= 1e-4 * expected.abs().max()
    # A second block through the same runner leaves the first result alone.
    kept = found.clone()
    again = runner(1 - block)
    assert torch.equal(found, kept)
    torch.testing.assert_close(again, network(1 - block), rtol=1e-4, atol=1e-4)
    assert torch.equal(block, given)
    torch.testing.assert_close(network(block), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in BACKENDS if "bf16" in BACKENDS[name].precisions])
@pytest.mark.parametrize(("kind", "scale", "options"), NETWORKS)
def test_bf16_rounds_the_detail_alone(
    name: str, kind: str, scale: tuple[int, int, int], options: dict[str, Any]
) -> None:
    backend = usable(name)
    reason = why_not(backend, "bf16")
    if reason is not None:
        pytest.skip(reason)
    network, block = random_network(kind, scale, **options), block_of()
    wanted = network(block)
    found = backend.prepare(network, TILE, precision="bf16", threads=1)(block)
    assert found.dtype == torch.float32
    expected = detail(network, wanted, block)
    error = (detail(network, found, block) - expected).abs().max() / expected.abs().max()
    # Rounded somewhere, or it was no bf16 at all.
    assert 1e-5 < error <= 2e-2


class Foreign(nn.Module):
    """A network of somebody else, with a forward pass of its own and two output channels."""

    scale, halo, multiple_of, channels = (1, 1, 1), (1, 1, 1), (1, 1, 1), 2

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, block: Tensor) -> Tensor:
        return torch.tanh(self.convolution(block))


@pytest.mark.parametrize("name", BACKENDS)
def test_other_networks_are_handed_over_whole(name: str) -> None:
    backend = usable(name)
    torch.manual_seed(4)
    network, block = Foreign().eval(), block_of()
    runner = backend.prepare(network, TILE, threads=1)
    found = runner(block)
    kept = found.clone()
    torch.testing.assert_close(found, network(block).detach(), rtol=1e-4, atol=1e-5)
    runner(1 - block)
    assert torch.equal(found, kept)


@pytest.mark.parametrize("name", BACKENDS)
def test_mean_and_sigma_come_out_together(name: str) -> None:
    backend = usable(name)
    network = MeanAndSigma(
        random_network("RepPlain3D", (1, 1, 2), width=16, depth=1, head="gaussian", branches=False)
    )
    block = block_of()
    found = backend.prepare(network, TILE, threads=1)(block)
    assert found.shape == (1, 2, 9, 8, 14)
    torch.testing.assert_close(found, network(block), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKENDS)
def test_threads_are_given_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = usable(name)
    network = random_network("RepPlain3D", (1, 1, 2), width=16, depth=1, branches=False)
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    before = torch.get_num_threads()
    backend.prepare(network, TILE, threads=before + 1)(block_of())
    assert seen == [before + 1, before]
    seen.clear()
    with torch.inference_mode():  # as the engine does
        found = backend.prepare(network, TILE)(block_of())
    assert seen == []
    torch.testing.assert_close(found, network(block_of()), rtol=1e-4, atol=1e-4)


def test_blocks_of_another_size_are_refused() -> None:
    network = random_network("RepPlain3D", (1, 1, 2), width=16, depth=1)
    runner = BACKENDS["torch"].prepare(network, TILE)
    with pytest.raises(ValueError, match=r"\(1, 1, 9, 8, 7\)"):
        runner(block_of((9, 8, 8)))


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_network_that_cannot_be_converted_is_named(name: str) -> None:
    backend = usable(name)

    class Stubborn(nn.Module):
        def forward(self, block: Tensor) -> Tensor:
            raise RuntimeError("no graph for me\nand more")

    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    with pytest.raises(
        BackendError, match=r"Stubborn cannot be converted .*use backend torch"
    ) as e:
        backend.prepare(Stubborn(), TILE)
    assert "\n" not in str(e.value)
    assert BackendError.exit_code == 47
    assert (root.level, list(root.filters), list(root.handlers)) == before


class Own(Foreign):
    """Brings its own library along."""

    computed_by = "abacus"


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_network_of_another_library_is_refused(name: str) -> None:
    with pytest.raises(BackendError, match="computed by abacus"):
        usable(name).prepare(Own(), TILE)


def test_the_table_is_sorted_and_knows_its_names() -> None:
    assert list(BACKENDS) == sorted(BACKENDS)
    assert all(name == backend.name for name, backend in BACKENDS.items())
    assert backends.DEFAULT_BACKEND == "torch"
    assert resolve_backend("torch") is BACKENDS["torch"]
    with pytest.raises(UsageError, match="onnxruntime, openvino, torch"):
        resolve_backend("abacus")


@pytest.mark.parametrize("package", ["openvino", "onnxruntime", "onnxscript"])
def test_a_missing_package_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    name = "openvino" if package == "openvino" else "onnxruntime"
    extra = "openvino" if package == "openvino" else "onnx"
    reason = why_not(BACKENDS[name])
    assert reason is not None
    assert package in reason
    with pytest.raises(MissingExtraError, match=rf'pip install "medsr\[{extra}\]"'):
        resolve_backend(name)
    network = random_network("RepPlain3D", (1, 1, 2), width=16, depth=1)
    with pytest.raises(MissingExtraError, match=package):
        BACKENDS[name].prepare(network, TILE)


def test_onnxruntime_says_that_it_has_no_bf16() -> None:
    backend = usable("onnxruntime")
    with pytest.raises(BackendError, match="fp32 only, not in bf16"):
        backend.prepare(Foreign(), TILE, precision="bf16")


def test_auto_takes_a_precision_that_the_backend_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert precision_for("torch", "auto") == "bf16"
    assert precision_for("onnxruntime", "auto") == "fp32"
    assert precision_for("auto", "auto") == "bf16"
    # What is named is not replaced in silence.
    assert precision_for("onnxruntime", "bf16") == "bf16"
    assert precision_for("torch", "fp32") == "fp32"
    with pytest.raises(UsageError, match="fp16"):
        precision_for("torch", "fp16")


def test_openvino_says_that_the_processor_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    usable("openvino")
    monkeypatch.setattr(openvino_backend, "openvino_core", Core)
    with pytest.raises(BackendError, match="does not compute in bf16"):
        BACKENDS["openvino"].prepare(Foreign(), TILE, precision="bf16")
    assert why_not(BACKENDS["openvino"], "fp32") is None


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in (why_not(BACKENDS["torch"], device=CUDA) or "")
    usable("openvino")
    assert "on the processor only" in (why_not(BACKENDS["openvino"], device=CUDA) or "")


def test_onnxruntime_takes_cuda_from_its_gpu_build_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self) -> None:
            self.providers = ["CPUExecutionProvider"]

        def get_available_providers(self) -> list[str]:
            return self.providers

    library = Library()
    usable("onnxruntime")
    monkeypatch.setattr(onnxruntime_backend, "_library", lambda: library)
    reason = why_not(BACKENDS["onnxruntime"], device=CUDA)
    assert reason is not None
    assert "CUDAExecutionProvider" in reason
    library.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert why_not(BACKENDS["onnxruntime"], device=CUDA) is None


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_making_ready_is_silent_and_leaves_no_trace(
    name: str,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = usable(name)
    monkeypatch.chdir(tmp_path)
    environment = own_environment()
    level = logging.getLogger("torch.onnx").level
    network = random_network("RepPlain3D", (1, 1, 2), width=16, depth=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.prepare(network, TILE)(block_of())
    assert capfd.readouterr() == ("", "")
    assert not any(tmp_path.iterdir())
    assert own_environment() == environment
    assert logging.getLogger("torch.onnx").level == level


def own_environment() -> dict[str, str]:
    """The environment without what torch sets when its compiler is first imported."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TORCHINDUCTOR_")}

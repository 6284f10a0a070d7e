"""The arms of ``inference``: each enlarges the same volume with the same weights in its own way.

MONAI's sliding window, the engine in float32 and in what ``auto`` takes, every further backend in
every precision it has, and the matrix products that show what the machine could do at best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medsr.benchmark.inference_peer import OVERLAPS, WINDOW, SlidingWindow
from medsr.infer.engine.backends import BACKENDS, DEFAULT_BACKEND, why_not
from medsr.infer.engine.device import Precision, native_bf16, resolve_precision
from medsr.infer.engine.engine import Engine
from medsr.networks import SRNetwork
from medsr.types import Shape

OURS = ("fp32", "auto")
"""Arms of the engine with torch, named after what ``--precision`` says."""

PEERS = tuple(f"monai_{overlap}" for overlap in OVERLAPS)
REFERENCE = PEERS[-1]
"""The arm whose answer the others are held to."""


@dataclass(frozen=True)
class Arm:
    """One way to enlarge a volume.

    Args:
        label: What a table calls it.
        precision: Of its convolutions.
        run: From ``(X, Y, Z)`` normalised to ``(channels, X·sx, Y·sy, Z·sz)`` float32.
        plan: How the volume is cut, as plain data; empty for the peer.
        optional: Whether the benchmark goes on without it if it fails.
    """

    label: str
    precision: Precision
    run: Callable[[Tensor], Tensor]
    plan: dict[str, Any] = field(default_factory=dict)
    optional: bool = False


def build_arms(
    network: SRNetwork, shape: Shape, device: torch.device, *, window: int = WINDOW, batch: int = 1
) -> tuple[dict[str, Arm], dict[str, str]]:
    """Return all arms that this machine can run, and why it cannot run the others.

    Args:
        network: Merged, in evaluation mode, on ``device``.
        shape: Voxels of the volume.
        device: Where.
        window: Voxels of the peer's windows along an axis.
        batch: The peer's windows at a time.

    Returns:
        Arms by name, the peers first; reasons in one line each by the name of the missing arm.
    """
    arms = {
        f"monai_{overlap}": Arm(
            f"MONAI sliding window, overlap {overlap}",
            "fp32",
            SlidingWindow(network, overlap, window, batch),
        )
        for overlap in OVERLAPS
    }
    for name in OURS:
        precision = resolve_precision(name, device)
        label = "engine, fp32" if name == "fp32" else f"engine, auto ({precision})"
        arms[name] = _engine_arm(label, network, shape, device, precision, DEFAULT_BACKEND)
    missing = {}
    for backend in (name for name in BACKENDS if name != DEFAULT_BACKEND):
        for precision in ("fp32", "bf16"):
            name = f"{backend}_{precision}"
            reason = why_not(BACKENDS[backend], precision, device)
            if reason is not None:
                missing[name] = reason
                continue
            label = f"engine with {backend}, {precision}"
            arms[name] = _engine_arm(
                label, network, shape, device, precision, backend, optional=True
            )
    return arms, missing


def _engine_arm(
    label: str,
    network: SRNetwork,
    shape: Shape,
    device: torch.device,
    precision: Precision,
    backend: str,
    *,
    optional: bool = False,
) -> Arm:
    # Random voxels hold no air; saying so spares the search that a scan would pay back.
    engine = Engine(
        network, device=device, precision=precision, backend=backend, skip_background=False
    )
    planned = engine.plan(shape).as_dict()
    plan = {key: planned[key] for key in ("count", "largest_shape", "streamed")}
    return Arm(label, precision, engine.run, plan, optional)


def limit_precisions(device: torch.device, arms: dict[str, Arm]) -> tuple[Precision, ...]:
    """Return the precisions whose limit is worth knowing: those of arms, bf16 where native."""
    used = {arm.precision for arm in arms.values()}
    if device.type == "cpu" and not native_bf16():
        used.discard("bf16")
    order: tuple[Precision, ...] = ("fp32", "bf16")
    return tuple(precision for precision in order if precision in used)


class MatrixProduct:
    """Multiplies two square matrices: the arithmetic that processors do fastest.

    Args:
        precision: Of the matrices.
        device: Where.
        size: Their rows and columns.
    """

    def __init__(self, precision: Precision, device: torch.device, size: int) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        generator = torch.Generator().manual_seed(0)
        self.left, self.right = (
            torch.rand(size, size, generator=generator).to(device, dtype) for _ in range(2)
        )
        self.out = torch.empty_like(self.left)
        self.device = device
        # One product on a GPU is over before the clock has been read.
        self.times = 20 if device.type == "cuda" else 1

    def gflops(self) -> float:
        """Return the rate of a product, 10⁹ floating-point operations a second, median of three."""
        rates = []
        with _tf32_as_convolutions(self.device), torch.inference_mode():
            for _ in range(3):
                wait(self.device)
                start = time.perf_counter()
                for _ in range(self.times):
                    torch.mm(self.left, self.right, out=self.out)
                wait(self.device)
                seconds = time.perf_counter() - start
                rates.append(2e-9 * self.times * self.left.shape[0] ** 3 / seconds)
        return sorted(rates)[1]


@contextmanager
def _tf32_as_convolutions(device: torch.device) -> Iterator[None]:
    """Let float32 products use TF32 where cuDNN's convolutions do, which is torch's default."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a processor has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Whether the engine's time grows as the volume does, from 64³ voxels to 512 × 512 × 128.

A plan that computed halo again at every cut, or left the cache as volumes grow, would show here as
seconds per voxel that are not the same for all sizes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from medsr.benchmark.inference_arms import wait
from medsr.errors import UsageError
from medsr.infer.engine.device import resolve_device
from medsr.infer.engine.engine import Engine
from medsr.model import SRModel
from medsr.types import Progress, Shape

SHAPES: tuple[Shape, ...] = (
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 64),
    (256, 256, 128),
    (512, 512, 64),
    (512, 512, 128),
)
SHARE = 0.8
"""Of the memory that is free, a volume may take this much."""


def linearity(
    model: str | Path = "mr-z4",
    *,
    shapes: Sequence[Shape] = SHAPES,
    runs: int = 3,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time the engine over volumes of growing size, round by round.

    Args:
        model: Shipped name or folder.
        shapes: Low-resolution voxels of the volumes; those that do not fit into the free memory
            are left out.
        runs: Rounds after the one that warms up, at least 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``.
        progress: Told before every step: steps done, steps in all, what comes next.

    Returns:
        ``sizes`` with their seconds and seconds per low-resolution voxel, their median, the
        ``largest_deviation`` of a size from it (relative, 0 or more), and what was ``left_out``,
        as plain data.

    Raises:
        DeviceError: There is no such device.
        ModelError: The model cannot be loaded.
        UsageError: ``runs`` is below 1, or no size fits into the memory.
    """
    if runs < 1:
        raise UsageError(f"runs {runs} must be at least 1")
    place = resolve_device(device)
    network = SRModel.load(model, device=place).module
    engine = Engine(network, device=place, precision=precision, skip_background=False)
    fitting = [shape for shape in shapes if _fits(engine, shape)]
    if not fitting:
        raise UsageError("no size fits into the memory that is free; close other programs")
    seconds: dict[Shape, list[float]] = {shape: [] for shape in fitting}
    total, done = (runs + 1) * len(fitting), 0
    for number in range(runs + 1):
        for shape in fitting:
            if progress is not None:
                progress(done, total, " × ".join(map(str, shape)))
            taken = _time(engine, shape)
            if number > 0:
                seconds[shape].append(taken)
            done += 1
    if progress is not None:
        progress(done, total, "done")
    return {
        "precision": engine.precision,
        "runs": runs,
        **deviation(seconds),
        "left_out": [list(shape) for shape in shapes if shape not in fitting],
    }


def deviation(seconds: dict[Shape, list[float]]) -> dict[str, Any]:
    """Work out seconds per voxel, and how far a size is from the median of all.

    Args:
        seconds: Wall times by shape, at least one each.
    """
    sizes: list[dict[str, Any]] = []
    for shape, times in seconds.items():
        voxels = math.prod(shape)
        sizes.append(
            {
                "shape": list(shape),
                "voxels": voxels,
                "seconds": times,
                "median_seconds": median(times),
                "seconds_per_voxel": median(times) / voxels,
            }
        )
    middle = median(size["seconds_per_voxel"] for size in sizes)
    for size in sizes:
        size["deviation"] = size["seconds_per_voxel"] / middle - 1
    return {
        "sizes": sizes,
        "median_seconds_per_voxel": middle,
        "largest_deviation": max(abs(size["deviation"]) for size in sizes),
    }


def _time(engine: Engine, shape: Shape) -> float:
    lr = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(engine.device)
    wait(engine.device)
    start = time.perf_counter()
    engine.run(lr)
    wait(engine.device)
    return time.perf_counter() - start


def _fits(engine: Engine, shape: Shape) -> bool:
    """Whether input, result and one block of the plan fit into what is free."""
    if engine.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(engine.device)
    else:
        free = psutil.virtual_memory().available
    arrays = 4 * math.prod(shape) * (1 + engine.channels * math.prod(engine.scale))
    if arrays > SHARE * free:
        return False
    plan = engine.plan(shape)
    block = max(plan.executor.working_bytes(tile.shape) for tile in plan.tiles)
    return arrays + block <= SHARE * free

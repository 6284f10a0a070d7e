"""How fast the engine is, beside MONAI's sliding window and beside what the machine can do at all.

Every round runs all arms in turn, each round from another one on, and measures the machine's
matrix products in between, so that whatever slows the machine down meets them alike; what is
compared are medians over rounds of one process. Which arms there are is in ``inference_arms``, the
linearity of the engine's cost in ``inference_linear``, what bf16 costs in quality in
``inference_precision``, tables and page in ``inference_report``.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from medsr import zoo
from medsr.benchmark.inference_arms import (
    OURS,
    PEERS,
    REFERENCE,
    Arm,
    MatrixProduct,
    build_arms,
    limit_precisions,
    wait,
)
from medsr.benchmark.inference_compare import Reference
from medsr.benchmark.inference_memory import EXPLANATION, EXPLANATION_CUDA, PeakMemory
from medsr.benchmark.inference_peer import WINDOW, SlidingWindow, about
from medsr.benchmark.networks import macs_per_voxel
from medsr.errors import MedsrError, UsageError
from medsr.infer.engine import cache
from medsr.infer.engine.device import resolve_device
from medsr.io.atomic import atomic_file, check_output
from medsr.model import SRModel
from medsr.types import Progress, Shape

logger = logging.getLogger(__name__)

"""Called with the steps done, the steps in all, and what comes next."""

SCHEMA = 1
MATRIX = 4096
"""Rows and columns of the matrices whose product is the limit."""


@dataclass
class Measured:
    """What one arm took.

    Attributes:
        seconds: Wall time of each round.
        extra_bytes: Most memory of any round, the one that warms up included.
        difference: Largest absolute difference to the reference where that can be trusted, over
            the range of the reference.
        everywhere: The same over all voxels, seams of the reference included.
    """

    seconds: list[float] = field(default_factory=list)
    extra_bytes: int = 0
    difference: float = math.nan
    everywhere: float = math.nan


def run(
    model: str | Path = "mr-z4",
    *,
    shape: Shape = (256, 256, 64),
    runs: int = 5,
    device: str = "auto",
    window: int = WINDOW,
    matrix: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run one random volume through a model by every arm.

    Args:
        model: Shipped name or folder.
        shape: Low-resolution voxels of the volume.
        runs: Rounds after the one that warms up, at least 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        window: Voxels of the peer's windows along an axis, clipped to the volume.
        matrix: Rows and columns of the matrices whose product is the limit; by default
            :data:`MATRIX`.
        progress: Told after every step.

    Returns:
        The measurement as plain data, ready for :func:`save` and ``inference_report``.

    Raises:
        DeviceError: There is no such device.
        ModelError: The model cannot be loaded.
        UsageError: ``runs`` or a size is below 1.
    """
    matrix = MATRIX if matrix is None else matrix
    if runs < 1 or window < 1 or matrix < 1 or min(shape) < 1:
        raise UsageError("shape, runs, window and matrix start at 1")
    place = resolve_device(device)
    loaded = SRModel.load(model, device=place)
    network = loaded.module
    batch = 4 if place.type == "cuda" else 1
    arms, missing = build_arms(network, shape, place, window=window, batch=batch)
    limits = {p: MatrixProduct(p, place, matrix) for p in limit_precisions(place, arms)}
    lr = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(place)
    tell = _Steps(len(arms) + runs * (len(arms) + len(limits)), progress)

    measured, comparison = _warm_up(arms, missing, lr, window, tell)
    rates: dict[str, list[float]] = {precision: [] for precision in limits}
    steps: list[tuple[str, Callable[[], object]]] = [
        *((arm.label, partial(_once, arm, measured[name], lr)) for name, arm in arms.items()),
        *((f"products, {p}", partial(_rate, limits[p], rates[p])) for p in limits),
    ]
    for number in range(runs):
        start = number % len(steps)
        for label, step in steps[start:] + steps[:start]:
            tell(label)
            step()
    tell("done")
    return {
        "schema": SCHEMA,
        "benchmark": "inference",
        "command": _command(model, shape, runs, device),
        **summary(arms, measured, rates, macs_per_voxel(network) * math.prod(shape)),
        "missing": missing,
        "comparison": comparison,
        "memory": EXPLANATION_CUDA if place.type == "cuda" else EXPLANATION,
        "model": {
            "name": loaded.spec.name,
            "version": loaded.spec.version,
            "weights_sha256": loaded.weight_hash,
            "network": loaded.spec.network,
            "parameters": loaded.spec.parameters,
            "macs_per_voxel": macs_per_voxel(network),
            "halo": list(loaded.spec.halo),
        },
        "machine": describe_machine(place),
        "shape": list(shape),
        "scale": list(loaded.spec.scale),
        "runs": runs,
        "matrix": matrix,
        "peer": about(window, batch),
    }


def summary(
    arms: Mapping[str, Arm],
    measured: Mapping[str, Measured],
    rates: Mapping[str, list[float]],
    macs: float,
) -> dict[str, Any]:
    """Work out ratios and shares from what was measured.

    Args:
        arms: All arms, those of the peer and :data:`OURS` among them.
        measured: What each took.
        rates: Matrix products by precision, 10⁹ floating-point operations a second.
        macs: Multiply-accumulates of the network over the whole volume, halo not counted.

    Returns:
        ``ratios`` (the peer's median seconds over ours) and ``ratio_ranges`` (least and greatest of
        any round), ``share_of_limit``, ``max_relative_difference``, ``limits`` and ``arms``, as
        plain data. A share without a limit and a difference that is unknown are None.
    """
    limits: dict[str, dict[str, Any]] = {
        precision: {
            "gflops": values,
            "median_gflops": median(values),
            "gflops_range": [min(values), max(values)],
        }
        for precision, values in rates.items()
    }
    entries: dict[str, dict[str, Any]] = {}
    for name, arm in arms.items():
        measurement = measured[name]
        gflops = 2e-9 * macs / median(measurement.seconds)
        limit = limits.get(arm.precision)
        entries[name] = {
            "label": arm.label,
            "precision": arm.precision,
            "seconds": measurement.seconds,
            "median_seconds": median(measurement.seconds),
            "seconds_range": [min(measurement.seconds), max(measurement.seconds)],
            "gflops": gflops,
            "share_of_limit": None if limit is None else gflops / limit["median_gflops"],
            "peak_extra_bytes": measurement.extra_bytes,
            "max_relative_difference": _plain(measurement.difference),
            "max_relative_difference_everywhere": _plain(measurement.everywhere),
            "plan": arm.plan,
        }
    ratios, ranges = {}, {}
    for ours in OURS:
        for peer in PEERS:
            key = f"{ours}_vs_{peer}"
            theirs, own = entries[peer], entries[ours]
            ratios[key] = theirs["median_seconds"] / own["median_seconds"]
            single = [t / o for t, o in zip(theirs["seconds"], own["seconds"], strict=True)]
            ranges[key] = [min(single), max(single)]
    return {
        "ratios": ratios,
        "ratio_ranges": ranges,
        "share_of_limit": {name: entries[name]["share_of_limit"] for name in OURS},
        "max_relative_difference": {
            name: entries[name]["max_relative_difference"] for name in OURS
        },
        "limits": limits,
        "arms": entries,
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Say what speed depends on: processor or GPU, threads, versions; no name of the machine."""
    hardware = cache.machine()
    hardware["device"] = device.type
    hardware["versions"] |= {"python": platform.python_version()}
    if device.type == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name(device)
        hardware["tf32"] = bool(torch.backends.cudnn.allow_tf32)
    return hardware


def save(results: Mapping[str, Any], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write what :func:`run` returned as JSON, whole or not at all.

    Raises:
        OutputExistsError: The file is there and ``overwrite`` is False.
        OutputNotWritableError: It cannot be written.
    """
    target = Path(path)
    check_output(target, overwrite=overwrite)
    with atomic_file(target, overwrite=overwrite) as temporary:
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


class _Steps:
    """Counts steps for a progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.begun = total, progress, 0

    def __call__(self, what: str) -> None:
        """Say what comes next; all before it is done."""
        if self.progress is not None:
            self.progress(min(self.begun, self.total), self.total, what)
        self.begun += 1


def _warm_up(
    arms: dict[str, Arm], missing: dict[str, str], lr: Tensor, window: int, tell: _Steps
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """Run every arm once, compare its answer, and drop the optional ones that fail."""
    measured = {name: Measured() for name in arms}
    tell(arms[REFERENCE].label)
    peer = arms[REFERENCE].run
    if not isinstance(peer, SlidingWindow):
        raise TypeError("the reference is MONAI's arm")
    reference = Reference(peer, lr, _once(arms[REFERENCE], measured[REFERENCE], lr))
    for name, arm in list(arms.items()):
        if name == REFERENCE:
            measured[name].difference = measured[name].everywhere = 0.0
            continue
        tell(arm.label)
        try:
            sr = _once(arm, measured[name], lr)
            measured[name].difference, measured[name].everywhere = reference.differences(
                arm.run, sr
            )
        except MedsrError as error:
            if not arm.optional:
                raise
            logger.warning("%s: left out: %s", arm.label, error)
            missing[name] = str(error)
            del arms[name], measured[name]
    for found in measured.values():
        found.seconds.clear()
    return measured, {"reference": REFERENCE, **reference.as_dict()}


def _once(arm: Arm, measured: Measured, lr: Tensor) -> Tensor:
    """Run an arm once and note what it took."""
    with PeakMemory(lr.device) as memory:
        wait(lr.device)
        start = time.perf_counter()
        sr = arm.run(lr)
        wait(lr.device)
        measured.seconds.append(time.perf_counter() - start)
    measured.extra_bytes = max(measured.extra_bytes, memory.extra_bytes)
    return sr


def _rate(product: MatrixProduct, rates: list[float]) -> None:
    rates.append(product.gflops())


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


def _command(model: str | Path, shape: Shape, runs: int, device: str) -> str:
    """The command that makes this again; a folder is told by its name alone."""
    words = [
        f"--model {model if str(model) in zoo.names() else Path(model).name}",
        f"--shape {','.join(map(str, shape))}",
        f"--runs {runs}",
        *([] if device == "auto" else [f"--device {device}"]),
    ]
    return " ".join(["medsr benchmark inference", *words])

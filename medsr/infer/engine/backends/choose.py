"""The fastest backend for a volume on this machine, told from a piece of the work to be done.

How long a backend takes depends on how it goes through a volume: torch leaves out background, the
other libraries work through all tiles. So what is timed is a piece of the very plan that would run,
and what is compared is the time of whole plans. Plans are made by ``medsr.infer.engine.engine``,
which asks only for networks that torch does not stream.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medsr.infer.engine import cache
from medsr.infer.engine.backends import BACKENDS, DEFAULT_BACKEND, why_not
from medsr.infer.engine.device import Precision
from medsr.infer.engine.executors import Executor, StreamExecutor

if TYPE_CHECKING:
    from medsr.infer.engine.engine import Engine, Plan

logger = logging.getLogger(__name__)

WORTH_COMPARING = 3.0
"""Seconds of torch from which on it pays to ask whether another backend is faster."""

PIECE_PLANES = 32
"""Planes of a streamed block on which torch is timed."""

PIECE_EDGE = 48
"""Voxels along the edges of a tile on which the others are timed, at most."""

RUNS = 3
"""Runs of each piece after the one that warms up, if the time allows."""

SECONDS = 1.0
"""Time for the runs of each piece; making it ready and the first run come on top."""

PASSES = 3
"""Runs of a piece that measuring takes at least: to warm up, to be timed, torch's to compare."""

PRICE = 1.0
"""What measuring may take by estimate, as a share of torch's time for the whole volume."""

MARGIN = 0.95
"""Share of torch's time that another backend must stay below to be taken in its place."""

TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2}
"""How far a backend may be from torch in the same precision, relative to the largest value; one
that is farther does not compute this network."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A piece of the work that a backend would do on a volume.

    Args:
        run: Does the piece, and returns its answer in native values.
        reference: torch's answer to the same piece.
        piece_seconds: Time of the piece by the planner's estimate, which is off by a factor that
            depends on network and library.
        plan_seconds: Time of the whole plan by the same estimate.
        key: What that factor depends on, as plain data.
    """

    run: Callable[[], Tensor]
    reference: Callable[[], Tensor]
    piece_seconds: float
    plan_seconds: float
    key: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What each backend would take for a volume.

    Args:
        seconds: Expected for the whole volume, by name, the fastest first.
        refused: Why others were not measured or not trusted, one line each, by name.
    """

    seconds: dict[str, float]
    refused: dict[str, str]

    @property
    def name(self) -> str:
        """The backend to take: the fastest, and torch where that is all but as fast."""
        seconds = dict(self.seconds)
        reference = seconds.pop(DEFAULT_BACKEND, math.inf)
        other = min(seconds, key=seconds.__getitem__, default=DEFAULT_BACKEND)
        clear = other in seconds and seconds[other] < MARGIN * reference
        return other if clear else DEFAULT_BACKEND


def fastest(
    engine: Engine, plan: Plan, lr: Tensor, *, offset: float = 0.0, divisor: float = 1.0
) -> Ranking:
    """Say how long the installed backends would take for a volume.

    Args:
        engine: By torch.
        plan: Its plan for this volume.
        lr: Native values ``(X, Y, Z)``.
        offset: Native value that is 0 to the network.
        divisor: Native width that is 1 to the network.

    Returns:
        The ranking, whose ``name`` is the backend to take; without seconds, which means torch,
        where measuring would take longer than the volume itself or no other backend can be used.
    """
    precision, device = engine.precision, engine.device
    refused = {name: why_not(backend, precision, device) for name, backend in BACKENDS.items()}
    usable = [name for name, reason in refused.items() if reason is None]
    lacking = {name: reason for name, reason in refused.items() if reason is not None}
    if set(usable) <= {DEFAULT_BACKEND} or plan.seconds < WORTH_COMPARING:
        return Ranking({}, lacking)

    def trial_of(name: str) -> Callable[[], Trial]:
        return lambda: _trial(engine, name, plan, lr.float(), offset, divisor)

    with torch.inference_mode():
        return rank({name: trial_of(name) for name in usable}, precision, lacking)


def rank(
    trials: Mapping[str, Callable[[], Trial]], precision: Precision, refused: Mapping[str, str]
) -> Ranking:
    """Say how long backends would take for a volume; how fast they are is measured once and kept.

    Args:
        trials: Makes the trial of each backend that can be used, by name.
        precision: What the convolutions are computed in.
        refused: Why the others cannot be used.

    Returns:
        The ranking, whose ``name`` is the backend to take; without seconds, which means torch,
        where it would take longer to measure than to compute.
    """
    seconds: dict[str, float] = {}
    out = dict(refused)
    made: dict[str, Trial] = {}
    for name, make in trials.items():
        try:
            made[name] = make()
        except Exception as error:
            out[name] = _line(error)
    price = PASSES * sum(t.piece_seconds for name, t in made.items() if _known(name, t) is None)
    if DEFAULT_BACKEND in made and price > PRICE * made[DEFAULT_BACKEND].plan_seconds:
        return Ranking({}, out)
    if price:
        logger.info("timing the backends on a piece of this volume; kept for other volumes")
    for name, trial in made.items():
        try:
            factor, reason = _known(name, trial) or _measured(name, trial, precision)
        except Exception as error:
            out[name] = _line(error)
            continue
        if reason is None:
            seconds[name] = factor * trial.plan_seconds
        else:
            out[name] = reason
    ranking = Ranking(dict(sorted(seconds.items(), key=lambda item: item[1])), out)
    logger.info("fastest backend for this volume: %s", ranking.name)
    return ranking


def signature(network: nn.Module) -> str:
    """Return a hash of what a network's speed depends on: its structure, and no weight."""
    traits = [getattr(network, name, None) for name in ("scale", "fold", "interpolation")]
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    kinds = [(name, type(module).__qualname__) for name, module in network.named_modules()]
    text = repr((kinds, repr(network), shapes, traits))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _trial(
    engine: Engine, name: str, own: Plan, lr: Tensor, offset: float, divisor: float
) -> Trial:
    """Make a piece of a backend's own plan for a volume ready to be timed."""
    plan = own
    if name != engine.backend.name:
        plan = engine.with_backend(name).plan_for(lr, offset=offset, divisor=divisor)
    block = lr[max(plan.tiles, key=lambda tile: math.prod(tile.shape)).input_slices]
    if isinstance(plan.executor, StreamExecutor):
        axis = plan.executor.axis
        block = block.narrow(axis, 0, min(block.shape[axis], PIECE_PLANES))
    else:
        edges = (max(PIECE_EDGE // m, 1) * m for m in engine.multiple_of)
        block = block[tuple(slice(0, edge) for edge in edges)]
    x, y, z = block.shape

    def answer(executor: Executor) -> Tensor:
        fine = [n * s for n, s in zip(block.shape, engine.scale, strict=True)]
        out = torch.empty(engine.channels, *fine, dtype=torch.float32, device=lr.device)
        whole = (slice(0, x), slice(0, y), slice(0, z))
        executor.run(block, out, whole, offset=offset, divisor=divisor, tick=lambda: None)
        if lr.is_cuda:
            torch.cuda.synchronize(lr.device)
        return out

    return Trial(
        run=lambda: answer(plan.executor),
        reference=lambda: answer(own.executor),
        piece_seconds=plan.executor.seconds((x, y, z)),
        plan_seconds=plan.seconds,
        key={
            "network": signature(engine.network),
            "precision": engine.precision,
            "device": _name_of(engine.device),
            # Of blocks of one size class one is as fast as another, by the planner's estimate.
            "size": round(math.log2(block.numel())),
        },
    )


def _measured(name: str, trial: Trial, precision: Precision) -> tuple[float, str | None]:
    """Time a piece; return its seconds over the estimated ones, and why it cannot be trusted."""
    # A library may write its next answer where this one lies.
    first = trial.run().clone()
    if name != DEFAULT_BACKEND and not _agrees(first, trial.reference(), TOLERANCE[precision]):
        return 1.0, "its result differs from torch's"
    times: list[float] = []
    with cache.Disturbance() as others:
        while len(times) < RUNS and (not times or sum(times) < SECONDS):
            start = time.perf_counter()
            trial.run()
            times.append(time.perf_counter() - start)
    factor = statistics.median(times) / trial.piece_seconds
    cache.write(_key(name, trial), {"factor": factor}, days=others.days)
    return factor, None


def _known(name: str, trial: Trial) -> tuple[float, str | None] | None:
    cached = (cache.read(_key(name, trial)) or {}).get("factor")
    if isinstance(cached, (int, float)) and 0 < cached < math.inf:
        return float(cached), None
    return None


def _key(name: str, trial: Trial) -> str:
    return cache.machine_key("backend", backend=name, **trial.key)


def _line(error: Exception) -> str:
    """Say why a backend is out of the race; libraries have no common family of errors."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _agrees(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    if found.shape != wanted.shape:
        return False
    # False for NaN as well.
    largest = float((wanted - wanted.mean()).abs().max())
    return float((found - wanted).abs().max()) <= tolerance * max(largest, 1e-6)


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

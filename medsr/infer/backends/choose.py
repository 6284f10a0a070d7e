"""The fastest backend for a network on this machine: measured once on one tile, then remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from medsr.infer import cache
from medsr.infer.backends import BACKENDS, DEFAULT_BACKEND, Runner, why_not
from medsr.infer.backends.base import CPU
from medsr.infer.device import Precision
from medsr.infer.plan import Shape

logger = logging.getLogger(__name__)

RUNS = 5
"""Runs of each backend after the one that warms up, if the time allows."""

MARGIN = 0.95
"""Share of torch's time that another backend must stay below to be taken in its place."""

TOLERANCE: dict[Precision, float] = {"fp32": 1e-3, "bf16": 5e-2}
"""How far a backend may be from torch in the same precision, relative to the largest value; one
that is farther does not compute this network."""


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What each backend took for one tile.

    Args:
        seconds: Median over the runs, by name, the fastest first; empty where torch is the only
            one that can be used and nothing was measured.
        refused: Why the others were not measured or not trusted, one line each, by name.
    """

    seconds: dict[str, float]
    refused: dict[str, str]

    @property
    def name(self) -> str:
        """The backend to take: the fastest, and torch where that is all but as fast."""
        fastest = min(self.seconds, key=self.seconds.__getitem__, default=DEFAULT_BACKEND)
        reference = self.seconds.get(DEFAULT_BACKEND, math.inf)
        clear = fastest in self.seconds and self.seconds[fastest] < MARGIN * reference
        return fastest if clear else DEFAULT_BACKEND


def fastest(
    network: nn.Module,
    tile_shape: Shape,
    precision: Precision = "fp32",
    *,
    device: torch.device = CPU,
    threads: int | None = None,
    seconds: float = 1.0,
) -> Ranking:
    """Return how fast the backends run a network here, from the cache where that is known.

    Args:
        network: In evaluation mode, with its parameters on ``device``.
        tile_shape: Low-resolution voxels of the padded tile along X, Y and Z.
        precision: What the convolutions are computed in.
        device: Where.
        threads: Processor threads; torch's own number if None.
        seconds: Time for the runs of each backend; making it ready and the first run, which
            warms up, come on top.

    Returns:
        The ranking, whose ``name`` is the backend to take.
    """
    # Names stand in the key: what is refused for want of a package may be installed later.
    refused = {name: why_not(backend, precision, device) for name, backend in BACKENDS.items()}
    usable = [name for name, reason in refused.items() if reason is None]
    lacking = {name: reason for name, reason in refused.items() if reason is not None}
    if set(usable) <= {DEFAULT_BACKEND}:
        return Ranking({}, lacking)
    key = cache.machine_key(
        "backend",
        network=signature(network),
        tile=list(tile_shape),
        precision=precision,
        device=_device_name(device),
        threads=threads,
        usable=usable,
    )
    known = _from_plain(cache.read(key))
    if known is not None:
        return known
    ranking = measure(network, tile_shape, precision, usable, device, threads, seconds)
    ranking = Ranking(ranking.seconds, {**lacking, **ranking.refused})
    cache.write(key, dataclasses.asdict(ranking))
    logger.info("fastest backend for this network: %s", ranking.name)
    return ranking


def measure(
    network: nn.Module,
    tile_shape: Shape,
    precision: Precision,
    names: list[str],
    device: torch.device = CPU,
    threads: int | None = None,
    seconds: float = 1.0,
) -> Ranking:
    """Time backends on one tile, their runs interleaved, so that a disturbance meets them all.

    Args:
        network: See :func:`fastest`; so are the rest.
        tile_shape: Low-resolution voxels of the padded tile.
        precision: What the convolutions are computed in.
        names: Keys of ``BACKENDS``; torch is the judge of the others' numbers where it is there.
        device: Where.
        threads: Processor threads.
        seconds: Time for the runs of each backend.
    """
    block = torch.rand(1, 1, *tile_shape, generator=torch.Generator().manual_seed(0)).to(device)
    runners: dict[str, Runner] = {}
    refused: dict[str, str] = {}
    wanted: Tensor | None = None
    for name in sorted(names, key=lambda name: name != DEFAULT_BACKEND):
        try:
            runner = BACKENDS[name].prepare(
                network, tile_shape, precision=precision, device=device, threads=threads
            )
            found = runner(block)
        except Exception as error:
            # Libraries have no common family of errors; one that fails here is out of the race.
            refused[name] = (str(error) or type(error).__name__).splitlines()[0]
            continue
        if name == DEFAULT_BACKEND:
            wanted = found
        elif wanted is not None and not _agrees(found, wanted, TOLERANCE[precision]):
            refused[name] = "its result differs from torch's"
            continue
        runners[name] = runner
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(RUNS):
        for name, runner in runners.items():
            if not times[name] or sum(times[name]) < seconds:
                times[name].append(_timed(runner, block))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return Ranking(dict(sorted(medians.items(), key=lambda item: item[1])), refused)


def signature(network: nn.Module) -> str:
    """Return a hash of what a network's speed depends on: its structure, and no weight."""
    traits = [getattr(network, name, None) for name in ("scale", "fold", "interpolation")]
    shapes = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    kinds = [(name, type(module).__qualname__) for name, module in network.named_modules()]
    text = repr((kinds, repr(network), shapes, traits))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _timed(runner: Runner, block: Tensor) -> float:
    if block.is_cuda:
        torch.cuda.synchronize(block.device)
    start = time.perf_counter()
    runner(block)
    if block.is_cuda:
        torch.cuda.synchronize(block.device)
    return time.perf_counter() - start


def _agrees(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    if found.shape != wanted.shape:
        return False
    largest = float(wanted.abs().max())
    # False for NaN as well.
    return float((found - wanted).abs().max()) <= tolerance * max(largest, 1e-6)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _from_plain(kept: dict[str, Any] | None) -> Ranking | None:
    """Read a ranking from plain data; None where it is none of ours."""
    if kept is None:
        return None
    try:
        seconds = {str(name): float(value) for name, value in kept["seconds"].items()}
        refused = {str(name): str(value) for name, value in kept["refused"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Ranking(seconds, refused) if seconds.keys() <= BACKENDS.keys() else None

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
from medsr.infer.backends import (
    BACKENDS,
    DEFAULT_BACKEND,
    Backend,
    Runner,
    resolve_backend,
    why_not,
)
from medsr.infer.backends.base import CPU
from medsr.infer.device import Precision
from medsr.infer.plan import Shape

logger = logging.getLogger(__name__)

TILE = 48
"""Low-resolution voxels along each axis of the tile on which ``auto`` is decided: large enough that
the calls themselves do not count, small enough for a large network to be measured in seconds."""

CORE = 64
"""What a usual tile answers for along each axis, its halo left out."""

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
        return self.best()

    def best(self, torch_share: float = 1.0) -> str:
        """Return the backend to take where torch needs less than it took for a whole tile.

        Args:
            torch_share: Share of its seconds that torch needs, 1 or less: streaming computes no
                halo, tiles do.
        """
        seconds = dict(self.seconds)
        reference = seconds.pop(DEFAULT_BACKEND, math.inf) * torch_share
        other = min(seconds, key=seconds.__getitem__, default=DEFAULT_BACKEND)
        clear = other in seconds and seconds[other] < MARGIN * reference
        return other if clear else DEFAULT_BACKEND


def choose_backend(
    name: str,
    network: nn.Module,
    precision: Precision = "fp32",
    *,
    device: torch.device = CPU,
    streams: bool = False,
) -> Backend:
    """Return a backend by name, or for ``auto`` the fastest one for a network here.

    Args:
        name: ``"auto"`` or a key of ``BACKENDS``.
        network: With ``halo`` and ``multiple_of``, in evaluation mode, on ``device``.
        precision: What the convolutions are computed in.
        device: Where.
        streams: Whether torch would run the network without computing a halo.

    Raises:
        BackendError: The backend that was named lacks the precision or the device.
        MissingExtraError: Its packages are not installed.
        UsageError: There is none of that name.
    """
    if name != "auto":
        return resolve_backend(name, precision, device)
    x, y, z = (math.ceil(TILE / m) * m for m in getattr(network, "multiple_of", (1, 1, 1)))
    ranking = fastest(network, (x, y, z), precision, device=device)
    halo: Shape = getattr(network, "halo", (0, 0, 0))
    useful = math.prod(CORE / (CORE + 2 * h) for h in halo)
    return BACKENDS[ranking.best(useful if streams else 1.0)]


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

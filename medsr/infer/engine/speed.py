"""How fast this machine convolves, by how much memory is in hand: measured once, then kept.

A plan weighs halo, which is computed twice, against blocks that leave the processor's cache. What
that costs differs between machines by a factor of five, so it is measured, for either way of
running a block, in about a second; ``medsr.infer.engine.cache`` keeps it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from medsr.infer.engine import cache
from medsr.infer.engine.device import Precision
from medsr.infer.engine.stream import ChainStream
from medsr.networks import build_network

Way = Literal["stream", "tile"]

CHANNELS = 32
CUBES = (24, 40, 64, 96)
"""Edges of the cubes that tiles are measured on, voxels. Below about 26³ voxels of 32 channels
torch takes a kernel eight times slower, so smaller tiles are nothing to go by."""

PLANES = (24, 48, 96, 160)
"""Edges of the planes that streaming is measured on, voxels."""

STEP, LENGTH = 8, 32
"""Planes answered at a time, and planes in all, while streaming is measured."""

SECONDS_PER_CALL = 3e-5
"""What calling one convolution costs whatever its size."""

BYTES_COPIED_PER_SECOND = 8e9
"""How fast planes are put back to the start of a layer's buffer; of little weight."""


@dataclass(frozen=True)
class Rates:
    """Arithmetic done per second, by the size of what is worked on.

    Args:
        points: (bytes of a convolution's input and output together, FLOP/s), bytes ascending.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, working: float) -> float:
        """Return FLOP/s for a working set in bytes; linear in its logarithm, flat beyond."""
        points = self.points
        if working <= points[0][0]:
            return points[0][1]
        for (low, slow), (high, fast) in pairwise(points):
            if working <= high:
                share = math.log(working / low) / math.log(high / low)
                return slow + share * (fast - slow)
        return points[-1][1]


_IN_CACHE: dict[Precision, float] = {"fp32": 2.0e11, "bf16": 5.0e11}
USUAL: dict[Precision, Rates] = {
    precision: Rates(((2**20, rate), (2**23, rate), (2**25, 0.9 * rate), (2**27, 0.5 * rate)))
    for precision, rate in _IN_CACHE.items()
}
"""For machines not measured: caches of some megabytes, and half the rate beyond them."""


@lru_cache(maxsize=8)
def rates(way: Way, precision: Precision, device: str = "cpu") -> Rates:
    """Return the machine's rates, measured where they are not known yet.

    Args:
        way: How blocks are run.
        precision: Of the convolutions.
        device: Graphics processors are not measured: blocks are best as large as fits.
    """
    if not device.startswith("cpu"):
        return Rates(((2**20, 1.0e12), (2**26, 2.0e13), (2**28, 4.0e13)))
    key = cache.machine_key(f"rates-{way}", precision=precision, sizes=[CUBES, PLANES])
    cached = cache.read(key)
    if cached is not None and _valid(cached.get("points")):
        return Rates(tuple((float(size), float(rate)) for size, rate in cached["points"]))
    with torch.inference_mode(), cache.Disturbance() as others:
        measured = _streaming(precision) if way == "stream" else _tiles(precision)
    cache.write(key, {"points": [list(point) for point in measured.points]}, days=others.days)
    return measured


def _streaming(precision: Precision) -> Rates:
    """Stream a small chain over blocks of growing planes."""
    network = build_network("RepPlain3D", (1, 1, 1), width=CHANNELS, depth=2, branches=False)
    stream = ChainStream(network.eval(), 0, precision, torch.device("cpu"))
    macs = sum(layer.weight.numel() for layer in stream.layers)
    points = []
    for edge in PLANES:
        block = torch.rand(LENGTH, edge, edge)
        out, whole = torch.empty_like(block), (slice(0, LENGTH), slice(0, edge), slice(0, edge))
        seconds = _least(lambda: stream.run(block, out, whole, step=STEP))  # noqa: B023
        working = (2 * STEP + 2) * edge**2 * CHANNELS * stream.dtype.itemsize
        points.append((float(working), 2.0 * macs * block.numel() / seconds))
    return Rates(tuple(points))


def _tiles(precision: Precision) -> Rates:
    """Time a convolution and what follows it, as a network does them, on growing cubes."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layout = torch.channels_last_3d
    convolution = nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1).to(dtype)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=layout)
    points = []
    for edge in CUBES:
        x = torch.rand(1, CHANNELS, edge, edge, edge).to(dtype).contiguous(memory_format=layout)
        seconds = _least(lambda: functional.relu(convolution(x)))  # noqa: B023
        flops = 2.0 * 27 * CHANNELS**2 * edge**3
        points.append((2.0 * x.numel() * x.element_size(), flops / seconds))
    return Rates(tuple(points))


def _least(work: Callable[[], object]) -> float:
    """Least of a few runs' seconds, the first not counted: other programs only ever slow it."""
    work()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _valid(points: object) -> bool:
    """Whether what was kept can be used; files get damaged."""
    if not isinstance(points, list) or len(points) < 2:
        return False
    try:
        rates = [(float(size), float(rate)) for size, rate in points]
    except (TypeError, ValueError):
        return False
    sizes = [size for size, _ in rates]
    return all(0 < value < math.inf for point in rates for value in point) and (
        sizes == sorted(set(sizes))
    )

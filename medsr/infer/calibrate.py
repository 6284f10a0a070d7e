"""How fast this machine convolves, by how much memory is in hand: measured once, then kept.

A plan weighs halo, which is computed twice, against tiles that leave the processor's cache. What
that costs differs between machines by a factor of five, so it is measured: one convolution of 32
channels on blocks of growing size, less than two seconds in all, kept by ``medsr.infer.cache``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from medsr.infer import cache
from medsr.infer.device import Precision

CHANNELS = 32
SIZES = (16, 24, 40, 64, 96)
"""Edges of the cubes measured, voxels."""

SECONDS_PER_CALL = 3e-5
"""What calling one convolution costs whatever its size."""


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

    @property
    def best_bytes(self) -> float:
        """The largest working set that is within 3 % of the best rate."""
        most = max(rate for _, rate in self.points)
        return max(size for size, rate in self.points if rate >= 0.97 * most)


USUAL = Rates(((2**20, 1.0e11), (2**23, 1.0e11), (2**25, 0.9e11), (2**27, 0.5e11)))
"""For machines not measured: caches of some megabytes, and half the rate beyond them."""


@lru_cache(maxsize=8)
def rates(precision: Precision, device: str = "cpu") -> Rates:
    """Return the machine's rates, measured where they are not known yet.

    Args:
        precision: Of the convolution.
        device: Graphics processors are not measured: blocks are best as large as fits.
    """
    if not device.startswith("cpu"):
        return Rates(((2**20, 1.0e12), (2**26, 2.0e13), (2**28, 4.0e13)))
    key = cache.machine_key("rates", precision=precision, channels=CHANNELS, sizes=SIZES)
    kept = cache.read(key)
    if kept is not None and _valid(kept.get("points")):
        return Rates(tuple((float(size), float(rate)) for size, rate in kept["points"]))
    measured = _measure(precision)
    cache.write(key, {"points": [list(point) for point in measured.points]})
    return measured


def _measure(precision: Precision) -> Rates:
    """Time a convolution and what follows it, as a network does them, on growing cubes."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layout = torch.channels_last_3d
    convolution = nn.Conv3d(CHANNELS, CHANNELS, 3, padding=1).to(dtype)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=layout)
    points = []
    with torch.inference_mode():
        for size in SIZES:
            x = torch.rand(1, CHANNELS, size, size, size).to(dtype).contiguous(memory_format=layout)
            functional.relu(convolution(x))
            seconds = []
            for _ in range(3 if size < 64 else 2):
                started = time.perf_counter()
                functional.relu(convolution(x))
                seconds.append(time.perf_counter() - started)
            flops = 2.0 * 27 * CHANNELS**2 * size**3
            points.append((2.0 * x.numel() * x.element_size(), flops / median(seconds)))
    return Rates(tuple(points))


def _valid(points: object) -> bool:
    """Whether what was kept can be used; files get damaged."""
    return (
        isinstance(points, Sequence)
        and len(points) > 1
        and all(isinstance(p, Sequence) and len(p) == 2 and min(p) > 0 for p in points)
    )

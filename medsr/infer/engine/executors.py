"""How one block is run through a network: streamed where it is a chain, as one tile otherwise.

Both kinds write the core of a block straight into the result, in native units, and say what memory
and time a block takes, by which the plan is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from medsr.infer.engine.device import Precision
from medsr.infer.engine.speed import BYTES_COPIED_PER_SECOND, SECONDS_PER_CALL, Rates
from medsr.infer.engine.stream import ChainStream, Window
from medsr.types import Shape

STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Planes to choose among; one where not even two fit."""

Tick = Callable[[], None]
Runner = Callable[[Tensor], Tensor]
"""From a normalised block ``(1, 1, X, Y, Z)`` to ``(1, channels, X·sx, Y·sy, Z·sz)`` float32."""


class Executor(Protocol):
    """Runs blocks.

    Attributes:
        whole: Axes that gain nothing by being cut.
        even: Whether blocks should all have one shape.
    """

    whole: tuple[int, ...]
    even: bool

    def working_bytes(self, shape: Shape) -> int:
        """Memory that a padded block takes, weights, input and result not counted."""
        ...

    def seconds(self, shape: Shape) -> float:
        """Time that a padded block takes, for comparison between plans."""
        ...

    def steps(self, shape: Shape) -> int:
        """How often :meth:`run` calls ``tick`` for a padded block."""
        ...

    def run(
        self, block: Tensor, out: Tensor, crop: Window, *, offset: float, divisor: float, tick: Tick
    ) -> None:
        """Run the network over a block and write its core.

        Args:
            block: Native values ``(X, Y, Z)``.
            out: ``(channels, x·sx, y·sy, z·sz)`` float32, written in native values.
            crop: The core, in voxels of the block.
            offset: Native value that is 0 to the network.
            divisor: Native width that is 1 to the network.
            tick: Called after every step.
        """
        ...


class StreamExecutor:
    """Streams a chain of convolutions along the volume's longest axis.

    Args:
        network: A network with a chain.
        shape: The volume's voxels; its longest axis is the one streamed along.
        precision: Type of the activations.
        device: Where it runs.
        rates: The machine's.
        limit_bytes: Memory that a block may take.
        step: Planes answered at a time; by default as many as are fastest within the limit.
    """

    even = False

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        precision: Precision,
        device: torch.device,
        rates: Rates,
        limit_bytes: int,
        step: int | None = None,
    ) -> None:
        self.axis = max(range(3), key=lambda axis: shape[axis])
        self.whole: tuple[int, ...] = (self.axis,)
        self.stream = ChainStream(network, self.axis, precision, device)
        self.rates = rates
        self.limit_bytes = limit_bytes
        self.step = step
        self.macs = sum(layer.weight.numel() for layer in self.stream.layers)
        self.channels = max(layer.weight.shape[0] for layer in self.stream.layers)

    def step_for(self, shape: Shape) -> int:
        """Planes answered at a time in a padded block."""
        if self.step is not None:
            return self.step
        longest = shape[self.axis]
        best = 1
        for step in STEPS:
            if step > longest or self.stream.working_bytes(shape, step) > self.limit_bytes:
                break
            # Beyond what was measured caches are left; a longer step must be worth its memory.
            if best > 1 and self._in_hand(shape, step) > self.rates.points[-1][0]:
                break
            if self._seconds(shape, step) < 0.99 * self._seconds(shape, best):
                best = step
        return best

    def working_bytes(self, shape: Shape) -> int:
        """Memory that a padded block takes, weights, input and result not counted."""
        return self.stream.working_bytes(shape, self.step_for(shape))

    def seconds(self, shape: Shape) -> float:
        """Time that a padded block takes, for comparison between plans."""
        return self._seconds(shape, self.step_for(shape))

    def _in_hand(self, shape: Shape, step: int) -> int:
        """Bytes of a convolution's input and output."""
        plane = math.prod(shape) // shape[self.axis]
        return (2 * step + 2) * plane * self.channels * self.stream.dtype.itemsize

    def _seconds(self, shape: Shape, step: int) -> float:
        plane = math.prod(shape) // shape[self.axis]
        plane_bytes = plane * self.channels * self.stream.dtype.itemsize
        arithmetic = 2.0 * self.macs * plane / self.rates.at(self._in_hand(shape, step))
        # The two planes that every layer keeps are copied once per step.
        calls = len(self.stream.layers) * SECONDS_PER_CALL
        copies = len(self.stream.layers) * 4 * plane_bytes / BYTES_COPIED_PER_SECOND
        return shape[self.axis] * (arithmetic + (calls + copies) / step)

    def steps(self, shape: Shape) -> int:
        """How often :meth:`run` calls ``tick`` for a padded block."""
        return math.ceil((shape[self.axis] + len(self.stream.layers) - 1) / self.step_for(shape))

    def run(
        self, block: Tensor, out: Tensor, crop: Window, *, offset: float, divisor: float, tick: Tick
    ) -> None:
        """See :meth:`Executor.run`."""
        x, y, z = block.shape
        self.stream.run(
            block,
            out[0],
            crop,
            step=self.step_for((x, y, z)),
            offset=offset,
            divisor=divisor,
            tick=tick,
        )


class TileExecutor:
    """Runs any network over a block at once.

    Args:
        network: With ``scale``, ``halo`` and ``multiple_of``.
        runner_for: Makes what runs blocks of one padded shape.
        precision: Type of the activations.
        rates: The machine's.
        even: Whether the runner is made for one shape.
    """

    whole: tuple[int, ...] = ()

    def __init__(
        self,
        network: nn.Module,
        runner_for: Callable[[Shape], Runner],
        precision: Precision,
        rates: Rates,
        *,
        even: bool,
    ) -> None:
        self.network = network
        self.scale: Shape = network.scale  # type: ignore[assignment]
        self.runner_for = runner_for
        self.precision: Precision = precision
        self.rates = rates
        self.even = even
        self.density = _macs_per_voxel(network)

    def working_bytes(self, shape: Shape) -> int:
        """Memory that a padded block takes, weights, input and result not counted."""
        return working_bytes(self.network, shape, self.precision)

    def seconds(self, shape: Shape) -> float:
        """Time that a padded block takes, for comparison between plans."""
        voxels = math.prod(shape)
        return 2.0 * self.density * voxels / self.rates.at(self.working_bytes(shape) / 2)

    def steps(self, shape: Shape) -> int:
        """How often :meth:`run` calls ``tick`` for a padded block."""
        return 1

    def run(
        self, block: Tensor, out: Tensor, crop: Window, *, offset: float, divisor: float, tick: Tick
    ) -> None:
        """See :meth:`Executor.run`."""
        x, y, z = block.shape
        normalised = ((block - offset) / divisor)[None, None]
        sr = self.runner_for((x, y, z))(normalised)[0]
        window = tuple(
            slice(part.start * s, part.stop * s) for part, s in zip(crop, self.scale, strict=True)
        )
        out.copy_(sr[(slice(None), *window)])
        if (offset, divisor) != (0.0, 1.0):
            out.mul_(divisor).add_(offset)
        tick()


def working_bytes(network: nn.Module, tile: Shape, precision: Precision) -> int:
    """Estimate the memory that one forward pass over a tile takes, weights not counted.

    Args:
        network: The network; its ``live_channels``, or else its widest convolution, tell how many
            channels are alive at once.
        tile: Low-resolution voxels of the padded tile, per axis.
        precision: Type of the activations.

    Returns:
        Bytes, meant to err on the high side: the widest convolution's input and output, twice
        (library copies in other memory formats), and what the tail says of the enlarged output in
        float32, four times (shuffle, residual, sum, crop).
    """
    fold = math.prod(getattr(network, "fold", (1, 1, 1)))
    gain = math.prod(getattr(network, "scale", (1, 1, 1)))
    gain *= getattr(network, "values_per_voxel", 1)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    widest = max((m.in_channels + m.out_channels for m in convolutions), default=2)
    live = getattr(network, "live_channels", None) or 2 * widest
    element = 2 if precision == "bf16" else 4
    per_voxel = live * element / fold + 4.0 * 4 * gain + 3.0 * 4
    return math.ceil(math.prod(tile) * per_voxel)


def _macs_per_voxel(network: nn.Module) -> float:
    """Multiplications per input voxel; strides and pooling not counted, so rather too many."""
    fold = math.prod(getattr(network, "fold", (1, 1, 1)))
    weights = [m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv3d)]
    return max(sum(weights) / fold, 1.0)

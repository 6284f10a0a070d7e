"""Streaming: a plain chain of convolutions run over a block plane by plane, nothing twice.

Tiles pay for their halo: at 64 voxels and a receptive field of 10 on each side they compute 2.3
times what is asked. A chain need not. Every layer keeps the last two planes of its input, so when
``step`` new planes arrive it can answer ``step`` further planes; nothing is computed twice, and
what is alive at once is a few planes per layer, which fit the processor's cache, whatever the
block's length. The result is the network's own to float rounding, zero padding included.

Here is the arithmetic. Which blocks are run, and with which step, is the plan's work
(``medsr.infer.engine.tiles``, ``medsr.infer.engine.engine``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.infer.engine.device import Precision
from medsr.types import Shape

Window = tuple[slice, slice, slice]


def chain_of(network: nn.Module) -> tuple[nn.Conv3d, ...] | None:
    """Return the convolutions of a network that can be streamed, None for any other network.

    A chain is what :meth:`medsr.networks.blocks.SRNetwork.chain` says: 3³ convolutions with a ReLU
    after each but the last, whose channels are shuffled into space and added to the nearest voxel.
    """
    find = getattr(network, "chain", None)
    return None if find is None else find()


def subvoxels(fine: Tensor, scale: Shape) -> Tensor:
    """Return a view ``(X, sx, Y, sy, Z, sz)`` of an enlarged volume ``(X·sx, Y·sy, Z·sz)``."""
    view = fine
    for axis in (2, 1, 0):
        view = view.unflatten(axis, (-1, scale[axis]))  # type: ignore[no-untyped-call]
    return view


@lru_cache(maxsize=2)
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN convolves a type here; it refuses bfloat16 on processors without AVX-512."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@dataclass(frozen=True)
class _Layer:
    """One convolution, its axes in the stream's order."""

    weight: Tensor
    bias: Tensor | None

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve planes ``(1, in, n + 2, A, B)`` to ``(1, out, n, A, B)``."""
        if x.device.type == "cpu" and _has_onednn(x.dtype):
            # functional.conv3d takes a kernel eight times slower for some shapes in float32.
            return torch.mkldnn_convolution(
                x, self.weight, self.bias, (0, 1, 1), (1, 1, 1), (1, 1, 1), 1
            )
        return functional.conv3d(x, self.weight, self.bias, padding=(0, 1, 1))


class ChainStream:
    """Runs a chain over blocks, along one of their axes.

    Args:
        network: A network with a chain; its weights are copied.
        axis: Axis of the block along which planes are fed.
        precision: Type of the activations.
        device: Where it runs.

    Raises:
        ValueError: The network is no chain.
    """

    def __init__(
        self, network: nn.Module, axis: int, precision: Precision, device: torch.device
    ) -> None:
        convolutions = chain_of(network)
        if convolutions is None:
            raise ValueError(f"{type(network).__name__} is no plain chain of convolutions")
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.device = device
        self.axes = (axis, *(a for a in range(3) if a != axis))
        scale: Shape = network.scale  # type: ignore[assignment]
        self.scale: Shape = (scale[self.axes[0]], scale[self.axes[1]], scale[self.axes[2]])
        spatial = [2 + a for a in self.axes]
        kernels = [c.weight.detach().permute(0, 1, *spatial) for c in convolutions]
        biases = [None if c.bias is None else c.bias.detach() for c in convolutions]
        # The tail's channels count sub-voxels, the network's last axis fastest.
        order = torch.arange(math.prod(scale)).reshape(scale).permute(self.axes).flatten()
        order = order.to(kernels[-1].device)
        kernels[-1] = kernels[-1][order]
        biases[-1] = None if biases[-1] is None else biases[-1][order]
        self.layers = [
            _Layer(
                k.to(device, self.dtype).contiguous(memory_format=torch.channels_last_3d),
                None if b is None else b.to(device, self.dtype),
            )
            for k, b in zip(kernels, biases, strict=True)
        ]

    def working_bytes(self, shape: Shape, step: int) -> int:
        """Memory that streaming a block takes, its input and output not counted."""
        plane = math.prod(shape) // shape[self.axes[0]]
        element = self.dtype.itemsize
        held = sum(layer.inputs for layer in self.layers) * (step + 2)
        # The convolution's answer, what the library makes of its input, and the tail in float32.
        widest = max(layer.weight.shape[0] for layer in self.layers)
        passing = 2 * widest * (step + 2)
        return plane * (element * (held + passing) + 4 * 3 * step * math.prod(self.scale))

    def run(
        self,
        block: Tensor,
        out: Tensor,
        crop: Window,
        *,
        step: int,
        offset: float = 0.0,
        divisor: float = 1.0,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Run the network over a block and write what lies in a window of it.

        Args:
            block: Native values ``(X, Y, Z)``, float32, on any device.
            out: ``(x·sx, y·sy, z·sz)`` float32 on any device, written: the enlarged window in
                native values.
            crop: The window, in voxels of the block.
            step: Planes answered at a time.
            offset: Native value that is 0 to the network.
            divisor: Native width that is 1 to the network.
            tick: Called after every step.
        """
        x = block.to(self.device).permute(self.axes)
        first, rows, columns = (crop[a] for a in self.axes)
        fine = out.permute(self.axes)
        length = x.shape[0]
        states = [
            _State(layer, x.shape[1:], step, self.dtype, self.device) for layer in self.layers
        ]
        last = len(states) - 1
        target = step - last
        while states[-1].answered < length:
            current: Tensor | None = None
            for depth, state in enumerate(states):
                if depth == 0:
                    start, stop = state.wanted(min(max(target + last, 0), length), length)
                    planes = (x[start:stop] - offset) / divisor
                    state.feed(planes[None, None])
                elif current is not None:
                    state.feed(current, rectify=True)
                current = state.answer(min(max(target + last - depth, 0), length), length)
            target += step
            tick()
            if current is None:
                continue
            stop = states[-1].answered
            start = stop - current.shape[2]
            low, high = max(start, first.start), min(stop, first.stop)
            if low >= high:
                continue
            detail = current[0, :, low - start : high - start, rows, columns]
            self._write(
                detail,
                x[low:high, rows, columns],
                fine[(low - first.start) * self.scale[0] : (high - first.start) * self.scale[0]],
                divisor,
            )

    def _write(self, detail: Tensor, lr: Tensor, fine: Tensor, divisor: float) -> None:
        """Shuffle ``detail`` into space, add the nearest voxel, write: one pass over the output."""
        n, a, b = lr.shape
        sn, sa, sb = self.scale
        shuffled = detail.reshape(sn, sa, sb, n, a, b).permute(3, 0, 4, 1, 5, 2)
        target = subvoxels(fine, self.scale)
        nearest = lr[:, None, :, None, :, None].expand(target.shape)
        if target.device == lr.device:
            torch.add(nearest, shuffled.float(), alpha=divisor, out=target)
        else:
            target.copy_(torch.add(nearest, shuffled.float(), alpha=divisor))


class _State:
    """What one layer keeps: its input planes from the one before its next answer on."""

    def __init__(
        self,
        layer: _Layer,
        plane: torch.Size,
        step: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.layer = layer
        size = (1, layer.inputs, step + 2, *plane)
        layout = torch.channels_last_3d
        self.buffer = torch.empty(size, dtype=dtype, device=device, memory_format=layout).zero_()
        self.answered = 0
        self.held = 1  # the plane of zeros before the block

    def wanted(self, stop: int, length: int) -> tuple[int, int]:
        """Input planes missing for answers up to ``stop``."""
        return self.answered - 1 + self.held, min(stop + 1, length) if stop else 0

    def feed(self, planes: Tensor, *, rectify: bool = False) -> None:
        """Take further input planes ``(1, in, n, A, B)``."""
        count = planes.shape[2]
        target = self.buffer[:, :, self.held : self.held + count]
        if rectify:
            torch.clamp_min(planes, 0, out=target)
        else:
            target.copy_(planes)
        self.held += count

    def answer(self, stop: int, length: int) -> Tensor | None:
        """Return the planes from the last answer up to ``stop``; None where there are none."""
        if stop == self.answered:
            return None
        if stop == length:
            self.buffer[:, :, self.held].zero_()
            self.held += 1
        result = self.layer(self.buffer[:, :, : self.held])
        if stop < length:
            for kept in (0, 1):
                self.buffer[:, :, kept].copy_(self.buffer[:, :, self.held - 2 + kept])
        self.held = 2
        self.answered = stop
        return result

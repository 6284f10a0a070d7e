"""What need not be computed: blocks of background, where the network gives back what it is given.

Half of many a scan is nothing: zeros around a skull-stripped brain, padding outside a CT's field
of view. Where a scan is constant as far as a network sees, its answer is one constant too, which
need not be computed block after block. Whether it is the scan's own constant, to a tolerance, is
asked of the network once, on a constant block; only then is a block left to interpolation. Near the
scan's edges zero padding makes the answer another one. It depends on the distance to the edges
alone, so there what the network adds to the constant block is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from medsr.infer.engine.tiles import Tile
from medsr.types import BoolArray, Shape

TOLERANCE = 1e-3
"""How far interpolation may differ from the network, in normalised intensity: 2 HU in CT, 0.1 % of
the brightest tissue in MR."""

RIPPLE = TOLERANCE / 4
"""How far voxels that count as constant may differ, in normalised intensity."""

BLOCK = 8
LEVELS = 4
"""At most so many different constants are looked at."""


@dataclass(frozen=True)
class Background:
    """Which blocks of a volume need no network.

    Args:
        empty: One truth value per block of :data:`BLOCK` voxels along each axis.
        shape: Voxels of the volume.
        answers: For each constant the blocks that hold it, and what the network adds to it, on a
            small volume ``(x·sx, y·sy, z·sz)``, normalised.
    """

    empty: BoolArray
    shape: Shape
    answers: tuple[tuple[BoolArray, Tensor], ...]

    def complete(self, fine: Tensor, divisor: float) -> None:
        """Add, to nearest voxels in blocks of background, what the network adds there.

        Args:
            fine: ``(X·sx, Y·sy, Z·sz)`` float32 native values, changed.
            divisor: Native width that is 1 to the network.
        """
        scale = [m // n for m, n in zip(fine.shape, self.shape, strict=True)]
        sizes = list(zip(self.shape, scale, strict=True))
        for blocks, answer in self.answers:
            detail = (divisor * answer).to(fine.device)
            x, y, z = (
                _places(n, m // s, s).to(fine.device)
                for (n, s), m in zip(sizes, answer.shape, strict=True)
            )
            thick = BLOCK * scale[0]
            for row in np.flatnonzero(blocks.any(axis=(1, 2))):
                mask = torch.from_numpy(blocks[row]).to(fine.device)
                for axis in (0, 1):
                    count, each = fine.shape[1 + axis], BLOCK * scale[1 + axis]
                    mask = mask.repeat_interleave(each, axis).narrow(axis, 0, count)
                planes = slice(int(row) * thick, (int(row) + 1) * thick)
                fine[planes] += detail[x[planes]][:, y][:, :, z] * mask

    def busy_box(self, low: Shape, high: Shape) -> tuple[Shape, Shape] | None:
        """Return the smallest box, within a box, around all that needs the network.

        Args:
            low: First voxel of the box.
            high: Its end.

        Returns:
            Start and end in voxels; None where the whole box is background.
        """
        window = tuple(
            slice(a // BLOCK, math.ceil(b / BLOCK)) for a, b in zip(low, high, strict=True)
        )
        busy = ~self.empty[window]
        start, stop = [], []
        for axis in range(3):
            line = np.flatnonzero(busy.any(axis=tuple(a for a in range(3) if a != axis)))
            if line.size == 0:
                return None
            first = (window[axis].start + int(line[0])) * BLOCK
            end = (window[axis].start + int(line[-1]) + 1) * BLOCK
            start.append(max(first, low[axis]))
            stop.append(min(end, high[axis]))
        return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def find_background(
    lr: Tensor,
    halo: Shape,
    ask: Callable[[Tensor], Tensor],
    *,
    offset: float = 0.0,
    divisor: float = 1.0,
) -> Background | None:
    """Find the blocks of a scan that interpolation restores as the network would.

    Args:
        lr: Native values ``(X, Y, Z)``.
        halo: Voxels on each side that the network's answer depends on.
        ask: The network, from normalised ``(1, 1, X, Y, Z)`` to ``(1, 1, X·sx, Y·sy, Z·sz)``.
        offset: Native value that is 0 to the network.
        divisor: Native width that is 1 to the network.

    Returns:
        The blocks; None where there is too little background for the question to pay.
    """
    shape: Shape = (lr.shape[0], lr.shape[1], lr.shape[2])
    high, low = _reach(lr, halo), -_reach(-lr, halo)
    still = ((high - low) <= RIPPLE * divisor).cpu().numpy()
    probe = [min(n, 2 * (h + BLOCK) + 1) for n, h in zip(shape, halo, strict=True)]
    # Asking costs a small volume for each level; it must be worth that.
    if still.sum() * BLOCK**3 < 4 * math.prod(probe):
        return None
    levels = ((high + low) / 2).cpu().numpy()
    steps = np.round((levels - offset) / (divisor * RIPPLE)).astype(np.int64)
    found, counts = np.unique(steps[still], return_counts=True)
    empty, answers = np.zeros_like(still), []
    for step in found[np.argsort(counts)[::-1][:LEVELS]]:
        same = still & (steps == step)
        if same.sum() * BLOCK**3 < 4 * math.prod(probe):
            break
        constant = torch.full((1, 1, *probe), float(step) * RIPPLE)
        with torch.inference_mode():
            answer = (ask(constant).float() - float(step) * RIPPLE)[0, 0].cpu()
        if float(_middle(answer, probe).abs().max()) <= TOLERANCE - RIPPLE:
            empty |= same
            answers.append((same, answer))
    return Background(empty, shape, tuple(answers)) if answers else None


def shrink(
    tiles: tuple[Tile, ...], background: Background, halo: Shape
) -> tuple[tuple[Tile, ...], int]:
    """Cut background off the tiles.

    Args:
        tiles: A plan whose blocks need no alignment.
        background: What needs no network.
        halo: As the plan's.

    Returns:
        The tiles that are left, each around what it has to compute, and the voxels left out.
    """
    kept, left_out = [], 0
    for tile in tiles:
        box = background.busy_box(tile.core_start, tile.core_stop)
        left_out += math.prod(b - a for a, b in zip(tile.core_start, tile.core_stop, strict=True))
        if box is None:
            continue
        low, high = box
        left_out -= math.prod(b - a for a, b in zip(low, high, strict=True))
        sides = zip(low, high, halo, background.shape, strict=True)
        ends = [(max(a - h, 0), min(b + h, n)) for a, b, h, n in sides]
        (x0, x1), (y0, y1), (z0, z1) = ends
        kept.append(Tile(low, high, (x0, y0, z0), (x1, y1, z1)))
    return tuple(kept), left_out


def _reach(values: Tensor, halo: Shape) -> Tensor:
    """Largest value that the network sees from anywhere in a block, block by block."""
    pooled = values[None, None].float()
    for axis, h in enumerate(halo):
        kernel, stride, padding = [1, 1, 1], [1, 1, 1], [0, 0, 0]
        kernel[axis], stride[axis], padding[axis] = BLOCK + 2 * h, BLOCK, h
        pooled = functional.max_pool3d(pooled, kernel, stride, padding, ceil_mode=True)
    return pooled[0, 0]


def _middle(answer: Tensor, probe: list[int]) -> Tensor:
    """What the network makes of the voxel in the middle of a constant volume."""
    for axis, n in enumerate(probe):
        scale = answer.shape[axis] // n
        answer = answer.narrow(axis, n // 2 * scale, scale)
    return answer


def _places(size: int, probe: int, scale: int) -> Tensor:
    """Where, along an axis of the small volume, an enlarged voxel of the scan finds its like.

    Args:
        size: Voxels of the scan.
        probe: Voxels of the small volume: all, or one more than the network's reach and a block
            from either end.
        scale: Enlarged voxels for each.
    """
    near = probe // 2
    voxels = torch.arange(size).clamp_max(near)
    voxels = torch.where(
        torch.arange(size) >= size - near, torch.arange(size) - size + probe, voxels
    )
    voxels = torch.arange(size) if probe == size else voxels
    return (voxels[:, None] * scale + torch.arange(scale)).flatten()

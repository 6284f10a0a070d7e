"""The chunks that a scan is computed in: one where it fits into memory, else as few as can be.

A chunk is a run of planes along the last array axis. Thick chunks waste less on the network's halo,
thin ones take less memory. The thickest is taken with which the engine can work in what is left.
Nothing here reads or computes a voxel.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import psutil

from medsr.errors import MemoryLimitError
from medsr.infer.axes import AxisOrder
from medsr.infer.consistency.check import WORKING_BYTES
from medsr.infer.decide import (
    RESERVE_BYTES,
    SLOW,
    Decision,
    bytes_left_for_engine,
    default_limit,
)
from medsr.infer.engine.engine import Engine
from medsr.infer.engine.malloc_trim import malloc_trim
from medsr.infer.engine.tiles import plan_tiles
from medsr.infer.limits import AROUND
from medsr.infer.resample import RollingRows
from medsr.infer.scan import LoadedScan
from medsr.types import Shape
from medsr.volume import Volume

logger = logging.getLogger(__name__)

WASTE = 1.5
"""Planes computed for each plane of a scan from which on thin chunks are warned of."""

ENGINE_SHARE = 0.4
"""Of the memory that is left, the engine's blocks have at least this much; chunks get the rest."""


@dataclass(frozen=True)
class Chunk:
    """One chunk, in planes along the last array axis.

    Args:
        start: First plane to read, halo included.
        stop: End of the planes to read.
        crop: Planes before the core in canonical order, where the chunk may run backwards.
        planes: Planes of the core.
    """

    start: int
    stop: int
    crop: int
    planes: int


@dataclass(frozen=True)
class Chunks:
    """A scan cut into chunks.

    Args:
        axis: The canonical axis along which chunks lie.
        chunks: In the order of the file.
    """

    axis: int
    chunks: tuple[Chunk, ...]

    @property
    def is_one(self) -> bool:
        """Whether the scan is computed in one piece."""
        return len(self.chunks) == 1


@dataclass(frozen=True)
class MemoryEstimate:
    """What chunks take in memory, in bytes.

    Args:
        per_plane_read: For a plane of the scan, halo included: as stored three times (read, noted
            for the limits, joined with what was held), and as float32.
        per_plane_out: For the network's answer to it.
        per_plane_done: For a plane of the core: resampled, being joined, ready, being stored.
        fixed: For what resampling holds back, a few planes being written, and the consistency
            check.
    """

    per_plane_read: int
    per_plane_out: int
    per_plane_done: int
    fixed: int

    def beside_engine(self, read: int) -> int:
        """Bytes while the network runs, the engine's own not counted."""
        return read * self.per_plane_read + self.fixed

    def restoring(self, read: int, core: int) -> int:
        """Bytes while a core is resampled and written."""
        return read * (self.per_plane_out + self.per_plane_read) + (
            core * self.per_plane_done + self.fixed
        )


def choose_chunks(
    scan: LoadedScan,
    decision: Decision,
    engine: Engine,
    limit_bytes: int | None,
    *,
    can_stream: bool,
    check_bytes: int = 0,
) -> Chunks:
    """Settle the chunks of a scan, and tell the engine how much memory it has.

    Args:
        scan: The scan.
        decision: Model and grid.
        engine: Its ``max_memory_bytes`` is set.
        limit_bytes: What the process should stay below; None for no stated limit.
        can_stream: Whether the result may go to a file chunk by chunk; else it is kept in memory.
        check_bytes: What the consistency check holds while it streams.

    Raises:
        MemoryLimitError: The result does not fit, or not even the thinnest chunk does.
    """
    if scan.in_memory and _fits(decision, engine, limit_bytes, can_stream=can_stream):
        count = scan.volume.shape[2]
        axis = decision.order.axes.index(2)
        return Chunks(axis, (Chunk(0, count, 0, count),))
    limit = limit_bytes or default_limit()
    return cut(decision, scan.volume, engine, limit, check_bytes)


def _fits(decision: Decision, engine: Engine, limit: int | None, *, can_stream: bool) -> bool:
    """Whether all of it fits into memory; the engine is told how much is left for it.

    Raises:
        MemoryLimitError: It does not, and there is nothing to write it to.
    """
    try:
        if limit is None and can_stream:
            bytes_left_for_engine(default_limit(), decision)
        engine.max_memory_bytes = bytes_left_for_engine(limit, decision)
        cramped = engine.plan(decision.grid.shape).is_cramped
    except MemoryLimitError:
        if not can_stream:
            raise
        return False
    if cramped and limit is not None:
        logger.warning(SLOW, limit / 2**20)
    return True


def cut(
    decision: Decision, volume: Volume, engine: Engine, limit_bytes: int, check_bytes: int = 0
) -> Chunks:
    """Cut a volume into chunks, and tell the engine how much memory it has.

    Args:
        decision: Model and grid.
        volume: Its grid and type.
        engine: Its ``max_memory_bytes`` is set.
        limit_bytes: What the process should stay below.
        check_bytes: What the consistency check holds.

    Raises:
        MemoryLimitError: Not even the thinnest chunk fits.
    """
    order = decision.order
    axis = order.axes.index(2)
    # The limits of a result look at the scan's planes around each too.
    halo = max(engine.halo[axis], AROUND)
    count, multiple = volume.shape[2], engine.multiple_of[axis]
    costs = estimate(decision, order, volume, engine.channels, check_bytes)
    malloc_trim()
    left = limit_bytes - int(psutil.Process().memory_info().rss) - RESERVE_BYTES
    core = _thickest(costs, count, halo, multiple, left)
    while True:
        pieces = divide(count, halo, multiple, core, flipped=axis in order.flips)
        read = max(chunk.stop - chunk.start for chunk in pieces)
        planes = max(chunk.planes for chunk in pieces)
        engine.max_memory_bytes = left - costs.beside_engine(read)
        try:
            if costs.restoring(read, planes) > left:
                raise MemoryLimitError("the chunk itself does not fit")
            plan = engine.plan(_with(decision.grid.shape, axis, read))
        except MemoryLimitError as error:
            if core <= multiple:
                needed = limit_bytes - left + costs.restoring(read, planes)
                raise MemoryLimitError(
                    f"even chunks of {read} planes ({planes} and what the network sees around "
                    f"them) need more than the limit of {limit_bytes / 2**20:.0f} MiB; about "
                    f"{needed / 2**20:.0f} MiB, program included, are the least; raise the limit "
                    "or take a smaller model"
                ) from error
            core = max(multiple, core // 2 // multiple * multiple)
            continue
        computed = sum(chunk.stop - chunk.start for chunk in pieces)
        if plan.is_cramped or computed > WASTE * count:
            logger.warning(SLOW, limit_bytes / 2**20)
        return Chunks(axis, pieces)


def estimate(
    decision: Decision, order: AxisOrder, volume: Volume, channels: int, check_bytes: int = 0
) -> MemoryEstimate:
    """Estimate what chunks take, on the high side.

    Args:
        decision: Model and grid.
        order: Of the volume's axes.
        volume: Its grid and type.
        channels: Of the network's output.
        check_bytes: What the consistency check holds.
    """
    axis = order.axes.index(2)
    scale, target = decision.model.spec.scale, decision.target.shape
    big = [n * s for n, s in zip(decision.grid.shape, scale, strict=True)]
    plane = math.prod(decision.grid.shape) // decision.grid.shape[axis]
    enlarged = math.prod(big) // big[axis]
    wanted = math.prod(target) // target[axis]
    stored = volume.data.dtype.itemsize
    in_plane = any(big[k] != target[k] for k in range(3) if k != axis)
    along = big[axis] != target[axis]
    rolling = RollingRows.resampling(big[axis], target[axis])
    # What the limits hold at a time: planes of the result beside one of the scan, and its bounds.
    run = math.ceil(target[axis] / decision.grid.shape[axis])
    done = 0
    if in_plane:
        # The core as a contiguous array, one axis done, both done.
        done += scale[axis] * (enlarged + max(enlarged, wanted) + wanted)
    if along:
        # Joined with what was held back, then multiplied, which copies both.
        through = scale[axis] * target[axis] / big[axis]
        done += 2 * scale[axis] * wanted + math.ceil(2 * through * wanted)
    if channels > 1:
        done += scale[axis] * wanted
    checking = check_bytes + WORKING_BYTES if check_bytes else 0
    return MemoryEstimate(
        per_plane_read=plane * (3 * stored + (8 if channels > 1 else 4)),
        per_plane_out=4 * channels * scale[axis] * enlarged,
        per_plane_done=4 * done,
        fixed=4 * wanted * (2 * channels * rolling.reach + 8 + 3 * run) + 40 * plane + checking,
    )


def _thickest(costs: MemoryEstimate, count: int, halo: int, multiple: int, left: int) -> int:
    """Planes of the thickest core that leaves the engine its share."""
    each = costs.per_plane_read + costs.per_plane_out
    around = 2 * (halo + multiple)
    for_chunks = (1.0 - ENGINE_SHARE) * left - costs.fixed - around * each
    thick = int(for_chunks // (each + costs.per_plane_done))
    return min(max(thick // multiple, 1) * multiple, math.ceil(count / multiple) * multiple)


def divide(count: int, halo: int, multiple: int, core: int, *, flipped: bool) -> tuple[Chunk, ...]:
    """Cut planes into chunks of nearly equal cores, in the order of the file.

    Args:
        count: Planes in all.
        halo: Planes that the network sees on each side.
        multiple: Alignment of what is read, in canonical order.
        core: Most planes of a core.
        flipped: Whether the canonical axis runs against the file.
    """
    tiles = plan_tiles((1, 1, count), (0, 0, halo), (1, 1, multiple), (1, 1, core))
    chunks = []
    for tile in reversed(tiles) if flipped else tiles:
        start, stop = tile.start[2], tile.stop[2]
        places = (count - stop, count - start) if flipped else (start, stop)
        crop = tile.core_start[2] - start
        chunks.append(Chunk(*places, crop, tile.core_stop[2] - tile.core_start[2]))
    return tuple(chunks)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    x, y, z = (size if k == axis else n for k, n in enumerate(shape))
    return (x, y, z)

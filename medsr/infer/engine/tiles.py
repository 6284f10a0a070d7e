"""Tile plans: which blocks of a volume are run through a network, and with how much around them.

Whole numbers only: nothing here knows torch, networks or voxel values. A tile has a *core*, the
voxels it answers for, and a *padded* block, the voxels that it reads. Cores partition the volume.
The padded block reaches a halo (the network's receptive field) beyond the core or to the volume's
edge, and its start and end lie on multiples of what the network folds, so that a tile sees exactly
what the whole volume would have shown it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, product

from medsr.errors import MemoryLimitError, UsageError
from medsr.types import Shape

__all__ = ["Tile", "plan_tiles"]


@dataclass(frozen=True)
class Tile:
    """One block of the volume, in low-resolution voxels; stops are exclusive.

    Args:
        core_start: First voxel of the core, per axis.
        core_stop: End of the core, per axis.
        start: First voxel of the padded block, per axis.
        stop: End of the padded block, per axis.

    Examples:
        >>> from medsr.infer.engine.tiles import Tile
        >>> tile = Tile((8, 0, 0), (16, 8, 8), start=(4, 0, 0), stop=(20, 9, 8))
        >>> tile.shape  # what the network reads
        (16, 9, 8)
        >>> tile.output_slices((1, 1, 4))  # where its core lies in the result
        (slice(8, 16, None), slice(0, 8, None), slice(0, 32, None))
    """

    core_start: Shape
    core_stop: Shape
    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Voxels of the padded block, per axis."""
        x, y, z = (high - low for low, high in zip(self.start, self.stop, strict=True))
        return (x, y, z)

    @property
    def input_slices(self) -> tuple[slice, slice, slice]:
        """Where the padded block lies in the low-resolution volume."""
        return _slices(self.start, self.stop)

    def output_slices(self, scale: Shape) -> tuple[slice, slice, slice]:
        """Where the core lies in a volume enlarged by ``scale``."""
        return _slices(_times(self.core_start, scale), _times(self.core_stop, scale))

    def crop_slices(self, scale: Shape) -> tuple[slice, slice, slice]:
        """Where the core lies in the enlarged padded block."""
        low = tuple(c - s for c, s in zip(self.core_start, self.start, strict=True))
        high = tuple(c - s for c, s in zip(self.core_stop, self.start, strict=True))
        return _slices(_times(_shape(low), scale), _times(_shape(high), scale))


def plan_tiles(shape: Shape, halo: Shape, multiple_of: Shape, core: Shape) -> tuple[Tile, ...]:
    """Cut a volume into tiles of nearly equal size.

    Args:
        shape: Voxels of the volume per axis, at least 1.
        halo: Voxels that must surround a core on each side, per axis, at least 0.
        multiple_of: Alignment of the padded blocks, per axis, at least 1.
        core: Largest core per axis, at least 1.

    Returns:
        Tiles whose cores partition the volume, last axis fastest. A padded block reaches ``halo``
        beyond its core or to the volume's edge; its start is a multiple of ``multiple_of``, and so
        is its stop unless it is the volume's end.

    Raises:
        UsageError: An argument is out of its range.

    Examples:
        >>> from medsr.infer.engine.tiles import plan_tiles
        >>> tiles = plan_tiles((100, 80, 30), halo=(9, 9, 9), multiple_of=(1, 1, 1), core=(64,) * 3)
        >>> len(tiles), tiles[0].core_stop, tiles[0].stop
        (4, (50, 40, 30), (59, 49, 30))
    """
    if min(shape) < 1 or min(halo) < 0 or min(multiple_of) < 1 or min(core) < 1:
        raise UsageError(
            f"no tiles for shape {shape}, halo {halo}, multiple_of {multiple_of}, core {core}; "
            "shape, multiple_of and core start at 1, halo at 0"
        )
    axes = [_plan_axis(*args) for args in zip(shape, halo, multiple_of, core, strict=True)]
    tiles = []
    for combination in product(*axes):
        core_start, core_stop, start, stop = zip(*combination, strict=True)
        tiles.append(Tile(_shape(core_start), _shape(core_stop), _shape(start), _shape(stop)))
    return tuple(tiles)


def padded_shape(shape: Shape, halo: Shape, multiple_of: Shape, core: Shape) -> Shape:
    """Largest padded block, per axis, of the plan with these arguments."""
    sizes = []
    for args in zip(shape, halo, multiple_of, core, strict=True):
        sizes.append(max(stop - start for _, _, start, stop in _plan_axis(*args)))
    return _shape(tuple(sizes))


def choose_core(
    shape: Shape,
    halo: Shape,
    multiple_of: Shape,
    *,
    seconds: Callable[[Shape], float],
    working_bytes: Callable[[Shape], int],
    limit_bytes: int,
    strict: bool,
    whole: tuple[int, ...] = (),
) -> Shape:
    """Choose the core of the tiles for which the whole volume takes the least time.

    Cutting costs halo, which is computed more than once; not cutting costs memory and leaves the
    processor's cache. How much either weighs is the caller's ``seconds`` to say.

    Args:
        shape: Voxels of the volume per axis.
        halo: As in :func:`plan_tiles`.
        multiple_of: As in :func:`plan_tiles`.
        seconds: Time that a padded block of a given shape takes.
        working_bytes: Memory that it takes.
        limit_bytes: Memory allowed for one tile.
        strict: Refuse when not even the smallest tile fits; otherwise take the smallest.
        whole: Axes that are not cut unless memory asks for it.

    Raises:
        MemoryLimitError: ``strict`` and not even the smallest tile fits.
    """
    options = [
        _cuts(size, multiple)[: 1 if axis in whole else None]
        for axis, (size, multiple) in enumerate(zip(shape, multiple_of, strict=True))
    ]
    best, least = None, math.inf
    for core in product(*options):
        padded = padded_shape(shape, halo, multiple_of, _shape(core))
        if working_bytes(padded) > limit_bytes:
            continue
        count = math.prod(math.ceil(n / c) for n, c in zip(shape, core, strict=True))
        needed = count * seconds(padded)
        if needed < least:
            best, least = _shape(core), needed
    if best is not None:
        return best
    if whole:
        return choose_core(
            shape,
            halo,
            multiple_of,
            seconds=seconds,
            working_bytes=working_bytes,
            limit_bytes=limit_bytes,
            strict=strict,
        )
    smallest = _shape(tuple(cuts[-1] for cuts in options))
    if strict:
        smallest_bytes = working_bytes(padded_shape(shape, halo, multiple_of, smallest))
        raise MemoryLimitError(
            f"the smallest tile needs about {smallest_bytes / 2**20:.0f} MiB and "
            f"{max(limit_bytes, 0) / 2**20:.0f} MiB of the memory limit are left for it; "
            "raise the limit or take a smaller model"
        )
    return smallest


def even_out(tiles: tuple[Tile, ...], shape: Shape, multiple_of: Shape) -> tuple[Tile, ...]:
    """Give all tiles padded blocks of one shape where the volume allows it.

    Tiles at the volume's edge need less halo; they read further inward instead. What compiles a
    network for one shape then compiles once.

    Args:
        tiles: A plan of :func:`plan_tiles`.
        shape: Voxels of the volume per axis.
        multiple_of: As in :func:`plan_tiles`.
    """
    sizes = []
    for axis, multiple in enumerate(multiple_of):
        largest = max(tile.shape[axis] for tile in tiles)
        sizes.append(min(math.ceil(largest / multiple) * multiple, shape[axis]))
    evened = []
    for tile in tiles:
        start, stop = list(tile.start), list(tile.stop)
        for axis, (size, multiple) in enumerate(zip(sizes, multiple_of, strict=True)):
            low = min(start[axis], (shape[axis] - size) // multiple * multiple)
            if low + size >= stop[axis]:
                start[axis], stop[axis] = low, low + size
        evened.append(replace(tile, start=_shape(tuple(start)), stop=_shape(tuple(stop))))
    return tuple(evened)


def _cuts(size: int, multiple: int) -> list[int]:
    """Cores to choose among along one axis, the largest first."""
    cores = [size]
    pieces = 2
    while cores[-1] > multiple:
        core = math.ceil(math.ceil(size / pieces) / multiple) * multiple
        if core < cores[-1]:
            cores.append(core)
        pieces += max(1, pieces // 3)
    return cores


def _plan_axis(size: int, halo: int, multiple: int, core: int) -> list[tuple[int, int, int, int]]:
    """Plan one axis: (core start, core stop, padded start, padded stop) for each piece."""
    pieces = math.ceil(size / core)
    edges = [size * i // pieces for i in range(pieces + 1)]
    plan = []
    for low, high in pairwise(edges):
        start = max(low - halo, 0) // multiple * multiple
        stop = min(math.ceil((high + halo) / multiple) * multiple, size)
        plan.append((low, high, start, stop))
    return plan


def _shape(values: tuple[int, ...]) -> Shape:
    x, y, z = values
    return (x, y, z)


def _times(values: Shape, scale: Shape) -> Shape:
    return (values[0] * scale[0], values[1] * scale[1], values[2] * scale[2])


def _slices(start: Shape, stop: Shape) -> tuple[slice, slice, slice]:
    return (slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2]))

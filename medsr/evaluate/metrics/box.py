"""Working on the part of a volume that counts, on all cores, with unchanged numbers.

The box around a mask, and local filters cut into chunks. No metric is defined here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from medsr.types import Array, BoolArray

Box = tuple[slice, slice, slice]

WORKERS = min(4, os.cpu_count() or 1)
"""Threads that filters and Fourier transforms may take."""

SLAB_VOXELS = 4_000_000
"""In a chunk at most, so that a filter's temporary arrays stay small."""


def bounding_box(mask: BoolArray, margin: int) -> Box:
    """The smallest box around a mask, widened on every side as far as the array goes.

    Args:
        mask: (X, Y, Z), True at least once.
        margin: Voxels to add on each side.

    Raises:
        ValueError: The mask is empty.
    """
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        (inside,) = np.nonzero(mask.any(axis=others))
        if not inside.size:
            raise ValueError("the mask is empty")
        start, stop = int(inside[0]) - margin, int(inside[-1]) + 1 + margin
        slices.append(slice(max(start, 0), min(stop, mask.shape[axis])))
    return slices[0], slices[1], slices[2]


def in_chunks(
    function: Callable[..., Array], *arrays: Array, margin: int, shortest: int = 32
) -> Array:
    """Apply a local filter to chunks along the first axis, several at a time.

    Args:
        function: Takes as many arrays as there are and returns one of the same shape, of which a
            voxel depends on voxels at most ``margin`` away; it mirrors or repeats at the ends, and
            spends its time outside the interpreter's lock.
        arrays: (X, Y, Z), all of one shape.
        margin: Voxels by which chunks overlap on each side.
        shortest: Planes below which no chunk is cut.

    Returns:
        What ``function`` returns for the whole arrays, to the last digit.
    """
    planes = arrays[0].shape[0]
    wanted = max(WORKERS, -(-arrays[0].size // SLAB_VOXELS))
    count = max(1, min(wanted, planes // max(shortest, margin)))
    if count == 1:
        return function(*arrays)
    edges = [round(planes * part / count) for part in range(count + 1)]

    def chunk(part: int) -> Array:
        start, stop = edges[part], edges[part + 1]
        low, high = max(start - margin, 0), min(stop + margin, planes)
        values = function(*(array[low:high] for array in arrays))
        return values[start - low : stop - low]

    with ThreadPoolExecutor(WORKERS) as pool:
        return np.concatenate(list(pool.map(chunk, range(count))))

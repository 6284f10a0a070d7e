"""Tile plans: cores partition the volume, halos are covered, memory is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsr.errors import MemoryLimitError, UsageError
from medsr.infer.plan import choose_core, padded_shape, plan_tiles

Shape = tuple[int, int, int]


def voxels(shape: Shape) -> int:
    return int(np.prod(shape))


def triples(low: int, high: int) -> st.SearchStrategy[Shape]:
    return st.tuples(*(st.integers(low, high) for _ in range(3)))


@given(triples(1, 23), triples(0, 6), triples(1, 4), triples(1, 25))
def test_cores_partition_the_volume(
    shape: Shape, halo: Shape, multiple: Shape, core: Shape
) -> None:
    counts = np.zeros(shape, dtype=int)
    for tile in plan_tiles(shape, halo, multiple, core):
        counts[tile.output_slices((1, 1, 1))] += 1
    assert (counts == 1).all()


@given(triples(1, 60), triples(0, 9), triples(1, 4), triples(8, 70))
def test_halo_is_covered_and_blocks_are_aligned(
    shape: Shape, halo: Shape, multiple: Shape, core: Shape
) -> None:
    largest = padded_shape(shape, halo, multiple, core)
    for tile in plan_tiles(shape, halo, multiple, core):
        for axis in range(3):
            assert tile.core_stop[axis] - tile.core_start[axis] <= core[axis]
            assert tile.start[axis] <= max(tile.core_start[axis] - halo[axis], 0)
            assert tile.stop[axis] >= min(tile.core_stop[axis] + halo[axis], shape[axis])
            assert tile.start[axis] % multiple[axis] == 0
            at_end = tile.stop[axis] == shape[axis]
            assert at_end or tile.stop[axis] % multiple[axis] == 0
            assert 0 <= tile.start[axis] < tile.stop[axis] <= shape[axis]
            assert tile.shape[axis] <= largest[axis]


@given(triples(1, 12), triples(0, 3), triples(1, 3), triples(1, 6), triples(1, 4))
def test_output_and_crop_have_one_shape(
    shape: Shape, halo: Shape, multiple: Shape, core: Shape, scale: Shape
) -> None:
    index = np.arange(np.prod(shape)).reshape(shape)
    fine = index.repeat(scale[0], 0).repeat(scale[1], 1).repeat(scale[2], 2)
    for tile in plan_tiles(shape, halo, multiple, core):
        block = index[tile.input_slices]
        enlarged = block.repeat(scale[0], 0).repeat(scale[1], 1).repeat(scale[2], 2)
        cut = enlarged[tile.crop_slices(scale)]
        np.testing.assert_array_equal(cut, fine[tile.output_slices(scale)])


def test_a_small_volume_is_one_tile() -> None:
    core = choose_core(
        (90, 80, 20),
        (10, 10, 10),
        (2, 2, 1),
        seconds=voxels,
        working_bytes=voxels,
        limit_bytes=10**9,
        strict=True,
    )
    assert core == (90, 80, 20)


@given(st.integers(200, 10**6))
def test_memory_bounds_the_tile(limit: int) -> None:
    arguments = (200, 170, 40), (2, 2, 2), (2, 2, 1)
    core = choose_core(
        *arguments, seconds=voxels, working_bytes=voxels, limit_bytes=limit, strict=True
    )
    assert np.prod(padded_shape(*arguments, core)) <= limit


def test_too_little_memory_is_refused_or_gives_the_smallest_tile() -> None:
    arguments = (200, 170, 40), (2, 2, 2), (2, 2, 1)
    with pytest.raises(MemoryLimitError, match="raise the limit"):
        choose_core(*arguments, seconds=voxels, working_bytes=voxels, limit_bytes=9, strict=True)
    core = choose_core(
        *arguments, seconds=voxels, working_bytes=voxels, limit_bytes=9, strict=False
    )
    assert core == (2, 2, 1)


@pytest.mark.parametrize("core", [(0, 1, 1), (1, -2, 1)])
def test_impossible_cores_are_refused(core: Shape) -> None:
    with pytest.raises(UsageError):
        plan_tiles((4, 4, 4), (1, 1, 1), (1, 1, 1), core)

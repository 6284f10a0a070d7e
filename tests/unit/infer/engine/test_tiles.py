"""Tile plans: cores partition the volume, halos are covered, memory is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsr.errors import MemoryLimitError, UsageError
from medsr.infer.engine.tiles import choose_core, even_out, padded_shape, plan_tiles
from medsr.types import Shape


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


@given(triples(1, 60), triples(0, 9), triples(1, 4), triples(8, 70))
def test_evened_blocks_still_cover_their_halo(
    shape: Shape, halo: Shape, multiple: Shape, core: Shape
) -> None:
    tiles = plan_tiles(shape, halo, multiple, core)
    evened = even_out(tiles, shape, multiple)
    for before, after in zip(tiles, evened, strict=True):
        assert (after.core_start, after.core_stop) == (before.core_start, before.core_stop)
        for axis in range(3):
            assert after.start[axis] <= before.start[axis]
            assert before.stop[axis] <= after.stop[axis] <= shape[axis]
            assert after.start[axis] % multiple[axis] == 0


@given(triples(1, 60), triples(0, 9), triples(8, 70))
def test_evened_blocks_have_one_shape(shape: Shape, halo: Shape, core: Shape) -> None:
    tiles = plan_tiles(shape, halo, (1, 1, 1), core)
    assert len({tile.shape for tile in even_out(tiles, shape, (1, 1, 1))}) == 1


def chosen(seconds: object, whole: tuple[int, ...] = ()) -> Shape:
    return choose_core(
        (256, 256, 64),
        (10, 10, 10),
        (1, 1, 1),
        seconds=seconds,  # type: ignore[arg-type]
        working_bytes=voxels,
        limit_bytes=10**9,
        strict=True,
        whole=whole,
    )


def test_a_cache_makes_tiles_smaller_as_far_as_halo_allows() -> None:
    def cached(shape: Shape) -> float:
        return voxels(shape) * (1.0 if voxels(shape) < 300_000 else 5.0)

    core = chosen(cached)
    assert voxels(padded_shape((256, 256, 64), (10, 10, 10), (1, 1, 1), core)) < 300_000
    assert core[2] == 64  # a thin axis is not cut: its halo would cost most
    assert chosen(voxels) == (256, 256, 64)
    assert chosen(cached, whole=(0,))[0] == 256


def test_axes_to_be_kept_whole_are_cut_when_memory_asks_for_it() -> None:
    arguments = {"seconds": voxels, "working_bytes": voxels, "limit_bytes": 7000, "strict": True}
    core = choose_core((256, 20, 20), (2, 2, 2), (1, 1, 1), whole=(0,), **arguments)  # type: ignore[arg-type]
    assert core[0] == 256
    arguments["limit_bytes"] = 500
    core = choose_core((256, 20, 20), (2, 2, 2), (1, 1, 1), whole=(0,), **arguments)  # type: ignore[arg-type]
    assert core[0] < 256

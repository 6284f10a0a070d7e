"""Limits of a result: the definition, written out with SciPy, whatever the pieces and the order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from medsr.geometry import Geometry
from medsr.infer.axes import AxisOrder
from medsr.infer.background import Faces
from medsr.infer.limits import AROUND, REACH, Limiter, Limits
from medsr.infer.padding import nearest
from medsr.types import Float32Array

FRAME = AxisOrder((0, 1, 2), ())


def _scan(rng: np.random.Generator) -> Float32Array:
    data = rng.gamma(2.0, 100.0, (14, 12, 9)).astype(np.float32).round()
    data[:5, :6], data[:, :, :2] = 0, 0
    data[9:, 8:, 5:] = 333
    return data


def _wild(rng: np.random.Generator, shape: tuple[int, int, int]) -> Float32Array:
    return rng.normal(200, 600, shape).astype(np.float32)


def _up(data: npt.NDArray[np.generic], shape: tuple[int, int, int]) -> npt.NDArray[np.generic]:
    return data[np.ix_(*(nearest(n, m) for n, m in zip(data.shape, shape, strict=True)))]


def _by_definition(scan: Float32Array, sr: Float32Array, background: float | None) -> Float32Array:
    low = ndimage.minimum_filter(scan, 3, mode="nearest")
    high = ndimage.maximum_filter(scan, 3, mode="nearest")
    slack = np.float32(REACH) * (high - low)
    result = np.clip(sr, _up(low - slack, sr.shape), _up(high + slack, sr.shape))
    result = np.maximum(result, scan.min())
    if background is not None:
        equal, there = scan == background, np.zeros(scan.shape, bool)
        for shape in ((3, 3, 1), (3, 1, 3), (1, 3, 3)):
            patch = np.ones(shape, bool)
            eroded = ndimage.binary_erosion(equal, patch, border_value=1)
            there |= ndimage.binary_dilation(eroded, patch)
        result[_up(there, sr.shape)] = background
    return result


def _limited(
    scan: Float32Array, sr: Float32Array, limits: Limits, frame: AxisOrder = FRAME
) -> Float32Array:
    limiter = Limiter(limits, scan.shape, sr.shape, frame)
    limiter.note(0, scan)
    result = sr.copy()
    limiter.apply(0, result)
    return result


def _mr(scan: Float32Array) -> Limits:
    return Limits.of(float(scan.min()), float(scan.max()), "MR", Faces.of(scan).background())


@pytest.mark.parametrize("shape", [(14, 12, 36), (28, 24, 18), (17, 12, 25), (14, 12, 60)])
def test_it_is_the_definition(rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
    scan = _scan(rng)
    sr, limits = _wild(rng, shape), _mr(scan)
    assert limits.background == 0
    np.testing.assert_array_equal(_limited(scan, sr, limits), _by_definition(scan, sr, 0))
    bare = Limits(limits.floor, limits.ceiling, None)
    np.testing.assert_array_equal(_limited(scan, sr, bare), _by_definition(scan, sr, None))


def test_constant_surroundings_inside_stay_too(rng: np.random.Generator) -> None:
    scan = _scan(rng)
    result = _limited(scan, _wild(rng, (14, 12, 36)), _mr(scan))
    assert (result[10:, 9:, 24:] == 333).all()  # more than a voxel away from other values


@pytest.mark.parametrize("step", [1, 3, 4, 7])
def test_planes_that_come_in_pieces_give_the_same(rng: np.random.Generator, step: int) -> None:
    scan = _scan(rng)
    sr, limits = _wild(rng, (14, 12, 25)), _mr(scan)
    expected = _limited(scan, sr, limits)
    limiter, read = Limiter(limits, scan.shape, sr.shape, FRAME), 0
    sources = nearest(9, 25)
    for start in range(0, 25, step):
        stop = min(start + step, 25)
        wanted = min(int(sources[stop - 1]) + AROUND + 1, 9)
        if wanted > read:
            limiter.note(read, scan[:, :, read:wanted])
            read = wanted
        limiter.apply(start, sr[:, :, start:stop])
        limiter.forget(stop)
    np.testing.assert_array_equal(sr, expected)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2)])
def test_the_order_of_the_axes_changes_nothing(
    rng: np.random.Generator, order: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    scan = _scan(rng)
    sr = _wild(rng, (21, 12, 24))  # some voxels lie midway between two of the scan
    grid = Geometry(scan.shape, np.diag([1.0, 1.1, 4.0, 1.0]))
    expected = _limited(scan, sr, _mr(scan), AxisOrder.of(grid))
    turned, wild = (np.flip(np.transpose(data, order), flips) for data in (scan, sr))
    found = _limited(turned, wild, _mr(turned), AxisOrder.of(grid.permute(order).flip(flips)))
    np.testing.assert_array_equal(found, np.flip(np.transpose(expected, order), flips))


@pytest.mark.parametrize(("factor", "offset"), [(0.25, 0.0), (4.0, 512.0), (0.5, -4096.0)])
def test_another_scale_and_offset_changes_nothing(
    rng: np.random.Generator, factor: float, offset: float
) -> None:
    scan = _scan(rng)
    sr = _wild(rng, (14, 12, 36)).round()  # whole numbers, so that float32 is exact
    expected = factor * _limited(scan, sr, _mr(scan)) + offset
    other = (factor * scan + offset).astype(np.float32)
    found = _limited(other, (factor * sr + offset).astype(np.float32), _mr(other))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("low", "high", "floor", "ceiling"),
    [(-900, 700, -1024, 3071), (-1024, 12000, -1024, 12000), (-2000, 3071, -2000, 3071)],
)
def test_ct_takes_what_a_scanner_stores(
    rng: np.random.Generator, low: float, high: float, floor: float, ceiling: float
) -> None:
    limits = Limits.of(low, high, "CT", None)
    assert (limits.floor, limits.ceiling) == (floor, ceiling)
    scan = rng.uniform(low, high, (8, 8, 6)).astype(np.float32)
    result = _limited(scan, 100 * _wild(rng, (8, 8, 24)), limits)
    assert result.min() == floor
    assert scan.max() < result.max() <= ceiling


def test_what_was_done_is_counted(rng: np.random.Generator) -> None:
    scan = _scan(rng)
    sr, limits = _wild(rng, (14, 12, 36)), _mr(scan)
    limiter = Limiter(limits, scan.shape, sr.shape, FRAME)
    limiter.note(0, scan)
    result = sr.copy()
    limiter.apply(0, result)
    told = limiter.described()
    patches = np.zeros_like(scan, dtype=bool)
    patches[:5, :6], patches[:, :, :2] = True, True
    background = _up(patches, sr.shape)
    assert (result[background] == 0).all()
    assert told["background"] == 0
    assert told["background_share"] == pytest.approx(background.mean(), abs=1e-6)
    changed = (result != sr) & ~background
    assert told["limited_share"] == pytest.approx(changed.mean(), abs=1e-6)
    assert told["ceiling"] is None
    again = result - 5000 * ~background
    limiter.apply(0, again, near=False)
    assert (again[~background] == 0).all()
    assert limiter.described() == told


def test_nothing_is_uncertain_in_background(rng: np.random.Generator) -> None:
    scan = _scan(rng)
    limiter = Limiter(_mr(scan), scan.shape, (14, 12, 36), FRAME)
    limiter.note(0, scan)
    sigma = np.ones((14, 12, 36), np.float32)
    limiter.clear(0, sigma)
    assert (sigma[:5, :6] == 0).all()
    assert (sigma[6:, 7:, 8:] == 1).all()

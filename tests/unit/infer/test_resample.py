"""Resampling against SciPy's kin: scikit-image and SimpleITK, on the grids of Geometry."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.transform import resize

from medsr.geometry import Geometry
from medsr.infer.resample import RollingRows, apply_rows, operator, resample

sizes = st.integers(1, 24)


@given(sizes, sizes)
def test_constants_stay_constant(old: int, new: int) -> None:
    np.testing.assert_allclose(operator(old, new).sum(axis=1), 1.0, atol=1e-5)


@given(sizes, sizes)
def test_flips_commute(old: int, new: int) -> None:
    matrix = operator(old, new)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=2e-3)


@pytest.mark.parametrize("shape", [(20, 18, 40), (31, 13, 9), (12, 18, 10)])
def test_equals_scikit_image(phantom: NDArray[np.float32], shape: tuple[int, int, int]) -> None:
    data = phantom[:20, :18, :16] / 1000
    expected = np.asarray(data, dtype=np.float64)
    # Axis by axis, since scikit-image decides about anti-aliasing for all axes together.
    for axis in range(3):
        step = list(expected.shape)
        step[axis] = shape[axis]
        down = shape[axis] < data.shape[axis]
        if step[axis] != expected.shape[axis]:
            expected = resize(
                expected, step, order=3, mode="symmetric", clip=False, anti_aliasing=down
            )
    np.testing.assert_allclose(resample(data, shape), expected, atol=2e-3)


def test_equals_simpleitk_on_the_grid_of_geometry(phantom: NDArray[np.float32]) -> None:
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    before = Geometry(phantom.shape, affine)
    after = before.refine((1, 1, 2.5))
    origin, spacing, direction = before.to_lps()
    image = SimpleITK.GetImageFromArray(phantom.transpose(2, 1, 0))
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    origin, spacing, direction = after.to_lps()
    expected = SimpleITK.Resample(
        image, after.shape, SimpleITK.Transform(), SimpleITK.sitkBSpline, origin, spacing,
        direction.ravel().tolist(), 0.0, SimpleITK.sitkFloat32,
    )  # fmt: skip
    ours = resample(phantom, after.shape)
    # SimpleITK mirrors about voxel centres at the ends; far inside, both are the same spline.
    inner = (slice(None), slice(None), slice(24, -24))
    theirs = SimpleITK.GetArrayFromImage(expected).transpose(2, 1, 0)
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.05)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_equals_the_plane_of_the_whole(phantom: NDArray[np.float32], axis: int) -> None:
    shape = (40, 50, 80)
    whole = resample(phantom, shape)
    rows = [operator(old, new) for old, new in zip(phantom.shape, shape, strict=True)]
    rows[axis] = rows[axis][17:18]
    plane = np.squeeze(apply_rows(phantom, rows), axis=axis)
    np.testing.assert_allclose(plane, np.take(whole, 17, axis), rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("new", [64, 51, 90, 20])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("flipped", [False, True])
def test_planes_that_come_in_turn_equal_the_whole(
    rng: np.random.Generator, new: int, order: int, flipped: bool
) -> None:
    data = rng.normal(size=(5, 6, 64)).astype(np.float32)
    whole = resample(data, (5, 6, new), order)
    turn = slice(None, None, -1 if flipped else 1)
    rolling = RollingRows.resampling(64, new, order, flipped=flipped)
    coming = data[:, :, turn]
    ready = [rolling.push(coming[:, :, k : k + 7]) for k in range(0, 64, 7)]
    given = np.concatenate([planes for planes in ready if planes is not None], axis=2)
    np.testing.assert_allclose(given, whole[:, :, turn], atol=5e-6)

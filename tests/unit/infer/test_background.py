"""Surroundings of one value: found on the faces, and where they are, as SciPy finds it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from medsr.infer.background import Faces, in_patches, running
from medsr.infer.padding import Padding
from medsr.types import BoolArray


def _opened(mask: BoolArray) -> BoolArray:
    """The union of the openings by 3 x 3 along each pair of axes; beyond the edges all is True."""
    found = np.zeros_like(mask)
    for shape in ((3, 3, 1), (3, 1, 3), (1, 3, 3)):
        patch = np.ones(shape, bool)
        eroded = ndimage.binary_erosion(mask, patch, border_value=1)
        found |= ndimage.binary_dilation(eroded, patch)
    return found


@pytest.mark.parametrize("shape", [(9, 8, 7), (5, 4, 2), (1, 6, 5)])
@pytest.mark.parametrize("share", [0.6, 0.8, 0.95])
def test_patches_are_openings_of_five_planes(
    rng: np.random.Generator, shape: tuple[int, int, int], share: float
) -> None:
    mask = rng.random(shape) < share
    expected = _opened(mask)
    for plane in range(shape[2]):
        first = max(plane - 2, 0)
        stack = np.moveaxis(mask[:, :, first : plane + 3], 2, 0)
        np.testing.assert_array_equal(in_patches(stack, plane - first), expected[:, :, plane])


@pytest.mark.parametrize(
    ("better", "known"),
    [(np.minimum, ndimage.minimum_filter1d), (np.maximum, ndimage.maximum_filter1d)],
)
def test_running_is_a_filter_of_three(
    rng: np.random.Generator, better: np.ufunc, known: Callable[..., npt.NDArray[np.float32]]
) -> None:
    data = rng.normal(size=(4, 6, 5)).astype(np.float32)
    for axis in range(3):
        expected = known(data, 3, axis=axis, mode="nearest")
        np.testing.assert_array_equal(running(data, better, axis), expected)


def _brain(value: float = 0.0) -> npt.NDArray[np.float32]:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (30, 26, 12)), indexing="ij")
    noise = np.random.default_rng(0).normal(0, 30, x.shape)
    return np.where(x**2 + y**2 + z**2 < 0.8, 500 + noise, value).astype(np.float32)


@pytest.mark.parametrize("value", [0.0, -0.53125, 17.0])
def test_masked_surroundings(value: float) -> None:
    assert Faces.of(_brain(value)).background() == value


def test_a_negative_zero_is_a_zero() -> None:
    found = Faces.of(_brain(-0.0)).background()
    assert found == 0.0
    assert not np.signbit(found)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 3.0, 20.0])
def test_noise_in_whole_numbers_is_no_background(
    rng: np.random.Generator, deviation: float
) -> None:
    real, imaginary = rng.normal(0, deviation, (2, 40, 36, 20))
    noise = np.hypot(real, imaginary).round().astype(np.int16)
    values, counts = np.unique(noise, return_counts=True)
    assert values.size > 2
    assert counts.max() > 0.01 * noise.size  # the bare frequency of a value would not tell
    assert Faces.of(noise).background() is None


def test_the_body_may_touch_the_faces(rng: np.random.Generator) -> None:
    data = rng.integers(100, 900, (30, 30, 12)).astype(np.int16)
    data[:4, :8] = 0
    assert Faces.of(data).background() == 0.0
    data[:4, :8] = rng.integers(0, 50, (4, 8, 12))
    assert Faces.of(data).background() is None


@pytest.mark.parametrize("step", [1, 3, 5, 12])
def test_planes_that_come_in_parts_say_the_same(step: int) -> None:
    data = _brain(3.0)
    faces = Faces(12)
    for start in range(0, 12, step):
        faces.add(start, data[:, :, start : start + step])
    assert faces.background() == Faces.of(data).background() == 3.0


def test_padding_counts_as_what_the_network_sees() -> None:
    data = _brain(-3024.0)
    assert Faces.of(data).background(Padding(-3024.0, -1024.0)) == -1024.0

"""Baselines equal scipy's interpolation and lie on exactly the grid asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import map_coordinates

from medsr.evaluate.baselines import BASELINES, Interpolation, resample
from medsr.geometry import Geometry
from medsr.volume import Volume

# Oblique and left-handed: a rotation about x and z, one axis turned, uneven spacing.
_ROTATION = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
_AFFINE = np.eye(4)
_AFFINE[:3, :3] = _ROTATION @ np.diag([-0.9, 1.1, 4.0])
_AFFINE[:3, 3] = (12.0, -40.0, 7.5)


@pytest.fixture
def thick(rng: np.random.Generator) -> Volume:
    """A small thick-slice volume on an oblique, left-handed grid."""
    data = rng.normal(100.0, 20.0, (9, 7, 6)).astype(np.float32)
    return Volume(data=data, geometry=Geometry((9, 7, 6), _AFFINE), modality="MR")


def fractional(shape: tuple[int, int, int], scale: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Where the refined grid's centres lie in the coarse array when edges are kept."""
    axes = [(np.arange(n * s) + 0.5) / s - 0.5 for n, s in zip(shape, scale, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize("scale", [(1, 1, 4), (2, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize(
    ("method", "order", "mode"), [("linear", 1, "nearest"), ("bspline", 3, "mirror")]
)
def test_equal_to_scipy(
    thick: Volume, scale: tuple[int, int, int], method: Interpolation, order: int, mode: str
) -> None:
    grid = thick.geometry.refine(scale)
    result = resample(thick, grid, method)
    expected = map_coordinates(
        thick.data.astype(np.float64), fractional(thick.shape, scale), order=order, mode=mode
    )
    assert result.geometry == grid
    assert result.data.dtype == np.float32
    np.testing.assert_allclose(result.data, expected, atol=2e-3)


@pytest.mark.parametrize("method", BASELINES)
def test_constants_stay_constant_up_to_the_edges(thick: Volume, method: Interpolation) -> None:
    flat = thick.replace(data=np.full(thick.shape, 321, dtype=np.int16))
    result = resample(flat, flat.geometry.refine((2, 3, 4)), method)
    np.testing.assert_allclose(result.data, 321.0, rtol=1e-6)


@pytest.mark.parametrize("method", BASELINES)
def test_own_grid_returns_the_voxels(thick: Volume, method: Interpolation) -> None:
    np.testing.assert_allclose(resample(thick, thick.geometry, method).data, thick.data, rtol=1e-5)


@pytest.mark.parametrize("method", BASELINES)
def test_flips_and_permutations_commute(thick: Volume, method: Interpolation) -> None:
    grid = thick.geometry.refine((1, 1, 4))
    turned = resample(
        thick.permute((2, 0, 1)).flip((0,)), grid.permute((2, 0, 1)).flip((0,)), method
    )
    straight = resample(thick, grid, method)
    np.testing.assert_allclose(
        turned.data, straight.permute((2, 0, 1)).flip((0,)).data, rtol=0, atol=2e-3
    )

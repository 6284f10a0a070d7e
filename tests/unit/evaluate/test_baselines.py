"""Baselines equal other libraries' interpolation and lie on exactly the grid asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from scipy.ndimage import map_coordinates

from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import GeometryError, UsageError
from medsr.evaluate.baselines import (
    BASELINES,
    INTERPOLATIONS,
    Interpolation,
    describe_baseline,
    resample,
    restore_baseline,
)
from medsr.evaluate.windowed_sinc import lanczos_matrix
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
    ("method", "order", "mode"),
    [("nearest", 0, "nearest"), ("linear", 1, "nearest"), ("bspline", 3, "mirror")],
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


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_constants_stay_constant_up_to_the_edges(thick: Volume, method: Interpolation) -> None:
    flat = thick.replace(data=np.full(thick.shape, 321, dtype=np.int16))
    result = resample(flat, flat.geometry.refine((2, 3, 4)), method)
    np.testing.assert_allclose(result.data, 321.0, rtol=1e-6)


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_own_grid_returns_the_voxels(thick: Volume, method: Interpolation) -> None:
    np.testing.assert_allclose(resample(thick, thick.geometry, method).data, thick.data, rtol=1e-5)


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_flips_and_permutations_commute(thick: Volume, method: Interpolation) -> None:
    grid = thick.geometry.refine((1, 1, 4))
    turned = resample(
        thick.permute((2, 0, 1)).flip((0,)), grid.permute((2, 0, 1)).flip((0,)), method
    )
    straight = resample(thick, grid, method)
    np.testing.assert_allclose(
        turned.data, straight.permute((2, 0, 1)).flip((0,)).data, rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("scale", [(1, 1, 4), (2, 2, 2)])
def test_lanczos_is_that_of_simpleitk(thick: Volume, scale: tuple[int, int, int]) -> None:
    """SimpleITK's weights do not quite sum to one: what it makes of ones is divided out."""
    grid = thick.geometry.refine(scale)

    def by_itk(data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        image = SimpleITK.GetImageFromArray(data.transpose(2, 1, 0))
        moving = SimpleITK.Resample(
            image,
            list(grid.shape),
            SimpleITK.Transform(),
            SimpleITK.sitkLanczosWindowedSinc,
            [(1 / s - 1) / 2 for s in scale],
            [1 / s for s in scale],
            [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            0.0,
            SimpleITK.sitkFloat32,
            True,
        )
        found: npt.NDArray[np.float32] = SimpleITK.GetArrayFromImage(moving).transpose(2, 1, 0)
        return found

    expected = by_itk(thick.data) / by_itk(np.ones_like(thick.data))
    np.testing.assert_allclose(resample(thick, grid, "lanczos").data, expected, rtol=2e-5)


def test_lanczos_follows_permuted_flipped_and_shifted_grids(thick: Volume) -> None:
    grid = (
        thick.geometry.refine((1, 2, 4)).permute((2, 0, 1)).flip((0, 2)).crop((3, 1, 2), (9, 8, 9))
    )
    whole = resample(thick, thick.geometry.refine((1, 2, 4)), "lanczos")
    expected = whole.permute((2, 0, 1)).flip((0, 2)).crop((3, 1, 2), (9, 8, 9))
    found = resample(thick, grid, "lanczos")
    assert found.geometry == grid
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-5)


def test_lanczos_reaches_grids_that_are_turned(rng: np.random.Generator) -> None:
    """A smooth scan on a grid turned by some degrees, against the function it samples."""
    source = Geometry((24, 24, 12), np.diag([1.0, 1.0, 2.0, 1.0]))

    def wave(grid: Geometry) -> npt.NDArray[np.float32]:
        indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
        x, y, z = np.moveaxis(grid.voxel_to_world(indices), -1, 0)
        return (100 + 20 * np.sin(x / 4) * np.cos(y / 5) * np.sin(z / 6)).astype(np.float32)

    angle = np.deg2rad(7.0)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = (7.0, 5.0, 7.0)
    turned = Geometry((10, 10, 8), affine)
    found = resample(Volume(wave(source), source, "MR"), turned, "lanczos")
    assert found.geometry == turned
    np.testing.assert_allclose(found.data, wave(turned), atol=0.5)


def test_lanczos_weights_beyond_the_border_take_the_outermost_voxel() -> None:
    weights = lanczos_matrix(np.array([-3.0, 2.0, 9.4]), 6)
    np.testing.assert_allclose(weights, np.eye(6)[[0, 2, 5]], atol=1e-12)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_lies_on_the_grid_and_says_what_it_is(thick: Volume, name: str) -> None:
    grid = thick.geometry.refine((1, 1, 4))
    before = thick.data.copy()
    degradation = build_degradation("slice_profile", (1, 1, 4))
    found = restore_baseline(name, thick, grid, degradation)
    assert found.geometry == grid
    assert found.data.dtype == np.float32
    assert found.modality == "MR"
    assert np.isfinite(found.data).all()
    np.testing.assert_array_equal(thick.data, before)
    assert describe_baseline(name).endswith(".")


def test_total_variation_uses_the_degradation_it_is_told(phantom: npt.NDArray[np.float32]) -> None:
    truth = Volume(phantom, Geometry(phantom.shape, np.eye(4)), "MR")
    wide = build_degradation("slice_profile", (1, 1, 4), thickness=1.5)
    plain = build_degradation("slice_profile", (1, 1, 4))
    lr = degrade_volume(truth, wide)
    told, assumed, unknown = (
        restore_baseline("tv", lr, truth.geometry, which).data for which in (wide, plain, None)
    )
    np.testing.assert_array_equal(assumed, unknown)  # thickness equal to separation is assumed
    assert np.mean((told - phantom) ** 2) < 0.9 * np.mean((assumed - phantom) ** 2)


def test_total_variation_of_a_real_pair_lands_on_the_other_grid(
    phantom: npt.NDArray[np.float32],
) -> None:
    """Thick slices of 4 mm, truth of 1.2 mm elsewhere in the same space, axes in another order."""
    sharp = Volume(phantom, Geometry(phantom.shape, np.eye(4)), "MR")
    lr = degrade_volume(sharp, build_degradation("slice_profile", (1, 1, 4)))
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    affine[:3, 3] = (5.0, 4.0, 3.3)
    grid = Geometry((26, 24, 20), affine).permute((2, 0, 1)).flip(1)
    expected = resample(sharp, grid, "bspline").data
    found = restore_baseline("tv", lr, grid, None)
    assert found.geometry == grid
    interpolated = resample(lr, grid, "bspline").data
    assert np.mean((found.data - expected) ** 2) < 0.9 * np.mean((interpolated - expected) ** 2)


def test_a_degradation_that_leads_elsewhere_is_refused(thick: Volume) -> None:
    degradation = build_degradation("slice_profile", (1, 1, 4))
    for grid in (thick.geometry, thick.geometry.refine((1, 1, 2))):
        with pytest.raises(GeometryError, match="does not lead"):
            restore_baseline("tv", thick, grid, degradation)


def test_an_unknown_baseline_is_refused(thick: Volume) -> None:
    with pytest.raises(UsageError, match="nearest, linear, bspline, lanczos, tv"):
        restore_baseline("cubic", thick, thick.geometry)
    with pytest.raises(UsageError, match="unknown"):
        describe_baseline("cubic")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_thin_volumes_are_interpolated_within_their_own_voxels(axis: int, size: int) -> None:
    shape = [6, 6, 6]
    shape[axis] = size
    grid = Geometry((shape[0], shape[1], shape[2]), np.eye(4))
    flat = Volume(np.full(grid.shape, 300.0, dtype=np.float32), grid, "MR")
    for method in INTERPOLATIONS:
        for _ in range(3):
            found = resample(flat, grid.refine(4), method).data
            np.testing.assert_allclose(found, 300.0, rtol=1e-5)

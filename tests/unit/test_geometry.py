"""Geometry against nibabel, SimpleITK and arrays of world coordinates."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medsr.errors import GeometryError
from medsr.geometry import Geometry

sitk = SimpleITK
sizes = st.integers(1, 12)
shapes = st.tuples(sizes, sizes, sizes)
scales = st.tuples(*(st.integers(1, 5),) * 3)
angles = st.floats(-math.pi, math.pi)
steps = st.floats(0.2, 8.0)
places = st.floats(-300.0, 300.0)


@st.composite
def affines(draw: st.DrawFn, *, sheared: bool = False) -> np.ndarray:
    """Oblique affines of either handedness, optionally sheared as by a gantry tilt."""
    rotation = Rotation.from_euler("xyz", draw(st.tuples(angles, angles, angles))).as_matrix()
    if draw(st.booleans()):
        rotation = rotation @ np.diag([1.0, -1.0, 1.0])
    shear = np.eye(3)
    if sheared:
        shear[1, 2] = draw(st.floats(-0.5, 0.5))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ shear * np.asarray(draw(st.tuples(steps, steps, steps)))
    affine[:3, 3] = draw(st.tuples(places, places, places))
    return affine


@st.composite
def geometries(draw: st.DrawFn, *, sheared: bool = True) -> Geometry:
    return Geometry(draw(shapes), draw(affines(sheared=sheared)))


def world_of_every_voxel(geometry: Geometry) -> np.ndarray:
    """(X, Y, Z, 3) positions, so that array operations can be compared with grid operations."""
    indices = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(geometry.affine, indices)


@settings(max_examples=40)
@given(geometries(), st.lists(st.tuples(places, places, places), min_size=1, max_size=4))
def test_points_agree_with_nibabel_and_come_back(
    geometry: Geometry, points: list[tuple[float, float, float]]
) -> None:
    world = geometry.voxel_to_world(points)
    np.testing.assert_allclose(world, nib.affines.apply_affine(geometry.affine, points), atol=1e-9)
    np.testing.assert_allclose(geometry.world_to_voxel(world), points, atol=1e-6)
    np.testing.assert_allclose(geometry.spacing, nib.affines.voxel_sizes(geometry.affine))
    assert geometry.axcodes == nib.aff2axcodes(geometry.affine)


@settings(max_examples=40)
@given(geometries())
def test_lps_agrees_with_simpleitk(geometry: Geometry) -> None:
    origin, spacing, direction = geometry.to_lps()
    image = sitk.Image(geometry.shape, sitk.sitkUInt8)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    index = (2.5, -1.0, 7.25)
    itk_point = np.asarray(image.TransformContinuousIndexToPhysicalPoint(index))
    ours = geometry.voxel_to_world(index)
    np.testing.assert_allclose(ours, itk_point * (-1.0, -1.0, 1.0), atol=1e-6)
    back = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    assert back.same_grid(geometry, tol_mm=1e-6)
    assert back.is_left_handed == (np.linalg.det(geometry.affine[:3, :3]) < 0)


@settings(max_examples=40)
@given(geometries(), scales)
def test_refine_keeps_the_edges_and_moves_the_origin(
    geometry: Geometry, scale: tuple[int, int, int]
) -> None:
    fine = geometry.refine(scale)
    assert fine.shape == tuple(n * s for n, s in zip(geometry.shape, scale, strict=True))
    np.testing.assert_allclose(fine.corners_mm(), geometry.corners_mm(), atol=1e-9)
    shift = geometry.affine[:3, :3] @ ((1.0 / np.asarray(scale) - 1.0) / 2.0)
    np.testing.assert_allclose(np.subtract(fine.origin, geometry.origin), shift, atol=1e-9)


@settings(max_examples=40)
@given(geometries(), st.tuples(*(st.floats(0.3, 4.0),) * 3))
def test_fractional_refine_keeps_the_extent(
    geometry: Geometry, scale: tuple[float, float, float]
) -> None:
    fine = geometry.refine(scale)
    assert fine.shape == tuple(
        max(1, round(n * s)) for n, s in zip(geometry.shape, scale, strict=True)
    )
    np.testing.assert_allclose(fine.corners_mm(), geometry.corners_mm(), atol=1e-9)


@settings(max_examples=40)
@given(geometries(), scales)
def test_coarsen_joins_whole_blocks_and_refine_undoes_it(
    small: Geometry, scale: tuple[int, int, int]
) -> None:
    fine = Geometry(tuple(n * s for n, s in zip(small.shape, scale, strict=True)), small.affine)
    coarse = fine.coarsen(scale)
    assert coarse.refine(scale).corner_distance_mm(fine) < 1e-9
    centres = fine.voxel_to_world(np.asarray(scale) * 1.0 - np.asarray(scale) / 2.0 - 0.5)
    np.testing.assert_allclose(coarse.origin, centres, atol=1e-9)


def test_coarsen_drops_the_remainder_at_the_far_end() -> None:
    fine = Geometry((11, 9, 7), np.diag([1.0, 2.0, 3.0, 1.0]))
    coarse = fine.coarsen((1, 2, 3))
    world = world_of_every_voxel(fine)[:, :8, :6]
    blocks = world.reshape(11, 1, 4, 2, 2, 3, 3).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(world_of_every_voxel(coarse), blocks, atol=1e-12)


@settings(max_examples=40)
@given(geometries(), st.permutations([0, 1, 2]), st.sets(st.integers(0, 2)))
def test_permute_and_flip_move_no_voxel(
    geometry: Geometry, axes: list[int], ends: set[int]
) -> None:
    world = world_of_every_voxel(geometry)
    turned = geometry.permute(axes).flip(ends)
    expected = np.flip(world.transpose(*axes, 3), tuple(ends))
    np.testing.assert_allclose(world_of_every_voxel(turned), expected, atol=1e-9)
    assert geometry.flip(ends).flip(ends).same_grid(geometry, 1e-9)


@settings(max_examples=40)
@given(geometries(), st.data())
def test_crop_moves_no_voxel(geometry: Geometry, data: st.DataObject) -> None:
    start = [data.draw(st.integers(0, n - 1)) for n in geometry.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, geometry.shape, strict=True)]
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cropped = geometry.crop(start, stop)
    expected = world_of_every_voxel(geometry)[window]
    np.testing.assert_allclose(world_of_every_voxel(cropped), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1, 1, 4), 2),
        ((5.5, 0.4, 0.4), 0),
        ((0.9, 3, 1), 1),
        ((1, 1, 1), None),
        ((1, 1, 1.05), None),
        ((4, 4, 1), None),
        ((1, 4, 4.2), None),
    ],
)
def test_slice_axis(spacing: tuple[float, float, float], axis: int | None) -> None:
    assert Geometry((8, 8, 8), np.diag([*spacing, 1.0])).slice_axis() == axis


@settings(max_examples=30)
@given(affines(), st.permutations([0, 1, 2]))
def test_slice_axis_follows_the_array_whatever_the_orientation(
    affine: np.ndarray, axes: list[int]
) -> None:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    affine[:3, :3] = unit * (0.9, 0.8, 4.0)
    assert Geometry((9, 8, 7), affine).permute(axes).slice_axis() == axes.index(2)


def test_same_grid_measures_the_far_corner() -> None:
    one = Geometry((100, 4, 4), np.eye(4))
    affine = np.eye(4)
    affine[0, 0] = 1.0 + 1e-4
    other = Geometry((100, 4, 4), affine)
    assert one.corner_distance_mm(other) == pytest.approx(99.5e-4)
    assert not one.same_grid(other)
    assert one.same_grid(other, tol_mm=0.011)
    assert not one.same_grid(Geometry((100, 4, 5), np.eye(4)), tol_mm=1e9)


@settings(max_examples=20)
@given(geometries(sheared=False))
def test_orthogonal_axes_are_seen_as_such(geometry: Geometry) -> None:
    assert geometry.is_orthogonal()
    sheared = geometry.affine.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1] / np.linalg.norm(sheared[:3, 1]) * geometry.spacing[2]
    assert not Geometry(geometry.shape, sheared).is_orthogonal()


def test_extent_counts_edges_not_centres() -> None:
    assert Geometry((10, 4, 2), np.diag([0.5, -1.0, 6.0, 1.0])).extent_mm == (5.0, 4.0, 12.0)


def _affine(**changes: float) -> np.ndarray:
    affine = np.eye(4)
    for name, value in changes.items():
        affine[int(name[1]), int(name[2])] = value
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((3, 3, 0), np.eye(4), "from 1 up"),
        ((3, 3), np.eye(4), "three whole numbers"),
        ((3, 3, 2.5), np.eye(4), "three whole numbers"),
        ((3, 3, 3), np.eye(3), "(4, 4)"),
        ((3, 3, 3), _affine(a00=np.nan), "NaN"),
        ((3, 3, 3), _affine(a03=np.inf), "infinity"),
        ((3, 3, 3), _affine(a11=0.0), "spacing"),
        ((3, 3, 3), _affine(a11=0.0, a01=1.0), "singular"),
        ((3, 3, 3), _affine(a30=1.0), "last row"),
    ],
)
def test_what_is_no_grid_is_refused(shape: tuple, affine: np.ndarray, words: str) -> None:
    with pytest.raises(GeometryError) as caught:
        Geometry(shape, affine)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda g: g.coarsen((1, 1, 9)),
        lambda g: g.coarsen((1, 1, 1.5)),
        lambda g: g.coarsen(0),
        lambda g: g.refine(0),
        lambda g: g.refine((1, math.nan, 1)),
        lambda g: g.refine((1, 2)),
        lambda g: g.crop((0, 0, 0), (4, 4, 9)),
        lambda g: g.crop((2, 0, 0), (2, 4, 4)),
        lambda g: g.permute((0, 1, 1)),
        lambda g: g.flip(3),
        lambda g: Geometry.from_lps((2, 2, 2), (0, 0, 0), (1, 1, -1), np.eye(3)),
    ],
)
def test_impossible_changes_are_refused(call) -> None:
    with pytest.raises(GeometryError):
        call(Geometry((4, 4, 4), np.eye(4)))


@settings(max_examples=20)
@given(geometries())
def test_a_geometry_is_a_value(geometry: Geometry) -> None:
    twin = Geometry(list(geometry.shape), geometry.affine.tolist())
    assert twin == geometry
    assert hash(twin) == hash(geometry)
    assert geometry != geometry.refine(2)
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 0] = 9.0


def test_the_callers_affine_is_copied() -> None:
    affine = np.eye(4)
    geometry = Geometry((2, 2, 2), affine)
    affine[0, 3] = 5.0
    assert geometry.origin == (0.0, 0.0, 0.0)

"""Spheres on grids: exact volume and place, against distances computed through the world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medsr.errors import UsageError
from medsr.evaluate.lesions import Lesion, insert
from medsr.evaluate.lesions.spheres import distances_mm, occupancy
from medsr.geometry import Geometry
from medsr.volume import Volume


def _grid(spacing: tuple[float, float, float], turn: float = 0.0) -> Geometry:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [turn, -turn, 2 * turn], degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = [-20.0, 13.0, 7.0]
    shape = [int(40 / s) for s in spacing]
    return Geometry((shape[0], shape[1], shape[2]), affine)


@example(spacing=(0.5, 0.5, 0.5), diameter=3.25, turn=0.0, offset=(0.0, 0.0, 0.40625))
@given(
    spacing=st.tuples(*[st.floats(0.5, 4.0)] * 3),
    diameter=st.floats(2.0, 15.0),
    turn=st.floats(-30, 30),
    offset=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_volume_and_centroid_are_those_of_the_sphere(
    spacing: tuple[float, float, float],
    diameter: float,
    turn: float,
    offset: tuple[float, float, float],
) -> None:
    grid = _grid(spacing, turn)
    index = (np.array(grid.shape) - 1) // 2 + np.array(offset)
    centre = grid.voxel_to_world(index)
    where, share = occupancy(grid, centre, diameter)
    assert share.min() >= 0
    assert share.max() <= 1
    volume = share.sum() * np.prod(grid.spacing)
    assert volume == pytest.approx(np.pi / 6 * diameter**3, rel=1e-6)
    places = np.stack(np.meshgrid(*[np.arange(p.start, p.stop) for p in where], indexing="ij"), -1)
    centroid = (places * share[..., None]).sum((0, 1, 2)) / share.sum()
    if max(spacing) <= diameter / 2:  # else it is that of the voxels
        assert np.linalg.norm(grid.voxel_to_world(centroid) - centre) < 0.15 * max(spacing)


def test_distances_are_those_of_the_world() -> None:
    grid = _grid((0.7, 1.1, 3.0), turn=25.0)
    offsets = [np.array([-2.0, 0.5, 3.0]), np.array([0.0, 1.5]), np.array([-1.0, 4.0])]
    found = distances_mm(grid, offsets)
    for i, x in enumerate(offsets[0]):
        for j, y in enumerate(offsets[1]):
            for k, z in enumerate(offsets[2]):
                step = grid.voxel_to_world([x, y, z]) - grid.voxel_to_world([0, 0, 0])
                assert found[i, j, k] == pytest.approx(np.linalg.norm(step))


def test_a_voxel_holds_the_share_that_a_fine_count_finds() -> None:
    grid = _grid((0.9, 0.9, 3.6))
    centre, diameter = (3.3, 30.1, 22.2), 7.0
    where, share = occupancy(grid, centre, diameter)
    rng = np.random.default_rng(0)
    for local in [(0, 3, 1), (3, 3, 0), (4, 4, 1), (2, 1, 1)]:
        voxel = np.array(local) + [part.start for part in where]
        points = grid.voxel_to_world(voxel + rng.uniform(-0.5, 0.5, (200_000, 3)))
        inside = (np.linalg.norm(points - centre, axis=1) <= diameter / 2).mean()
        assert share[local] == pytest.approx(inside, abs=0.015)


def test_insertion_adds_the_contrast_where_the_lesion_is_and_nowhere_else() -> None:
    grid = _grid((1.0, 1.0, 1.0))
    hr = Volume(np.full(grid.shape, 100, np.int16), grid, "CT", "HU")
    lesion = Lesion((0.0, 33.0, 27.0), 8.0, "+30 HU", 30.0, "soft")
    data = insert(hr, [lesion]).data
    assert hr.data.max() == 100
    assert (data - 100).sum() == pytest.approx(30 * np.pi / 6 * 8**3, rel=1e-4)
    assert data[20, 20, 20] == pytest.approx(130.0)
    r = distances_mm(grid, [np.arange(40.0) - 20] * 3)
    assert (data[r > 5] == 100).all()
    with pytest.raises(UsageError, match="beyond the scan"):
        insert(hr, [Lesion((-20.0, 33.0, 27.0), 8.0, "+30 HU", 30.0, "soft")])

"""Tasks: simulated and real pairs, on the truth's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from medsr.data.manifest import ScanRecord
from medsr.degrade import build_degradation, degrade_volume
from medsr.evaluate.metrics import reference_for
from medsr.evaluate.sampling import build_drawn
from medsr.evaluate.tasks import RealPairs, Simulated, Unscorable, displacement_mm, inside
from medsr.geometry import Geometry
from medsr.volume import Volume

OBLIQUE = np.array(
    [[-0.9, 0.1, 0.3, 40.0], [0.1, 1.0, -0.2, -30.0], [-0.2, 0.25, 1.4, 5.0], [0, 0, 0, 1.0]]
)


def record(path: Path, **changes: object) -> ScanRecord:
    values = {"path": path, "split": "dev", "patient_id": "p", "modality": "MR", **changes}
    return ScanRecord(**values)  # type: ignore[arg-type]


def write(path: Path, data: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> Path:
    nib.save(nib.Nifti1Image(np.asarray(data, dtype=np.float32), affine), path)
    return path


@pytest.fixture
def sharp(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Path:
    return write(tmp_path / "thin.nii.gz", phantom[:40, :36, :32], np.eye(4))


def test_draws_differ_between_scans_and_axes_and_repeat(sharp: Path) -> None:
    degradation = build_degradation("slice_profile", (1, 1, 4))
    tasks = Simulated([record(sharp)], "MR", (1, 1, 4), degradation, seed=7)
    again = Simulated([record(sharp)], "MR", (1, 1, 4), degradation, seed=7)
    other = Simulated([record(sharp)], "MR", (1, 1, 4), degradation, seed=8)
    # Opened in another order: nothing may hang on it.
    first = [tasks.open(job) for job in tasks.jobs]
    second = [again.open(job) for job in reversed(again.jobs)][::-1]
    third = [other.open(job) for job in other.jobs]
    assert len({repr(task.params) for task in first}) == 3
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(a.lr.data, b.lr.data)
        assert a.params == b.params != c.params
    assert "seed 7" in tasks.describe()["degradation"]["draw"]


@pytest.mark.parametrize("kind", ["slice_profile", "kspace", "ct_slab"])
def test_a_seed_changes_scans_within_what_is_told(sharp: Path, kind: str) -> None:
    degradation, drawn = build_drawn(kind, (1, 1, 4), "MR")
    tasks = Simulated([record(sharp)], "MR", (1, 1, 4), degradation, 7, drawn)
    plain = Simulated([record(sharp)], "MR", (1, 1, 4), build_degradation(kind, (1, 1, 4)))
    task, still = tasks.open(tasks.jobs[2]), plain.open(plain.jobs[2])
    span = reference_for(still.truth.data, "MR").data_range
    off = np.abs(np.asarray(task.lr.data) - still.lr.data).max() / span
    assert 0.001 < off < 0.5
    assert 0 < task.params.sigma <= 0.03 * span
    assert task.notes["drawn"]["sigma"] == task.params.sigma
    told = tasks.describe()["degradation"]["ranges"]
    assert told["noise"] == [0.0, 0.03]
    if kind != "kspace":
        assert told["thickness"] == [0.8, 1.2]
        assert 0.8 <= task.params.thickness <= 1.2
        assert task.params.thickness != 1
    assert still.notes == {}


def test_degrading_another_truth_takes_the_same_parameters(sharp: Path) -> None:
    degradation = build_degradation("slice_profile", (1, 1, 4))
    tasks = Simulated([record(sharp)], "MR", (1, 1, 4), degradation, seed=7)
    task = tasks.open(tasks.jobs[0])
    np.testing.assert_array_equal(task.degrade(task.truth).data, task.lr.data)


@pytest.mark.parametrize("seed", range(5))
def test_field_of_view_is_that_of_simpleitk(seed: int) -> None:
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(generator.uniform(0.7, 3.0, 3))
    affine[:3, 3] = (6.5, 5.5, 4.5) - affine[:3, :3] @ (4, 3.5, 3) + generator.normal(size=3)
    grid, field = Geometry((14, 12, 10), np.eye(4)), Geometry((9, 8, 7), affine)
    image = SimpleITK.Image([9, 8, 7], SimpleITK.sitkUInt8)
    origin, spacing, direction = field.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    expected = np.zeros(grid.shape, dtype=bool)
    for index in np.ndindex(*grid.shape):
        x, y, z = grid.voxel_to_world(np.array(index, float))
        at = image.TransformPhysicalPointToContinuousIndex((-x, -y, z))
        expected[index] = all(-0.5 <= i <= n - 0.5 for i, n in zip(at, (9, 8, 7), strict=True))
    assert expected.any()
    assert not expected.all()
    np.testing.assert_array_equal(inside(grid, field), expected)


def test_real_pairs_leave_the_truth_alone_and_put_the_slice_axis_last(
    tmp_path: Path, phantom: npt.NDArray[np.float32]
) -> None:
    truth = Volume(phantom[:40, :36, :32].copy(), Geometry((40, 36, 32), OBLIQUE), "MR")
    # Slices along the first axis of the truth, stored in another order, fewer of them.
    turned = truth.permute((1, 2, 0)).crop((0, 0, 4), (36, 32, 36))
    thick = degrade_volume(turned, build_degradation("slice_profile", (1, 1, 4)))
    write(tmp_path / "thin.nii.gz", truth.data, truth.geometry.affine)
    write(tmp_path / "thick.nii.gz", thick.data, thick.geometry.affine)
    pairs = RealPairs(
        [
            record(tmp_path / "thin.nii.gz", lr_path=tmp_path / "thick.nii.gz"),
            record(tmp_path / "alone.nii.gz"),
        ],
        "MR",
    )
    (job,) = pairs.jobs
    task = pairs.open(job)
    assert task.truth.geometry.same_grid(turned.geometry)
    np.testing.assert_array_equal(task.truth.data, turned.data)
    assert task.covered is not None
    assert task.covered.all()
    assert task.notes["covered"] == pytest.approx(0.8)
    np.testing.assert_allclose(task.notes["displacement_mm"], 0, atol=0.6)
    with pytest.raises(Unscorable, match="not known"):
        task.degrade(task.truth)


def test_pairs_that_hardly_meet_are_skipped(sharp: Path, tmp_path: Path) -> None:
    away = np.eye(4)
    away[0, 3] = 39.0
    data = np.zeros((20, 20, 8), np.float32)
    other = write(tmp_path / "away.nii.gz", data, away @ np.diag([1, 1, 4, 1.0]))
    pairs = RealPairs([record(sharp, lr_path=other)], "MR")
    with pytest.raises(Unscorable, match="lie in the thick one"):
        pairs.open(pairs.jobs[0])


def test_displacement_has_the_sign_and_the_size_of_the_shift(
    phantom: npt.NDArray[np.float32],
) -> None:
    grid = Geometry((34, 32, 32), np.diag([1.0, 2.0, 1.0, 1.0]))
    still = Volume(np.ascontiguousarray(phantom[4:38, 3:35]), grid, "MR")
    moved = Volume(np.ascontiguousarray(phantom[1:35, 2:34]), grid, "MR")
    np.testing.assert_allclose(displacement_mm(moved, still), (3.0, 2.0, 0.0), atol=0.5)

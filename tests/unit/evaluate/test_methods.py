"""Methods: other tools' folders, the inputs written for them, and names."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from medsr.data.manifest import ScanRecord
from medsr.degrade import build_degradation
from medsr.errors import CohortError, InputNotFoundError, OutputExistsError, UsageError
from medsr.evaluate.methods import (
    Folder,
    check_folders,
    choose_baselines,
    take_inputs,
    write_input,
)
from medsr.evaluate.tasks import Simulated, Task


@pytest.fixture
def task(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Task:
    affine = np.array([[0, 0, 1.2, 3], [-1.0, 0, 0, 5], [0, 1.1, 0, -8], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(phantom[:32, :28, :36], affine), tmp_path / "scan.nii.gz")
    record = ScanRecord(tmp_path / "scan.nii.gz", "dev", "p", "MR")
    tasks = Simulated([record], "MR", (1, 1, 4), build_degradation("slice_profile", (1, 1, 4)))
    return tasks.open(tasks.jobs[1])


def save(path: Path, data: npt.NDArray[np.float32], affine: npt.NDArray[np.float64]) -> None:
    nib.save(nib.Nifti1Image(data, affine), path)


def test_inputs_lie_where_the_truth_lies_and_name_nobody(task: Task, tmp_path: Path) -> None:
    path = write_input(task, task.lr, tmp_path)
    assert path.name == "scan_axis-y.nii.gz"
    image = nib.load(path)
    np.testing.assert_allclose(image.affine, task.lr.geometry.affine, atol=1e-5)
    np.testing.assert_allclose(image.get_fdata(), task.lr.data, rtol=1e-6)
    assert image.header["descrip"].item().decode() in {"", "medsr"}


def test_results_on_the_truths_grid_are_taken_as_they_are(task: Task, tmp_path: Path) -> None:
    data = task.truth.data + np.float32(1.25)
    save(tmp_path / "scan_axis-y.nii.gz", data, task.truth.geometry.affine)
    restored = Folder("other", tmp_path, "MR").restore(task, task.lr)
    np.testing.assert_array_equal(restored.volume.data, data)
    assert restored.volume.geometry.same_grid(task.truth.geometry)


def test_results_stored_in_another_order_are_brought_to_the_grid(
    task: Task, tmp_path: Path
) -> None:
    turned = task.truth.permute((2, 0, 1)).flip(1)
    save(tmp_path / "scan_axis-y.nii.gz", turned.data, turned.geometry.affine)
    restored = Folder("other", tmp_path, "MR").restore(task, task.lr)
    assert restored.volume.geometry.same_grid(task.truth.geometry)
    scale = float(np.abs(task.truth.data).max())
    np.testing.assert_allclose(restored.volume.data, task.truth.data, atol=1e-3 * scale)


def test_results_that_lost_the_affine_are_refused(task: Task, tmp_path: Path) -> None:
    save(tmp_path / "scan_axis-y.nii.gz", task.truth.data, np.eye(4))
    with pytest.raises(CohortError, match="keep the physical extent"):
        Folder("other", tmp_path, "MR").restore(task, task.lr)


def test_results_that_reach_far_beyond_the_scan_are_refused(task: Task, tmp_path: Path) -> None:
    grid = task.truth.geometry
    affine = grid.affine @ np.diag([3, 3, 3, 1])
    affine[:3, 3] = grid.affine[:3, 3] - grid.affine[:3, :3] @ grid.shape
    save(tmp_path / "scan_axis-y.nii.gz", task.truth.data, affine)
    with pytest.raises(CohortError, match="reaches far beyond"):
        Folder("other", tmp_path, "MR").restore(task, task.lr)


def test_results_with_a_margin_around_the_scan_are_taken(task: Task, tmp_path: Path) -> None:
    padded = np.pad(task.truth.data, 2)
    affine = task.truth.geometry.affine.copy()
    affine[:3, 3] -= 2 * affine[:3, :3].sum(axis=1)
    save(tmp_path / "scan_axis-y.nii.gz", padded, affine)
    restored = Folder("other", tmp_path, "MR").restore(task, task.lr)
    scale = float(np.abs(task.truth.data).max())
    np.testing.assert_allclose(restored.volume.data, task.truth.data, atol=1e-3 * scale)


def test_missing_results_are_named_without_the_folder(task: Task, tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"scan_axis-y_lesions\.nii\.gz") as caught:
        Folder("other", tmp_path, "MR").restore(task, task.lr, "lesions")
    assert str(tmp_path) not in str(caught.value)
    assert "--parts" in str(caught.value)


def test_damaged_results_are_named_without_the_folder(task: Task, tmp_path: Path) -> None:
    data = np.array(task.truth.data)
    data[3:5] = np.nan
    save(tmp_path / "scan_axis-y.nii.gz", data, task.truth.geometry.affine)
    with pytest.raises(CohortError, match=r"^other: scan_axis-y\.nii\.gz: .*NaN") as caught:
        Folder("other", tmp_path, "MR").restore(task, task.lr)
    assert str(tmp_path) not in str(caught.value)


def test_bspline_is_always_there_and_unknown_names_are_refused() -> None:
    assert [b.name for b in choose_baselines([])] == ["bspline"]
    assert [b.name for b in choose_baselines(["tv", "linear"])] == ["linear", "bspline", "tv"]
    with pytest.raises(UsageError, match="'cubic' is unknown"):
        choose_baselines(["cubic"])


def test_names_of_other_tools(tmp_path: Path) -> None:
    check_folders({"other": tmp_path}, ["linear"])
    with pytest.raises(UsageError, match="taken"):
        check_folders({"linear": tmp_path}, ["linear"])
    with pytest.raises(InputNotFoundError, match="no folder"):
        check_folders({"other": tmp_path / "absent"}, [])


def test_inputs_replace_nothing_but_themselves(tmp_path: Path) -> None:
    take_inputs(tmp_path / "in", ["a_axis-z"], {})
    assert (tmp_path / "in").is_dir()
    (tmp_path / "in" / "a_axis-z_lesions.nii.gz").write_bytes(b"older")
    take_inputs(tmp_path / "in", ["a_axis-z"], {})
    with pytest.raises(OutputExistsError, match="1 other files"):
        take_inputs(tmp_path / "in", ["b_axis-z"], {})
    with pytest.raises(UsageError, match="results are read from there"):
        take_inputs(tmp_path / "in", ["a_axis-z"], {"tool": tmp_path / "x" / ".." / "in"})

"""What is refused may be allowed: gaps, tilt, duplicates, few slices; other libraries judge."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.processing import resample_from_to
from pydicom.dataset import Dataset
from scipy.interpolate import RegularGridInterpolator

from medsr import errors, io
from medsr.io.dicom.read.series import open_dicom

Make = Callable[..., Path]
TILT = frozenset({"tilt"})


def _smooth(shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.int16]]:
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    values = 900 + 300 * np.sin(axes[0]) + 200 * np.cos(axes[1] * 2) + 150 * axes[2]
    return values.astype(np.int16)


def _moved(shift: Callable[[int], tuple[float, float, float]]) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        places = zip(dataset.ImagePositionPatient, shift(k), strict=True)
        dataset.ImagePositionPatient = [f"{float(p) + s:.6f}" for p, s in places]

    return edit


def test_missing_slices_are_interpolated_between_their_neighbours(
    tmp_path: Path, make_series: Make, caplog: pytest.LogCaptureFixture
) -> None:
    stored = _smooth((9, 7, 10))
    folder = make_series(tmp_path / "s", stored)
    for lost in (4, 7, 8):
        (folder / f"slice{lost:03d}.dcm").unlink()
    with pytest.raises(errors.MissingSlicesError, match=r"3 slice\(s\) missing.*--allow-gaps"):
        io.load(folder)
    with caplog.at_level(logging.WARNING):
        volume = io.load(folder, allow=["gaps"])
    assert "widest gap bridged is 7.50 mm, from image 6 to image 9" in caplog.text
    whole = stored.astype(np.float64) - 1024
    there = [k for k in range(10) if k + 1 not in (4, 7, 8)]
    assert np.array_equal(volume.data[:, :, there], whole[:, :, there])
    np.testing.assert_allclose(volume.data[:, :, 3], (whole[:, :, 2] + whole[:, :, 4]) / 2)
    np.testing.assert_allclose(
        volume.data[:, :, 6], whole[:, :, 5] * 2 / 3 + whole[:, :, 8] / 3, rtol=1e-6
    )
    full = io.load(make_series(tmp_path / "full", stored))
    assert volume.geometry.same_grid(full.geometry)


def test_interpolated_planes_name_both_their_slices(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", _smooth((9, 7, 10)))
    for lost in (4, 7, 8):
        (folder / f"slice{lost:03d}.dcm").unlink()
    volume = io.load(folder, allow=["gaps"])
    io.save(volume, tmp_path / "out")
    number = {}
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        number[one.SOPInstanceUID] = int(one.ImagePositionPatient[2])
    named = {}
    for file in (tmp_path / "out").iterdir():
        one = pydicom.dcmread(file)
        sources = [item.ReferencedSOPInstanceUID for item in one.SourceImageSequence]
        named[int(one.ImagePositionPatient[2])] = sorted(number[uid] for uid in sources)
    at = [int(40.0 + 2.5 * k) for k in range(10)]
    between = {at[3]: [at[2], at[4]], at[6]: [at[5], at[8]], at[7]: [at[5], at[8]]}
    assert named == {place: between.get(place, [place]) for place in at}


def test_uneven_slices_agree_with_scipy_at_their_true_places(
    tmp_path: Path, make_series: Make
) -> None:
    stored = _smooth((8, 6, 9))
    shifts = [0.0, 0.3, -0.4, 0.5, 0.0, 0.9, 0.2, -0.6, 0.1]
    folder = make_series(tmp_path / "s", stored, edit=_moved(lambda k: (0.0, 0.0, shifts[k])))
    with pytest.raises(errors.SliceSpacingError, match="unevenly"):
        io.load(folder)
    volume = io.load(folder, allow=("gaps",))
    along = 40.0 + 2.5 * np.arange(9) + shifts
    judge = RegularGridInterpolator((range(8), range(6), along), stored - 1024.0)
    x, y, k = np.meshgrid(*map(range, volume.shape), indexing="ij")
    world = volume.geometry.voxel_to_world(np.stack([x, y, k], axis=-1))[..., 2]
    assert world.min() == pytest.approx(along[0])
    assert world.max() == pytest.approx(along[-1])
    expected = judge(np.stack([x, y, np.clip(world, along[0], along[-1])], axis=-1))
    # A slice within a hundredth of a step is taken as it is.
    np.testing.assert_allclose(volume.data, expected, atol=0.01 * 2.6 * 60)


@pytest.mark.parametrize("degrees", [15.0, -8.0])
def test_an_undone_tilt_agrees_with_nibabel(
    tmp_path: Path, make_series: Make, degrees: float
) -> None:
    stored = _smooth((12, 16, 8))
    slope = np.tan(np.radians(degrees))
    folder = make_series(tmp_path / "s", stored, edit=_moved(lambda k: (0.0, 2.5 * k * slope, 0.0)))
    with pytest.raises(errors.GantryTiltError, match=f"{abs(degrees):.1f} degrees.*--allow-tilt"):
        io.load(folder)
    volume = io.load(folder, allow=["tilt"])
    assert volume.geometry.is_orthogonal(1e-9)
    assert volume.spacing == pytest.approx((0.8, 0.9, 2.5))
    # The scan as it lies: a sheared affine from the positions, LPS turned to RAS.
    sheared = np.array(
        [[-0.8, 0, 0, 30.0], [0, -0.9, -2.5 * slope, -12.5], [0, 0, 2.5, 40.0], [0, 0, 0, 1]]
    )
    image = nib.Nifti1Image(stored - np.float64(1024), sheared)
    grid = (volume.shape, volume.geometry.affine)
    judge = resample_from_to(image, grid, order=1, cval=np.nan).get_fdata()
    inside = np.isfinite(judge) & (volume.data != -1024)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(volume.data[inside], judge[inside], atol=0.01)
    # Nothing that was measured is cut off, and nothing is made up beyond it.
    indices = np.stack(np.meshgrid(*map(range, volume.shape), indexing="ij"), axis=-1)
    places = nib.affines.apply_affine(
        np.linalg.inv(sheared), volume.geometry.voxel_to_world(indices)
    )
    beyond = ((places < -1e-3) | (places > np.array(stored.shape) - 1 + 1e-3)).any(axis=-1)
    assert (volume.data[beyond] == -1024).all()
    assert (volume.data[~beyond] != -1024).all()
    assert volume.shape[1] == 16 + int(np.ceil(abs(slope) * 2.5 * 7 / 0.9))


def test_tilt_and_gaps_need_both_and_padding_is_not_blended(
    tmp_path: Path, make_series: Make
) -> None:
    stored = _smooth((9, 9, 8))
    stored[:3] = -2000

    def edit(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue = -2000
        _moved(lambda k: (0.0, 0.6 * k, 1.1 * (k > 4)))(dataset, k)

    folder = make_series(tmp_path / "s", stored, edit=edit)
    for allow, error in (("tilt", errors.SliceSpacingError), ("gaps", errors.GantryTiltError)):
        with pytest.raises(error):
            io.load(folder, allow=[allow])
    volume = io.load(folder, allow=["gaps", "tilt"])
    assert volume.source is not None
    assert volume.source.padding == -3024
    assert set(np.unique(volume.data[volume.data < -1000])) == {-3024.0}
    assert (volume.data[:3] == -3024).all()


def test_slab_by_slab_resamples_alike(tmp_path: Path, make_series: Make) -> None:
    moved = _moved(lambda k: (0.0, 0.7 * k, 0.8 * (k > 3)))
    folder = make_series(tmp_path / "s", _smooth((8, 7, 9)), edit=moved)
    allow = frozenset({"gaps", "tilt"})
    whole = io.load(folder, allow=allow)
    slabs = open_dicom(folder, allow=allow)
    assert slabs.header.geometry == whole.geometry
    for start, stop in ((0, 3), (2, 7), (7, whole.shape[2])):
        assert np.array_equal(slabs.read(start, stop), whole.data[:, :, start:stop])


def test_a_tilted_result_can_be_written_as_dicom(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(
        tmp_path / "s", _smooth((8, 7, 6)), edit=_moved(lambda k: (0.0, 0.7 * k, 0.0))
    )
    volume = io.load(folder, allow=TILT)
    io.save(volume, tmp_path / "out")
    again = io.load(tmp_path / "out")
    assert again.geometry.same_grid(volume.geometry, tol_mm=1e-3)
    assert np.abs(again.data - volume.data).max() <= 0.5


def test_of_conflicting_duplicates_the_lowest_number_is_taken(
    tmp_path: Path, make_series: Make
) -> None:
    folder = make_series(tmp_path / "s")
    plain = io.load(folder)
    dataset = pydicom.dcmread(folder / "slice002.dcm")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.SOPInstanceUID, dataset.InstanceNumber = "1.2.3", 99
    dataset.save_as(folder / "aaa.dcm")  # first by name, last by number
    with pytest.raises(errors.DuplicateSlicesError, match="--allow-duplicates"):
        io.load(folder)
    volume = io.load(folder, allow=["duplicates"])
    assert np.array_equal(volume.data, plain.data)
    assert volume.source is not None
    assert any("lowest InstanceNumber" in note for note in volume.source.notes)


def test_few_slices(tmp_path: Path, make_series: Make) -> None:
    three = make_series(tmp_path / "s", np.ones((5, 5, 3), np.int16))
    with pytest.raises(errors.TooFewSlicesError, match="--allow-few-slices"):
        io.load(three)
    assert io.load(three, allow=["few-slices"]).shape == (5, 5, 3)
    one = make_series(tmp_path / "t", np.ones((5, 5, 1), np.int16))
    with pytest.raises(errors.TooFewSlicesError, match="single slice"):
        io.load(one, allow=["few-slices"])


def test_unknown_allowances_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="choose among gaps"):
        io.load(tmp_path, allow=["everything"])


def test_a_stack_spread_too_far_is_refused_all_the_same(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", edit=_moved(lambda k: (0, 0, 1e6 if k == 5 else 0.0)))
    with pytest.raises(errors.SliceSpacingError, match="made up"):
        io.load(folder, allow=["gaps"])

"""Every real DICOM series beside the repository is read or refused as its table says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from medsr import errors
from medsr.geometry import Geometry
from medsr.io import load, save

READS = {
    # folder: shape, spacing in mm, modality
    "mr_fruit": ((256, 256, 96), (1.0547, 1.0547, 1.2), "MR"),
    "ct_chest_2p5mm": ((512, 512, 32), (0.898438, 0.898438, 2.5), "CT"),
    "ct_chest_jpegls": ((512, 512, 24), (0.54, 0.54, 2.0), "CT"),
    "mr_jpeg_lossless_fragments": ((128, 128, 96), (2.0, 2.0, 2.0), "MR"),
    "mr_enhanced_multiframe": ((128, 128, 96), (2.0, 2.0, 2.0), "MR"),
    "small/rle": ((256, 256, 4), (1.0, 1.0, 1.0), "MR"),
    "small/jpeg": ((256, 256, 4), (1.0, 1.0, 1.0), "MR"),
    "small/jpeg2000": ((256, 256, 4), (1.0, 1.0, 1.0), "MR"),
    "small/jpegls": ((256, 256, 4), (1.0, 1.0, 1.0), "MR"),
    "small/ge_implicit": ((256, 256, 4), (1.0, 1.0, 1.0), "MR"),
    "small/hitachi": ((64, 64, 4), (2.34375, 2.34375, 4.0), "MR"),
    "small/hyperfine": ((112, 138, 8), (1.59, 1.61, 5.0), "MR"),
    "small/siemens_multiframe": ((256, 256, 8), (0.9375, 0.9375, 0.9), "MR"),
    "small/philips_enhanced": ((256, 256, 8), (1.0, 1.0, 1.2), "MR"),
}
REFUSES = {
    "ct_gantry_tilt_uneven": (errors.GantryTiltError, r"18\.5 degrees.*1\.08 mm.*7\.00 mm"),
    "mr_siemens_mosaic": (errors.MosaicError, "mosaic"),
    "small/rgb": (errors.ColourError, "colour"),
    "small/slice_increment": (errors.MissingSlicesError, "10.00 mm"),
    "small/slice_orientation": (errors.OrientationError, "2 orientations"),
    "small/slice_count": (errors.TooFewSlicesError, "2 slice"),
    "small/not_a_volume": (errors.DuplicateSlicesError, "one position"),
    "small/gantry_tilt": (errors.GantryTiltError, r"14\.0 degrees"),
}
# GDCM sorts and decodes these as a series, so that SimpleITK can judge.
JUDGED = ("mr_fruit", "ct_chest_2p5mm", "ct_chest_jpegls", "mr_jpeg_lossless_fragments")


def by_itk(folder: Path) -> tuple[Geometry, np.ndarray]:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    geometry = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    return geometry, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)


def test_every_folder_is_in_the_table(shared_data: Path) -> None:
    root = shared_data / "dicom"
    folders = {p.name for p in root.iterdir() if p.is_dir()} - {"small"}
    folders |= {f"small/{p.name}" for p in (root / "small").iterdir() if p.is_dir()}
    assert folders == set(READS) | set(REFUSES)


@pytest.mark.parametrize("name", READS)
def test_reads(shared_data: Path, name: str) -> None:
    shape, spacing, modality = READS[name]
    volume = load(shared_data / "dicom" / name)
    assert volume.shape == shape
    assert volume.spacing == pytest.approx(spacing, abs=2e-3)
    assert volume.modality == modality
    assert volume.data.min() < volume.data.max()


@pytest.mark.parametrize("name", REFUSES)
def test_refuses(shared_data: Path, name: str) -> None:
    error, words = REFUSES[name]
    with pytest.raises(errors.MedsrError, match=words) as caught:
        load(shared_data / "dicom" / name)
    assert type(caught.value) is error


@pytest.mark.parametrize("name", JUDGED)
def test_agrees_with_itk(shared_data: Path, name: str) -> None:
    volume = load(shared_data / "dicom" / name)
    geometry, values = by_itk(shared_data / "dicom" / name)
    assert volume.geometry.same_grid(geometry, tol_mm=0.01)
    assert np.array_equal(volume.data, values)


@pytest.mark.parametrize("name", ["mr_fruit", "ct_chest_2p5mm"])
def test_writes_back_what_itk_finds_in_place(shared_data: Path, tmp_path: Path, name: str) -> None:
    volume = load(shared_data / "dicom" / name)
    fine = volume.replace(
        data=np.repeat(volume.data[::4, ::4], 2, axis=2),
        geometry=volume.geometry.coarsen((4, 4, 1)).refine((1, 1, 2)),
    )
    save(fine, tmp_path / "out")
    geometry, values = by_itk(tmp_path / "out")
    assert geometry.same_grid(fine.geometry, tol_mm=1e-3)
    assert np.array_equal(values, fine.data)


def test_multi_frame_equals_its_single_frame_sibling(shared_data: Path) -> None:
    """The same protocol on the same scanner: one grid in both encodings."""
    frames = load(shared_data / "dicom" / "mr_enhanced_multiframe")
    single = load(shared_data / "dicom" / "mr_jpeg_lossless_fragments")
    assert frames.geometry.same_grid(single.geometry, tol_mm=0.05)


ALLOWED = {
    # folder: what must be allowed, shape, through-plane spacing in mm
    "ct_gantry_tilt_uneven": (("tilt", "gaps"), (512, 611, 37), 4.0),
    "small/gantry_tilt": (("tilt",), (512, 521, 4), 4.85),
    "small/slice_increment": (("gaps",), (512, 512, 5), 5.0),
    "small/slice_count": (("few-slices",), (256, 256, 2), 1.0),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_reads_what_is_allowed(shared_data: Path, name: str) -> None:
    allow, shape, step = ALLOWED[name]
    volume = load(shared_data / "dicom" / name, allow=allow)
    assert volume.shape == shape
    assert volume.spacing[2] == pytest.approx(step, abs=0.01)
    assert volume.geometry.is_orthogonal(1e-6)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs dcm2niix")
def test_an_undone_tilt_has_the_grid_of_dcm2niix(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "dicom" / "small" / "gantry_tilt"
    run = ["dcm2niix", "-z", "n", "-b", "n", "-f", "ct", "-o", str(tmp_path), str(source)]
    subprocess.run(run, check=True, capture_output=True)
    (file,) = tmp_path.glob("*Tilt*.nii")
    judge = nib.load(file)
    volume = load(source, allow=["tilt"])
    assert judge.shape == volume.shape
    back = np.linalg.inv(volume.geometry.affine) @ judge.affine
    # Rows are counted from the other end, and dcm2niix rounds its grid up to a pixel.
    np.testing.assert_allclose(back[:3, :3], np.diag([1, -1, 1]), atol=1e-5)
    assert abs(back[1, 3] - (volume.shape[1] - 1)) < 1.0
    np.testing.assert_allclose(back[[0, 2], 3], 0.0, atol=1e-3)
    ours = ndimage.gaussian_filter1d(volume.data.astype(np.float64), 3, axis=1)
    theirs = ndimage.gaussian_filter1d(judge.get_fdata(), 3, axis=1)
    rows = np.arange(120, 400)
    for k in range(4):
        moved = ndimage.shift(ours[..., k], (0, rows[0] - back[1, 3] + rows[-1]), order=1)
        apart = np.abs(moved[100:400, rows] - theirs[100:400, rows[::-1], k])
        assert np.median(apart) < 5.0

"""Every real DICOM folder beside the repository is read, listed or refused as its table says.

A folder without a row here is held to the general rule and named by a skip; one that is in a row
and not on this machine skips that row.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from scipy import ndimage
from typer.testing import CliRunner

from medsr import errors
from medsr.cli import app
from medsr.geometry import Geometry
from medsr.io import list_volumes, load, save

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
    "odd2/ct_overlap_j2k_no_sopclass": ((512, 512, 6), (0.9766, 0.9766, 2.0), "CT"),
    "odd2/mr_duplicates_two_encodings": ((384, 384, 4), (0.4427, 0.4427, 4.29), "MR"),
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
    "odd2/pydicom_liver_deflate": (errors.NotAnImageError, "Segmentation Storage"),
    "odd2/emri_small_big_endian": (errors.MissingGeometryError, "functional groups"),
    "odd2/dicomdir_missing_files": (errors.NotAnImageError, "433 file"),
    "odd2/uih_vframe_tiled": (errors.MosaicError, "mosaic"),
    "odd2/mr_gap_tag_wrong_toshiba": (errors.TooFewSlicesError, r"3 slice.*--allow-few-slices"),
    "odd2/mr_no_series_uid": (errors.TooFewSlicesError, r"3 slice.*--allow-few-slices"),
    "odd2/mr_missing_slice": (errors.MissingSlicesError, "2.00 mm from image 114 to image 116"),
}
LISTS: dict[str, tuple[type[errors.MedsrError], dict[int, int]]] = {
    # folder: how it is refused where no volume is picked; exit code: number of volumes
    "odd2/mr_dwi_3b_one_series": (errors.TimeSeriesError, {0: 3}),
    "odd2/ge_multiphase_4d": (errors.TimeSeriesError, {0: 4}),
    "odd2/enhanced_siemens_xa10": (errors.TimeSeriesError, {0: 2}),
    "odd2/enhanced_philips_b0map": (errors.TimeSeriesError, {0: 2}),
    "odd2/ct_5_series_one_folder_jp": (errors.SeveralSeriesError, {83: 1, 16: 4}),
    "odd2/pydicom_dicomdir": (errors.SeveralSeriesError, {83: 2, 0: 1, 82: 1, 16: 17}),
}
GROUPS = ("small", "odd2")  # folders of folders
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


def folder_of(shared_data: Path, name: str) -> Path:
    folder = shared_data / "dicom" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not among the data here")
    return folder


def told_by_inspect(folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code of ``medsr inspect --json`` and what it prints; fails for a traceback."""
    run = CliRunner().invoke(app, ["inspect", str(folder), "--json"])
    assert run.exception is None or isinstance(run.exception, SystemExit | errors.MedsrError)
    code = getattr(run.exception, "exit_code", run.exit_code)
    return code, json.loads(run.stdout) if code == 0 else {}


def test_folders_without_a_row_are_read_or_refused_by_name(shared_data: Path) -> None:
    root = shared_data / "dicom"
    folders = {p.relative_to(root).as_posix() for p in root.iterdir() if p.is_dir()}
    for group in folders.intersection(GROUPS):
        folders.remove(group)
        folders |= {f"{group}/{p.name}" for p in (root / group).iterdir() if p.is_dir()}
    unknown = sorted(folders.difference(READS, REFUSES, LISTS))
    for name in unknown:
        code, _ = told_by_inspect(root / name)
        error = _refusal(root / name)
        assert code in (0, 0 if error is None else error.exit_code), name
    if unknown:
        pytest.skip(f"no row says what to do with {', '.join(unknown)}; the general rule holds")


def _refusal(folder: Path) -> errors.InputError | None:
    try:
        load(folder)
    except errors.InputError as error:
        return error
    return None


@pytest.mark.parametrize("name", READS)
def test_reads(shared_data: Path, name: str) -> None:
    shape, spacing, modality = READS[name]
    folder = folder_of(shared_data, name)
    volume = load(folder)
    assert volume.shape == shape
    assert volume.spacing == pytest.approx(spacing, abs=2e-3)
    assert volume.modality == modality
    assert volume.data.min() < volume.data.max()
    code, facts = told_by_inspect(folder)
    assert (code, facts["shape"], facts["modality"]) == (0, list(shape), modality)


@pytest.mark.parametrize("name", REFUSES)
def test_refuses(shared_data: Path, name: str) -> None:
    error, words = REFUSES[name]
    folder = folder_of(shared_data, name)
    with pytest.raises(errors.MedsrError, match=words) as caught:
        load(folder)
    assert type(caught.value) is error
    # Stacks of two or three slices are described.
    assert told_by_inspect(folder)[0] == (
        0 if error is errors.TooFewSlicesError else error.exit_code
    )


@pytest.mark.parametrize("name", LISTS)
def test_lists(shared_data: Path, name: str) -> None:
    error, codes = LISTS[name]
    folder = folder_of(shared_data, name)
    count = sum(codes.values())
    for allow in ([], ["gaps", "duplicates"]):
        with pytest.raises(errors.MedsrError, match=f"^{count} volumes here") as caught:
            load(folder, allow=allow)
        assert type(caught.value) is error
    listed = list_volumes(folder)
    assert {code: sum(v.exit_code == code for v in listed) for code in codes} == codes
    assert [volume.number for volume in listed] == list(range(1, count + 1))
    code, facts = told_by_inspect(folder)
    assert (code, len(facts["volumes"])) == (0, count)
    for volume in listed:
        by_number = str(volume.number)
        if volume.exit_code:
            with pytest.raises(errors.InputError) as refused:
                load(folder, series=by_number)
            assert refused.value.exit_code == volume.exit_code
        else:
            assert load(folder, series=by_number).shape == volume.shape


def test_the_words_of_the_list_say_what_differs(shared_data: Path) -> None:
    for name, marks in {
        "mr_dwi_3b_one_series": [f"DiffusionBValue {b}" for b in (50, 400, 800)],
        "ge_multiphase_4d": [f"TemporalPositionIdentifier {k}" for k in (1, 2, 3, 4)],
        "enhanced_siemens_xa10": [f"TemporalPositionIndex {k}" for k in (1, 2)],
    }.items():
        listed = list_volumes(folder_of(shared_data, f"odd2/{name}"))
        assert [volume.mark for volume in listed] == marks


def test_each_b_value_is_a_volume_of_its_own(shared_data: Path) -> None:
    folder = folder_of(shared_data, "odd2/mr_dwi_3b_one_series")
    files = [pydicom.dcmread(file) for file in folder.rglob("*") if file.is_file()]
    for series, b_value in (("1", b"50"), ("2", b"400"), ("3", b"800")):
        own = [file for file in files if file[0x0019, 0x100C].value.strip() == b_value]
        own.sort(key=lambda file: file.ImagePositionPatient[2])
        volume = load(folder, series=series)
        assert volume.spacing[2] == pytest.approx(3.0, abs=1e-3)
        values = np.stack([file.pixel_array.T for file in own], axis=-1)
        assert np.array_equal(volume.data, values)


def test_a_field_map_keeps_its_own_rescale(shared_data: Path) -> None:
    folder = folder_of(shared_data, "odd2/enhanced_philips_b0map")
    (file,) = (pydicom.dcmread(file) for file in folder.rglob("*") if file.is_file())
    pixels = file.pixel_array.astype(np.float64)
    ranges = {}
    for index, frame in enumerate(file.PerFrameFunctionalGroupsSequence):
        kind = frame.MRImageFrameTypeSequence[0].FrameType[3]
        scaling = frame.PixelValueTransformationSequence[0]
        values = pixels[index] * float(scaling.RescaleSlope) + float(scaling.RescaleIntercept)
        ranges.setdefault(kind, []).extend([values.min(), values.max()])
    assert len(ranges) == 2
    for volume in list_volumes(folder):
        expected = ranges[volume.mark.rpartition("\\")[2]]
        data = load(folder, series=str(volume.number)).data
        assert data.shape == (64, 64, 32)
        assert (data.min(), data.max()) == pytest.approx((min(expected), max(expected)), rel=1e-5)


def test_overlapping_slices_are_hounsfield_units(shared_data: Path) -> None:
    folder = folder_of(shared_data, "odd2/ct_overlap_j2k_no_sopclass")
    files = [pydicom.dcmread(file) for file in _up(folder)]
    assert {float(file.SliceThickness) for file in files} == {3.0}
    values = [f.pixel_array.T * float(f.RescaleSlope) + float(f.RescaleIntercept) for f in files]
    volume = load(folder)
    assert volume.units == "HU"
    assert np.array_equal(volume.data, np.stack(values, axis=-1))


def _up(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])


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
    "odd2/mr_missing_slice": (("gaps",), (192, 192, 7), 1.0),
    "odd2/mr_no_series_uid": (("few-slices",), (256, 256, 3), 2.5),
    "odd2/mr_gap_tag_wrong_toshiba": (("few-slices",), (320, 320, 3), 1.6),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_reads_what_is_allowed(shared_data: Path, name: str) -> None:
    allow, shape, step = ALLOWED[name]
    volume = load(folder_of(shared_data, name), allow=allow)
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

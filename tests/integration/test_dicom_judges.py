"""Independent judges of written DICOM: dciodvfy validates it, dcm2niix and SimpleITK read it.

No file may have an error that its source has not. Each judge is skipped by name where its program
is not installed (Debian: dicom3tools, dcm2niix).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from scipy import ndimage

from medsr.errors import DuplicateSlicesError
from medsr.geometry import Geometry
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions
from medsr.types import Float64Array
from medsr.volume import Derivation, Volume

SERIES = (
    "mr_fruit",
    "ct_chest_2p5mm",
    "ct_chest_jpegls",
    "mr_jpeg_lossless_fragments",
    "mr_enhanced_multiframe",
    "small/philips_enhanced",
    "small/siemens_multiframe",
    "small/ge_implicit",
    "small/rle",
    "small/jpeg",
    "small/jpeg2000",
    "small/jpegls",
    "small/hitachi",
    "small/hyperfine",
)
# What is read only where it is allowed, with what must be.
ALLOWED = (
    ("ct_gantry_tilt_uneven", ("tilt", "gaps")),
    ("small/gantry_tilt", ("tilt",)),
    ("small/slice_increment", ("gaps",)),
    ("small/slice_count", ("few-slices",)),
)
LAYOUTS = ("classic", "enhanced")
DERIVATION = Derivation("mr-z4 1.0", "0.1", "ab" * 32, "Super-resolution", (1.0, 1.0, 2.0))


def program(name: str) -> str:
    """A judge's program; the test is skipped where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def errors_of(file: Path) -> frozenset[str]:
    """What dciodvfy calls an error, without the numbers of items."""
    done = subprocess.run(
        [program("dciodvfy"), str(file)], capture_output=True, encoding="utf-8", errors="replace"
    )
    lines = (done.stdout + done.stderr).splitlines()
    return frozenset(re.sub(r"\d+", "#", line) for line in lines if line.startswith("Error"))


def first_file(source: Path) -> Path:
    return next(file for file in sorted(source.rglob("*")) if file.is_file())


def new_errors(out: Path, source: Path) -> dict[str, frozenset[str]]:
    """The errors of every written file that the source's first file has not."""
    files = sorted(out.iterdir())
    assert files
    program("dciodvfy")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip([file.name for file in files], pool.map(errors_of, files), strict=True))
    before = errors_of(first_file(source))
    return {name: errors - before for name, errors in found.items() if errors - before}


def finer(volume: Volume) -> Volume:
    """A crop with twice the slices, by a cubic B-spline."""
    x, y, z = (size // 2 for size in volume.shape)
    window = (min(x, 24), min(y, 20), min(z, 3))
    start = tuple(centre - half for centre, half in zip((x, y, z), window, strict=True))
    stop = tuple(centre + half for centre, half in zip((x, y, z), window, strict=True))
    part = volume.crop(start, stop)
    geometry = part.geometry.refine((1, 1, 2))
    places = np.indices(geometry.shape, dtype=np.float64)
    places[2] = (places[2] + 0.5) / 2.0 - 0.5
    data = ndimage.map_coordinates(part.data.astype(np.float64), places, order=3, mode="nearest")
    # Unsigned pixels cannot hold the spline's undershoot; saturation has a test of its own.
    data = np.clip(data, part.data.min(), part.data.max())
    return part.replace(data=data.astype(np.float32), geometry=geometry)


def placed(volume: Volume, geometry: Geometry) -> Float64Array:
    """The volume's values at the voxels of another grid, which may differ in order only."""
    grid = np.indices(geometry.shape).reshape(3, -1).T
    places = volume.geometry.world_to_voxel(geometry.voxel_to_world(grid))
    nearest = np.rint(places).astype(int)
    spacing = np.asarray(volume.spacing)
    assert (np.abs(places - nearest) * spacing).max() < 1e-3  # mm
    values = volume.data[tuple(nearest.T)].reshape(geometry.shape)
    return np.asarray(values, dtype=np.float64)


def by_itk(folder: Path) -> tuple[Geometry, Float64Array]:
    files = sorted(folder.iterdir())
    if len(files) == 1:
        image = SimpleITK.ReadImage(str(files[0]))
    else:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
    geometry = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    return geometry, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float64)


def by_dcm2niix(folder: Path, place: Path) -> tuple[Geometry, Float64Array]:
    place.mkdir()
    command = [program("dcm2niix"), "-b", "n", "-z", "n", "-f", "result", "-o", str(place)]
    subprocess.run([*command, str(folder)], capture_output=True, check=True)
    (file,) = place.glob("*.nii")
    image = nibabel.load(file)
    assert isinstance(image, nibabel.Nifti1Image)
    data = np.asarray(image.dataobj, dtype=np.float64)
    assert image.affine is not None
    return Geometry(data.shape, image.affine), data


def judge(volume: Volume, folder: Path, tmp_path: Path, step: float) -> None:
    """Both readers find every value where the volume has it."""
    for geometry, values in (by_itk(folder), by_dcm2niix(folder, tmp_path / "niix")):
        assert sorted(geometry.shape) == sorted(volume.shape)  # dcm2niix turns sagittal stacks
        expected = placed(volume, geometry)
        np.testing.assert_allclose(values, expected, atol=0.51 * step, rtol=2e-6)


def step_of(written: Volume) -> float:
    assert written.source is not None
    return abs(written.source.slope)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "allow"), [*((name, ()) for name in SERIES), *ALLOWED])
def test_validates_and_lies_in_place(
    shared_data: Path, tmp_path: Path, name: str, allow: tuple[str, ...], layout: str
) -> None:
    program("dciodvfy"), program("dcm2niix")
    source = shared_data / "dicom" / name
    volume = finer(load(source, allow=allow))
    out = tmp_path / "out"
    save(volume, out, derivation=DERIVATION, dicom=DicomOptions.of(layout))
    assert len(list(out.iterdir())) == (1 if layout == "enhanced" else volume.shape[2])
    assert new_errors(out, source) == {}
    judge(volume, out, tmp_path, step_of(load(out, allow=["few-slices"])))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "name",
    ["mr_fruit", "ct_chest_2p5mm", "mr_enhanced_multiframe", "small/hitachi", "small/jpeg2000"],
)
def test_validates_and_lies_in_place_without_the_patient(
    shared_data: Path, tmp_path: Path, name: str, layout: str
) -> None:
    program("dciodvfy"), program("dcm2niix")
    source = shared_data / "dicom" / name
    volume = finer(load(source))
    options = DicomOptions.of(layout, deidentify=True)
    out = tmp_path / "out"
    save(volume, out, derivation=DERIVATION, dicom=options)
    assert new_errors(out, source) == {}
    judge(volume, out, tmp_path, step_of(load(out)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_validates_and_lies_in_place_without_duplicates(
    shared_data: Path, tmp_path: Path, layout: str
) -> None:
    program("dciodvfy"), program("dcm2niix")
    source = tmp_path / "mixture"
    shutil.copytree(shared_data / "dicom" / "small" / "ge_implicit", source)
    twin = pydicom.dcmread(first_file(source))
    twin.PixelData = bytes(len(twin.PixelData))
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = "2.25.4711"
    twin.InstanceNumber = 999
    twin.save_as(source / "twin.dcm")
    with pytest.raises(DuplicateSlicesError):
        load(source)
    volume = finer(load(source, allow=["duplicates"]))
    save(volume, tmp_path / "out", derivation=DERIVATION, dicom=DicomOptions.of(layout))
    assert new_errors(tmp_path / "out", source) == {}
    judge(volume, tmp_path / "out", tmp_path, step_of(load(tmp_path / "out")))
    written = (file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert not any(b"2.25.4711" in content for content in written)  # it gave nothing


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"RescaleSlope": "0.5"}, 0.5),
        ({"RescaleSlope": "0.02", "RescaleIntercept": "-1000"}, 0.02),
        ({"RescaleIntercept": "-1023.75"}, 1.0),
        ({"RescaleType": "HU_MOD"}, 1.0),
        ({"RescaleType": "US"}, 1.0),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_validates_and_keeps_steps_and_units(
    shared_data: Path, tmp_path: Path, changes: dict[str, str], step: float, layout: str
) -> None:
    program("dciodvfy"), program("dcm2niix")
    source = tmp_path / "source"
    source.mkdir()
    for file in sorted((shared_data / "dicom" / "ct_chest_2p5mm").iterdir())[:8]:
        dataset = pydicom.dcmread(file)
        dataset.update(changes)
        dataset.save_as(source / file.name)
    volume = finer(load(source))
    save(volume, tmp_path / "out", derivation=DERIVATION, dicom=DicomOptions.of(layout))
    assert new_errors(tmp_path / "out", source) == {}
    assert step_of(load(tmp_path / "out")) == step
    judge(volume, tmp_path / "out", tmp_path, step)


@pytest.mark.parametrize("name", ["mr_fruit", "ct_chest_2p5mm", "ct_chest_jpegls"])
def test_what_can_be_mended_is_mended(shared_data: Path, tmp_path: Path, name: str) -> None:
    """An over-long code, a missing Laterality or PatientPosition, a stray InversionTime."""
    program("dciodvfy")
    source = shared_data / "dicom" / name
    assert errors_of(first_file(source))
    save(finer(load(source)), tmp_path / "out", derivation=DERIVATION)
    assert {errors_of(file) for file in (tmp_path / "out").iterdir()} == {frozenset()}

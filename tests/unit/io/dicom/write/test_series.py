"""A derived series lies where the volume lies, holds its values, and says how it came to be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from medsr import errors
from medsr.geometry import Geometry
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions
from medsr.volume import Derivation, Volume

Make = Callable[..., Path]
DERIVATION = Derivation("mr-z4", "1.2.3", "ab" * 32, "Super-resolution", (1.0, 1.0, 4.0))


def refined(volume: Volume, scale: tuple[int, int, int]) -> Volume:
    """The volume on a finer grid of the same extent, by repeating voxels."""
    data = volume.data
    for axis, factor in enumerate(scale):
        data = np.repeat(data, factor, axis=axis)
    return volume.replace(data=data, geometry=volume.geometry.refine(scale))


def by_itk(folder: Path) -> tuple[Geometry, npt.NDArray[np.float64]]:
    """Grid and values as SimpleITK reads them."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    geometry = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    return geometry, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float64)


def datasets(folder: Path) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


@pytest.mark.parametrize("scale", [(1, 1, 4), (2, 2, 2)])
def test_itk_reads_the_same_grid_and_hu(
    tmp_path: Path, make_series: Make, oblique_axes: npt.NDArray[np.float64], scale: tuple[int, ...]
) -> None:
    volume = refined(load(make_series(tmp_path / "s", directions=oblique_axes)), scale)
    save(volume, tmp_path / "out", derivation=DERIVATION)
    geometry, values = by_itk(tmp_path / "out")
    assert geometry.same_grid(volume.geometry, tol_mm=1e-3)
    assert np.array_equal(values, volume.data)


def test_flipped_and_permuted_grids_lie_in_the_same_place(
    tmp_path: Path, make_series: Make, oblique_axes: npt.NDArray[np.float64]
) -> None:
    source = load(make_series(tmp_path / "s", directions=oblique_axes))
    changed = source.permute((2, 0, 1)).flip((0, 2))
    save(changed, tmp_path / "out")
    again = load(tmp_path / "out")
    corner = changed.geometry.world_to_voxel(again.geometry.voxel_to_world((0, 0, 0)))
    for index in np.ndindex(*again.shape):
        place = changed.geometry.world_to_voxel(again.geometry.voxel_to_world(index))
        nearest = tuple(np.rint(place).astype(int))
        assert np.allclose(place, nearest, atol=1e-3)
        assert again.data[index] == changed.data[nearest]
    assert np.allclose(corner, np.rint(corner), atol=1e-3)


def test_ct_saturates_and_never_wraps(tmp_path: Path, make_series: Make) -> None:
    source = load(make_series(tmp_path / "s"))
    values = np.full(source.shape, 40000.4, np.float32)
    values[0], values[1] = -40000.0, 12.6
    save(source.replace(data=values), tmp_path / "out")
    read = load(tmp_path / "out").data
    assert read.dtype == np.int16
    assert (read[0] == -32768).all()
    assert (read[1] == 13).all()
    assert (read[2:] == 32767).all()
    first = datasets(tmp_path / "out")[0]
    assert (first.SmallestImagePixelValue, first.LargestImagePixelValue) == (-32768, 32767)


def test_unsigned_mr_stays_unsigned(tmp_path: Path, make_series: Make) -> None:
    stored = np.random.default_rng(1).integers(0, 3000, (5, 4, 6)).astype(np.uint16)
    source = load(make_series(tmp_path / "s", stored, modality="MR", rescale=None))
    values = stored.astype(np.float32)
    values[0], values[1] = -7.0, 4097.5
    save(source.replace(data=values), tmp_path / "out")
    read = load(tmp_path / "out").data
    assert read.dtype == np.uint16
    assert (read[0] == 0).all()
    assert (read[1] == 4098).all()
    assert np.array_equal(read[2:], stored[2:])
    assert "RescaleSlope" not in datasets(tmp_path / "out")[0]


def test_scaled_mr_keeps_its_precision(tmp_path: Path, make_series: Make) -> None:
    stored = np.random.default_rng(1).integers(0, 4000, (5, 4, 6)).astype(np.uint16)
    pairs = [(0.37 + 0.1 * k, -12.5) for k in range(6)]
    source = load(make_series(tmp_path / "s", stored, modality="MR", rescale=pairs))
    for factor in (1.0, 50.0):  # the second leaves the range of the source's slope
        values = source.data * np.float32(factor)
        folder = tmp_path / f"out{factor}"
        save(source.replace(data=values), folder)
        pair = {(float(d.RescaleSlope), float(d.RescaleIntercept)) for d in datasets(folder)}
        assert len(pair) == 1
        step = pair.pop()[0]
        np.testing.assert_allclose(load(folder).data, values, atol=0.5001 * step, rtol=1e-6)


def test_what_a_derived_series_says(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.add_new(0x60000010, "US", 7)
        dataset.add_new(0x60003000, "OW", b"\0\0")
        dataset.IconImageSequence = [Dataset()]
        dataset.PixelPaddingValue = -2000
        dataset.AcquisitionTime = f"1200{k:02d}"
        dataset.KVP = 120
        dataset.LossyImageCompression = "01"

    folder = make_series(tmp_path / "s", numbers=[6, 5, 4, 3, 2, 1], edit=edit)
    sources = {d.SOPInstanceUID: d for d in datasets(folder)}
    volume = refined(load(folder), (1, 1, 2))
    save(volume, tmp_path / "out", derivation=DERIVATION)
    images = datasets(tmp_path / "out")
    assert len({d.SOPInstanceUID for d in images}) == 12
    assert len({d.SeriesInstanceUID for d in images}) == 1
    one = images[0]
    old = next(iter(sources.values()))
    assert one.SOPClassUID == CTImageStorage
    assert one.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert list(one.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "KVP"):
        assert one[name].value == old[name].value
    assert one.SeriesInstanceUID != old.SeriesInstanceUID
    assert one.SeriesInstanceUID.startswith("2.25.")
    assert one.SeriesNumber == 1007
    assert one.SeriesDescription == "T1 axial medsr"
    assert float(one.SliceThickness) == float(one.SpacingBetweenSlices) == 1.25
    assert list(one.PixelSpacing) == [0.9, 0.8]
    assert one.WindowWidth == 400
    assert one.LossyImageCompression == "01"
    assert (one.RescaleSlope, one.RescaleIntercept, one.RescaleType) == (1, 0, "HU")
    assert one.PixelPaddingValue == -3024
    for gone in ("SliceLocation", "IconImageSequence", "AcquisitionTime"):
        assert gone not in one
    assert not any(e.tag.is_private or e.tag.group == 0x6000 for e in one.iterall())
    assert "mr-z4" in one.DerivationDescription
    assert one.DerivationCodeSequence[0].CodeValue == "113085"
    equipment = one.ContributingEquipmentSequence[-1]
    assert (equipment.Manufacturer, equipment.SoftwareVersions) == ("medsr", "1.2.3")
    assert "ab" * 32 in equipment.ContributionDescription
    # Numbers rise as z falls, as in the source; each image names the slices it lies between.
    images.sort(key=lambda d: d.InstanceNumber)
    heights = [float(d.ImagePositionPatient[2]) for d in images]
    assert heights == sorted(heights, reverse=True)
    for image in images:
        near = [
            float(sources[item.ReferencedSOPInstanceUID].ImagePositionPatient[2])
            for item in image.SourceImageSequence
        ]
        assert all(abs(z - float(image.ImagePositionPatient[2])) < 2.5 for z in near)


def test_non_ascii_names_survive(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "Müller^Jörg"

    save(load(make_series(tmp_path / "s", edit=edit)), tmp_path / "out")
    assert str(datasets(tmp_path / "out")[0].PatientName) == "Müller^Jörg"


def test_writing_warns_of_no_value(tmp_path: Path, make_series: Make) -> None:
    volume = load(make_series(tmp_path / "s"))
    assert volume.source is not None
    # No character set is named that could hold it: pydicom would warn of the name.
    volume.source.header.attributes.PatientName = "土井^花子"  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(volume, tmp_path / "out")
    assert len(datasets(tmp_path / "out")) == volume.shape[2]


def test_enhanced_source_gives_single_frame_images_where_asked(
    tmp_path: Path, make_enhanced: Make
) -> None:
    stored = np.random.default_rng(2).integers(0, 4000, (6, 5, 7)).astype(np.uint16)
    volume = load(make_enhanced(tmp_path / "e", stored))
    save(volume, tmp_path / "out", dicom=DicomOptions(layout="classic"))
    images = datasets(tmp_path / "out")
    assert {d.SOPClassUID for d in images} == {MRImageStorage}
    assert len(images) == 7
    assert float(images[0].EchoTime) == 12.5
    assert "PerFrameFunctionalGroupsSequence" not in images[0]
    again = load(tmp_path / "out")
    assert again.geometry.same_grid(volume.geometry, tol_mm=1e-3)
    np.testing.assert_allclose(again.data, volume.data, atol=0.5 * float(images[0].RescaleSlope))


def test_number_and_description_can_be_set(tmp_path: Path, make_series: Make) -> None:
    volume = load(make_series(tmp_path / "s"))
    options = DicomOptions(series_description="Thorax sharp", series_number=12)
    save(volume, tmp_path / "out", dicom=options)
    assert {(d.SeriesNumber, d.SeriesDescription) for d in datasets(tmp_path / "out")} == {
        (12, "Thorax sharp")
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "tall"},
        {"series_description": "x" * 65},
        {"series_description": "a\\b"},
        {"series_number": 2**31},
    ],
)
def test_options_that_dicom_cannot_hold(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError):
        DicomOptions(**wrong)


@pytest.mark.parametrize(
    ("source", "number", "description"),
    [
        ((None, None), 1000, "medsr"),
        ((2**31 - 5, "x" * 64), 1000, "x" * 58 + " medsr"),
        ((-3, "T2"), 997, "T2 medsr"),
    ],
)
def test_number_and_description_follow_from_the_source(
    tmp_path: Path,
    make_series: Make,
    source: tuple[int | None, str | None],
    number: int,
    description: str,
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.SeriesNumber, dataset.SeriesDescription = source

    save(load(make_series(tmp_path / "s", edit=edit)), tmp_path / "out")
    one = datasets(tmp_path / "out")[0]
    assert (one.SeriesNumber, one.SeriesDescription) == (number, description)


def test_refuses_what_dicom_cannot_hold(tmp_path: Path, make_series: Make) -> None:
    source = load(make_series(tmp_path / "s"))
    with pytest.raises(errors.OutputFormatError, match="DICOM output needs DICOM input"):
        save(source.replace(source=None), tmp_path / "a")
    sheared = source.geometry.affine.copy()
    sheared[:3, 2] += 0.3 * sheared[:3, 1]
    skew = source.replace(geometry=Geometry(source.shape, sheared))
    with pytest.raises(errors.OutputFormatError, match="orthogonal"):
        save(skew, tmp_path / "b")
    values = source.data.astype(np.float32)
    values[0, 0, 0] = np.nan
    with pytest.raises(errors.NonFiniteError):
        save(source.replace(data=values), tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]

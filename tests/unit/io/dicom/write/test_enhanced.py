"""One multi-frame file lies where the volume lies and says the same as single frames would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from medsr import errors
from medsr.geometry import Geometry
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.write import enhanced as module
from medsr.io.dicom.write.layout import derived_series
from medsr.io.dicom.write.scaling import dicom_scaling
from medsr.io.scaling import range_of, source_of
from medsr.volume import Derivation, Volume

Make = Callable[..., Path]
ENHANCED = DicomOptions(layout="enhanced")
DERIVATION = Derivation("mr-z4", "1.2.3", "ab" * 32, "Super-resolution", (1.0, 1.0, 2.0))


def finer(volume: Volume) -> Volume:
    return volume.replace(
        data=np.repeat(volume.data, 2, axis=2), geometry=volume.geometry.refine((1, 1, 2))
    )


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def by_itk(file: Path) -> tuple[Geometry, npt.NDArray[np.float64]]:
    image = SimpleITK.ReadImage(str(file))
    geometry = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    return geometry, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float64)


def placed(volume: Volume, geometry: Geometry) -> npt.NDArray[np.float64]:
    """The values of ``volume`` at the voxels of another grid that is the same but for its order."""
    grid = np.indices(geometry.shape).reshape(3, -1).T
    places = volume.geometry.world_to_voxel(geometry.voxel_to_world(grid))
    nearest = np.rint(places).astype(int)
    assert np.abs(places - nearest).max() < 1e-3
    return np.asarray(volume.data[tuple(nearest.T)].reshape(geometry.shape), dtype=np.float64)


@pytest.mark.parametrize("numbers", [None, [6, 5, 4, 3, 2, 1]])
def test_itk_finds_a_single_frame_ct_in_place(
    tmp_path: Path,
    make_series: Make,
    oblique_axes: npt.NDArray[np.float64],
    numbers: list[int] | None,
) -> None:
    source = make_series(tmp_path / "s", directions=oblique_axes, numbers=numbers)
    volume = finer(load(source))
    save(volume, tmp_path / "out", derivation=DERIVATION, dicom=ENHANCED)
    file = only_file(tmp_path / "out")
    geometry, values = by_itk(file)
    assert np.allclose(values, placed(volume, geometry))
    one = pydicom.dcmread(file)
    assert one.SOPClassUID == EnhancedCTImageStorage
    assert one.NumberOfFrames == 12
    # Frames run as the source's InstanceNumber does.
    heights = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in one.PerFrameFunctionalGroupsSequence
    ]
    assert heights == sorted(heights, reverse=numbers is not None)
    again = load(tmp_path / "out")
    assert again.modality == "CT"
    assert np.allclose(again.data, placed(volume, again.geometry))


def test_what_the_groups_say(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.EchoTime, dataset.RepetitionTime, dataset.NumberOfAverages = 4.2, 500, 2
        dataset.BodyPartExamined = "BRAIN"

    folder = make_series(tmp_path / "s", modality="MR", edit=edit)
    volume = finer(load(folder))
    save(volume, tmp_path / "out", derivation=DERIVATION, dicom=ENHANCED)
    one = pydicom.dcmread(only_file(tmp_path / "out"))
    assert one.SOPClassUID == EnhancedMRImageStorage
    assert list(one.ImageType) == ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    shared = one.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == float(measures.SpacingBetweenSlices) == 1.25
    assert list(measures.PixelSpacing) == [0.9, 0.8]
    assert shared.MREchoSequence[0].EffectiveEchoTime == 4.2
    assert shared.MRAveragesSequence[0].NumberOfAverages == 2
    assert shared.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert shared.FrameVOILUTSequence[0].WindowWidth == 400
    assert shared.MRImageFrameTypeSequence[0].FrameType == one.ImageType
    sources = {pydicom.dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    for number, frame in enumerate(one.PerFrameFunctionalGroupsSequence, start=1):
        assert list(frame.FrameContentSequence[0].DimensionIndexValues) == [1, number]
        derived = frame.DerivationImageSequence[0]
        assert "mr-z4" in derived.DerivationDescription
        assert {i.ReferencedSOPInstanceUID for i in derived.SourceImageSequence} <= sources
    (series,) = one.SourceImageEvidenceSequence[0].ReferencedSeriesSequence
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence} == sources
    for gone in ("ImagePositionPatient", "PixelSpacing", "SliceThickness", "EchoTime"):
        assert gone not in one


def test_an_enhanced_source_stays_enhanced(tmp_path: Path, make_enhanced: Make) -> None:
    def edit(frame: Dataset, k: int) -> None:
        window = Dataset()
        window.WindowCenter, window.WindowWidth = 100 + k, 50
        frame.FrameVOILUTSequence = [window]

    stored = np.random.default_rng(2).integers(0, 4000, (6, 5, 7)).astype(np.uint16)
    volume = finer(load(make_enhanced(tmp_path / "e", stored, edit=edit)))
    save(volume, tmp_path / "out")
    one = pydicom.dcmread(only_file(tmp_path / "out"))
    assert one.SOPClassUID == EnhancedMRImageStorage
    shared = one.SharedFunctionalGroupsSequence[0]
    assert shared.MREchoSequence[0].EffectiveEchoTime == 12.5  # all frames had it
    assert shared.FrameVOILUTSequence[0].WindowCenter == 103  # the middle frame's
    slope = float(shared.PixelValueTransformationSequence[0].RescaleSlope)
    again = load(tmp_path / "out")
    assert again.geometry.same_grid(volume.geometry, tol_mm=1e-3)
    np.testing.assert_allclose(again.data, volume.data, atol=0.5001 * slope, rtol=1e-6)
    geometry, values = by_itk(only_file(tmp_path / "out"))
    np.testing.assert_allclose(values, placed(volume, geometry), atol=0.5001 * slope, rtol=1e-6)


def test_by_slabs_equals_at_once(tmp_path: Path, make_series: Make) -> None:
    volume = finer(load(make_series(tmp_path / "s", numbers=[6, 5, 4, 3, 2, 1])))
    scaling = dicom_scaling(source_of(volume), range_of(volume.data))
    save(volume, tmp_path / "once", dicom=ENHANCED)
    series = derived_series(volume, tmp_path / "slabs", scaling, None, ENHANCED)
    for start in range(0, 12, 5):
        series.append(scaling.stored(volume.data[:, :, start : start + 5]))
    first, second = (pydicom.dcmread(only_file(tmp_path / n)) for n in ("once", "slabs"))
    assert first.PixelData == second.PixelData


def test_too_large_for_one_file(
    tmp_path: Path, make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    volume = load(make_series(tmp_path / "s"))
    with pytest.raises(errors.OutputFormatError, match="--dicom-layout classic"):
        save(volume, tmp_path / "out", dicom=ENHANCED)
    assert not (tmp_path / "out").exists()

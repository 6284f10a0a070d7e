"""What is not in Hounsfield units is refused; what is keeps its steps; other libraries read it."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale
from pydicom.uid import EnhancedCTImageStorage

from medsr import errors, io
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.read.series import list_dicom
from medsr.io.dicom.write.layout import count_files
from medsr.io.writing import creating

Make = Callable[..., Path]
ENHANCED = DicomOptions(layout="enhanced")


def _of_type(kind: str, only: int | None = None) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        if only is None or k == only:
            dataset.RescaleType = kind

    return edit


def by_itk(folder: Path) -> npt.NDArray[np.float64]:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0).astype(np.float64)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Z_EFF", r"effective atomic numbers \(Z_EFF\)"),
        ("ED", "electron densities"),
        ("MGML", "mg/ml"),
        ("Doe^Jane", "no Hounsfield units, and"),  # what somebody typed is not repeated
    ],
)
@pytest.mark.parametrize("only", [None, 3])
def test_ct_of_other_values_is_refused(
    tmp_path: Path, make_series: Make, kind: str, words: str, only: int | None
) -> None:
    folder = make_series(tmp_path / "s", rescale=(0.01, 0.0), edit=_of_type(kind, only))
    for read in (io.load, io.inspect):
        with pytest.raises(errors.NotHounsfieldError, match=words) as caught:
            read(folder)
        assert "Doe" not in str(caught.value)
        assert "in HU" in str(caught.value)
    (listed,) = list_dicom(folder)
    assert listed.exit_code == errors.NotHounsfieldError.exit_code == 26


@pytest.mark.parametrize(
    ("kind", "written"), [(None, "HU"), ("HU", "HU"), ("HU_MOD", "HU_MOD"), ("US", "US")]
)
def test_the_unit_passes_through(
    tmp_path: Path, make_series: Make, kind: str | None, written: str
) -> None:
    folder = make_series(tmp_path / "s", edit=None if kind is None else _of_type(kind))
    volume = load(folder)
    save(volume, tmp_path / "out")
    assert {pydicom.dcmread(f).RescaleType for f in (tmp_path / "out").iterdir()} == {written}
    assert load(tmp_path / "out").units == "HU"
    save(volume, tmp_path / "frames", dicom=ENHANCED)  # which knows HU alone
    (file,) = (tmp_path / "frames").iterdir()
    shared = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0]
    assert shared.PixelValueTransformationSequence[0].RescaleType == "HU"


def test_an_unspecified_unit_is_told_of(
    tmp_path: Path, make_series: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(make_series(tmp_path / "s", edit=_of_type("US")))
    assert "unspecified" in caplog.text


def test_mr_keeps_its_unit(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", modality="MR", edit=_of_type("10^-6 mm2/s"))
    save(load(folder), tmp_path / "out")
    one = pydicom.dcmread(min((tmp_path / "out").iterdir()))
    assert one.RescaleType == "10^-6 mm2/s"


SCALED = [
    # slope, intercept, stored numbers, step and offset written
    (1.0, -1024.0, (0, 4095), 1.0, 0.0),
    (0.5, -1024.0, (0, 8191), 0.5, 0.0),
    (0.1, -1000.0, (0, 30000), 0.1, 0.0),
    (0.0625, -1024.0, (0, 65535), 0.0625, None),  # int16 holds it off zero only
    (1.0, -1023.75, (0, 4095), 1.0, 0.25),
    (-0.5, 500.0, (0, 3000), 0.5, 0.0),
    (2.0, -1024.0, (0, 4095), 1.0, 0.0),
    (1.0, -1024.0, (0, 65535), 1.0, None),  # beyond what int16 holds around zero
]


@pytest.mark.parametrize("layout", ["classic", "enhanced"])
@pytest.mark.parametrize(("slope", "intercept", "ends", "step", "offset"), SCALED)
def test_every_value_of_the_source_is_written_back(
    tmp_path: Path,
    make_series: Make,
    slope: float,
    intercept: float,
    ends: tuple[int, int],
    step: float,
    offset: float | None,
    layout: str,
) -> None:
    stored = np.random.default_rng(4).integers(*ends, (6, 5, 6), endpoint=True).astype(np.uint16)
    stored[0, 0, :2] = ends
    folder = make_series(tmp_path / "s", stored, rescale=(slope, intercept))
    volume = load(folder)
    save(volume, tmp_path / "out", dicom=DicomOptions.of(layout))
    one = pydicom.dcmread(min((tmp_path / "out").iterdir()))
    if layout == "enhanced":
        shared = one.SharedFunctionalGroupsSequence[0]
        one = shared.PixelValueTransformationSequence[0]
    assert float(one.RescaleSlope) == step
    if offset is not None:
        assert float(one.RescaleIntercept) == offset
    truth = stored * slope + intercept
    np.testing.assert_allclose(load(tmp_path / "out").data, truth, atol=1e-3)
    if layout == "classic":
        np.testing.assert_allclose(by_itk(tmp_path / "out"), truth, atol=1e-3)


def test_finer_than_16_bits_gets_the_finest_steps_that_fit(
    tmp_path: Path, make_series: Make
) -> None:
    stored = np.random.default_rng(4).integers(0, 65535, (6, 5, 6), endpoint=True)
    pairs = [(0.01 if k else 0.1, -1024.0) for k in range(6)]  # steps of 0.01 over 6500 HU
    folder = make_series(tmp_path / "s", stored.astype(np.uint16), rescale=pairs)
    volume = load(folder)
    save(volume, tmp_path / "out")
    slope = float(pydicom.dcmread(min((tmp_path / "out").iterdir())).RescaleSlope)
    reach = float(volume.data.max()) - float(volume.data.min())
    assert reach / 65535 <= slope < 1.001 * reach / 65535
    np.testing.assert_allclose(
        by_itk(tmp_path / "out"), volume.data.astype(np.float64), atol=0.51 * slope
    )


def test_computed_values_lie_within_half_a_step(tmp_path: Path, make_series: Make) -> None:
    stored = np.random.default_rng(5).integers(0, 8191, (6, 5, 6)).astype(np.uint16)
    volume = load(make_series(tmp_path / "s", stored, rescale=(0.5, -1024.0)))
    values = volume.data + np.random.default_rng(6).normal(0, 3, volume.shape).astype(np.float32)
    save(volume.replace(data=values), tmp_path / "out")
    apart = np.abs(by_itk(tmp_path / "out") - values)
    assert 0.2 < apart.max() <= 0.2501


def test_by_slabs_is_scaled_alike(tmp_path: Path, make_series: Make) -> None:
    stored = np.random.default_rng(4).integers(0, 65535, (6, 5, 6)).astype(np.uint16)
    volume = load(make_series(tmp_path / "s", stored, rescale=(0.0625, -1024.0)))
    with creating(volume, tmp_path / "slabs") as writer:
        for start in range(0, 6, 4):
            writer.append(volume.data[:, :, start : start + 4])
        writer.finish()
    assert np.array_equal(load(tmp_path / "slabs").data, volume.data)


def _inverted(dataset: Dataset, k: int) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PresentationLUTShape = "INVERSE"


def _contradictory(dataset: Dataset, k: int) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PresentationLUTShape = "IDENTITY"


def test_the_numbers_of_what_is_shown_inverted_stay(tmp_path: Path, make_series: Make) -> None:
    volume = load(make_series(tmp_path / "s", edit=_inverted))
    plain = load(make_series(tmp_path / "p"))
    assert np.array_equal(volume.data, plain.data)
    save(volume, tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        one = pydicom.dcmread(file)
        assert (one.PhotometricInterpretation, one.PresentationLUTShape) == (
            "MONOCHROME1",
            "INVERSE",
        )
        k = one.InstanceNumber - 1
        assert np.array_equal(apply_rescale(one.pixel_array, one).T, plain.data[:, :, k])


@pytest.mark.skipif(shutil.which("dcmj2pnm") is None, reason="needs dcmtk")
@pytest.mark.parametrize(("edit", "bright"), [(_inverted, "low"), (_contradictory, "high")])
def test_dcmtk_shows_the_result_as_it_shows_the_source(
    tmp_path: Path, make_series: Make, edit: Callable[[Dataset, int], None], bright: str
) -> None:
    ramp = np.arange(1000, 1000 + 9 * 7 * 6).reshape(9, 7, 6, order="F").astype(np.int16)
    folder = make_series(tmp_path / "s", ramp, edit=edit)
    save(load(folder), tmp_path / "out")
    shown = []
    for file in (folder / "slice003.dcm", tmp_path / "out" / "IM00003.dcm"):
        run = ["dcmj2pnm", "--write-raw-pnm", "--set-window", "170", "400", str(file)]
        done = subprocess.run(run, check=True, capture_output=True)
        shown.append(_pixels(done.stdout))
    assert shown[0].shape == (7, 9)
    assert np.array_equal(*shown)
    assert (shown[0][0, 0] > shown[0][-1, -1]) == (bright == "low")


def _pixels(pgm: bytes) -> npt.NDArray[np.int64]:
    """The pixels of a raw PGM of 8 bits, (rows, columns)."""
    head, rest = pgm.split(b"\n255\n", 1)
    columns, rows = map(int, head.split()[-2:])
    return np.frombuffer(rest, np.uint8, columns * rows).reshape(rows, columns).astype(np.int64)


def test_multi_frame_objects_cannot_be_shown_inverted(tmp_path: Path, make_series: Make) -> None:
    volume = load(make_series(tmp_path / "s", edit=_inverted))
    with pytest.raises(errors.OutputFormatError, match=r"MONOCHROME1.*--dicom-layout classic"):
        io.check_writable(volume, tmp_path / "out", dicom=ENHANCED)
    with pytest.raises(errors.OutputFormatError, match="MONOCHROME1"):
        io.save(volume, tmp_path / "out", dicom=ENHANCED)
    with pytest.raises(errors.OutputFormatError, match="MONOCHROME1"):
        count_files(volume, 6, ENHANCED)
    assert not (tmp_path / "out").exists()


def test_an_enhanced_source_that_is_shown_inverted_gives_single_frames(
    tmp_path: Path, make_series: Make
) -> None:
    volume = load(make_series(tmp_path / "s"))
    save(volume, tmp_path / "frames", dicom=ENHANCED)
    (file,) = (tmp_path / "frames").iterdir()
    one = pydicom.dcmread(file)
    assert one.SOPClassUID == EnhancedCTImageStorage
    assert (one.PhotometricInterpretation, one.PresentationLUTShape) == ("MONOCHROME2", "IDENTITY")
    one.PhotometricInterpretation = "MONOCHROME1"  # breaks the rules, and is met
    one.save_as(file)
    again = load(tmp_path / "frames")
    assert count_files(again, 6) == 6
    save(again, tmp_path / "out")
    assert {pydicom.dcmread(f).PhotometricInterpretation for f in (tmp_path / "out").iterdir()} == {
        "MONOCHROME1"
    }


def _map_of(
    word: str = "", *, kind: str | None = None, units: str = ""
) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        if word:
            dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL", word]
        if kind is not None:
            dataset.RescaleType = kind
        if units:
            code, mapping = Dataset(), Dataset()
            code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = units, "UCUM", units
            mapping.MeasurementUnitsCodeSequence = [code]
            mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 1.0, 0.0
            dataset.RealWorldValueMappingSequence = [mapping]

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_map_of("CBF"), r"blood flow \(CBF\)"),
        (_map_of("RCBV", kind="US"), r"blood volume \(RCBV\)"),
        (_map_of("TMAX", kind="HU"), "time to maximum"),
        (_map_of("MTT"), "mean transit time"),
        (_map_of(units="ml/(100.g.min)"), "other units"),
        (_map_of("PERFUSION", kind="US"), r"\(US\) in a computed map"),
        (_map_of("STD_DEVIATION", kind="US"), r"\(US\) in a computed map"),
    ],
)
def test_maps_computed_of_ct_are_refused_whatever_their_rescale_says(
    tmp_path: Path, make_series: Make, edit: Callable[[Dataset, int], None], words: str
) -> None:
    folder = make_series(tmp_path / "s", edit=edit)
    for read in (io.load, io.inspect):
        with pytest.raises(errors.NotHounsfieldError, match=words):
            read(folder)


@pytest.mark.parametrize(
    ("edit", "dtype", "rescale"),
    [
        (_map_of("PERFUSION"), "int16", (1.0, -1024.0)),  # the dynamic images, not a map of them
        (_map_of("STD_DEVIATION"), "int16", (1.0, -1024.0)),
        (_map_of("AVERAGE", kind="US"), "uint16", (1.0, -1024.0)),  # kept by a converter
        (_map_of(kind="US"), "int16", (1.0, 0.0)),  # stored as Hounsfield units
        (_map_of(units="[hnsf'U]"), "uint16", (1.0, -1024.0)),
        (_map_of(units="1"), "uint16", (1.0, -1024.0)),
        (_map_of(kind="HU"), "uint16", (1.0, 0.0)),  # its word is taken
    ],
)
def test_ct_that_may_be_in_hounsfield_units_is_read(
    tmp_path: Path,
    make_series: Make,
    edit: Callable[[Dataset, int], None],
    dtype: str,
    rescale: tuple[float, float],
) -> None:
    stored = np.random.default_rng(1).integers(0, 2000, (9, 7, 6)).astype(dtype)
    folder = make_series(tmp_path / "s", stored, rescale=rescale, edit=edit)
    assert io.load(folder).units == "HU"
    assert np.array_equal(io.load(folder).data, by_itk(folder))


def test_unspecified_values_that_are_never_below_water_are_refused(
    tmp_path: Path, make_series: Make
) -> None:
    stored = np.random.default_rng(1).integers(0, 2000, (9, 7, 6)).astype(np.uint16)
    folder = make_series(tmp_path / "s", stored, rescale=(0.1, 0.0), edit=_map_of(kind="US"))
    with pytest.raises(errors.NotHounsfieldError, match="never below 0"):
        io.load(folder)


@pytest.mark.parametrize("place", ["ImageType", "FrameType"])
def test_an_enhanced_map_of_perfusion_is_refused(
    tmp_path: Path, make_series: Make, place: str
) -> None:
    save(load(make_series(tmp_path / "s")), tmp_path / "frames", dicom=ENHANCED)
    (file,) = (tmp_path / "frames").iterdir()
    one, words = pydicom.dcmread(file), ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]
    shared = one.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence[0].RescaleType = "US"
    one.save_as(file)
    assert io.load(file).units == "HU"
    if place == "ImageType":
        one.ImageType = words
    else:
        item = Dataset()
        item.FrameType = words
        shared.CTImageFrameTypeSequence = [item]
        for frame in one.PerFrameFunctionalGroupsSequence:
            frame.pop("CTImageFrameTypeSequence", None)
    one.save_as(file)
    with pytest.raises(errors.NotHounsfieldError, match=r"blood flow \(RCBF\)"):
        io.load(file)

"""DICOM series are read as ITK reads them; what is refused is in ``test_refusals``."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, RLELossless

from medsr import errors
from medsr.io import load
from medsr.io.dicom.read import decode as dicom_decode
from medsr.io.dicom.read.files import is_dicom
from medsr.io.dicom.read.series import inspect_dicom
from medsr.volume import Volume

Make = Callable[..., Path]
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def itk_series(folder: Path) -> SimpleITK.Image:
    """The oracle: GDCM's order and geometry, through SimpleITK."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_same_as_itk(volume: Volume, image: SimpleITK.Image, *, atol: float = 0.0) -> None:
    """Same value at the same world point for the corners and some inner voxels."""
    rng = np.random.default_rng(0)
    last = np.array(volume.shape) - 1
    indices = [np.zeros(3, int), last, *rng.integers(0, last + 1, size=(40, 3))]
    assert image.GetSize() == volume.shape
    for index in indices:
        world = volume.geometry.voxel_to_world(index) * LPS_TO_RAS
        place = image.TransformPhysicalPointToContinuousIndex(world)
        nearest = [round(p) for p in place]
        assert np.allclose(place, nearest, atol=1e-3)
        assert abs(image[nearest] - float(volume.data[tuple(index)])) <= atol


@pytest.mark.parametrize("turned", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("backwards", [False, True], ids=["rising", "falling"])
def test_agrees_with_itk(
    tmp_path: Path,
    make_series: Make,
    oblique_axes: npt.NDArray[np.float64],
    turned: bool,
    backwards: bool,
) -> None:
    axes = oblique_axes if turned else np.eye(3)
    if backwards:  # slices advance against row x column, as in feet-first series
        axes = axes * [1.0, 1.0, -1.0]
    folder = make_series(tmp_path / "s", directions=axes, numbers=[4, 2, 6, 1, 5, 3])
    volume = load(folder)
    assert volume.data.dtype == np.int16
    assert volume.modality == "CT"
    assert volume.units == "HU"
    assert volume.spacing == pytest.approx((0.8, 0.9, 2.5), abs=1e-6)
    assert_same_as_itk(volume, itk_series(folder))


def test_unsigned_and_signed_values(tmp_path: Path, make_series: Make) -> None:
    values = np.arange(4 * 3 * 5).reshape(4, 3, 5)
    unsigned = make_series(tmp_path / "u", (values + 60000).astype(np.uint16))
    signed = make_series(tmp_path / "i", (values - 1500).astype(np.int16))
    assert load(unsigned, allow=["few-slices"]).data.max() == 60059 - 1024
    assert_same_as_itk(load(unsigned, allow=["few-slices"]), itk_series(unsigned))
    assert load(signed, allow=["few-slices"]).data.min() == -2524
    assert_same_as_itk(load(signed, allow=["few-slices"]), itk_series(signed))


def test_unused_bits_are_cleared_and_the_sign_extended(tmp_path: Path, make_series: Make) -> None:
    true = np.arange(-30, 30).reshape(4, 3, 5).astype(np.int16)
    dirty = (true & 0x0FFF) | 0x5000  # 12 bits stored, an overlay above
    folder = make_series(tmp_path / "s", dirty.astype(np.int16), bits_stored=12)
    assert np.array_equal(load(folder, allow=["few-slices"]).data, true.astype(int) - 1024)


def test_rescale_per_slice(tmp_path: Path, make_series: Make) -> None:
    stored = np.random.default_rng(1).integers(0, 3000, (5, 4, 6)).astype(np.uint16)
    pairs = [(0.5 + 0.25 * k, -100.0 + k) for k in range(6)]
    volume = load(make_series(tmp_path / "s", stored, modality="MR", rescale=pairs))
    slopes, intercepts = np.array(pairs).T
    assert volume.data.dtype == np.float32
    assert volume.units == "arbitrary"
    np.testing.assert_allclose(volume.data, stored * slopes + intercepts, rtol=1e-6)


def test_mr_without_rescale_keeps_its_type(tmp_path: Path, make_series: Make) -> None:
    stored = np.random.default_rng(1).integers(0, 3000, (5, 4, 6)).astype(np.uint16)
    volume = load(make_series(tmp_path / "s", stored, modality="MR", rescale=None))
    assert volume.data.dtype == np.uint16
    assert np.array_equal(volume.data, stored)


def test_nested_folders_names_without_suffix_and_strays(tmp_path: Path, make_series: Make) -> None:
    even, odd = ([k for k in range(6) if k % 2 == part] for part in (0, 1))
    whole = make_series(tmp_path / "whole", suffix="")
    for name, part in (("a/b", even), ("c", odd)):
        target = tmp_path / "split" / name
        target.mkdir(parents=True)
        for k in part:
            shutil.copy(whole / f"slice{k + 1:03d}", target / f"IM{k}")
    (tmp_path / "split" / "readme.txt").write_text("no image")
    (tmp_path / "split" / "empty").touch()
    volume = load(tmp_path / "split")
    assert np.array_equal(volume.data, load(whole).data)
    assert volume.source is not None
    assert "skipped 2 file(s) that are not DICOM" in volume.source.notes


def test_one_file_stands_for_its_series(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", series="1.2.3")
    make_series(folder, series="1.2.4", prefix="other")
    volume = load(folder / "slice003.dcm")
    assert volume.shape == (9, 7, 6)
    assert is_dicom(folder)
    assert is_dicom(folder / "slice003.dcm")
    (tmp_path / "note").write_text("x")
    assert not is_dicom(tmp_path / "note")


def test_several_series_are_listed_and_one_is_picked(
    tmp_path: Path, make_series: Make, identifiers: tuple[str, ...]
) -> None:
    folder = make_series(tmp_path / "s", series="1.2.3")
    make_series(folder, np.ones((5, 5, 8), np.int16), series="1.2.4", prefix="b", modality="MR")
    with pytest.raises(errors.SeveralSeriesError) as caught:
        load(folder)
    assert "1.2.3: CT, 6 slices of 9x7" in str(caught.value)
    assert "1.2.4: MR, 8 slices of 5x5" in str(caught.value)
    assert not any(word in str(caught.value) for word in (*identifiers, "T1 axial"))
    assert load(folder, series="1.2.4").shape == (5, 5, 8)
    with pytest.raises(errors.SeveralSeriesError, match=r"no series 9\.9"):
        load(folder, series="9.9")


def test_echoes_of_one_series_are_volumes_of_their_own(tmp_path: Path, make_series: Make) -> None:
    def echo(number: int) -> Callable[[Dataset, int], None]:
        def edit(dataset: Dataset, k: int) -> None:
            dataset.EchoNumbers, dataset.EchoTime = number, 10.0 * number

        return edit

    first = np.full((4, 4, 5), 100, np.int16)
    folder = make_series(tmp_path / "s", first, modality="MR", rescale=None, edit=echo(1))
    make_series(folder, first * 2, modality="MR", rescale=None, edit=echo(2), prefix="b")
    with pytest.raises(errors.SeveralSeriesError, match="EchoNumbers 2"):
        load(folder)
    volumes = [load(folder, series=f"1.2.826.0.1.3:{number}") for number in (1, 2)]
    assert sorted(int(volume.data.min()) for volume in volumes) == [100, 200]
    assert all(np.ptp(volume.data) == 0 for volume in volumes)


def test_enhanced_multi_frame(tmp_path: Path, make_enhanced: Make) -> None:
    stored = np.random.default_rng(2).integers(0, 4000, (6, 5, 7)).astype(np.uint16)
    volume = load(make_enhanced(tmp_path / "e", stored))
    np.testing.assert_allclose(volume.data, stored * (2.0 + np.arange(7)) + 5.0, rtol=1e-6)
    assert volume.spacing == pytest.approx((0.8, 0.9, 3.0), abs=1e-6)
    np.testing.assert_allclose(volume.geometry.origin, [-10.0, 20.0, 30.0], atol=1e-6)


def test_rle_is_decoded(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    plain = load(folder).data
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(file)
    assert np.array_equal(load(folder).data, plain)


def test_a_missing_decoder_is_named(
    tmp_path: Path, make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PixelData = encapsulate([bytes(dataset.PixelData)])

    folder = make_series(tmp_path / "s", edit=edit)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(file)

    class Absent:
        available_plugins = ()

    monkeypatch.setattr(dicom_decode, "get_decoder", lambda syntax: Absent())
    with pytest.raises(errors.MissingDecoderError, match=r"pyjpegls.*medsr\[dicom\]"):
        load(folder)


def test_identical_copies_are_dropped_with_a_notice(
    tmp_path: Path, make_series: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_series(tmp_path / "s")
    plain = load(folder)
    shutil.copy(folder / "slice002.dcm", folder / "copy.dcm")
    with caplog.at_level(logging.WARNING):
        volume = load(folder)
    assert np.array_equal(volume.data, plain.data)
    assert "dropped 1 slice(s)" in caplog.text


def test_padding_is_noted_and_kept(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue = -2000

    stored = np.full((5, 4, 6), -2000, np.int16)
    volume = load(make_series(tmp_path / "s", stored, edit=edit))
    assert (volume.data == -3024).all()
    assert volume.source is not None
    assert any("-3024" in note for note in volume.source.notes)


def test_inspection_reads_no_pixels(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        del dataset.PixelData

    found = inspect_dicom(make_series(tmp_path / "s", edit=edit))
    assert (found.format, found.modality, found.shape) == ("dicom", "CT", (9, 7, 6))
    assert found.dtype == "int16"
    assert found.slice_axis == 2
    short = inspect_dicom(make_series(tmp_path / "t", np.zeros((5, 5, 2), np.int16)))
    assert any("too thin" in warning for warning in short.warnings)
    with pytest.raises(errors.TooFewSlicesError) as refusal:
        load(tmp_path / "t")
    assert any(f"exit code {refusal.value.exit_code}" in warning for warning in short.warnings)


def test_messages_and_logs_name_no_patient(
    tmp_path: Path,
    make_series: Make,
    identifiers: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.add_new(0x00100020, "LO", "PID-4711" * 12)  # too long: pydicom would quote it
        dataset.PatientBirthDate = "19510203"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = make_series(tmp_path / "s", edit=edit)
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        volume = load(folder)
    said = caplog.text + "".join(str(warning.message) for warning in caught)
    said += repr(volume.source).replace(str(tmp_path), "")
    assert volume.shape == (9, 7, 6)
    assert not any(word in said for word in identifiers)

"""Each kind of stack that is no regular volume has its own refusal; small faults have none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage

from medsr import errors
from medsr.io import load

Make = Callable[..., Path]


def _set(**values: Any) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        for name, value in values.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)

    return edit


def _shift_z(shifts: dict[int, float]) -> Callable[[Dataset, int], None]:
    def edit(dataset: Dataset, k: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + shifts.get(k, 0.0)]

    return edit


def _sheared(dataset: Dataset, k: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, float(y) + 2.5 * k * np.tan(np.radians(15.0)), z]


def _one_turned(dataset: Dataset, k: int) -> None:
    if k == 0:
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def _jumping(dataset: Dataset, k: int) -> None:
    if k == 2:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [float(x) + 3.0, y, z]


def _rgb(dataset: Dataset, k: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.PlanarConfiguration = 0


def _cut(dataset: Dataset, k: int) -> None:
    if k == 3:
        dataset.PixelData = dataset.PixelData[:40]


REFUSALS = {
    "no position": (
        _set(ImagePositionPatient=None),
        errors.MissingGeometryError,
        "ImagePositionPatient",
    ),
    "no orientation": (
        _set(ImageOrientationPatient=None),
        errors.MissingGeometryError,
        "ImageOrientationPatient",
    ),
    "no spacing": (_set(PixelSpacing=None), errors.MissingGeometryError, "PixelSpacing"),
    "zero spacing": (_set(PixelSpacing=[0, 1]), errors.MissingGeometryError, "PixelSpacing"),
    "skewed": (
        _set(ImageOrientationPatient=[1, 0, 0, 0.0871557, 0.9961947, 0]),
        errors.NotOrthogonalError,
        "85.00 degrees",
    ),
    "cosines not unit": (
        _set(ImageOrientationPatient=[1, 0, 0, 0, 1.1, 0]),
        errors.NotOrthogonalError,
        "lengths",
    ),
    "mixed orientation": (_one_turned, errors.OrientationError, "1 \\+ 5 slices"),
    "uneven": (
        _shift_z({2: 0.6}),
        errors.SliceSpacingError,
        "3.10 mm from image 2 to image 3 .*1.90 mm from image 3 to image 4",
    ),
    "just uneven": (_shift_z({5: 0.027}), errors.SliceSpacingError, "unevenly"),
    "missing slice": (
        _shift_z({3: 2.5, 4: 2.5, 5: 2.5}),
        errors.MissingSlicesError,
        "1 slice\\(s\\) missing.*image 3 to image 4",
    ),
    "gantry tilt": (_sheared, errors.GantryTiltError, "15.0 degrees"),
    "jump sideways": (_jumping, errors.GeometryError, "image 3 lies"),
    "one place": (
        _set(ImagePositionPatient=[0, 0, 0]),
        errors.DuplicateSlicesError,
        r"one position.*not a mixture$",  # taking the first of each place would not help
    ),
    "localizer": (
        _set(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        errors.LocalizerError,
        "localizer",
    ),
    "colour": (_rgb, errors.ColourError, "colour"),
    "mosaic": (
        _set(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]),
        errors.MosaicError,
        "mosaic",
    ),
    "mosaic of United Imaging": (
        _set(ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"], ImagePositionPatient=None),
        errors.MosaicError,
        "mosaic",
    ),
    "no series": (
        _set(SeriesInstanceUID=None, StudyInstanceUID=None, FrameOfReferenceUID=None),
        errors.CorruptFileError,
        "file 1 in the order of names: SeriesInstanceUID is missing",
    ),
    "not an image of CT or MR": (
        _set(SOPClassUID=SecondaryCaptureImageStorage),
        errors.NotAnImageError,
        "6 x Secondary Capture",
    ),
    "truncated pixels": (_cut, errors.TruncatedPixelsError, "image 4.*truncated"),
    "no pixels": (_set(PixelData=None), errors.TruncatedPixelsError, "no pixel data"),
    "bits beyond the word": (_set(HighBit=11), errors.CorruptFileError, "image 1: 16 bits stored"),
    "no matrix": (_set(Rows=None), errors.CorruptFileError, "Rows"),
    "CT without rescale": (_set(RescaleSlope=None), errors.CorruptFileError, "Hounsfield"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(
    tmp_path: Path, make_series: Make, identifiers: tuple[str, ...], name: str
) -> None:
    edit, error, words = REFUSALS[name]
    folder = make_series(tmp_path / "s", edit=edit)
    with pytest.raises(errors.MedsrError, match=words) as caught:
        load(folder)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert not any(word in str(caught.value) for word in identifiers)


def test_refuses_too_few_slices_and_empty_folders(tmp_path: Path, make_series: Make) -> None:
    with pytest.raises(errors.TooFewSlicesError, match="3 slice"):
        load(make_series(tmp_path / "s", np.zeros((5, 5, 3), np.int16)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UnsupportedFormatError):
        load(tmp_path / "empty")
    with pytest.raises(errors.InputNotFoundError):
        load(tmp_path / "nothing")


def test_an_enhanced_file_without_functional_groups_is_refused(
    tmp_path: Path, make_enhanced: Make
) -> None:
    folder = make_enhanced(tmp_path / "e", np.zeros((6, 5, 7), np.uint16))
    dataset = pydicom.dcmread(folder / "enhanced")
    del dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(folder / "enhanced")
    with pytest.raises(errors.MissingGeometryError, match=r"7 frame.*nothing says where they lie"):
        load(folder)


def test_refuses_conflicting_duplicates(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    dataset = pydicom.dcmread(folder / "slice002.dcm")
    pixels = bytearray(dataset.PixelData)
    pixels[0] ^= 1
    dataset.PixelData = bytes(pixels)
    dataset.save_as(folder / "copy.dcm")
    with pytest.raises(errors.DuplicateSlicesError, match="differ in their pixels"):
        load(folder)


def test_encoded_pixels_that_are_cut_short_are_told(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    for file in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file)
    file = folder / "slice003.dcm"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(errors.TruncatedPixelsError, match=r"image 3: .*no pixel data, or they"):
        load(folder)


def test_rounded_positions_and_cosines_are_no_fault(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.ImagePositionPatient = [round(float(v), 2) for v in dataset.ImagePositionPatient]
        cosines = [round(float(v), 4) for v in dataset.ImageOrientationPatient]
        dataset.ImageOrientationPatient = cosines

    folder = make_series(tmp_path / "s", spacing=(0.8, 0.9, 0.333), edit=edit)
    assert load(folder).spacing[2] == pytest.approx(0.333, abs=0.003)


def test_a_localizer_beside_a_volume_is_passed_over(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    scout = _set(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    make_series(folder, np.zeros((5, 5, 4), np.int16), series="1.9", prefix="scout", edit=scout)
    volume = load(folder)
    assert volume.shape == (9, 7, 6)
    assert volume.source is not None
    assert any("localizer" in note for note in volume.source.notes)


def test_damaged_files_never_show_a_traceback(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", suffix="")
    victim = folder / "slice001"
    whole = victim.read_bytes()
    rng = np.random.default_rng(5)
    outcomes = set()
    for trial in range(60):
        damaged = bytearray(whole)
        if trial % 2:
            damaged = damaged[: int(rng.integers(len(whole)))]
        else:
            for place in rng.integers(132, len(whole), size=8):
                damaged[place] = int(rng.integers(256))
        victim.write_bytes(bytes(damaged))
        try:
            outcomes.add(load(folder).shape[2])
        except errors.MedsrError as error:
            outcomes.add(type(error))
    assert errors.CorruptFileError in outcomes
    assert errors.TruncatedPixelsError in outcomes

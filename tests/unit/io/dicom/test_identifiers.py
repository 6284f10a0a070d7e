"""Identifiers that images lack are taken from what else they say, or named; nothing is mixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsr import errors, io
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions

Make = Callable[..., Path]
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID")


def _strip(folder: Path, *names: str) -> Path:
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        for name in names:
            delattr(dataset, name)
        dataset.save_as(file)
    return folder


@pytest.mark.parametrize("layout", ["classic", "enhanced"])
@pytest.mark.parametrize("anonymous", [False, True])
def test_a_series_without_any_of_them_is_read_and_written(
    tmp_path: Path, make_series: Make, layout: str, anonymous: bool
) -> None:
    plain = io.load(make_series(tmp_path / "plain"))
    folder = _strip(make_series(tmp_path / "s"), *UIDS)
    for source in (folder, folder / "slice003.dcm"):
        volume = io.load(source)
        assert np.array_equal(volume.data, plain.data)
        assert volume.geometry.same_grid(plain.geometry)
        assert volume.source is not None
        assert (
            "6 file(s) lack SOPClassUID, SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID; "
            "taken from what else they say"
        ) in volume.source.notes
    options = DicomOptions.of(layout, None, None, anonymous)
    io.save(volume, tmp_path / "out", dicom=options)
    assert np.array_equal(io.load(tmp_path / "out").data, plain.data)
    for file in (tmp_path / "out").iterdir():
        written = pydicom.dcmread(file)
        assert all(written.get(name) for name in UIDS[:4])


@pytest.mark.parametrize(
    ("name", "value"),
    [("SeriesNumber", 8), ("FrameOfReferenceUID", "1.2.9"), ("StudyInstanceUID", "1.2.9")],
)
def test_two_series_without_them_stay_apart(
    tmp_path: Path, make_series: Make, name: str, value: object
) -> None:
    def edit(dataset: pydicom.Dataset, k: int) -> None:
        setattr(dataset, name, value)

    study = make_series(tmp_path / "study")
    make_series(study, prefix="other", origin=(0.0, 0.0, 41.0), edit=edit)
    _strip(study, "SeriesInstanceUID")
    with pytest.raises(errors.SeveralSeriesError):
        io.load(study)
    first, second = io.list_volumes(study)
    assert first.shape == second.shape == (9, 7, 6)
    assert first.series != second.series
    assert io.load(study, series=first.series).shape == (9, 7, 6)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("in_meta", [True, False])
def test_the_modality_stands_in_for_the_sop_class(
    tmp_path: Path, make_series: Make, modality: str, in_meta: bool
) -> None:
    folder = make_series(tmp_path / "s", modality=modality)
    plain = load(folder)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.SOPClassUID, dataset.PatientID
        if not in_meta:
            del dataset.file_meta.MediaStorageSOPClassUID
        dataset.save_as(file)
    volume = load(folder)
    assert np.array_equal(volume.data, plain.data)
    assert (volume.modality, volume.units) == (plain.modality, plain.units)
    assert volume.geometry.same_grid(plain.geometry)
    assert volume.source is not None
    assert any("6 file(s) lack SOPClassUID" in note for note in volume.source.notes)
    save(volume, tmp_path / "out")
    assert np.array_equal(load(tmp_path / "out").data, plain.data)


def test_what_says_nothing_of_itself_is_refused(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        del dataset.SOPClassUID, dataset.Modality, dataset.file_meta.MediaStorageSOPClassUID
        dataset.save_as(file)
    with pytest.raises(errors.CorruptFileError, match=r"file 1 .*SOPClassUID is missing.*Modality"):
        load(folder)


def test_a_missing_instance_is_named(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    dataset = pydicom.dcmread(folder / "slice002.dcm")
    del dataset.SOPInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.save_as(folder / "slice002.dcm")
    with pytest.raises(errors.CorruptFileError, match="SOPInstanceUID is missing"):
        load(folder)

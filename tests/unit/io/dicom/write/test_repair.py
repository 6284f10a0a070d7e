"""What a source has wrong and a writer can repair is repaired, and told without its value."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from medsr.io import load, save
from medsr.io.dicom.write.repair import repair_modules, repair_values

Make = Callable[..., Path]
IGNORE = pydicom.config.IGNORE


def raw(keyword: str, vr: str, value: object) -> DataElement:
    return DataElement(pydicom.tag.Tag(keyword), vr, value, validation_mode=IGNORE)


def test_long_codes_move() -> None:
    dataset, item = Dataset(), Dataset()
    item.add(raw("CodeValue", "SH", "replace_recognizable"))
    dataset.ProcedureCodeSequence = [item]
    (note,) = repair_values(dataset)
    assert "CodeValue" not in item
    assert item.LongCodeValue == "replace_recognizable"
    assert "ProcedureCodeSequence.CodeValue" in note
    assert "replace" not in note


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "after"),
    [
        ("PatientAge", "AS", "0Y", "000Y"),
        ("PatientAge", "AS", "old", None),
        ("StationName", "SH", "x" * 20, "x" * 16),
        ("SeriesDescription", "LO", "y" * 70, "y" * 64),
        ("PatientSex", "CS", "female?", None),
        ("StudyDate", "DA", "2020-01-01", None),
        ("PatientID", "LO", "kept", "kept"),
    ],
)
def test_values(keyword: str, vr: str, value: str, after: str | None) -> None:
    dataset = Dataset()
    dataset.add(raw(keyword, vr, value))
    notes = repair_values(dataset)
    assert dataset.get(keyword) == after
    assert len(notes) == (value != after)
    assert not any(value in note for note in notes)


def test_what_the_class_demands_and_forbids() -> None:
    dataset = Dataset()
    dataset.InversionTime, dataset.ScanningSequence = 400, "GR"
    assert len(repair_modules(dataset, "MR")) == 3
    assert "Laterality" in dataset
    assert "PatientPosition" in dataset
    assert "InversionTime" not in dataset
    sound = Dataset()
    sound.BodyPartExamined, sound.PatientPosition = "CHEST", "HFS"
    sound.InversionTime, sound.ScanningSequence = 400, ["GR", "IR"]
    assert repair_modules(sound, "MR") == ()
    assert "Laterality" not in sound


def test_written_series_are_repaired_and_the_source_is_not(
    tmp_path: Path, make_series: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        item = Dataset()
        item.add(raw("CodeValue", "SH", "a-very-long-secret-code"))
        dataset.ProcedureCodeSequence = [item]

    volume = load(make_series(tmp_path / "s", edit=edit))
    with caplog.at_level(logging.INFO, "medsr"):
        save(volume, tmp_path / "a")
    save(volume, tmp_path / "b")
    for folder in ("a", "b"):
        one = pydicom.dcmread(tmp_path / folder / "IM00001.dcm")
        assert one.ProcedureCodeSequence[0].LongCodeValue == "a-very-long-secret-code"
    assert "LongCodeValue" in caplog.text
    assert "secret" not in caplog.text

"""Nothing of the patient is left in a de-identified series; what is measured stays."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from medsr import errors
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.write import deidentify as module
from medsr.io.dicom.write.deidentify import TECHNICAL_TEXT

Make = Callable[..., Path]
MARKER = "QXMARK"
TEXT = ("LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "AE")
DATE = "19470613"
LAYOUTS = ["classic", "enhanced"]


def plant(dataset: Dataset) -> None:
    """A marker in every text attribute of the dictionary and a date in every date."""
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        known = Tag(tag) in TECHNICAL_TEXT or not keyword or keyword in dataset
        if known or tag >> 16 < 0x0008 or tag >> 16 in (0x5400, 0x5600, 0x7FE0):
            continue
        if vr in TEXT:
            dataset.add_new(tag, vr, MARKER)
        elif vr == "DA":
            dataset.add_new(tag, vr, DATE)
        elif vr == "DT":
            dataset.add_new(tag, vr, DATE + "120000")


def edit(dataset: Dataset, k: int) -> None:
    dataset.PatientName, dataset.PatientID = f"{MARKER}^A", MARKER
    dataset.PatientBirthDate = DATE
    plant(dataset)
    inner, middle = Dataset(), Dataset()
    plant(inner)
    middle.ScheduledProtocolCodeSequence = [inner]
    plant(middle)
    dataset.RequestAttributesSequence = [middle]
    dataset.ContributingEquipmentSequence = [inner]
    dataset.AnatomicRegionSequence = [inner]
    dataset.private_block(0x0013, "CTP", create=True).add_new(0x10, "LO", MARKER)
    dataset.KVP, dataset.BurnedInAnnotation = 120, "YES" if k < 0 else "NO"
    dataset.ConvolutionKernel = "B30f"
    dataset.PatientSex = "F"


def test_days_since_an_event_go_as_dates_do(tmp_path: Path, make_series: Make) -> None:
    def follow_up(dataset: Dataset, k: int) -> None:
        dataset.LongitudinalTemporalOffsetFromEvent = 89.0
        dataset.LongitudinalTemporalEventType = "REGISTRATION"

    folder = make_series(tmp_path / "s", edit=follow_up)
    save(load(folder), tmp_path / "out", dicom=DicomOptions(deidentify=True))
    for file in (tmp_path / "out").iterdir():
        one = pydicom.dcmread(file)
        assert one.LongitudinalTemporalInformationModified == "REMOVED"
        assert "LongitudinalTemporalOffsetFromEvent" not in one
        assert "LongitudinalTemporalEventType" not in one


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_marker_and_no_identifier_is_left(
    tmp_path: Path, make_series: Make, layout: str
) -> None:
    folder = make_series(tmp_path / "s", edit=edit)
    assert any(MARKER.encode() in f.read_bytes() for f in folder.iterdir())
    options = DicomOptions.of(layout, deidentify=True)
    save(load(folder), tmp_path / "out", dicom=options)
    uids = {
        str(element.value)
        for file in folder.iterdir()
        for element in pydicom.dcmread(file).iterall()
        if element.VR == "UI" and element.keyword.endswith("InstanceUID")
    }
    assert len(uids) > 6
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes()
        assert MARKER.encode() not in content
        assert DATE.encode() not in content
        one = pydicom.dcmread(file)
        written = {str(e.value) for e in one.iterall() if e.VR == "UI"}
        assert not uids & written
        assert not any(e.tag.is_private for e in one.iterall())
        assert one.PatientIdentityRemoved == "YES"
        assert "Basic Application" in one.DeidentificationMethod
        assert one.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert one.ContentDate == "19000101"
        assert not one.StudyDate
        assert one.BurnedInAnnotation == "NO"
        assert float(one.KVP) == 120
        assert one.ConvolutionKernel == "B30f"
        assert one.SeriesDescription == "medsr"
    again = load(tmp_path / "out")
    assert np.array_equal(np.sort(again.data, None), np.sort(load(folder).data, None))


def test_identifiers_are_mapped_alike_within_a_run(tmp_path: Path, make_series: Make) -> None:
    def other_patient(dataset: Dataset, k: int) -> None:
        dataset.PatientID = "PID-4712"

    def written(name: str, **options: Any) -> pydicom.Dataset:
        volume = load(make_series(tmp_path / name, **options))
        save(volume, tmp_path / f"{name}-out", dicom=DicomOptions(deidentify=True))
        return pydicom.dcmread(tmp_path / f"{name}-out" / "IM00001.dcm")

    first, second = written("a"), written("b", series="1.2.826.0.1.4")
    third = written("c", edit=other_patient)
    assert first.StudyInstanceUID == second.StudyInstanceUID != "1.2.826.0.1.1"
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.PatientID == second.PatientID != third.PatientID
    assert first.PatientID.startswith("ANON-")


def test_the_profile_is_followed_where_it_names_an_attribute() -> None:
    """Every attribute of the profile's table that may be in a data set is dealt with."""
    table = module._table()
    names = [keyword_for_tag(tag) for tag in table["X_TAGS"] if len(tag) == 2]
    assert len(names) > 300
    dataset = Dataset()
    for tag in table["X_TAGS"]:
        entry = DicomDictionary.get(Tag(tag[:2])) if len(tag) == 2 else None
        if entry is not None and entry[0] in TEXT:
            dataset.add_new(Tag(tag), entry[0], MARKER)
    assert len(dataset) > 100
    module.Deidentifier().clean(dataset)
    assert not any(MARKER in str(element.value) for element in dataset.iterall())


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = load(make_series(tmp_path / "s"))
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("dicomanonymizer"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    module._table.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(errors.MissingExtraError, match=r"medsr\[dicom\]"):
        save(volume, tmp_path / "out", dicom=DicomOptions(deidentify=True))
    assert not (tmp_path / "out").exists()

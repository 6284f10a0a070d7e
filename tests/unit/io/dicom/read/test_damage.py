"""A damaged file bars the series that it may belong to, and no other."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsr import errors, io
from medsr.infer.scan import is_large
from medsr.io.dicom.read.damage import identity_before_damage
from medsr.io.dicom.read.sources import DicomFile

Make = Callable[..., Path]
WANTED, OTHER = "1.2.826.0.1.30", "1.2.826.0.1.40"


def _end_of(file: Path, keyword: str) -> int:
    """Where an attribute ends in a file."""
    element = pydicom.dcmread(file).get_item(keyword)
    assert element is not None
    return int(element.value_tell) + int(element.length)


def _cut(file: Path, keyword: str, more: int = 0) -> None:
    """Let a file end behind an attribute, or some bytes further on."""
    file.write_bytes(file.read_bytes()[: _end_of(file, keyword) + more])


@pytest.fixture
def study(tmp_path: Path, make_series: Make) -> Path:
    """Two sound series, each in a folder of its own."""
    folder = tmp_path / "study"
    make_series(folder / "a", series=WANTED)
    make_series(folder / "b", series=OTHER, prefix="other")
    return folder


def test_a_damaged_file_of_another_series_is_left_out_and_counted(
    study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = io.load(study, series=WANTED)
    _cut(study / "b" / "other003.dcm", "InstanceNumber")
    with caplog.at_level(logging.WARNING):
        volume = io.load(study, series=WANTED)
    assert np.array_equal(volume.data, sound.data)
    assert volume.source is not None
    note = "left out 1 damaged file(s) that are not of this series: file 9 in the order of names"
    assert note in volume.source.notes
    assert note in caplog.messages
    # Its own series is refused, and so is the whole where none is picked.
    with pytest.raises(errors.CorruptFileError, match="file 9 "):
        io.load(study, series=OTHER)
    with pytest.raises(errors.SeveralSeriesError):
        io.load(study)


def test_a_file_of_no_known_series_bars_what_lies_beside_it(study: Path) -> None:
    _cut(study / "b" / "other001.dcm", "SOPClassUID", 4)
    assert io.load(study, series=WANTED).shape == (9, 7, 6)
    with pytest.raises(errors.CorruptFileError, match="file 7 "):
        io.load(study, series=OTHER)
    shutil.move(study / "b" / "other001.dcm", study / "a" / "stray")
    with pytest.raises(errors.CorruptFileError, match="file 7 "):
        io.load(study, series=WANTED)


def test_a_file_beside_the_series_is_left_out_where_its_header_names_another(
    study: Path,
) -> None:
    shutil.move(study / "b" / "other001.dcm", study / "a" / "x.dcm")
    _cut(study / "a" / "x.dcm", "InstanceNumber")
    assert io.load(study, series=WANTED).shape == (9, 7, 6)
    with pytest.raises(errors.CorruptFileError):
        io.load(study, series=OTHER)
    # One slice stands for its series, by the same rule.
    assert io.load(study / "a" / "slice002.dcm").shape == (9, 7, 6)


def test_a_name_that_may_be_damaged_itself_is_not_believed(study: Path) -> None:
    victim = study / "a" / "slice006.dcm"
    whole = victim.read_bytes()
    # The UID that ends where the file does may be cut, and one that no other file has, changed.
    for damage in (
        lambda: _cut(victim, "SeriesInstanceUID"),
        lambda: _cut(victim, "SeriesInstanceUID", -1),
        lambda: victim.write_bytes(whole.replace(WANTED.encode(), b"1.2.826.9.1.77")[:-400]),
    ):
        victim.write_bytes(whole)
        damage()
        with pytest.raises(errors.CorruptFileError):
            io.load(study, series=WANTED)
        assert io.load(study, series=OTHER).shape == (9, 7, 6)


def test_a_series_in_several_folders_is_barred_by_damage_anywhere_among_them(
    tmp_path: Path, make_series: Make
) -> None:
    """Some archives export a folder for each file."""
    flat = make_series(tmp_path / "flat", series=WANTED)
    for number, file in enumerate(sorted(flat.iterdir())):
        place = tmp_path / "study" / "all" / str(number) / "IM"
        place.parent.mkdir(parents=True)
        shutil.move(file, place)
    make_series(tmp_path / "study" / "b", series=OTHER)
    stray = tmp_path / "study" / "all" / "6" / "IM"
    stray.parent.mkdir()
    shutil.copy(tmp_path / "study" / "all" / "5" / "IM", stray)
    _cut(stray, "SOPInstanceUID")
    with pytest.raises(errors.CorruptFileError):
        io.load(tmp_path / "study", series=WANTED)
    assert io.load(tmp_path / "study", series=OTHER).shape == (9, 7, 6)


def test_a_series_of_damaged_files_alone_says_why(study: Path) -> None:
    for file in (study / "b").iterdir():
        _cut(file, "InstanceNumber")
    with pytest.raises(errors.CorruptFileError, match="file 7 "):
        io.load(study, series=OTHER)
    assert io.load(study, series=WANTED).shape == (9, 7, 6)
    # Where no series was picked, the whole one is named.
    with pytest.raises(errors.CorruptFileError, match=f"file 7 .*--series {WANTED}"):
        io.load(study)


def test_the_list_says_which_series_damage_bars(study: Path) -> None:
    _cut(study / "b" / "other003.dcm", "InstanceNumber")
    listed = {each.series: each for each in io.list_volumes(study)}
    assert listed[WANTED].fault is None
    assert listed[OTHER].exit_code == errors.CorruptFileError.exit_code
    assert "file 9 " in str(listed[OTHER].fault)


def test_what_cannot_be_a_slice_bars_nothing(study: Path) -> None:
    report = pydicom.dcmread(study / "b" / "other001.dcm")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(study / "a" / "report")
    _cut(study / "a" / "report", "SeriesInstanceUID")
    with (study / "a" / "report").open("ab") as file:  # a sequence without an end
        file.write(b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0" * 3)
    with pytest.raises(OSError, match="No tag"):
        pydicom.dcmread(study / "a" / "report")
    volume = io.load(study, series=WANTED)
    assert volume.source is not None
    assert any("Basic Text SR" in note for note in volume.source.notes)


def test_the_rule_holds_in_archives_too(study: Path, tmp_path: Path) -> None:
    _cut(study / "b" / "other001.dcm", "SOPClassUID", 4)
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(study.rglob("*.dcm")):
            packed.write(file, file.relative_to(study))
    assert io.load(archive, series=WANTED).shape == (9, 7, 6)
    with pytest.raises(errors.CorruptFileError, match="file 7 "):
        io.load(archive, series=OTHER)


def test_what_stands_before_the_damage_is_known(study: Path) -> None:
    file = study / "a" / "slice001.dcm"
    whole = file.read_bytes()
    sop_class = "1.2.840.10008.5.1.4.1.1.2"
    expected: dict[tuple[str, int], Any] = {
        ("SOPClassUID", 0): ("", ""),
        ("SOPInstanceUID", 0): (sop_class, ""),
        ("SeriesInstanceUID", 0): (sop_class, ""),
        ("SeriesNumber", 0): (sop_class, WANTED),
        ("PixelSpacing", 3): (sop_class, WANTED),
    }
    for (keyword, more), identity in expected.items():
        file.write_bytes(whole)
        _cut(file, keyword, more)
        assert identity_before_damage(DicomFile(file)) == identity, keyword
    file.unlink()
    assert identity_before_damage(DicomFile(file)) == ("", "")


def test_a_damaged_file_hides_no_scan_larger_than_memory(study: Path) -> None:
    _cut(study / "a" / "slice001.dcm", "SOPClassUID", 4)
    assert is_large(study, 768 * 2**20 + 100)

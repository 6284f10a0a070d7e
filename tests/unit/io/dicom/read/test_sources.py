"""Archives, DICOMDIRs and single files give what their folder gives; hostile ones are refused."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medsr import errors, io
from medsr.io import load
from medsr.io.dicom.read import archive as dicom_archive
from medsr.io.dicom.read import open as dicom_open
from medsr.io.dicom.read.files import is_dicom

Make = Callable[..., Path]


def _zip(folder: Path, archive: Path, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", method) as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, Path("a", *file.relative_to(folder).parts))
    return archive


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_an_archive_gives_what_its_folder_gives(
    tmp_path: Path, make_series: Make, method: int
) -> None:
    folder = make_series(tmp_path / "s", suffix="")
    (folder / "readme.txt").write_text("no image")
    archive = _zip(folder, tmp_path / "study.zip", method=method)
    before = sorted(tmp_path.rglob("*"))
    volume = io.load(archive)
    plain = io.load(folder)
    assert np.array_equal(volume.data, plain.data)
    assert volume.geometry == plain.geometry
    assert volume.source is not None
    assert "skipped 1 file(s) that are not DICOM" in volume.source.notes
    assert io.inspect(archive).shape == plain.shape
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_an_archive_without_dicom_says_so(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "note.txt").write_text("x")
    archive = _zip(tmp_path / "f", tmp_path / "notes.zip")
    assert not is_dicom(archive)
    with pytest.raises(errors.UnsupportedFormatError):
        io.load(archive)


def _refused(archive: Path, words: str) -> None:
    with pytest.raises(errors.ArchiveError, match=words):
        load(archive)
    with pytest.raises(errors.ArchiveError, match=words):
        io.load(archive)


def test_bombs_are_refused_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(4 << 20))
    monkeypatch.setattr(dicom_archive, "SMALL_BYTES", 1 << 20)
    _refused(archive, "times its size")
    monkeypatch.setattr(dicom_archive, "MOST_MEMBER_BYTES", 1 << 20)
    _refused(archive, "largest file")
    monkeypatch.setattr(dicom_archive, "MOST_ENTRIES", 0)
    _refused(archive, "1 entries")


@pytest.mark.parametrize("name", ["../out.dcm", "a/../../out", "/etc/x", "C:\\x", "..\\x"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "t.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(zipfile.ZipInfo(name), b"x")
    _refused(archive, "leads out")


def test_encrypted_and_damaged_archives_are_refused(tmp_path: Path, make_series: Make) -> None:
    archive = _zip(make_series(tmp_path / "s"), tmp_path / "s.zip")
    whole = archive.read_bytes()
    flags = bytearray(whole)
    at = 0
    while (at := flags.find(b"PK\x01\x02", at)) >= 0:
        flags[at + 8] |= 1
        at += 4
    archive.write_bytes(bytes(flags))
    _refused(archive, "encrypted")
    # A flipped byte inside the packed pixels is caught by its checksum.
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 0xFF
    archive.write_bytes(bytes(spoilt))
    with pytest.raises(errors.InputError):
        load(archive)


def _disc(tmp_path: Path, make_series: Make) -> Path:
    """A file-set with its DICOMDIR, as pydicom writes it."""

    def edit(dataset: pydicom.Dataset, k: int) -> None:
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"

    files = FileSet()
    for file in sorted(make_series(tmp_path / "s", edit=edit).iterdir()):
        files.add(file)
    files.write(tmp_path / "disc")
    return tmp_path / "disc"


def test_a_dicomdir_stands_for_the_files_it_lists(tmp_path: Path, make_series: Make) -> None:
    disc = _disc(tmp_path, make_series)
    plain = load(tmp_path / "s")
    make_series(disc, series="1.9", prefix="unlisted")
    volume = io.load(disc / "DICOMDIR")
    assert np.array_equal(volume.data, plain.data)
    with pytest.raises(errors.SeveralSeriesError):  # the folder holds more than is listed
        io.load(disc)


def test_files_that_a_dicomdir_lists_in_vain_are_noted(tmp_path: Path, make_series: Make) -> None:
    disc = _disc(tmp_path, make_series)
    slices = [file for file in disc.rglob("*") if file.is_file() and file.name != "DICOMDIR"]
    ends = sorted(slices, key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    ends[-1].unlink()
    for path in (disc, disc / "DICOMDIR"):
        volume = io.load(path)
        assert volume.shape[2] == 5
        assert volume.source is not None
        assert "the DICOMDIR lists 1 file(s) that are not there" in volume.source.notes


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.9, 0.99])
def test_a_dicomdir_that_is_cut_does_not_stand_for_fewer_files(
    tmp_path: Path, make_series: Make, share: float
) -> None:
    disc = _disc(tmp_path, make_series)
    raw = (disc / "DICOMDIR").read_bytes()
    (disc / "DICOMDIR").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(errors.CorruptFileError, match="give the folder instead"):
        io.load(disc / "DICOMDIR")
    # The folder is looked through without it.
    volume = io.load(disc)
    assert volume.shape == (9, 7, 6)
    assert volume.source is not None
    assert any("DICOMDIR is damaged" in note for note in volume.source.notes)


def test_a_dicomdir_cannot_lead_out_of_its_folder(tmp_path: Path, make_series: Make) -> None:
    disc = _disc(tmp_path, make_series)
    index = pydicom.dcmread(disc / "DICOMDIR")
    for record in index.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record.ReferencedFileID = ["..", "s", "slice001.dcm"]
    index.save_as(disc / "DICOMDIR")
    with pytest.raises(errors.UnsupportedFormatError, match="not there"):
        io.load(disc / "DICOMDIR")


def test_one_multi_frame_file_stands_for_itself(tmp_path: Path, make_enhanced: Make) -> None:
    stored = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)
    folder = make_enhanced(tmp_path / "e", stored)
    shutil.copy(folder / "enhanced", folder / "again")
    other = pydicom.dcmread(folder / "again")
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(folder / "again")
    volume = io.load(folder / "enhanced")
    assert volume.data.max() > 0
    assert volume.shape == (6, 5, 7)


def test_a_deflated_bomb_is_refused(
    tmp_path: Path, make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_series(tmp_path / "s")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(file)
    assert load(folder).shape == (9, 7, 6)
    victim = folder / "slice003.dcm"
    start = victim.read_bytes()
    begin = 144 + int.from_bytes(start[140:144], "little")
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = zlib.decompress(start[begin:], -zlib.MAX_WBITS) + bytes(8 << 20)
    victim.write_bytes(start[:begin] + pack.compress(body) + pack.flush())
    monkeypatch.setattr(dicom_open, "MOST_INFLATED_BYTES", 4 << 20)
    with pytest.raises(errors.CorruptFileError, match="grows beyond"):
        load(folder)

"""What stands where a slice should be is never passed over in silence."""

from __future__ import annotations

import gzip
import io as streams
import logging
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medsr import errors, io
from medsr.io.foreign import fault_of, members

Make = Callable[..., Path]

PAGE = b"<!DOCTYPE html>\n<html><body>503 Service Unavailable</body></html>"
APPLE_DOUBLE = bytes.fromhex("00051607000200004d6163204f532058") + bytes(100)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _page(file: Path) -> None:
    file.write_bytes(PAGE)


def _zeros(file: Path) -> None:
    file.write_bytes(bytes(5000))


def _stub(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def _lost(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere/" + file.name)


def _packed(file: Path) -> None:
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()


BROKEN = [
    (_empty, errors.CorruptFileError, "empty"),
    (_page, errors.CorruptFileError, "a web page"),
    (_zeros, errors.CorruptFileError, "no DICOM file"),
    (_stub, errors.CorruptFileError, "no DICOM file"),
    (_lost, errors.InputNotFoundError, "target is missing"),
    (_packed, errors.UnsupportedFormatError, "packed by gzip.*unpack it"),
]


@pytest.mark.parametrize("suffix", [".dcm", "", ".IMA"])
@pytest.mark.parametrize("number", [1, 3, 6])
@pytest.mark.parametrize(("damage", "error", "words"), BROKEN)
def test_what_stands_in_the_place_of_a_slice_bars_the_series(
    tmp_path: Path,
    make_series: Make,
    damage: Callable[[Path], None],
    error: type[errors.InputError],
    words: str,
    number: int,
    suffix: str,
) -> None:
    folder = make_series(tmp_path / "s", suffix=suffix)
    assert io.load(folder).shape == (9, 7, 6)
    damage(folder / f"slice{number:03d}{suffix}")
    other = folder / f"slice{2 if number == 1 else 1:03d}{suffix}"
    for source in (folder, other):
        with pytest.raises(error, match=words) as caught:
            io.load(source)
        assert type(caught.value) is error
        assert 10 <= error.exit_code < 30
        assert f"slice{number:03d}" not in str(caught.value) or source is other
    with pytest.raises(error):
        io.inspect(folder)
    (listed,) = io.list_volumes(folder)
    assert listed.exit_code == error.exit_code


def test_it_bars_no_series_of_another_folder(tmp_path: Path, make_series: Make) -> None:
    make_series(tmp_path / "study" / "a", series="1.2.1")
    _empty(make_series(tmp_path / "study" / "b", series="1.2.2") / "slice004.dcm")
    assert io.load(tmp_path / "study", series="1.2.1").shape == (9, 7, 6)
    with pytest.raises(errors.CorruptFileError, match=r"file 10 .*empty"):
        io.load(tmp_path / "study", series="1.2.2")


def test_the_rule_holds_in_archives(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    _empty(folder / "slice006.dcm")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as packed:
        for file in sorted(folder.iterdir()):
            packed.write(file, f"s/{file.name}")
    with pytest.raises(errors.CorruptFileError, match=r"file 6 .*empty"):
        io.load(tmp_path / "s.zip")


def test_what_belongs_elsewhere_is_passed_over_as_ever(
    tmp_path: Path, make_series: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_series(tmp_path / "s", suffix="")
    sound = io.load(folder)
    for name in ("README", "LICENSE", "slice001.json", "Thumbs.db", "notes.txt", "VERSION"):
        (folder / name).write_bytes(b"text that is no image")
    (folder / "._slice001").write_bytes(APPLE_DOUBLE)
    (folder / ".hidden007").write_bytes(b"")
    (folder / "slice001.gz").write_bytes(gzip.compress((folder / "slice001").read_bytes()))
    with caplog.at_level(logging.WARNING):
        volume = io.load(folder)
    assert np.array_equal(volume.data, sound.data)
    assert volume.source is not None
    assert "skipped 9 file(s) that are not DICOM" in volume.source.notes


def test_what_is_lost_is_told_of_though_it_is_named_unlike_a_slice(
    tmp_path: Path, make_series: Make, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_series(tmp_path / "s")
    (folder / "DONE").write_bytes(b"")
    (folder / "notes").symlink_to(tmp_path / "nowhere")
    with caplog.at_level(logging.WARNING):
        assert io.load(folder).shape == (9, 7, 6)
    assert any("2 empty file(s) or link(s) to nothing" in line for line in caplog.messages)


def test_names_of_uids_and_letters_are_seen_to_be_alike(tmp_path: Path, make_series: Make) -> None:
    for number, (names, stray) in enumerate(
        [
            ([f"1.2.840.113619.2.{k}.77" for k in range(6)], "1.2.840.113619.2.9.77"),
            ([f"MR.1.3.12.{k}" for k in range(6)], "MR.1.3.12.88"),
            ([f"IM00000{k}" for k in "ABCDEF"], "IM00001Z"),
            ([f"{k}f3b9c1e-77aa-4b1c-9f00-12cd34ef56ab" for k in "abcdef"], 8 * "0" + "-77aa"),
        ]
    ):
        folder = make_series(tmp_path / str(number))
        for file, name in zip(sorted(folder.iterdir()), names, strict=True):
            file.rename(folder / name)
        assert io.load(folder).shape == (9, 7, 6)
        _empty(folder / stray)
        with pytest.raises(errors.CorruptFileError, match="empty"):
            io.load(folder)


def _tar(path: Path, folder: Path, mode: str) -> Path:
    with tarfile.open(path, f"w{mode}") as archive:
        archive.add(folder, arcname="series")
    return path


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("s.tar", "", "a tar archive, which"),
        ("s.tar.gz", ":gz", "a tar archive packed by gzip"),
        ("s.tgz", ":gz", "a tar archive packed by gzip"),
        ("s.tar.bz2", ":bz2", "a tar archive packed by bzip2"),
        ("s.tar.xz", ":xz", "a tar archive packed by xz"),
    ],
)
def test_archives_other_than_zip_are_named(
    tmp_path: Path,
    make_series: Make,
    name: str,
    mode: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make_series(tmp_path / "s")
    archive = _tar(tmp_path / name, folder, mode)
    for call in (io.load, io.inspect):
        with pytest.raises(errors.UnsupportedFormatError, match=f"{words}.*unpack it"):
            call(archive)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / name).write_bytes(archive.read_bytes())
    with pytest.raises(errors.UnsupportedFormatError, match=r"1 tar archive.* unpack"):
        io.load(alone)
    # Beside the slices it may be a copy of them, and is told of.
    (folder / name).write_bytes(archive.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert io.load(folder).shape == (9, 7, 6)
    assert any("1 tar archive(s) of DICOM" in line for line in caplog.messages)


def test_a_packed_file_is_named(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s")
    _packed(folder / "slice003.dcm")
    with pytest.raises(errors.UnsupportedFormatError, match=r"packed by gzip.*unpack it first"):
        io.load(folder / "slice003.dcm.gz")
    for file in folder.glob("*.dcm"):
        _packed(file)
    with pytest.raises(errors.UnsupportedFormatError, match=r"packed by gzip.*unpack it first"):
        io.load(folder)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (PAGE, "a web page"), (b"Rar!\x1a\x07\0", "by RAR")]
)
def test_one_file_that_is_no_image_says_what_it_is(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "scan.dcm").write_bytes(content)
    with pytest.raises(errors.UnsupportedFormatError, match=words):
        io.load(tmp_path / "scan.dcm")


def test_packed_streams_that_are_damaged_hold_nothing() -> None:
    whole = gzip.compress(os.urandom(3000))
    for damaged in (whole[:5], whole[:200], b"\x1f\x8b" + os.urandom(50), b"BZh", b"\xfd7zXZ\0"):
        assert all(len(start) <= 512 for _, start in members(streams.BytesIO(damaged)))
        assert "packed by" in fault_of(streams.BytesIO(damaged))
    assert list(members(streams.BytesIO(b"plain"))) == []

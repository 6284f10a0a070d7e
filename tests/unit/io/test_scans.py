"""Which scans a folder holds, and when a folder is one scan."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medsr.errors import ArchiveError, CorruptFileError, InputError, InputNotFoundError
from medsr.io import load
from medsr.io.scans import count_scans, find_scans


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no DICOM here, and long enough to be read as a header")


def test_files_are_scans_by_their_endings_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "b.nii", "a/x.nii.gz", "a/c/y.MHA", "a/y.nrrd", "a/z.mgz", "c.mhd", "c.raw")
    touch(tmp_path, "a/x.json", "notes.txt", ".hidden/h.nii", "._b.nii", "results/r.nii")
    found = find_scans(tmp_path, leave_out=[tmp_path / "a" / ".." / "results"])
    assert [(scan.name, scan.format) for scan in found] == [
        ("a/c/y.MHA", "mha"),
        ("a/x.nii.gz", "nifti"),
        ("a/y.nrrd", "nrrd"),
        ("a/z.mgz", "mgz"),
        ("b.nii", "nifti"),
        ("c.mhd", "mha"),
    ]
    assert all(scan.path == tmp_path / scan.name for scan in found)


def test_a_folder_with_slices_is_a_scan_whatever_else_it_holds(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    make_series(tmp_path / "p" / "ct", series="1.2.3", suffix="")
    make_series(tmp_path / "p" / "ct" / "deeper", series="1.2.4")
    touch(tmp_path, "p/ct/converted.nii.gz", "p/mr.nii.gz")
    found = find_scans(tmp_path)
    assert [(scan.name, scan.format) for scan in found] == [
        ("p/ct", "dicom"),
        ("p/mr.nii.gz", "nifti"),
    ]
    assert found[0].series == "1.2.3"


def test_other_dicom_objects_are_passed_over(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    def report(dataset: Any, _: int) -> None:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"  # Basic Text SR

    make_series(tmp_path / "sr", edit=report)
    make_series(tmp_path / "mr", modality="MR", series="1.2.5")
    assert [scan.name for scan in find_scans(tmp_path)] == ["mr"]


def test_what_a_folder_stands_for(make_series: Callable[..., Path], tmp_path: Path) -> None:
    direct = make_series(tmp_path / "direct", series="1.1")
    make_series(direct / "below", series="1.2")
    nested = make_series(tmp_path / "nested" / "a" / "b", series="1.1").parents[1]
    split = make_series(tmp_path / "split" / "a", series="1.1").parent
    make_series(split / "b", series="1.1", numbers=range(7, 13))
    two = make_series(tmp_path / "two" / "a", series="1.1").parent
    make_series(two / "b", series="1.2")
    mixed = make_series(tmp_path / "mixed" / "a", series="1.1").parent
    touch(mixed, "x.nii")
    touch(tmp_path, "file/x.nii", "nothing/x.txt")
    answers = {folder.name: count_scans(folder) for folder in tmp_path.iterdir()}
    assert answers == {
        "direct": "one",
        "nested": "one",
        "split": "one",
        "two": "several",
        "mixed": "several",
        "file": "several",
        "nothing": "none",
    }
    assert count_scans(mixed, leave_out=[mixed / "a"]) == "several"
    assert count_scans(two, leave_out=[two / "b"]) == "one"
    # What counts as one is read as one.
    assert load(nested).shape == (9, 7, 6)


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:150])


def test_damaged_slices_by_themselves_are_one_scan_that_says_why(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    for file in make_series(tmp_path / "ct").iterdir():
        damage(file)
    (found,) = find_scans(tmp_path)
    assert (found.name, found.kind) == ("ct/slice001.dcm", "damaged")
    assert count_scans(tmp_path) == "one"
    for path in (found.path, tmp_path):
        with pytest.raises(CorruptFileError):
            load(path)


def test_a_damaged_stray_makes_no_folder_one_scan(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    make_series(tmp_path / "b", series="1.1")
    shutil.copy(tmp_path / "b" / "slice001.dcm", tmp_path / "IM1")
    shutil.copy(tmp_path / "b" / "slice001.dcm", tmp_path / "IM2")
    damage(tmp_path / "IM1")
    damage(tmp_path / "IM2")
    # One series and a stray, which may be of it.
    assert count_scans(tmp_path) == "one"
    with pytest.raises(CorruptFileError):
        load(tmp_path)
    make_series(tmp_path / "c", series="1.2")
    touch(tmp_path, "d.nii")
    assert [scan.name for scan in find_scans(tmp_path)] == ["IM1", "b", "c", "d.nii"]
    assert count_scans(tmp_path) == "several"
    with pytest.raises(CorruptFileError, match="IM1"):
        load(tmp_path / "IM1")
    # Beside sound slices the folder is their scan, and is refused as one.
    damage(tmp_path / "b" / "slice001.dcm")
    assert [scan.name for scan in find_scans(tmp_path)] == ["IM1", "b", "c", "d.nii"]
    with pytest.raises(CorruptFileError):
        load(tmp_path / "b")


def pack(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder))
    return archive


def test_archives_with_slices_are_scans(make_series: Callable[..., Path], tmp_path: Path) -> None:
    source = make_series(tmp_path / "source" / "a", suffix="").parent
    folder = tmp_path / "in"
    touch(folder, "notes/read.txt", "torn/not.zip")
    pack(source, folder / "study.ZIP")
    pack(folder / "notes", folder / "notes" / "notes.zip")
    whole = pack(source, folder / "torn" / "cut.zip").read_bytes()
    (folder / "torn" / "cut.zip").write_bytes(whole[: len(whole) // 2])
    found = find_scans(folder)
    assert [(scan.name, scan.format, scan.kind) for scan in found] == [
        ("study.ZIP", "dicom", "archive"),
        ("torn/cut.zip", "dicom", "archive"),
    ]
    assert load(found[0].path).shape == (9, 7, 6)
    with pytest.raises(ArchiveError, match="damaged"):
        load(found[1].path)
    # A folder is never one scan for an archive that lies in it.
    assert count_scans(folder) == "several"
    (folder / "torn" / "cut.zip").unlink()
    assert count_scans(folder) == "several"
    # Beside slices it is part of their scan.
    pack(source, source / "a" / "copy.zip")
    assert [scan.name for scan in find_scans(source)] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "open.nii", "closed/x.nii")
    (tmp_path / "closed").chmod(0)
    try:
        found = find_scans(tmp_path)
        assert [scan.name for scan in found] == ["closed", "open.nii"]
        with pytest.raises(InputNotFoundError, match="cannot be read"):
            load(found[0].path)
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_linked_folders_are_followed_once_and_never_in_circles(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    store, scans = tmp_path / "store", tmp_path / "scans"
    make_series(store / "one", series="1.1")
    touch(store, "two/anat/x.nii", "two/again.txt")
    touch(scans, "sub-00/x.nii", "results/r.nii")
    (scans / "sub-01").symlink_to(store / "one")
    (scans / "sub-02").symlink_to(Path("..") / "store" / "two")
    (scans / "zz").symlink_to(store / "two" / "anat")  # visited below sub-02
    (scans / "a-copy").symlink_to("sub-00")  # a folder keeps its own name
    (scans / "up").symlink_to(tmp_path)
    (scans / "here").symlink_to(".")
    (scans / "old").symlink_to("results")
    (store / "two" / "loop").symlink_to(store / "two")
    (scans / "self").symlink_to("self")
    found = find_scans(scans, leave_out=[scans / "results"])
    assert [(scan.name, scan.kind) for scan in found] == [
        ("self", "damaged"),
        ("sub-00/x.nii", "file"),
        ("sub-01", "folder"),
        ("sub-02/anat/x.nii", "file"),
    ]
    assert load(found[2].path).shape == (9, 7, 6)


def test_a_series_below_a_link_is_read_once(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    make_series(tmp_path / "store" / "ct", series="1.1")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "b").symlink_to(tmp_path / "store")
    (tmp_path / "study" / "a").symlink_to(tmp_path / "store" / "ct")
    (tmp_path / "store" / "ct" / "loop").symlink_to(tmp_path / "study")
    volume = load(tmp_path / "study")
    assert volume.shape == (9, 7, 6)
    assert volume.source is not None
    assert volume.source.notes == ()
    assert count_scans(tmp_path / "study") == "one"


def test_links_to_nothing_and_packed_series_are_listed(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    make_series(tmp_path / "ok", series="1.1")
    touch(tmp_path, "sub-00/x.nii")
    (tmp_path / "sub-01").symlink_to(tmp_path / "gone")
    (tmp_path / "sub-02.nii.gz").symlink_to(tmp_path / "gone")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone")
    series = make_series(tmp_path / "series")
    (tmp_path / "p").mkdir()
    with tarfile.open(tmp_path / "p" / "s.tar.gz", "w:gz") as archive:
        archive.add(series, arcname="s")
    with tarfile.open(tmp_path / "p" / "code.tar", "w") as archive:
        archive.add(__file__, arcname="code.py")
    (tmp_path / "q").mkdir()
    packed = gzip.compress((series / "slice001.dcm").read_bytes())
    (tmp_path / "q" / "i1.dcm.gz").write_bytes(packed)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "error.dcm").write_bytes(b"<html>404</html>")
    shutil.rmtree(series)
    found = {scan.name: scan for scan in find_scans(tmp_path)}
    damaged = {"sub-01", "p/s.tar.gz", "q/i1.dcm.gz", "r/error.dcm"}
    assert set(found) == damaged | {"ok", "sub-00/x.nii", "sub-02.nii.gz"}
    assert {name for name, scan in found.items() if scan.kind == "damaged"} == damaged
    for name in (*damaged, "sub-02.nii.gz"):
        with pytest.raises(InputError, match=r"missing|unpack|web page"):
            load(found[name].path)

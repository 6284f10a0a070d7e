"""Which scans a folder holds, and when a folder is one scan."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medsr.errors import InputNotFoundError
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


def test_damaged_slices_are_listed_so_that_reading_them_says_why(
    make_series: Callable[..., Path], tmp_path: Path
) -> None:
    series = make_series(tmp_path / "ct")
    for file in series.iterdir():
        file.write_bytes(file.read_bytes()[:150])
    assert [scan.name for scan in find_scans(tmp_path)] == ["ct"]


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

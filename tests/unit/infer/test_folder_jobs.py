"""What there is to do in a folder: names of results, parts, and places that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsr.errors import (
    InputNotFoundError,
    MedsrError,
    OutputExistsError,
    OutputNotWritableError,
    SourceOverwriteError,
    UnsupportedFormatError,
    UsageError,
)
from medsr.infer.folder_jobs import Places, list_jobs, output_names, parse_part
from medsr.infer.options import UpscaleOptions
from medsr.io import output_format
from medsr.io.dicom.options import DicomOptions
from medsr.io.formats import by_name_of
from medsr.io.scans import FoundScan

PLAIN = UpscaleOptions()


def scans(*names: str) -> list[FoundScan]:
    kinds = {name: by_name_of(Path(name)) for name in names}
    return [FoundScan(n, Path(n), k.name if k else "dicom") for n, k in kinds.items()]


def test_results_have_the_names_of_the_scans() -> None:
    names = ["a.nii", "a.nii.gz", "p/b.mha", "p/series", "p/1.2.840.t1"]
    assert output_names(scans(*names)) == names


def test_endings_that_are_not_written_become_their_formats_own() -> None:
    found = scans("b.mhd", "c.mha", "c.mhd", "d.nhdr", "e.mgh")
    names = output_names(found)
    assert names == ["b.mha", "c.mha", "c.mhd.mha", "d.nrrd", "e.mgh"]
    for name, scan in zip(names, found, strict=True):
        assert output_format(name, format=scan.format) == scan.format
    series = [FoundScan("f.nii", Path("f.nii"), "dicom")]
    assert output_format(output_names(series)[0], format="dicom") == "dicom"


def test_archives_become_folders() -> None:
    found = [
        FoundScan(name, Path(name), "dicom", kind="archive")
        for name in ("a.zip", "p/B.ZIP", "c.zip", "scan.nii.zip")
    ]
    found.append(FoundScan("c", Path("c"), "dicom", kind="folder"))
    names = output_names(found)
    assert names == ["a", "p/B", "c.dicom", "scan.nii.dicom", "c"]
    assert all(output_format(name, format="dicom") == "dicom" for name in names)
    assert output_names(found[:2], "nifti") == ["a.nii.gz", "p/B.nii.gz"]


def test_another_format_gives_other_names() -> None:
    found = scans("a.nii.gz", "b.mhd", "series", "1.2.840.t1")
    assert output_names(found, "nrrd") == ["a.nrrd", "b.nrrd", "series.nrrd", "1.2.840.t1.nrrd"]
    assert output_names(found, "dicom") == ["a", "b", "series", "1.2.840.t1"]
    with pytest.raises(UsageError, match=r"x\.mha"):
        output_names(scans("x.nii", "x"), "mha")


def test_only_dicom_is_deidentified(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").touch()
    places = Places(tmp_path / "out")
    with pytest.raises(UsageError, match=r"a\.nii\.gz"):
        list_jobs(tmp_path / "in", places, UpscaleOptions(dicom=DicomOptions(deidentify=True)))
    (job,) = list_jobs(tmp_path / "in", places, UpscaleOptions(dicom=DicomOptions(series_number=4)))
    assert job.outputs.dicom == DicomOptions()
    named = DicomOptions(series_number=4)
    (job,) = list_jobs(tmp_path / "in", places, UpscaleOptions(format="dicom", dicom=named))
    assert (job.outputs.dicom, job.outputs.format) == (named, "dicom")


def test_two_scans_with_one_result_are_refused() -> None:
    with pytest.raises(UsageError, match=r"c\.mhd\.mha"):
        output_names(scans("c.mha", "c.mhd", "c.mhd.mha"))


@given(st.integers(1, 12), st.integers(1, 9))
def test_the_parts_share_the_scans_out(count: int, parts: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.nii").touch()
        places = Places(Path(name) / "out")
        dealt = [list_jobs(folder, places, PLAIN, part=f"{k}/{parts}") for k in range(1, parts + 1)]
        whole = [job.name for job in list_jobs(folder, places, PLAIN)]
    assert sorted(job.name for jobs in dealt for job in jobs) == whole
    sizes = [len(jobs) for jobs in dealt]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="such as 2/8"):
        parse_part(text)


def test_each_scan_has_its_places(tmp_path: Path) -> None:
    (tmp_path / "in" / "p").mkdir(parents=True)
    (tmp_path / "in" / "p" / "a.nii.gz").touch()
    places = Places(tmp_path / "out", tmp_path / "pictures", tmp_path / "sigma")
    (job,) = list_jobs(tmp_path / "in", places, PLAIN)
    assert job.name == "p/a.nii.gz"
    assert job.outputs.scan == tmp_path / "out" / "p" / "a.nii.gz"
    assert job.outputs.preview == tmp_path / "pictures" / "p" / "a.nii.gz.png"
    assert job.outputs.uncertainty == tmp_path / "sigma" / "p" / "a.nii.gz"


def test_a_result_is_done_once_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").touch()
    (job,) = list_jobs(tmp_path / "in", Places(tmp_path / "out"), PLAIN)
    assert not job.is_done
    (tmp_path / "out").mkdir()
    assert not job.is_done
    (tmp_path / "out" / "a.nii").touch()
    assert job.is_done


def test_places_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "in"
    folder.mkdir(parents=True)
    file = tmp_path / "file"
    file.touch()
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    cases: list[tuple[type[MedsrError], Path, Places]] = [
        (InputNotFoundError, tmp_path / "missing", Places(out)),
        (SourceOverwriteError, folder, Places(folder)),
        (SourceOverwriteError, folder, Places(folder / ".." / "in")),
        (SourceOverwriteError, folder, Places(tmp_path / "above")),
        (SourceOverwriteError, folder, Places(tmp_path / "link")),
        (UsageError, folder, Places(tmp_path / "out.nii.gz")),
        (UsageError, folder, Places(out, previews=tmp_path / "a.png")),
        (UsageError, folder, Places(out, previews=out)),
        (SourceOverwriteError, folder, Places(out, uncertainty=folder)),
        (OutputExistsError, folder, Places(file)),
        (OutputNotWritableError, folder, Places(tmp_path / "no" / "out")),
    ]
    for error, source, places in cases:
        with pytest.raises(error):
            places.check(source)
    Places(folder / "out", out, tmp_path / "sigma").check(folder)
    with pytest.raises(UnsupportedFormatError, match="no scan in it"):
        list_jobs(folder, Places(out), PLAIN)

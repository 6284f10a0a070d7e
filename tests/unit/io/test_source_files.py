"""No output replaces the scan it is made of, by whatever name it is called."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

import medsr
from medsr import io
from medsr.cli.main import main
from medsr.errors import SourceOverwriteError
from medsr.io.source_files import check_apart, files_of
from tests.conftest import make_phantom

Make = Callable[..., Path]
DATA = make_phantom((16, 14, 6)).astype(np.int16)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A NIfTI scan with a sidecar."""
    path = tmp_path / "in" / "a.nii.gz"
    path.parent.mkdir()
    nib.Nifti1Image(DATA, np.diag([0.9, 0.9, 3.6, 1])).to_filename(path)
    path.with_name("a.json").write_text('{"EchoTime": 0.1}')
    return path


def _content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _upscale(scan: Path, output: Path, model: Path, **more: Any) -> None:
    medsr.upscale(scan, output, model=model, scale=(1, 1, 4), overwrite=True, **more)


def test_a_file_is_never_its_own_result(scan: Path, tmp_path: Path, tiny_model: Make) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "soft.nii.gz").symlink_to(scan)
    os.link(scan, links / "hard.nii.gz")
    (links / "folder").symlink_to(scan.parent, target_is_directory=True)
    before = _content(tmp_path)
    model, free = tiny_model(), tmp_path / "free.nii.gz"
    for output in (
        scan,
        scan.parent / ".." / "in" / "a.nii.gz",
        links / "soft.nii.gz",
        links / "hard.nii.gz",
        links / "folder" / "a.nii.gz",
    ):
        with pytest.raises(SourceOverwriteError, match="the scan itself"):
            _upscale(scan, output, model)
        with pytest.raises(SourceOverwriteError):
            _upscale(output, scan, model)  # from the link to the file
    for name in ("report", "preview", "uncertainty"):
        with pytest.raises(SourceOverwriteError):
            _upscale(scan, free, model, **{name: scan})
        with pytest.raises(SourceOverwriteError):
            _upscale(scan, free, model, **{name: scan.with_name("a.json")})
    # The result's own sidecar would replace the scan's.
    with pytest.raises(SourceOverwriteError, match=r"a\.json"):
        _upscale(scan, scan.with_name("a.nii"), model)
    # Another way of reading it, and a volume that was read from it.
    with pytest.raises(SourceOverwriteError):
        _upscale(scan, scan, model, max_memory="1GB")
    with pytest.raises(SourceOverwriteError):
        medsr.upscale(io.load(scan), scan, model=model, scale=(1, 1, 4), overwrite=True)
    with pytest.raises(SourceOverwriteError):
        io.save(io.load(scan), scan, overwrite=True)
    assert _content(tmp_path) == before
    _upscale(scan, free, model)
    assert io.load(free).shape == (16, 14, 24)


def test_names_in_other_letters_where_the_disk_takes_them_for_the_same(scan: Path) -> None:
    other = scan.with_name("A.NII.GZ")
    if not other.exists():  # as on such a disk
        os.link(scan, other)
    with pytest.raises(SourceOverwriteError):
        check_apart(scan, [other])


def test_the_command_says_so_in_one_line(
    scan: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = _content(tmp_path)
    calls = [
        ("upscale", scan, scan),
        ("upscale", scan, scan, "--overwrite"),
        ("degrade", scan, scan, "--scale", "1,1,2", "--kind", "kspace", "--overwrite"),
    ]
    for words in calls:
        assert main([str(word) for word in words]) == SourceOverwriteError.exit_code == 34
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert "never replaced" in said.err
    assert _content(tmp_path) == before


@pytest.mark.parametrize(("header", "voxels"), [("b.nhdr", "b.raw.gz"), ("b.mhd", "b.zraw")])
def test_the_voxels_beside_a_header_belong_to_it(header: str, voxels: str, tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(DATA.T)
    SimpleITK.WriteImage(image, tmp_path / header, useCompression=True)
    beside = next(p for p in tmp_path.iterdir() if p.name != header)
    assert {os.path.realpath(p) for p in files_of(tmp_path / header)} == {
        os.path.realpath(p) for p in (tmp_path / header, beside)
    }, voxels
    with pytest.raises(SourceOverwriteError):
        check_apart(tmp_path / header, [beside])


def test_sidecars_of_a_dataset_belong_to_its_scans(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    scan = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    for name in ("T1w.json", "sub-01/anat/sub-01_T1w.json"):
        (tmp_path / name).write_text('{"FlipAngle": 9}')
        with pytest.raises(SourceOverwriteError):
            check_apart(scan, [tmp_path / name])
    (tmp_path / "T2w.json").write_text("{}")
    check_apart(scan, [tmp_path / "T2w.json", tmp_path / "new.json"])


def test_a_dicom_folder_is_not_replaced_nor_filled(
    tmp_path: Path, make_series: Make, tiny_model: Make
) -> None:
    series = make_series(tmp_path / "study" / "series", DATA, modality="MR", rescale=None)
    (tmp_path / "link").symlink_to(series, target_is_directory=True)
    slice_ = sorted(series.iterdir())[0]
    packed = Path(shutil.make_archive(str(tmp_path / "study" / "packed"), "zip", series))
    before, model = _content(tmp_path / "study"), tiny_model()
    (tmp_path / "old").symlink_to(slice_)
    os.link(slice_, tmp_path / "hard")
    wrong: list[tuple[Path, Path, dict[str, Any]]] = [
        (series, series, {}),
        (series, tmp_path / "link", {}),
        (tmp_path / "link", series, {}),
        (series, tmp_path / "study", {}),
        (series, series / "sr", {}),
        (series, tmp_path / "link" / "deep" / "sr", {}),
        (slice_, series, {}),
        (packed, tmp_path / "study", {}),
        (packed, tmp_path / "out", {"report": packed}),
        (series, tmp_path / "out", {"report": slice_}),
        (series, tmp_path / "out", {"preview": tmp_path / "old"}),
        (series, tmp_path / "out", {"report": tmp_path / "hard"}),
        (slice_, tmp_path / "out", {"report": sorted(series.iterdir())[1]}),
    ]
    for source, output, more in wrong:
        with pytest.raises(SourceOverwriteError):
            _upscale(source, output, model, **more)
    volume = io.load(series)
    for folder in (series, series / "sr", tmp_path / "study"):
        with pytest.raises(SourceOverwriteError):
            io.save(volume, folder, overwrite=True)
    assert _content(tmp_path / "study") == before
    assert not (tmp_path / "out").exists()
    # Beside it, and files that medsr writes, in it too.
    (series / "report.json").write_text("{}")
    _upscale(series, tmp_path / "study" / "sr", model, report=series / "report.json")
    assert len(list((tmp_path / "study" / "sr").iterdir())) == 24


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_slices_are_not_replaced_where_links_lead_to_them(
    link: Callable[[Path, Path], None], tmp_path: Path, make_series: Make, tiny_model: Make
) -> None:
    raw = make_series(tmp_path / "raw" / "p1", DATA, modality="MR", rescale=None)
    chosen = tmp_path / "chosen" / "p1"
    chosen.mkdir(parents=True)
    for file in raw.iterdir():
        link(file, chosen / file.name)
    before, model = _content(tmp_path), tiny_model()
    with pytest.raises(SourceOverwriteError, match="never replaced"):
        _upscale(chosen, raw, model)
    with pytest.raises(SourceOverwriteError, match="never replaced"):
        _upscale(raw, chosen, model)
    with pytest.raises(SourceOverwriteError, match="never replaced"):
        io.save(io.load(chosen), raw, overwrite=True)
    summary = medsr.upscale_folder(
        chosen.parent, raw.parent, model=model, scale=(1, 1, 4), overwrite=True
    )
    assert [scan.error for scan in summary.scans] == ["SourceOverwriteError"]
    assert _content(tmp_path) == before


def test_a_dicomdir_stands_for_the_folder_it_lies_in(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").touch()
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "IMAGES" / "1").touch()
    for folder in (tmp_path, tmp_path / "IMAGES", tmp_path / "sr"):
        with pytest.raises(SourceOverwriteError):
            check_apart(tmp_path / "DICOMDIR", folder=folder)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-linked"
    elsewhere.mkdir()
    (tmp_path / "MORE").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(SourceOverwriteError):
        check_apart(tmp_path / "DICOMDIR", folder=elsewhere)
    for file in (tmp_path / "IMAGES" / "1", tmp_path / "DICOMDIR"):
        with pytest.raises(SourceOverwriteError):
            check_apart(tmp_path / "DICOMDIR", [file])
    check_apart(tmp_path / "DICOMDIR", [tmp_path / "new.json"], tmp_path.parent / "sr")

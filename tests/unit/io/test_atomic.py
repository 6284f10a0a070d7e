"""Atomic output: all or nothing, and nobody's files are lost."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from medsr import io
from medsr.errors import OutputExistsError, OutputFormatError, OutputNotWritableError
from medsr.geometry import Geometry
from medsr.io.atomic import atomic_file, atomic_folder, check_output
from medsr.volume import Volume


def tree(folder: Path) -> dict[str, str | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_half(writing: AbstractContextManager[Path], error: type[BaseException]) -> None:
    with writing as temporary:
        (temporary / "1.dcm" if temporary.is_dir() else temporary).write_text("half")
        raise error


@pytest.fixture
def volume() -> Volume:
    return Volume(np.ones((4, 5, 6), np.float32), Geometry((4, 5, 6), np.eye(4)))


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "scan.nii.gz"
    with atomic_file(target) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("done")
        assert not target.exists()
    assert tree(tmp_path) == {"scan.nii.gz": "done"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_whatever_ends_the_writing_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], before: str | None
) -> None:
    target = tmp_path / "a.nii"
    if before is not None:
        target.write_text(before)
    expected = tree(tmp_path)
    with pytest.raises(error):
        write_half(atomic_file(target, overwrite=True), error)
    assert tree(tmp_path) == expected
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "1.dcm").write_text("old")
    expected = tree(tmp_path)
    with pytest.raises(error):
        write_half(atomic_folder(folder, overwrite=True), error)
    assert tree(tmp_path) == expected


def test_overwriting_must_be_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "a.nii"
    target.write_text("old")
    with pytest.raises(OutputExistsError, match=r"a\.nii"), atomic_file(target):
        pytest.fail("the block must not run")
    with atomic_file(target, overwrite=True) as temporary:
        temporary.write_text("new")
    assert tree(tmp_path) == {"a.nii": "new"}


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "a.nii"
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(atomic_file(target))
        temporary.write_text("ours")
        target.write_text("theirs")
        with pytest.raises(OutputExistsError):
            stack.close()
    assert tree(tmp_path) == {"a.nii": "theirs"}


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "series"
    target.mkdir()
    with atomic_folder(target) as temporary:  # an empty folder counts as free
        (temporary / "1.dcm").write_text("one")
    with pytest.raises(OutputExistsError), atomic_folder(target):
        pytest.fail("the block must not run")
    with atomic_folder(target, overwrite=True) as temporary:
        (temporary / "2.dcm").write_text("two")
    assert tree(tmp_path) == {"series": None, "series/2.dcm": "two"}


def test_other_peoples_files_are_not_replaced_with_a_folder(tmp_path: Path, volume: Volume) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "thesis.tex").write_text("ten years of work")
    (tmp_path / "series" / "1.dcm").write_text("old")
    expected = tree(tmp_path)
    with pytest.raises(OutputExistsError, match="1 entries of another kind"):
        io.save(volume, tmp_path / "series", overwrite=True)
    assert tree(tmp_path) == expected


def test_files_and_folders_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    expected = tree(tmp_path)
    with pytest.raises(OutputExistsError), atomic_file(tmp_path / "folder", overwrite=True):
        pytest.fail("the block must not run")
    with pytest.raises(OutputExistsError), atomic_folder(tmp_path / "file", overwrite=True):
        pytest.fail("the block must not run")
    assert tree(tmp_path) == expected


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritableError, match="does not exist"):
        check_output(tmp_path / "none" / "a.nii", overwrite=True)


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # the superuser may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: path != folder or not mode & os.W_OK)
    with pytest.raises(OutputNotWritableError, match="permission"):
        check_output(folder / "a.nii", overwrite=False)
    check_output(tmp_path / "a.nii", overwrite=False)


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritableError, match="No space"), atomic_file(tmp_path / "a.nii"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mgz"])
def test_save_leaves_one_file_that_load_takes(tmp_path: Path, volume: Volume, name: str) -> None:
    assert io.save(volume, tmp_path / name) == tmp_path / name
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(OutputExistsError):
        io.save(volume, tmp_path / name)
    io.save(volume.replace(data=volume.data * 2), tmp_path / name, overwrite=True)
    assert io.load(tmp_path / name).data.max() == 2.0


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd", "a.mgz"])
def test_an_interrupt_in_a_writer_leaves_nothing(
    tmp_path: Path, volume: Volume, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medsr.io.scaling import Scaling

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real_replace = Path.replace
    monkeypatch.setattr(Path, "replace", interrupted)  # the file is written, not yet renamed
    with pytest.raises(KeyboardInterrupt):
        io.save(volume, tmp_path / name)
    assert tree(tmp_path) == {}
    monkeypatch.setattr(Path, "replace", real_replace)
    monkeypatch.setattr(Scaling, "stored", interrupted)
    with pytest.raises(KeyboardInterrupt):
        io.save(volume, tmp_path / name)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.png", None), ("a.mhd", None), ("a.dcm", None), ("a.nii", "nrrd"), ("a", "jpeg")],
)
def test_formats_that_cannot_be_written(name: str, format: str | None) -> None:
    with pytest.raises(OutputFormatError):
        io.output_format(name, format=format)


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.NII.GZ", "nifti"), ("b.mha", "mha"), ("1.2.840", "dicom"), ("out", "dicom")],
)
def test_the_name_chooses_the_format(name: str, format: str) -> None:
    assert io.output_format(name) == format


def test_the_format_can_be_named(tmp_path: Path, volume: Volume) -> None:
    io.save(volume, tmp_path / "plain", format="mha")
    assert (tmp_path / "plain").read_bytes().startswith(b"ObjectType = Image")

"""Voxels of NRRD and MetaImage in files of their own, and as text: against SimpleITK."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from medsr import io
from medsr.errors import CorruptFileError, MedsrError, UnsupportedFormatError
from medsr.io.reading import open_planes

sitk = SimpleITK
VOXELS = np.arange(-105, 105, dtype=np.int16).reshape((6, 5, 7), order="F")
NRRD = "NRRD0004\ntype: {}\ndimension: 3\nsizes: 6 5 7\nendian: little\nencoding: {}\n"
META = "NDims = 3\nDimSize = 6 5 7\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
Header = Callable[[str], Path]


@pytest.fixture(params=["nhdr", "mhd"])
def header(request: pytest.FixtureRequest, tmp_path: Path) -> Header:
    """Writes a header that names a file, beside the voxels a.raw in the folder ``a``."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "a.raw").write_bytes(VOXELS.tobytes(order="F"))
    (folder / "b").mkdir()
    (folder / "b" / "a.raw").write_bytes(VOXELS.tobytes(order="F"))
    path = folder / f"a.{request.param}"

    def write(name: str) -> Path:
        if request.param == "mhd":
            path.write_text(f"{META}ElementDataFile = {name}\n")
        else:
            path.write_text(NRRD.format("short", "raw") + f"data file: {name}\n")
        return path

    return write


@pytest.mark.parametrize("name", ["a.raw", "./a.raw", "././a.raw", ".//a.raw"])
def test_a_file_beside_its_header_is_read(header: Header, name: str) -> None:
    path = header(name)
    np.testing.assert_array_equal(io.load(path).data, VOXELS)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0), VOXELS
    )
    np.testing.assert_array_equal(open_planes(path).read(2, 4), VOXELS[:, :, 2:4])


@pytest.mark.parametrize("way", ["absolute", "relative", "by a link"])
def test_its_own_folder_may_be_named_whole(
    header: Header, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = header(str(tmp_path / "a" / "a.raw"))
    if way == "relative":
        monkeypatch.chdir(tmp_path)
        path = path.relative_to(tmp_path)
    elif way == "by a link":
        (tmp_path / "link").symlink_to(tmp_path / "a")
        path = tmp_path / "link" / path.name
    np.testing.assert_array_equal(io.load(path).data, VOXELS)


@pytest.mark.parametrize(
    "name",
    [
        "../a/a.raw",
        "./../a/a.raw",
        "b/a.raw",
        "b/../a.raw",
        "./b/./a.raw",
        "/a.raw",
        "//a.raw",
        "{0}/b/a.raw",
        "{0}/../a/a.raw",
        "{0}/b/../a.raw",
        "..",
        ".",
        "./",
        "{0}/",
        "..\\a\\a.raw",
        "C:\\a\\a.raw",
        "~/a.raw",
        "file://{0}/a.raw",
        "./" + "a" * 300,
    ],
)
def test_no_other_folder_is(header: Header, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedFormatError, match="another folder"):
        io.load(header(name.format(tmp_path / "a")))


@given(st.text(alphabet="./ab\\~", max_size=12))
def test_whatever_is_named_only_the_headers_folder_is_looked_into(name: str) -> None:
    from medsr.io.text_header import Fields

    here = Path("no such folder") / "c"
    with pytest.raises(MedsrError, match=r"another folder|not beside it|several files"):
        Fields(here, {}).beside(name)
    probe = Fields(Path(__file__), {})
    try:
        found = probe.beside(f"{name}{Path(__file__).name}")
    except MedsrError:
        return
    assert found == Path(__file__)
    assert set(name) <= {".", "/"}
    assert os.path.normpath(f"{name}x") == "x"


def test_lists_missing_and_short_files(header: Header, tmp_path: Path) -> None:
    for several in ("LIST", "a%d.raw 1 7 1"):
        with pytest.raises(UnsupportedFormatError, match="several files"):
            io.load(header(several))
    with pytest.raises(CorruptFileError, match="not beside it"):
        io.load(header("c.raw"))
    raw = tmp_path / "a" / "a.raw"
    raw.write_bytes(raw.read_bytes()[:-2])
    with pytest.raises(CorruptFileError, match="420 bytes but the file has 418"):
        io.load(header("a.raw"))


def test_fields_behind_the_name_of_the_file_count(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes(order="F"))
    path = tmp_path / "a.nhdr"
    path.write_text(
        NRRD.format("short", "raw")
        + "data file: a.raw\nspace: LPS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n"
    )
    assert io.load(path).spacing == sitk.ReadImage(str(path)).GetSpacing() == (1.0, 2.0, 3.0)
    path.write_text(NRRD.format("short", "raw") + "data file:=a.raw\n\n")
    with pytest.raises(CorruptFileError):
        io.load(path)


@pytest.mark.parametrize("encoding", ["text", "txt", "ascii", "hex"])
@pytest.mark.parametrize("kind", ["short", "signed char", "ushort", "int64", "float", "double"])
def test_voxels_that_are_written_out(tmp_path: Path, encoding: str, kind: str) -> None:
    types = {"signed char": "i1", "short": "<i2", "ushort": "<u2", "int64": "<i8"}
    dtype = np.dtype(types.get(kind, "<f4" if kind == "float" else "<f8"))
    values = np.abs(VOXELS) if kind == "ushort" else VOXELS
    data = (values * (0.37 if dtype.kind == "f" else 1)).astype(dtype)
    flat = data.ravel(order="F")
    if encoding == "hex":
        digits = flat.tobytes().hex()
        text = "\n".join(digits[k : k + 60] for k in range(0, len(digits), 60)).upper()
    else:
        text = " ".join(f"{value!r}," for value in flat.tolist()) + "\n"
    path = tmp_path / "a.nrrd"
    path.write_text(NRRD.format(kind, encoding) + "\n" + text)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)
    np.testing.assert_allclose(expected, data, rtol=1e-6)
    volume = io.load(path)
    np.testing.assert_array_equal(volume.data, expected.astype(volume.data.dtype))
    np.testing.assert_array_equal(open_planes(path).read(3, 5), volume.data[:, :, 3:5])


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("text", "1 2 3"),
        ("text", "7 " * 209 + "x"),
        ("text", "7 " * 209 + "1.5"),
        ("text", "7 " * 209 + "32768"),
        ("text", "7 " * 209 + "-99999999999999999999999999"),
        ("hex", "00" * 419),
        ("hex", "00" * 419 + "0g"),
        ("hex", "00" * 419 + "0"),
    ],
)
def test_damage_in_voxels_that_are_written_out(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "a.nrrd"
    path.write_text(NRRD.format("short", encoding) + "\n" + text)
    with pytest.raises(CorruptFileError, match=r"a\.nrrd"):
        io.load(path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
@pytest.mark.parametrize("cuts", [[0], [1, 2, 419], [200], range(1, 420, 7)])
def test_several_streams_are_read_as_one(
    tmp_path: Path, pack: Callable[[bytes], bytes], cuts: list[int]
) -> None:
    raw = VOXELS.tobytes(order="F")
    ends = [*cuts, len(raw)]
    parts = [raw[a:b] for a, b in zip([0, *cuts], ends, strict=True)]
    name = {gzip.compress: "gzip", bz2.compress: "bzip2"}[pack]
    head = (NRRD.format("short", name) + "\n").encode()
    path = tmp_path / "a.nrrd"
    path.write_bytes(head + b"".join(map(pack, parts)))
    np.testing.assert_array_equal(io.load(path).data, VOXELS)
    if name == "gzip":  # SimpleITK is built without bzip2
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        np.testing.assert_array_equal(found.transpose(2, 1, 0), VOXELS)
    whole = path.read_bytes()
    for damaged in (whole[:-9], head + b"".join(map(pack, parts[:-1])) + b"garbage"):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError):
            io.load(path)


def test_lengths_in_another_unit_are_told(tmp_path: Path) -> None:
    for unit, told in (("mm", False), ("um", True)):
        path = tmp_path / f"{unit}.nrrd"
        text = NRRD.format("short", "raw") + "space: LPS\n"
        text += (
            f'space directions: (1,0,0) (0,1,0) (0,0,1)\nspace units: "{unit}" "{unit}" "{unit}"'
        )
        path.write_bytes((text + "\n\n").encode() + VOXELS.tobytes(order="F"))
        assert any("unit" in note for note in io.load(path).source.notes) == told
        assert sitk.ReadImage(str(path)).GetSpacing() == io.load(path).spacing == (1, 1, 1)


def test_text_of_metaimages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_text(META + "BinaryData = False\nElementDataFile = LOCAL\n" + "7 " * 210)
    with pytest.raises(UnsupportedFormatError, match="written as text"):
        io.load(path)

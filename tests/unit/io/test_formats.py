"""The table of formats, and a format that comes from outside the package."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

import medsr
from medsr import io
from medsr.cli.main import main
from medsr.errors import (
    InputNotFoundError,
    NonFiniteError,
    OutputExistsError,
    OutputFormatError,
    SourceOverwriteError,
    UnsupportedFormatError,
    UsageError,
)
from medsr.geometry import Geometry
from medsr.io import ListedVolume, formats
from medsr.io.reading import open_planes
from medsr.volume import Source, Volume

TOY = '''
"""Planes of float32 behind one line of JSON."""

import json
from contextlib import contextmanager

import numpy as np

from medsr.geometry import Geometry
from medsr.io.formats import Format
from medsr.io.planes import header_of
from medsr.io.scaling import Scaling
from medsr.volume import Source


class ToyPlanes:
    def __init__(self, path):
        self.path = path
        with path.open("rb") as file:
            line = file.readline()
        fields = json.loads(line)
        self.offset = len(line)
        geometry = Geometry(tuple(fields["shape"]), np.array(fields["affine"]))
        source = Source("toy", path, np.dtype("<f4"))
        self.header = header_of(geometry, np.float32, source=source)

    def read(self, start, stop):
        x, y, _ = self.header.shape
        with self.path.open("rb") as file:
            file.seek(self.offset + 4 * x * y * start)
            data = np.frombuffer(file.read(4 * x * y * (stop - start)), "<f4")
        return data.reshape((x, y, stop - start), order="F")

    def close(self):
        pass


class ToyFile:
    def __init__(self, stream):
        self.stream = stream

    def append(self, stored):
        self.stream.write(stored.astype("<f4").tobytes(order="F"))


class ToyCodec:
    def open(self, path, *, series, allow, whole):
        return ToyPlanes(path)

    def companions(self, path):
        return []

    def scaling(self, source, value_range):
        return Scaling(np.dtype(np.float32))

    def check_writable(self, volume, dicom):
        pass

    @contextmanager
    def create(self, like, path, scaling, derivation, dicom):
        with path.open("wb") as stream:
            fields = {"shape": like.shape, "affine": like.geometry.affine.tolist()}
            stream.write((json.dumps(fields) + "\\n").encode())
            yield ToyFile(stream)


CODEC = ToyCodec()
FORMAT = Format("toy", (".toy",), (".toy",), "toy_format:CODEC")
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The format, installed with an entry point as a package of its own would be."""
    package = tmp_path / "installed"
    about = package / "toy_format-1.0.dist-info"
    about.mkdir(parents=True)
    (package / "toy_format.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-format\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[medsr.formats]\ntoy = toy_format:FORMAT\n")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setattr(formats, "_TABLE", dict(formats._TABLE))
    formats._add_entry_points.cache_clear()
    yield
    formats._add_entry_points.cache_clear()
    formats._import.cache_clear()
    sys.modules.pop("toy_format", None)


@pytest.fixture
def scan(phantom: NDArray[np.float32]) -> Volume:
    geometry = Geometry((40, 36, 11), np.diag([-1.0, 1.0, 4.0, 1.0]))
    return Volume(phantom[:40, :36, :11], geometry, "MR", source=Source("array"))


@pytest.mark.usefixtures("toy")
def test_a_format_from_outside_is_read_written_and_upscaled(
    scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = io.save(scan, tmp_path / "scan.toy")
    again = io.load(path, modality="MR")
    assert again.geometry == scan.geometry
    np.testing.assert_array_equal(again.data, scan.data)
    assert io.inspect(path).spacing_mm == (1.0, 1.0, 4.0)
    options = {"model": "mr-z4", "modality": "mr", "precision": "fp32"}
    whole = medsr.upscale(path, tmp_path / "whole.toy", **options)
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda *_: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 4)
    chunks = medsr.upscale(path, tmp_path / "chunks.toy", **options)
    assert chunks.report["tiles"]["chunks"] > 1
    found = io.load(tmp_path / "chunks.toy", modality="MR")
    assert found.geometry == whole.whole().geometry
    np.testing.assert_allclose(found.data, whole.whole().data, atol=0.01)


@pytest.mark.usefixtures("toy")
def test_the_command_line_knows_it(
    scan: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = io.save(scan, tmp_path / "scan", format="toy")
    assert main(["inspect", str(path.rename(tmp_path / "scan.toy")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "toy"


def test_a_format_is_registered_for_one_process(
    scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputFormatError, match=r"use \.nii\.gz, \.nii, \.nrrd"):
        io.save(scan, tmp_path / "a.bin")
    monkeypatch.setattr(formats, "_TABLE", dict(formats._TABLE))
    spaces: dict[str, object] = {"__name__": "toy_format"}
    exec(TOY, spaces)
    monkeypatch.setitem(sys.modules, "toy_format", SimpleNamespace(**spaces))  # type: ignore
    formats._import.cache_clear()
    formats.register(formats.Format("toy", (".bin",), (".bin",), "toy_format:CODEC"))
    np.testing.assert_array_equal(io.load(io.save(scan, tmp_path / "a.bin")).data, scan.data)
    formats._import.cache_clear()


@pytest.mark.usefixtures("toy")
def test_a_package_that_does_not_load_leaves_the_other_formats(
    scan: Volume, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "installed" / "toy_format.py").write_text("import nothing_of_this_name")
    path = io.save(scan, tmp_path / "a.nii")
    np.testing.assert_array_equal(io.load(path).data, scan.data)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("format 'toy' of toy_format:FORMAT cannot be loaded")


@pytest.mark.usefixtures("toy")
def test_a_format_from_outside_may_hold_several_volumes(
    scan: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = io.save(scan, tmp_path / "scan.toy")
    with pytest.raises(UsageError, match="this is toy"):
        io.list_volumes(path)
    listed = ListedVolume(1, "1", "MR", scan.shape, scan.spacing, "", None, 0)
    monkeypatch.setitem(
        formats.table(), "toy", dataclasses.replace(formats.find("toy"), has_series=True)
    )
    monkeypatch.setattr(
        type(formats.find("toy").load()),
        "list_volumes",
        lambda self, path, *, allow: (listed,),
        raising=False,
    )
    assert io.list_volumes(path) == (listed,)
    assert io.load(path, series="1").shape == scan.shape


def test_the_place_of_an_output_is_checked_before_its_voxels(scan: Volume, tmp_path: Path) -> None:
    broken = scan.replace(data=np.full_like(scan.data, np.nan))
    with pytest.raises(OutputFormatError):
        io.save(broken, tmp_path / "a.png")
    there = io.save(scan, tmp_path / "a.nii")
    with pytest.raises(OutputExistsError):
        io.save(broken, there)
    source = io.load(there, modality="MR")
    with pytest.raises(SourceOverwriteError):
        io.save(source.replace(data=broken.data), there, overwrite=True)
    with pytest.raises(NonFiniteError, match="the volume to be written"):
        io.save(broken, tmp_path / "b.nii")
    assert not (tmp_path / "b.nii").exists()


@pytest.mark.parametrize("read", [io.load, io.inspect, open_planes])
def test_what_may_be_allowed_is_checked_before_anything_is_opened(
    read: Callable[..., object], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="cannot be allowed"):
        read(tmp_path / "none.nii", allow=["anything"])
    with pytest.raises(InputNotFoundError):
        read(tmp_path / "none.nii", allow=["gaps"])


def test_what_is_read_is_told_in_the_order_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("no scan")
    endings = r"reads \.nii, \.nii\.gz, \.nrrd, \.mha, \.mgz, or a DICOM file"
    with pytest.raises(UnsupportedFormatError, match=endings):
        io.load(tmp_path / "a.xyz")


def test_every_format_is_written_by_the_names_it_is_read_by() -> None:
    for known in formats.table().values():
        assert set(known.written) <= set(known.suffixes)
        assert known.load() is not None
        for suffix in known.written:
            assert formats.by_name_of(Path(f"scan{suffix.upper()}")) is known

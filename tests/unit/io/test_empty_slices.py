"""Slices of one value amid others are told of, however the scan lies in its file and is read."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medsr import io
from medsr.cli.main import main
from medsr.geometry import Geometry
from medsr.io.planes import MemoryPlanes
from medsr.io.survey import EmptySlices, survey
from medsr.volume import Volume
from tests.conftest import make_phantom

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
SCANS = sorted(DATA.rglob("*.nii.gz"))


def _note(volume: Volume) -> str | None:
    return survey(MemoryPlanes(volume), "the scan").empty


def scan(*empty: int, value: float = 0) -> NDArray[np.float32]:
    data = make_phantom((16, 14, 9)).astype(np.float32) + 1
    for place in empty:
        data[:, :, place] = value
    return data


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize(
    ("empty", "inner"),
    [((), ()), ((0,), ()), ((0, 1, 8), ()), ((4,), (4,)), ((0, 2, 8), (2,)), ((3, 5), (3, 5))],
)
def test_found_along_the_slice_axis_in_blocks_of_any_size(
    axes: tuple[int, int, int], empty: tuple[int, ...], inner: tuple[int, ...]
) -> None:
    for value in (0, -1024, 17):
        data = np.transpose(scan(*empty, value=value), axes)
        spacing = np.array([0.9, 0.9, 4.0])[list(axes)]
        geometry = Geometry(data.shape, np.diag([*spacing, 1.0]))
        notes = {_note(Volume(data, geometry))}
        for size in (1, 2, 5):
            slices = EmptySlices(geometry)
            for start in range(0, data.shape[2], size):
                slices.add(start, data[:, :, start : start + size])
            notes.add(slices.note())
        (note,) = notes
        assert (note is None) == (not inner)
        if note is not None:
            shown = ", ".join(str(place + 1) for place in inner)
            assert note.startswith(f"slice {shown} of 9 holds one value alone ({value}), ")


def test_a_single_value_elsewhere_is_no_empty_slice() -> None:
    data = scan(4)
    data[7, 7, 4] = 1
    geometry = Geometry(data.shape, np.diag([0.9, 0.9, 4.0, 1.0]))
    assert _note(Volume(data, geometry)) is None
    assert _note(Volume(np.zeros_like(data), geometry)) is None


@pytest.mark.parametrize("by_slabs", [False, True])
def test_upscale_says_so_even_when_quiet(
    by_slabs: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: by_slabs)
    path, report = tmp_path / "a.nii", tmp_path / "a.json"
    image = nib.Nifti1Image(scan(4).round().astype(np.int16), np.diag([1.0, 1.0, 4.0, 1.0]))
    image.to_filename(path)
    words = ["upscale", str(path), str(tmp_path / "b.nii"), "--quiet", "--report", str(report)]
    assert main(words) == 0
    assert capsys.readouterr().err.count("slice 5 of 9 holds one value alone (0)") == 1
    told = json.loads(report.read_text())
    assert ("slabs" in told["tiles"]) == by_slabs
    assert sum("slice 5 of 9" in warning for warning in told["warnings"]) == 1


@pytest.mark.skipif(not SCANS, reason="the real scans are not here")
def test_no_real_scan_has_one() -> None:
    assert [file.name for file in SCANS if _note(io.load(file))] == []

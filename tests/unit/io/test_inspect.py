"""Inspection from headers, the guess of the modality, and what is not imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medsr import io
from medsr.errors import InputNotFoundError, UnsupportedFormatError, UsageError
from medsr.geometry import Geometry
from medsr.volume import Volume

SHAPE = (9, 8, 7)
AFFINE = np.array([[-0.9, 0, 0, 1], [0, 0, -5.5, 2], [0, 0.8, 0, 3], [0, 0, 0, 1.0]])
ENDINGS = ["nii", "nii.gz", "nrrd", "mha", "mgz"]


def saved(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    return io.save(Volume(data, Geometry(data.shape, affine)), path, overwrite=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_header_tells_the_grid_and_the_type(tmp_path: Path, ending: str) -> None:
    path = saved(tmp_path / f"scan.{ending}", np.ones(SHAPE, np.int16))
    found = io.inspect(path)
    assert found.format == {"nii": "nifti", "nii.gz": "nifti"}.get(ending, ending)
    assert (found.shape, found.dtype) == (SHAPE, "int16")
    assert found.spacing_mm == pytest.approx((0.9, 0.8, 5.5))
    assert found.axcodes == ("L", "S", "P")
    assert found.slice_axis == 2
    assert found.slice_ratio == pytest.approx(5.5 / 0.8)
    assert (found.modality, found.units, found.value_range) == (None, None, None)
    assert found.warnings == ()


# The footer of an MGZ file lies behind its voxels; nibabel reads through to it.
@pytest.mark.parametrize("ending", ENDINGS[:-1])
def test_voxels_are_not_read_unless_asked_for(tmp_path: Path, ending: str) -> None:
    data = np.random.default_rng(0).integers(-900, 900, (20, 20, 20)).astype(np.int16)
    path = saved(tmp_path / f"scan.{ending}", data)
    found = io.inspect(path, with_range=True)
    assert found.value_range == (float(data.min()), float(data.max()))
    assert (found.modality, found.units) == ("CT", "HU")
    if ending != "nii":  # an uncompressed file is measured against its header
        path.write_bytes(path.read_bytes()[:-2000])
        assert io.inspect(path).shape == (20, 20, 20)


def test_an_inspection_is_ready_for_json_and_names_no_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "Doe_Jane.nii", np.ones(SHAPE, np.float32))
    text = json.dumps(io.inspect(path, with_range=True).to_dict())
    assert json.loads(text)["value_range"] == [1.0, 1.0]
    assert json.loads(text)["shape"] == list(SHAPE)
    assert "Doe" not in text


def test_a_sheared_or_thin_grid_is_described_with_a_warning(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[:3, 2] += 2.0 * AFFINE[:3, 1]
    path = saved(tmp_path / "a.nii", np.ones(SHAPE, np.int16), sheared)
    assert "sheared" in io.inspect(path).warnings[0]
    path = saved(tmp_path / "b.nii", np.ones((9, 8, 2), np.int16))
    assert "fewer than 4" in io.inspect(path).warnings[0]
    assert "--allow-few-slices (exit code 16)" in io.inspect(path).warnings[0]
    path = saved(tmp_path / "c.nii", np.ones((9, 8, 1), np.int16))
    assert "to be upscaled (exit code 16)" in io.inspect(path).warnings[0]


def test_what_is_no_scan(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        io.inspect(tmp_path / "none.nii.gz")
    (tmp_path / "notes.txt").write_text("no scan at all")
    with pytest.raises(UnsupportedFormatError, match=r"\.nii"):
        io.inspect(tmp_path / "notes.txt")


def test_inspection_imports_neither_torch_nor_monai(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", np.ones(SHAPE, np.int16))
    code = (
        "import sys, medsr.io\n"
        f"print(medsr.io.inspect({str(path)!r}, with_range=True).shape)\n"
        "print(sorted({'torch', 'monai', 'SimpleITK'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines() == [str(SHAPE), "[]"]


@pytest.mark.parametrize(
    ("call", "forbidden"),
    [
        (["inspect", "series"], ("torch", "medsr.io.dicom.write", "pydicom.sr")),
        (["upscale", "series", "fine", "--model", "ct-z4"], ("matplotlib", "pandas")),
    ],
    ids=lambda value: value[0],
)
def test_dicom_loads_only_what_it_needs(
    make_series: Callable[..., Path], tmp_path: Path, call: list[str], forbidden: tuple[str, ...]
) -> None:
    data = np.random.default_rng(0).integers(0, 1500, (16, 16, 6)).astype(np.int16)
    make_series(tmp_path / "series", data, spacing=(1.0, 1.0, 4.0))
    never = (*forbidden, "SimpleITK", "monai", "skimage")
    code = (
        "import sys\nfrom medsr.cli.main import main\n"
        f"assert main({call!r}) == 0\n"
        f"print('LOADED', [name for name in sys.modules if name.startswith({never!r})])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert done.stdout.splitlines()[-1:] == ["LOADED []"], done.stderr


def test_modality_is_judged_by_the_values_and_the_callers_word_counts(
    tmp_path: Path, phantom: np.ndarray, rng: np.random.Generator
) -> None:
    body = np.where(phantom > 100, phantom * 0.2 - 50, -1000).astype(np.int16)
    padded = body.copy()
    padded[:4] = -3024
    phase = rng.integers(-4096, 4096, body.shape).astype(np.int16)
    for data, modality in ((body, "CT"), (padded, "CT"), (phantom, "MR"), (phase, "MR")):
        volume = io.load(saved(tmp_path / "a.nii", data))
        assert (volume.modality, volume.units == "HU") == (modality, modality == "CT")
    saved(tmp_path / "a.nii", body)
    assert io.load(tmp_path / "a.nii", modality="MR").units == "arbitrary"
    saved(tmp_path / "a.nii", phantom)
    assert io.load(tmp_path / "a.nii", modality="CT").units == "HU"
    with pytest.raises(UsageError):
        io.load(tmp_path / "a.nii", series="1.2.3")
    with pytest.raises(UsageError):
        io.load(tmp_path / "a.nii", modality="ct")

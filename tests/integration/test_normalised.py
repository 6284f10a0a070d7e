"""MR in any numbers gives one result, on both ways; what is in doubt is asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsr import io
from medsr.cli.main import main
from medsr.errors import ModalityError, NonFiniteError, NotHounsfieldError
from medsr.geometry import Geometry
from medsr.infer.upscale import upscale
from medsr.types import Array
from medsr.volume import Volume

AFFINE = np.diag([0.9, 0.9, 3.6, 1.0])


@pytest.fixture
def slabs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make every scan count as large, a few planes at a time."""

    def switch() -> None:
        monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
        monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 3)

    return switch


def written(folder: Path, data: Array, model: Path, name: str = "in.nii.gz", **more: Any) -> Array:
    """What the upscaled file of an array holds."""
    nib.save(nib.Nifti1Image(data, AFFINE), folder / name)
    out = folder / f"out-{name}"
    upscale(folder / name, out, model=model, precision="fp32", overwrite=True, **more)
    return np.asarray(io.load(out).data, dtype=np.float64)


@pytest.mark.parametrize("way", ["whole", "slabs"])
@pytest.mark.parametrize(
    ("factor", "offset"), [(0.004, -1.2), (2e-3, -1.0), (1e-3, 0.0), (1.0, 1000.0), (0.5, -3000.0)]
)
def test_results_follow_the_values(
    phantom: Array,
    tmp_path: Path,
    tiny_model: Any,
    slabs: Any,
    way: str,
    factor: float,
    offset: float,
) -> None:
    base = phantom[:24, :20, ::3].astype(np.float32)
    expected = written(tmp_path, base, tiny_model())
    data = (base * np.float32(factor) + np.float32(offset)).astype(np.float32)
    if way == "slabs":
        slabs()
    found = written(tmp_path, data, tiny_model(), "other.nii.gz", modality="mr")
    apart = np.abs((found - offset) / factor - expected).max()
    assert apart < 2e-3 * base.max()
    assert expected.std() > 0.1 * base.max()


@pytest.mark.parametrize("way", ["whole", "slabs"])
def test_zeros_around_a_mask_come_back(
    phantom: Array, tmp_path: Path, tiny_model: Any, slabs: Any, way: str
) -> None:
    base = phantom[:24, :20, ::3].astype(np.float64)
    mask = base > 60
    mean, width = base[mask].mean(), base[mask].std()
    data = np.where(mask, (base - mean) / width, 0).astype(np.float32)
    expected = written(tmp_path, np.where(mask, base, 0).astype(np.float32), tiny_model())
    if way == "slabs":
        slabs()
    found = written(tmp_path, data, tiny_model(), "z.nii.gz")
    fine = np.repeat(mask, 4, axis=2)
    assert (found[~fine] == 0).all()
    apart = (found * width + mean - expected)[fine]
    # The darkest voxels within the mask stand for no signal, which they are not quite.
    assert np.sqrt(np.mean(apart**2)) < 0.03 * base.max()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_fill_far_below_comes_back(
    phantom: Array, tmp_path: Path, tiny_model: Any, dtype: type
) -> None:
    data = phantom[:24, :20, ::3].round().astype(dtype)
    filled = data.copy()
    data[:4], filled[:4] = 0, -32768
    expected = written(tmp_path, data, tiny_model())
    found = written(tmp_path, filled, tiny_model(), "filled.nii.gz")
    assert (found[:4] == -32768).all()
    np.testing.assert_allclose(found[4:], expected[4:], atol=1.01 if dtype == np.int16 else 0.05)


@pytest.mark.parametrize("way", ["whole", "slabs"])
@pytest.mark.parametrize("value", [3e38, -1e30, 1e20])
def test_a_fill_that_overflows_is_refused_by_its_place(
    phantom: Array, tmp_path: Path, slabs: Any, way: str, value: float
) -> None:
    data = phantom[:24, :20, ::3].astype(np.float32)
    data[5, 3, 7] = data[6, 3, 8] = value
    if way == "slabs":
        slabs()
    with pytest.raises(NonFiniteError) as caught:
        written(tmp_path, data, Path("mr-z4"))
    assert "in.nii.gz: value" in str(caught.value)
    assert "index (5, 3, 7), 2 of" in str(caught.value)


def inside_the_body() -> Array:
    """Fat, organs and bone in Hounsfield units, without air."""
    generator = np.random.default_rng(3)
    data = generator.normal(-100, 15, (24, 20, 8))
    data[:14] += 150
    data[4:6] += 600
    return np.asarray(data.round().astype(np.int16))


@pytest.mark.parametrize("way", ["whole", "slabs"])
def test_doubt_is_refused_and_an_option_settles_it(
    tmp_path: Path, tiny_model: Any, slabs: Any, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    if way == "slabs":
        slabs()
    with pytest.raises(ModalityError, match=r"in\.nii\.gz: CT or MR"):
        written(tmp_path, inside_the_body(), tiny_model("CT"))
    with caplog.at_level(logging.WARNING):
        found = written(tmp_path, inside_the_body(), tiny_model("CT"), modality="ct")
    assert found.shape == (24, 20, 32)
    assert "modality" not in caplog.text


@pytest.mark.parametrize("way", ["whole", "slabs"])
def test_an_option_against_the_values_is_warned_of_once(
    phantom: Array, tmp_path: Path, tiny_model: Any, slabs: Any, way: str, caplog: Any
) -> None:
    if way == "slabs":
        slabs()
    with caplog.at_level(logging.WARNING):
        written(tmp_path, phantom[:24, :20, ::3], tiny_model("CT"), modality="ct")
    said = [record.getMessage() for record in caplog.records if "modality" in record.getMessage()]
    assert len(said) == 1
    assert "taken as CT, as asked" in said[0]
    with pytest.raises(NotHounsfieldError):
        written(tmp_path, phantom[:24, :20, ::3] / 500 - 1, tiny_model("CT"), modality="ct")


def test_arrays_and_volumes_are_judged_likewise(phantom: Array, tiny_model: Any) -> None:
    options: dict[str, Any] = {"model": tiny_model("CT"), "precision": "fp32"}
    grid: dict[str, Any] = {"array_spacing": (0.9, 0.9, 3.6)}
    data = inside_the_body()
    with pytest.raises(ModalityError, match="the scan: CT or MR"):
        upscale(data, **options, **grid)
    assert upscale(data, modality="ct", **options, **grid).whole().units == "HU"
    with pytest.raises(NonFiniteError, match="3e\\+38 at index"):
        upscale(np.where(phantom > 990, np.float32(3e38), phantom), **options, **grid)
    report = upscale(phantom[:24, :20, ::3], modality="ct", **options, **grid).report
    assert any("modality" in text for text in report["warnings"])
    unknown = Volume(data, Geometry((24, 20, 8), AFFINE))
    with pytest.raises(ModalityError):
        upscale(unknown, **options)


def test_the_program_says_how_to_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nib.save(nib.Nifti1Image(inside_the_body(), AFFINE), tmp_path / "ct.nii.gz")
    code = main(["upscale", str(tmp_path / "ct.nii.gz"), str(tmp_path / "out.nii.gz")])
    assert code == ModalityError.exit_code == 28
    assert "--modality ct or --modality mr" in capsys.readouterr().err
    assert not (tmp_path / "out.nii.gz").exists()

"""Labels, masks and constants are refused on both ways of a scan, unless they are allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

import medsr
from medsr.cli.main import main
from medsr.errors import LabelsError
from medsr.infer import upscaler

Make = Callable[..., Path]
AFFINE = np.diag([0.9, 0.9, 3.6, 1.0])


@pytest.fixture(params=["whole", "slabs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the scan is read."""
    monkeypatch.setattr(upscaler, "is_large", lambda *_: request.param == "slabs")
    return str(request.param)


def _write(path: Path, data: NDArray[np.generic], intent: int = 0) -> Path:
    image = nib.Nifti1Image(data, AFFINE)
    image.header["intent_code"] = intent
    image.to_filename(path)
    return path


def test_each_kind_is_refused_by_name_and_nothing_is_written(
    way: str, tmp_path: Path, tiny_model: Make, phantom: NDArray[np.float32]
) -> None:
    organs = np.digitize(phantom, [250, 500, 750]).astype(np.uint8)
    # Of one label each within blocks, so that noise in the phantom does not matter.
    organs = np.kron(organs[::3, ::3, ::3], np.ones((3, 3, 3), np.uint8))
    flat = np.full((14, 12, 8), 5, np.int16)
    cases = {
        "its name": _write(tmp_path / "sub-01_probseg.nii.gz", phantom / phantom.max()),
        "its header": _write(tmp_path / "t.nii.gz", phantom, intent=3),
        "4 whole numbers from 0 to 3, in patches": _write(tmp_path / "organs.nii.gz", organs),
        "0 and 1 alone": _write(tmp_path / "roi.nii.gz", (organs > 1).astype(np.uint8)),
        "every voxel is 5": _write(tmp_path / "flat.nii.gz", flat),
    }
    out = tmp_path / "out" / "sharp.nii.gz"
    out.parent.mkdir()
    options = {"model": tiny_model(), "scale": (1, 1, 4), "precision": "fp32", "modality": "mr"}
    for words, path in cases.items():
        with pytest.raises(LabelsError, match=words) as caught:
            medsr.upscale(path, out, **options)
        assert str(caught.value).startswith(f"{path}: ")
        assert "--allow-labels" in str(caught.value)
        assert list(out.parent.iterdir()) == []
        result = medsr.upscale(path, out, allow=["labels"], **options)
        assert (result.volume is None) == (way == "slabs")
        assert nib.load(out).shape[2] == 4 * nib.load(path).shape[2]
        out.unlink()


def test_the_command_has_a_word_for_it(
    tmp_path: Path, tiny_model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.zeros((14, 12, 8), np.uint8)
    data[4:9, 3:8] = 1
    path, out = _write(tmp_path / "a.nii.gz", data), tmp_path / "out.nii.gz"
    words = ["upscale", str(path), str(out), "--model", str(tiny_model()), "--quiet"]
    assert main(words) == LabelsError.exit_code == 27
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
    assert main([*words, "--allow-labels"]) == 0
    assert out.exists()


def test_volumes_and_arrays_are_looked_at_too(phantom: NDArray[np.float32]) -> None:
    mask = phantom > 200
    with pytest.raises(LabelsError, match="the scan: a label image or mask"):
        medsr.upscale(mask.astype(np.int16), modality="mr", array_spacing=(0.9, 0.9, 3.6))
    with pytest.raises(LabelsError, match="0 and 1 alone"):
        medsr.upscale(mask, modality="mr", array_spacing=(0.9, 0.9, 3.6))

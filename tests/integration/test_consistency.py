"""``medsr upscale --consistency``: files whose degraded result is the scan, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medsr import io
from medsr.cli.main import main
from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import MemoryLimitError, UsageError
from medsr.geometry import Geometry
from medsr.hu import AIR_HU
from medsr.infer.folder import upscale_folder
from medsr.infer.upscale import upscale
from medsr.infer.upscaler import Upscaler
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.volume import Volume

NOMINAL = {
    "MR": {"kind": "slice_profile", "factor": [1, 1, 4], "thickness": [0.95, 1.05]},
    "CT": {"kind": "ct_slab", "factor": [1, 1, 4], "thickness": 1.0},
}


def _model(modality: Any = "MR", **changes: Any) -> SRModel:
    values: dict[str, Any] = {
        "name": f"{modality.lower()}-z4",
        "version": "0",
        "network": "RepPlain3D",
        "options": {"width": 16, "depth": 1, "branches": False},
        "scale": (1, 1, 4),
        "modality": modality,
        "role": "student",
        "intensity": Intensity.for_modality(modality),
        "halo": (3, 3, 3),
        "multiple_of": (1, 1, 1),
        "trained_spacing_mm": SpacingRange((0.6, 1.2), (2.4, 4.8)),
        "trained_degradation": NOMINAL[modality],
        "parameters": 1000,
        "training": {},
        "description": "random weights",
    }
    spec = ModelSpec(**{**values, **changes})
    torch.manual_seed(11)
    network = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return SRModel(network, spec)


def _scan(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    image = nib.Nifti1Image(data, np.diag([1.0, 1.0, 4.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.fixture
def scan(tmp_path: Path, phantom: np.ndarray) -> Path:
    """A thick-slice scan whose slices lie along the first axis, which runs to the left."""
    thick = degrade_volume(
        Volume(phantom, Geometry(phantom.shape, np.eye(4)), "MR"),
        build_degradation("slice_profile", factor=(1, 1, 4)),
    ).data
    affine = np.zeros((4, 4))
    affine[0, 0], affine[1, 1], affine[2, 2], affine[3, 3] = -4.0, 1.0, 1.0, 1.0
    return _scan(tmp_path / "scan.nii.gz", np.ascontiguousarray(thick.transpose(2, 0, 1)), affine)


def _degraded(result: Volume, axis: int) -> np.ndarray:
    factor = [1, 1, 1]
    factor[axis] = 4
    profile = build_degradation("slice_profile", factor=(factor[0], factor[1], factor[2]))
    return degrade_volume(result, profile).data


def test_the_file_degrades_to_the_scan(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mr-z4"
    _model().save(folder)
    output, report = tmp_path / "sharp.nii.gz", tmp_path / "report.json"
    words = ["upscale", scan, output, "--model", folder, "--scale", "1,1,4", "--report", report]
    assert main([*map(str, words), "--consistency", "--no-limits", "--precision", "fp32"]) == 0
    lr, sr = io.load(scan, modality="MR"), io.load(output, modality="MR")
    told = json.loads(report.read_text())["consistency"]
    assert told["met"] is True
    assert told["tolerance"] == pytest.approx(
        1e-3 * np.percentile(lr.data[lr.data > 20], 99.5), 0.05
    )
    assert told["degradation"]["factor"] == [1.0, 1.0, 4.0]
    assert np.abs(_degraded(sr, 0) - lr.data).max() <= told["tolerance"] * 1.01
    options = {"scale": (1, 1, 4), "precision": "fp32", "limits": False}
    plain = upscale(scan, model=folder, **options).whole()
    before = np.abs(_degraded(plain, 0) - lr.data)
    assert told["before"]["largest"] == pytest.approx(before.max(), rel=1e-3)
    assert told["before"]["rms"] == pytest.approx(np.sqrt(np.square(before).mean()), rel=1e-3)
    assert before.max() > 10 * told["tolerance"]
    assert sr.geometry.same_grid(plain.geometry)
    text = nib.load(output).header["descrip"].item().decode()
    assert "consistent with the source to" in text


def test_a_stated_tolerance_and_a_fractional_grid(scan: Path) -> None:
    options = {"spacing": (1.3, 1.0, 1.0), "consistency": 25.0, "limits": False}
    result = upscale(scan, model=_model(), **options)
    told = result.report["consistency"]
    assert told["tolerance"] == 25.0
    assert told["met"]
    assert told["after"]["largest"] == pytest.approx(25.0, rel=0.02)
    assert told["degradation"]["factor"][2] == pytest.approx(25 / 8)
    assert "consistency" not in upscale(scan, model=_model()).report


def test_ct_with_padding_stays_in_hu_and_keeps_its_padding() -> None:
    rng = np.random.default_rng(3)
    data = (40 + 20 * rng.standard_normal((20, 18, 8))).astype(np.int16)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in data.shape[:2]), indexing="ij")
    outside = x**2 + y**2 > 0.9
    data[outside] = -3024
    lr = Volume(data, Geometry(data.shape, np.diag([1.0, 1.0, 4.0, 1.0])), "CT", "HU")
    result = upscale(lr, model=_model("CT"), scale=(1, 1, 4), consistency=True)
    sr, told = result.whole(), result.report["consistency"]
    assert (sr.data[outside] == -3024).all()
    assert told["units"] == "HU"
    assert told["tolerance"] == 1.0
    assert told["met"]
    seen = sr.replace(data=np.where(sr.data == -3024, np.float32(AIR_HU), sr.data))
    again = degrade_volume(seen, build_degradation("ct_slab", factor=(1, 1, 4))).data
    assert np.abs(again - data)[~outside].max() <= 1.0


def test_a_tolerance_that_cannot_be_met_is_told(
    scan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Slices that overlap by two thirds hold no detail as fine as this scan's.
    wide = _model(trained_degradation={**NOMINAL["MR"], "thickness": 3.0})
    report = upscale(scan, model=wide, consistency=True).report
    assert report["consistency"]["met"] is False
    assert report["consistency"]["out_of_reach"] > 0.1
    assert "more than the tolerance" in caplog.text
    assert any("more than the tolerance" in text for text in report["warnings"])


def test_every_scan_of_a_folder(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    scan.rename(folder / "one.nii.gz")
    options = {"model": _model(), "consistency": True, "limits": False}
    summary = upscale_folder(folder, tmp_path / "out", **options)
    report = summary.reports["one.nii.gz"]
    assert report["consistency"]["met"] is True
    assert "limits" not in report


def test_limits_come_before_consistency_and_what_is_delivered_is_told(
    scan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = upscale(scan, model=_model(), scale=(1, 1, 4), consistency=True, precision="fp32")
    sr, told, lr = result.whole().data, result.report["consistency"], io.load(scan).data
    assert sr.min() >= lr.min()
    apart = np.abs(_degraded(result.whole(), 0) - lr)
    assert told["after"]["largest"] == pytest.approx(apart.max(), rel=1e-3)
    assert told["after"]["rms"] == pytest.approx(np.sqrt(np.square(apart).mean()), rel=1e-3)
    # Half the noise around the head cannot be had without values below the scan's least.
    assert told["held"] is True
    assert told["met"] is False
    assert told["after"]["rms"] < told["before"]["rms"]
    assert "without limits it meets the tolerance" in caplog.text


def test_a_background_that_runs_along_the_slices_contradicts_nothing() -> None:
    data = np.random.default_rng(3).normal(500, 20, (16, 14, 8)).astype(np.float32)
    data[:4] = 0
    lr = Volume(data, Geometry(data.shape, np.diag([1.0, 1.0, 4.0, 1.0])), "MR")
    result = upscale(lr, model=_model(), scale=(1, 1, 4), consistency=5.0)
    told = result.report["consistency"]
    assert told["met"]
    assert not told["held"]
    assert (result.whole().data[:4] == 0).all()


def test_refusals(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="does not say how"):
        upscale(scan, model=_model(trained_degradation={}), consistency=True)
    with pytest.raises(UsageError, match="nowhere coarser"):
        upscale(scan, model=_model(), spacing=(1.0, 1.5, 1.0), consistency=True)
    with pytest.raises(UsageError, match="above zero"):
        Upscaler(consistency=-1.0)
    assert main(["upscale", str(scan), str(tmp_path / "x.nii.gz"), "--tolerance", "2"]) == 2
    assert "--consistency" in capsys.readouterr().err
    assert not (tmp_path / "x.nii.gz").exists()


def test_what_is_larger_than_memory_is_refused(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsr.infer.chunks._fits", lambda *_, **__: False)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 3)
    output = tmp_path / "sharp.nii.gz"
    with pytest.raises(MemoryLimitError, match="needs it whole"):
        upscale(scan, output, model=_model(), consistency=True)
    assert not output.exists()


def test_a_model_for_two_modalities_takes_the_scans_own_degradation() -> None:
    both = {**NOMINAL["MR"], "by_modality": {"CT": {"kind": "ct_slab", "thickness": 1.0}}}
    spec = dataclasses.replace(
        _model(trained_degradation=both).spec,
        other_modalities={"CT": Intensity.for_modality("CT")},
    )
    model = SRModel(_model().module, spec)
    data = np.random.default_rng(1).normal(30, 50, (12, 12, 6)).astype(np.float32)
    lr = Volume(data, Geometry(data.shape, np.diag([1.0, 1.0, 4.0, 1.0])), "CT", "HU")
    told = upscale(lr, model=model, consistency=True).report["consistency"]
    assert told["degradation"]["kind"] == "ct_slab"
    assert told["met"]

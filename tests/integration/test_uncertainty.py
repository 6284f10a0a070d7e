"""Maps of uncertainty from end to end: values, place, format and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medsr.cli.main import main
from medsr.errors import NoUncertaintyError, OutputFormatError, UsageError
from medsr.infer.upscale import upscale
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.types import Float32Array

FINE = {"scale": (1, 1, 4), "precision": "fp32", "modality": "mr"}


def _store(root: Path, name: str, head: Any, modality: str = "MR") -> None:
    torch.manual_seed(4)
    options = {"width": 16, "depth": 1, "branches": False, "head": head}
    network = build_network("RepPlain3D", (1, 1, 4), **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    spec = ModelSpec(
        name=name,
        version="0",
        network="RepPlain3D",
        options=options,
        scale=(1, 1, 4),
        modality=modality,
        role="student",
        intensity=Intensity.for_modality(modality),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange((0.6, 1.2), (2.4, 4.8)),
        trained_degradation={},
        parameters=1000,
        training={},
        description="random weights",
    )
    SRModel(network, spec).save(root / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with and without a head."""
    folder = tmp_path_factory.mktemp("zoo")
    _store(folder, "a-value", "value")
    _store(folder, "b-gaussian", "gaussian")
    _store(folder, "c-bins", "bins")
    _store(folder, "d-ct", "gaussian", "CT")
    return folder


@pytest.fixture
def scan(phantom: Float32Array, tmp_path: Path) -> Path:
    """An int16 file of 0.9 x 0.9 x 3.6 mm whose axes run right, anterior, superior."""
    data = phantom[:20, :18, :7].round().astype(np.int16)
    affine = np.diag([0.9, 0.9, 3.6, 1.0])
    affine[:3, 3] = (5, -7, 11)
    nib.Nifti1Image(data, affine).to_filename(tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.mark.parametrize("name", ["b-gaussian", "c-bins"])
def test_the_map_is_the_networks_sigma_in_native_units(name: str, scan: Path, root: Path) -> None:
    out, sigma_file = scan.with_name("out.nii.gz"), scan.with_name("sigma.nii.gz")
    options = {**FINE, "model": root / name}
    result = upscale(scan, out, uncertainty=sigma_file, **options)
    plain = upscale(scan, **options)
    np.testing.assert_array_equal(result.volume.data, plain.volume.data)
    assert plain.uncertainty is None
    assert "uncertainty" not in plain.report
    model, values = SRModel.load(root / name), nib.load(scan).get_fdata(dtype=np.float32)
    normaliser = model.spec.intensity.fit(values)
    with torch.no_grad():
        lr = torch.from_numpy(normaliser.forward(values))[None, None]
        sigma = model.module.distribution(lr)[1][0, 0].numpy() * normaliser.divisor
    written = nib.load(sigma_file)
    assert written.get_data_dtype() == np.float32
    np.testing.assert_allclose(written.affine, nib.load(out).affine, atol=1e-6)
    np.testing.assert_allclose(written.get_fdata(), sigma, rtol=1e-4)
    assert sigma.std() > 0
    assert result.uncertainty is not None
    assert result.uncertainty.geometry == result.volume.geometry
    assert result.report["uncertainty"]["median"] == pytest.approx(np.median(sigma), rel=1e-4)


def test_tiles_do_not_show(phantom: Float32Array, root: Path, monkeypatch: Any) -> None:
    options = {**FINE, "model": root / "b-gaussian", "array_spacing": (0.9, 0.9, 3.6)}
    whole = upscale(phantom[:24, :22, :9], uncertainty=True, **options)
    monkeypatch.setattr("medsr.infer.engine.engine.choose_core", lambda *args, **names: (7, 22, 4))
    tiled = upscale(phantom[:24, :22, :9], uncertainty=True, **options)
    assert tiled.report["tiles"]["count"] > 4
    assert whole.uncertainty is not None
    assert tiled.uncertainty is not None
    np.testing.assert_allclose(tiled.uncertainty.data, whole.uncertainty.data, rtol=1e-4)


def test_a_map_between_the_models_voxels_stays_positive_and_in_range(
    phantom: Float32Array, root: Path
) -> None:
    options = {"modality": "mr", "model": root / "b-gaussian", "precision": "fp32"}
    data = phantom[:20, :18, :7]
    exact = upscale(data, array_spacing=(0.9, 0.9, 3.6), uncertainty=True, **options)
    between = upscale(data, array_spacing=(0.9, 0.9, 2.9), uncertainty=True, **options)
    assert exact.uncertainty is not None
    assert between.uncertainty is not None
    assert between.uncertainty.shape == between.volume.shape == (20, 18, 23)
    low, high = exact.uncertainty.data.min(), exact.uncertainty.data.max()
    assert low * 0.999 <= between.uncertainty.data.min()
    assert between.uncertainty.data.max() <= high * 1.001


def test_the_map_follows_the_scans_axes(phantom: Float32Array, root: Path) -> None:
    spacing = np.array([0.9, 0.9, 3.6])
    options = {"modality": "mr", "model": root / "b-gaussian", "precision": "fp32"}
    data = phantom[:20, :18, :7]
    straight = upscale(data, array_spacing=spacing, uncertainty=True, **options).uncertainty
    turned = upscale(
        np.moveaxis(data, 2, 0)[::-1],
        affine=_turned_affine(),
        uncertainty=True,
        **options,
    ).uncertainty
    assert straight is not None
    assert turned is not None
    back = np.moveaxis(turned.data[::-1], 0, 2)
    np.testing.assert_allclose(back, straight.data, rtol=1e-4)


def _turned_affine() -> NDArray[np.float64]:
    """Slices along the first array axis, which runs down."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -3.6, 0.9, 0.9, 1
    return affine


def test_ct_maps_are_in_hounsfield_units_without_the_offset(root: Path) -> None:
    data = np.full((12, 11, 6), -1024, np.int16)
    options = {"array_spacing": (0.9, 0.9, 3.6), "modality": "ct", "model": root / "d-ct"}
    result = upscale(data, uncertainty=True, limits=False, allow=["labels"], **options)
    assert result.uncertainty is not None
    assert result.uncertainty.units == "HU"
    # Sigma lies between 0.001 and 1 of the 2048 HU that the network's range spans.
    assert 2 < result.uncertainty.data.min() < result.uncertainty.data.max() < 2048


def test_a_model_without_a_head_is_refused_with_its_own_code(
    scan: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sigma = scan.with_name("out.nii.gz"), scan.with_name("sigma.nii.gz")
    with pytest.raises(NoUncertaintyError, match="a-value gives values and no uncertainty"):
        upscale(scan, out, uncertainty=sigma, model=root / "a-value", **FINE)
    call = ["upscale", str(scan), str(out), "--model", str(root / "a-value"), "--scale", "1,1,4"]
    assert main([*call, "--uncertainty", str(sigma)]) == 46
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in scan.parent.iterdir()] == [scan.name]


def test_the_command_writes_the_map(scan: Path, root: Path) -> None:
    out, sigma = scan.with_name("out.nii.gz"), scan.with_name("sigma.nii.gz")
    report = scan.with_name("report.json")
    call = ["upscale", str(scan), str(out), "--model", str(root / "c-bins"), "--scale", "1,1,4"]
    assert main([*call, "--uncertainty", str(sigma), "--report", str(report)]) == 0
    assert nib.load(sigma).shape == nib.load(out).shape == (20, 18, 28)
    assert json.loads(report.read_text())["uncertainty"]["units"] == "arbitrary"


def test_auto_prefers_a_model_that_says_how_sure_it_is(scan: Path, root: Path) -> None:
    assert upscale(scan, zoo_root=root, **FINE).report["model"]["name"] == "a-value"
    asked = upscale(scan, zoo_root=root, uncertainty=True, **FINE)
    assert asked.report["model"]["name"] == "b-gaussian"


def test_names_that_no_map_can_have(scan: Path, root: Path) -> None:
    options = {**FINE, "model": root / "b-gaussian"}
    with pytest.raises(OutputFormatError, match="uncertainty map is no image that DICOM"):
        upscale(scan, uncertainty=scan.with_name("folder"), **options)
    out = scan.with_name("out.nii.gz")
    with pytest.raises(UsageError, match="collides"):
        upscale(scan, out, uncertainty=out, **options)

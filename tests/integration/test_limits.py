"""Results held to their scans from end to end: background, floor, overshoot, both ways, off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from medsr import io
from medsr.cli.main import main
from medsr.infer.folder import upscale_folder
from medsr.infer.padding import nearest
from medsr.infer.upscale import upscale
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.types import Float32Array

AFFINE = np.array([[-0.9, 0, 0, 40.0], [0, 0.9, 0, -30.0], [0, 0, 3.6, 12.0], [0, 0, 0, 1]])


def _model(detail: float = 0.03, modality: Any = "MR", **options: Any) -> SRModel:
    """A network of random weights: it rings, overshoots and answers zeros with something else."""
    spec = ModelSpec(
        name="random",
        version="0",
        network="RepPlain3D",
        options={"width": 16, "depth": 2, **options},
        scale=(1, 1, 4),
        modality=modality,
        role="student",
        intensity=Intensity.for_modality(modality),
        halo=(4, 4, 4),
        multiple_of=(1, 1, 1),
        trained_spacing_mm=SpacingRange((0.6, 1.2), (0.6, 4.8)),
        trained_degradation={},
        parameters=1000,
        training={},
        description="random weights",
    )
    torch.manual_seed(11)
    network = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(detail * torch.randn_like(parameter))
    return SRModel(network.eval(), spec)


def _brain(value: float = 0.0, spread: float = 30.0) -> Float32Array:
    """A brain of 28 x 24 x 12 voxels, no voxel of it near ``value``, amid exactly that."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (28, 24, 12)), indexing="ij")
    inside = (x / 0.8) ** 2 + (y / 0.7) ** 2 + (z / 0.9) ** 2 < 1
    tissue = np.random.default_rng(0).normal(20 * spread, spread, x.shape)
    return np.where(inside, value + tissue, value).astype(np.float32)


def _up(mask: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return mask[np.ix_(*(nearest(n, m) for n, m in zip(mask.shape, shape, strict=True)))]


def _file(path: Path, data: npt.NDArray[Any], affine: npt.NDArray[Any] = AFFINE) -> Path:
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def _box_mm(mask: npt.NDArray[np.bool_], spacing: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """The outer edges of what is True, mm from the first voxel's outer edge."""
    places = np.argwhere(mask)
    return np.stack([places.min(axis=0), places.max(axis=0) + 1]) * spacing


GRIDS: list[dict[str, Any]] = [{"scale": (1, 1, 4)}, {"spacing": (0.9, 0.7, 1.3)}]


@pytest.mark.parametrize("wish", GRIDS)
@pytest.mark.parametrize("value", [0.0, -0.75, 100.0])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_masked_brain_keeps_its_mask(
    tmp_path: Path, wish: dict[str, Any], value: float, order: tuple[int, int, int]
) -> None:
    brain = _brain(value, spread=0.05 if value < 0 else 30.0)
    volume = io.load(_file(tmp_path / "first.nii", brain), modality="MR").permute(order)
    if "spacing" in wish:
        wish = {"spacing": [wish["spacing"][axis] for axis in order]}
    result = upscale(volume, model=_model(), precision="fp32", **wish)
    sr = result.whole()
    mask = volume.data != value
    expected = _up(mask, sr.shape)
    assert (sr.data[~expected] == value).all()
    # A voxel or two of the brain's edge may undershoot to the floor.
    assert np.count_nonzero((sr.data > value) != expected) <= 1e-4 * expected.size
    assert sr.data.min() == value
    assert (~expected).mean() == pytest.approx((~mask).mean(), abs=0.02)
    apart = _box_mm(sr.data != value, sr.spacing) - _box_mm(mask, volume.spacing)
    assert (np.abs(apart) <= np.array(sr.spacing) + 1e-6).all()
    assert result.report["limits"]["background"] == value
    assert result.report["limits"]["background_share"] == pytest.approx((~expected).mean())
    plain = upscale(volume, model=_model(), precision="fp32", limits=False, **wish)
    assert plain.whole().data.min() < value
    assert "limits" not in plain.report


def test_the_network_speaks_where_nothing_is_limited() -> None:
    options = {"affine": AFFINE, "modality": "mr", "model": _model(), "scale": (1, 1, 4)}
    held = upscale(_brain(), precision="fp32", **options)
    plain = upscale(_brain(), precision="fp32", limits=False, **options)
    same = held.whole().data == plain.whole().data
    told = held.report["limits"]
    expected = 1 - told["limited_share"] - told["background_share"]
    assert same.mean() == pytest.approx(expected, abs=1e-3)
    assert expected > 0.2


def test_without_limits_the_result_is_the_networks_answer() -> None:
    brain, model = _brain(), _model(detail=0.1)
    affine = np.diag([0.9, 0.9, 3.6, 1.0])
    options = {"affine": affine, "modality": "mr", "model": model, "scale": (1, 1, 4)}
    sr = upscale(brain, precision="fp32", limits=False, **options).whole().data
    normaliser = Intensity.for_modality("MR").fit(brain)
    with torch.no_grad():
        answer = model.module(torch.from_numpy(normaliser.forward(brain))[None, None])
    expected = normaliser.inverse(answer[0, 0].numpy())
    np.testing.assert_allclose(sr, expected, atol=1e-3 * float(np.abs(expected).max()))
    assert sr.min() < -1
    assert upscale(brain, precision="fp32", **options).whole().data.min() == 0


def test_a_scan_of_another_scale_gives_the_same_image() -> None:
    options = {"affine": AFFINE, "modality": "mr", "model": _model(), "scale": (1, 1, 4)}
    first = upscale(_brain(), precision="fp32", **options).whole().data
    other = upscale(8 * _brain(), precision="fp32", **options).whole().data
    np.testing.assert_allclose(other, 8 * first, rtol=1e-4, atol=0.05)
    np.testing.assert_array_equal(other == 0, first == 0)


def test_noise_around_a_head_keeps_its_statistics(rng: np.random.Generator) -> None:
    real, imaginary = rng.normal(0, 12, (2, 28, 24, 12))
    data = np.hypot(real + _brain(), imaginary).round().astype(np.int16)
    options = {"affine": AFFINE, "modality": "mr", "model": "mr-z4", "scale": (1, 1, 4)}
    held = upscale(data, precision="fp32", **options)
    plain = upscale(data, precision="fp32", limits=False, **options).whole().data
    assert held.report["limits"]["background"] is None
    around = ndimage.binary_dilation(_brain() > 0, iterations=2)  # the network rings at its edge
    noise = _up(~around, plain.shape)
    found = held.whole().data[noise]
    assert (found == 0).mean() <= (data[~around] == 0).mean() + (plain[noise] <= 0).mean()
    assert found.mean() == pytest.approx(plain[noise].mean(), rel=0.05)
    assert found.std() == pytest.approx(plain[noise].std(), rel=0.2)
    assert held.whole().data.min() >= data.min()


def test_metal_stays_within_what_the_scan_holds() -> None:
    generator = np.random.default_rng(4)
    data = generator.normal(40, 15, (26, 24, 10)).round().astype(np.int16)
    data[:4] = -1024
    data[12:16, 10:14, 4:6] = 12000
    options = {"affine": AFFINE, "modality": "ct", "scale": (1, 1, 4), "precision": "fp32"}
    model = _model(detail=0.1, modality="CT")
    wild = upscale(data, model=model, limits=False, **options).whole().data
    assert wild.max() > 12500
    assert wild.min() < -1100
    held = upscale(data, model=model, **options).whole().data
    assert held.max() == 12000
    assert held.min() == -1024
    assert (held[:4] == -1024).all()


@pytest.mark.parametrize("wish", GRIDS)
@pytest.mark.parametrize("turn", [((0, 1, 2), ()), ((2, 0, 1), (0,)), ((1, 2, 0), (1, 2))])
@pytest.mark.parametrize("planes", [2, 3])
def test_slab_by_slab_gives_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wish: dict[str, Any],
    turn: tuple[tuple[int, int, int], tuple[int, ...]],
    planes: int,
) -> None:
    order, flips = turn
    volume = io.load(_file(tmp_path / "first.nii", _brain().round().astype(np.int16)))
    source = io.save(volume.permute(order).flip(flips), tmp_path / "in.nii")
    if "spacing" in wish:
        wish = {"spacing": [wish["spacing"][axis] for axis in order]}
    options = {"model": _model(), "modality": "mr", "precision": "fp32", **wish}
    whole = upscale(source, tmp_path / "whole.nii", **options)
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: planes)
    slabs = upscale(source, tmp_path / "slabs.nii", **options)
    assert slabs.volume is None
    assert slabs.report["tiles"]["slabs"] > 2
    for name, value in whole.report["limits"].items():
        # The network's own rounding may differ between blocks, and with it what is just limited.
        assert slabs.report["limits"][name] == pytest.approx(value, abs=2e-3)
    found, expected = (io.load(tmp_path / name).data for name in ("slabs.nii", "whole.nii"))
    assert np.abs(found.astype(float) - expected).max() <= 1
    np.testing.assert_array_equal(found == 0, expected == 0)


def test_maps_of_uncertainty_are_zero_in_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _file(tmp_path / "in.nii", _brain())
    options: dict[str, Any] = {"model": _model(head="gaussian"), "modality": "mr"}
    options |= {"precision": "fp32", "scale": (1, 1, 4)}
    whole = upscale(source, tmp_path / "whole.nii", uncertainty=tmp_path / "w.nii", **options)
    assert whole.uncertainty is not None
    outside = _up(_brain() == 0, whole.uncertainty.shape)
    np.testing.assert_array_equal(whole.uncertainty.data == 0, outside)
    median = float(np.median(whole.uncertainty.data[~outside]))
    assert whole.report["uncertainty"]["median"] == pytest.approx(median)
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
    monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: 3)
    slabs = upscale(source, tmp_path / "slabs.nii", uncertainty=tmp_path / "s.nii", **options)
    np.testing.assert_array_equal(io.load(tmp_path / "s.nii").data == 0, outside)
    assert slabs.report["uncertainty"]["median"] == pytest.approx(median, rel=1e-3)


def test_the_option_reaches_every_way(
    tmp_path: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    source = _file(folder / "one.nii.gz", _brain())
    model = tiny_model()
    for words, there in (([], True), (["--no-limits"], False)):
        output, report = tmp_path / f"{there}.nii.gz", tmp_path / f"{there}.json"
        call = ["upscale", source, output, "--model", model, "--modality", "mr", "--scale", "1,1,4"]
        assert main([*map(str, call), "--report", str(report), *words]) == 0
        assert ("limits" in json.loads(report.read_text())) is there
        options = {"model": model, "modality": "mr", "scale": (1, 1, 4), "limits": there}
        summary = upscale_folder(folder, tmp_path / f"folder-{there}", **options)
        assert ("limits" in summary.reports["one.nii.gz"]) is there
        of_folder = io.load(tmp_path / f"folder-{there}" / "one.nii.gz").data
        np.testing.assert_array_equal(of_folder, io.load(output).data)
    capsys.readouterr()


def test_a_real_scan_whose_surroundings_are_zero(shared_data: Path, tmp_path: Path) -> None:
    image = nib.load(shared_data / "thick" / "soop1_FLAIR_6mm.nii.gz")
    cut = image.slicer[30:90, 60:120]
    source = _file(tmp_path / "in.nii.gz", np.asarray(cut.dataobj), cut.affine)
    output = tmp_path / "out.nii.gz"
    upscale(source, output, model="mr-z4", modality="mr", precision="fp32")
    before, after = np.asarray(cut.dataobj), np.asarray(nib.load(output).dataobj)
    assert after.min() >= 0
    expected = _up(before == 0, after.shape)
    assert (before == 0).mean() > 0.2
    # Single zeros amid the head are the network's to answer.
    assert (after[expected] == 0).mean() > 0.97
    assert np.count_nonzero((after == 0) & ~expected) < 0.02 * after.size
    assert (after == 0).mean() == pytest.approx((before == 0).mean(), abs=0.02)

"""Volumes larger than memory: slab by slab gives the files that the whole volume gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

import medsr.infer.pipeline
from medsr import io
from medsr.errors import MemoryLimitError, NonFiniteError
from medsr.infer.upscale import upscale
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.types import Float32Array

AFFINE = np.array([[-0.9, 0, 0, 40.0], [0, 0.9, 0, -30.0], [0, 0, 3.6, 12.0], [0, 0, 0, 1]])


def _model(seed: int = 11, detail: float = 0.02, **changes: Any) -> SRModel:
    values: dict[str, Any] = {
        "name": "random",
        "version": "0",
        "network": "RepPlain3D",
        "options": {"width": 16, "depth": 2},
        "scale": (1, 1, 4),
        "modality": "MR",
        "role": "student",
        "intensity": Intensity.for_modality(changes.get("modality", "MR")),
        "halo": (4, 4, 4),
        "multiple_of": (1, 1, 1),
        "trained_spacing_mm": SpacingRange((0.6, 1.2), (0.6, 4.8)),
        "trained_degradation": {},
        "parameters": 1000,
        "training": {},
        "description": "random weights",
    }
    spec = ModelSpec(**{**values, **changes})
    torch.manual_seed(seed)
    network = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(detail * torch.randn_like(parameter))
    return SRModel(network.eval(), spec)


@pytest.fixture
def by_slabs(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make every scan count as large, with cores of so many planes."""

    def switch(planes: int) -> None:
        monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda path, limit: True)
        monkeypatch.setattr("medsr.infer.chunks._fits", lambda *_, **__: False)
        monkeypatch.setattr("medsr.infer.chunks._thickest", lambda *_: planes)

    return switch


def _compare(whole: Path, slabs: Path, step: float) -> None:
    """Hold two files to be the same image, up to one step of rounding in a few voxels."""
    expected, found = io.load(whole), io.load(slabs)
    assert found.geometry == expected.geometry
    assert found.source is not None
    assert expected.source is not None
    for name in ("dtype", "slope", "intercept"):
        assert getattr(found.source, name) == getattr(expected.source, name)
    apart = np.abs(found.data.astype(np.float64) - expected.data)
    scale = float(np.abs(expected.data).max())
    assert apart.max() <= step * (1 + 1e-6) + 2e-6 * scale
    assert np.count_nonzero(apart > 2e-6 * scale) <= 2e-3 * apart.size
    assert found.data.std() > 10 * step


def _both(
    tmp_path: Path,
    source: Path,
    ending: str,
    switch: Callable[[int], None],
    planes: int = 3,
    **options: Any,
) -> tuple[Path, Path]:
    options = {"model": _model(), "precision": "fp32", **options}
    whole, slabs = tmp_path / f"whole{ending}", tmp_path / f"slabs{ending}"
    assert upscale(source, whole, **options).volume is not None
    switch(planes)
    result = upscale(source, slabs, **options)
    assert result.volume is None
    with pytest.raises(MemoryLimitError, match="only written"):
        result.whole()
    assert result.report["tiles"]["slabs"] > 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".medsr")]
    return whole, slabs


def _nifti(
    path: Path, data: NDArray[Any], affine: NDArray[Any] = AFFINE, slope: float = 1.0, inter=0.0
) -> Path:
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(slope, inter)
    image.to_filename(path)
    return path


@pytest.mark.parametrize(
    ("dtype", "ending"),
    [
        ("<i2", ".nii"),
        (">i2", ".nii.gz"),
        ("<f4", ".nii.gz"),
        ("<f8", ".nii"),
        ("<u1", ".mgz"),
        ("<i4", ".mha"),
        ("<f4", ".nrrd"),
    ],
)
def test_files_are_those_of_the_whole_volume(
    phantom: Float32Array,
    tmp_path: Path,
    by_slabs: Callable[[int], None],
    dtype: str,
    ending: str,
) -> None:
    data = (phantom[:24, :20, ::3] / 5).round().astype(dtype)
    source = _nifti(tmp_path / "in.nii.gz", data)
    whole, slabs = _both(tmp_path, source, ending, by_slabs)
    _compare(whole, slabs, 1.0 if np.dtype(dtype).kind in "iu" else 0.0)
    if ending == ".nii":
        assert whole.read_bytes()[:352] == slabs.read_bytes()[:352]


@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize(("slope", "inter"), [(0.013, -3.0), (1.0, -1024.0)])
def test_the_range_of_the_result_decides_its_scaling(
    phantom: Float32Array,
    tmp_path: Path,
    by_slabs: Callable[[int], None],
    ending: str,
    slope: float,
    inter: float,
) -> None:
    stored = (phantom[:24, :20, ::3] * 30).round().clip(0, 32767).astype(np.int16)
    source = _nifti(tmp_path / "in.nii", stored, slope=slope, inter=inter)
    model = _model(detail=0.1)  # overshoots, so that a wider slope is needed
    options = {"model": model, "modality": "mr", "limits": False}
    whole, slabs = _both(tmp_path, source, ending, by_slabs, **options)
    step = io.load(whole).source.slope
    if ending == ".nii" and slope != 1.0:
        assert step > slope * 1.0001
    _compare(whole, slabs, step)


@pytest.mark.parametrize("kind", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_itk_files(
    phantom: Float32Array,
    tmp_path: Path,
    by_slabs: Callable[[int], None],
    kind: str,
    compressed: bool,
) -> None:
    data = phantom[:20, :18, ::3].round().astype(np.int16)
    image = SimpleITK.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetSpacing((0.9, 0.9, 3.6))
    SimpleITK.WriteImage(image, str(tmp_path / f"in{kind}"), useCompression=compressed)
    whole, slabs = _both(tmp_path, tmp_path / f"in{kind}", kind, by_slabs)
    _compare(whole, slabs, 1.0)


def _series(folder: Path, data: NDArray[Any], modality: str, pair: tuple[float, float]) -> Path:
    folder.mkdir()
    series = generate_uid()
    for k in range(data.shape[2]):
        image = Dataset()
        image.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        image.SOPInstanceUID, image.SeriesInstanceUID = generate_uid(), series
        image.StudyInstanceUID, image.Modality, image.InstanceNumber = "1.2.3", modality, 40 - k
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.Columns, image.Rows = data.shape[:2]
        image.ImagePositionPatient, image.PixelSpacing = [5.0, -7.0, 3.6 * k], [0.9, 0.9]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.RescaleSlope, image.RescaleIntercept = pair
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, int(data.dtype.kind == "i")
        image.PixelData = np.ascontiguousarray(data[:, :, k].T).tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize(
    ("modality", "pair", "ending"),
    [
        ("CT", (1.0, -1024.0), ""),
        ("CT", (1.0, -1024.0), ".nii.gz"),
        ("MR", (0.5, 0.0), ""),
        ("MR", (1.0, 0.0), ""),
    ],
)
def test_dicom_series(
    phantom: Float32Array,
    tmp_path: Path,
    by_slabs: Callable[[int], None],
    modality: str,
    pair: tuple[float, float],
    ending: str,
) -> None:
    source = _series(
        tmp_path / "in", phantom[:20, :18, ::3].round().astype(np.uint16), modality, pair
    )
    model = _model(detail=0.1, modality=modality)
    whole, slabs = _both(tmp_path, source, ending, by_slabs, model=model)
    _compare(whole, slabs, io.load(whole).source.slope)
    if not ending:
        assert sorted(p.name for p in slabs.iterdir()) == sorted(p.name for p in whole.iterdir())


ORDERS = [(0, 1, 2), (2, 0, 1), (1, 2, 0)]


@pytest.mark.parametrize(("order", "flip"), list(product(ORDERS, [(), (2,), (0, 2)])))
@pytest.mark.parametrize("wish", [{"scale": (1, 1, 4)}, {"spacing": (1.0, 0.8, 1.37)}])
def test_any_axis_order_and_grid(
    phantom: Float32Array,
    tmp_path: Path,
    by_slabs: Callable[[int], None],
    order: tuple[int, int, int],
    flip: tuple[int, ...],
    wish: dict[str, Any],
) -> None:
    volume = io.load(_nifti(tmp_path / "first.nii", phantom[:17, :20, ::3]))
    turned = volume.permute(order).flip(flip)
    source = io.save(turned, tmp_path / "in.nii")
    if "spacing" in wish:
        wish = {"spacing": [wish["spacing"][axis] for axis in order]}
    whole, slabs = _both(tmp_path, source, ".nii", by_slabs, planes=2, **wish)
    _compare(whole, slabs, 0.0)


@pytest.mark.parametrize("network", ["RepPlain3D", "UNet3D"])
def test_isotropic_models_and_folding_ones(
    phantom: Float32Array, tmp_path: Path, by_slabs: Callable[[int], None], network: str
) -> None:
    changes: dict[str, Any] = {"scale": (2, 2, 2)}
    if network == "UNet3D":
        built = build_network("UNet3D", (2, 2, 2))
        changes |= {"network": "UNet3D", "options": {}}
        changes |= {"halo": built.halo, "multiple_of": built.multiple_of}
    source = _nifti(tmp_path / "in.nii", phantom[:16, :15], np.diag([1.1, 1.1, 1.1, 1.0]))
    model = _model(**changes)
    wish = {"scale": (2, 2, 1.7)}
    planes = 4 * model.spec.multiple_of[2]
    switch = lambda _: by_slabs(planes)  # noqa: E731
    whole, slabs = _both(tmp_path, source, ".nii", switch, model=model, **wish)
    _compare(whole, slabs, 0.0)


def test_pictures_reports_and_uncertainty_come_too(
    phantom: Float32Array, tmp_path: Path, by_slabs: Callable[[int], None]
) -> None:
    source = _nifti(tmp_path / "in.nii", phantom[:20, :18, ::3].round().astype(np.int16))
    options = {"width": 16, "depth": 2, "head": "gaussian"}
    model = _model(options=options)
    stages: list[tuple[str, int, int]] = []

    def run(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        files = {"preview": folder / "p.png", "report": folder / "r.json"}
        stages.clear()
        upscale(
            source,
            folder / "out.nii.gz",
            model=model,
            precision="fp32",
            spacing=(0.9, 0.9, 1.0),
            uncertainty=folder / "sigma.nii.gz",
            progress=lambda *stage: stages.append(stage),
            **files,
        )
        return folder

    whole = run("whole")
    by_slabs(4)
    slabs = run("slabs")
    done = [count for _, count, _ in stages]
    assert done == sorted(done)
    assert stages[-1] == ("network", 11, 11)
    _compare(whole / "out.nii.gz", slabs / "out.nii.gz", 1.0)
    found, expected = (io.load(folder / "sigma.nii.gz").data for folder in (slabs, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    reports = [json.loads((folder / "r.json").read_text()) for folder in (slabs, whole)]
    medians = [report["uncertainty"]["median"] for report in reports]
    assert medians[0] == pytest.approx(medians[1], rel=1e-3)
    for key in ("input", "output", "model", "uncertainty"):
        assert reports[0][key].keys() == reports[1][key].keys()
    assert reports[0]["output"] == reports[1]["output"]
    # The model does not say how its training scans were made, however it is computed.
    assert reports[0]["residual"] is reports[1]["residual"] is None
    assert reports[0]["residual_missing"] == reports[1]["residual_missing"]
    pictures = [np.asarray(Image.open(folder / "p.png"), np.float32) for folder in (slabs, whole)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 2


def test_what_does_not_fit_goes_by_slabs_by_itself(phantom: Float32Array, tmp_path: Path) -> None:
    volume = io.load(_nifti(tmp_path / "in.nii", phantom[:, :, ::3]))
    large = {"scale": (8, 8, 16), "model": _model(), "precision": "fp32"}
    # The result takes 65 MB as float32, of which the usual way needs two, and 96 MB are reserved.
    used = psutil.Process().memory_info().rss
    with pytest.raises(MemoryLimitError, match="raise the limit"):
        upscale(volume, max_memory=used + 200 * 2**20, **large)
    result = upscale(volume, tmp_path / "out.nii", max_memory=used + 200 * 2**20, **large)
    assert result.volume is None
    assert result.report["tiles"]["slabs"] > 1
    assert nib.load(tmp_path / "out.nii").shape == (320, 288, 176)
    with pytest.raises(MemoryLimitError, match="even chunks of"):
        upscale(volume, tmp_path / "two.nii", max_memory="2MB", **large)
    assert not (tmp_path / "two.nii").exists()


@pytest.mark.parametrize(("room_mb", "slow"), [(1000, False), (175, True)])
def test_a_limit_that_costs_time_is_warned_of(
    phantom: Float32Array,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    room_mb: int,
    slow: bool,
) -> None:
    volume = io.load(_nifti(tmp_path / "in.nii", phantom[:, :, ::3]))
    large = {"scale": (8, 8, 16), "model": _model(), "precision": "fp32"}
    upscale(volume, model=_model())  # whatever is loaded for it is there now
    used = psutil.Process().memory_info().rss
    upscale(volume, tmp_path / "out.nii", max_memory=used + room_mb * 2**20, **large)
    assert ("it will take much longer" in caplog.text) is slow


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ""])
def test_an_interruption_leaves_nothing(
    phantom: Float32Array,
    tmp_path: Path,
    by_slabs: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    ending: str,
) -> None:
    data = phantom[:20, :18, ::3].round().astype(np.uint16)
    source = _series(tmp_path / "in", data, "MR", (0.5, 0.0))
    by_slabs(3)
    calls: list[int] = []
    push = medsr.infer.pipeline._Channel.push

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return push(*args, **kwargs)

    monkeypatch.setattr("medsr.infer.pipeline._Channel.push", interrupted)
    out = tmp_path / "results"
    out.mkdir()
    with pytest.raises((KeyboardInterrupt, Exception)):
        upscale(source, out / f"out{ending}", model=_model(), report=out / "r.json")
    assert len(calls) == 3
    assert list(out.iterdir()) == []


def test_damaged_voxels_are_found(
    phantom: Float32Array, tmp_path: Path, by_slabs: Callable[[int], None]
) -> None:
    data = phantom[:20, :18, ::3].copy()
    data[3, 4, 9] = np.nan
    source = _nifti(tmp_path / "in.nii.gz", data)
    by_slabs(3)
    with pytest.raises(NonFiniteError, match=r"1 of 3960 voxels.*\(3, 4, 9\)"):
        upscale(source, tmp_path / "out.nii.gz", model=_model())
    assert not (tmp_path / "out.nii.gz").exists()

"""Upscaling from end to end: files, orientations, grids, reports, pictures and refusals."""

from __future__ import annotations

import json
import logging
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image
from scipy.spatial.transform import Rotation

from medsr import io
from medsr.errors import (
    MedsrError,
    MemoryLimitError,
    NonFiniteError,
    OutOfScopeError,
    OutputExistsError,
    OutputFormatError,
    OutputNotWritableError,
    UnknownModelError,
    UsageError,
)
from medsr.geometry import Geometry
from medsr.infer.upscale import upscale
from medsr.io.dicom.options import DicomOptions
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.types import Float32Array
from medsr.volume import Volume

OBLIQUE = np.array(
    [[0.98, -0.17, 0.1, -30.0], [0.18, 0.97, -0.2, 20.0], [-0.06, 0.21, 3.9, -12.0], [0, 0, 0, 1]]
)


def _store(root: Path, name: str, detail: float = 0.02, **changes: Any) -> None:
    modality = changes.get("modality", "MR")
    values: dict[str, Any] = {
        "name": name,
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
        "trained_degradation": {},
        "parameters": 1000,
        "training": {},
        "description": "random weights",
    }
    spec = ModelSpec(**{**values, **changes})
    torch.manual_seed(11)
    network = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(detail * torch.randn_like(parameter))
    SRModel(network, spec).save(root / name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of small random models."""
    folder = tmp_path_factory.mktemp("zoo")
    _store(folder, "mr-z4")
    cube = {"scale": (2, 2, 2), "trained_spacing_mm": SpacingRange((0.8, 1.6), (0.8, 1.6))}
    _store(folder, "mr-iso2", **cube)
    _store(folder, "ct-z4", modality="CT")
    _store(folder, "plain-z4", detail=0.0, role="teacher")
    return folder


@pytest.fixture
def thick(phantom: Float32Array) -> Volume:
    """An oblique scan of 1 x 1 x 4 mm or so, int16."""
    data = phantom[:24, :20, ::4].round().astype(np.int16)
    return Volume(data=data, geometry=Geometry(data.shape, OBLIQUE), modality="MR")


def test_the_grid_is_geometry_refine(thick: Volume, root: Path) -> None:
    result = upscale(thick, scale=(1, 1, 4), precision="fp32", zoo_root=root)
    assert result.volume.geometry == thick.geometry.refine((1, 1, 4))
    assert result.volume.data.dtype == np.float32
    assert result.report["model"]["name"] == "mr-z4"
    mean = thick.spacing[0] / 2 + thick.spacing[1] / 2
    iso = upscale(thick, precision="fp32", zoo_root=root).volume
    assert iso.geometry == thick.geometry.refine((1, 1, thick.spacing[2] / mean))
    assert iso.spacing[2] == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (2,)])
def test_any_axis_order_gives_the_same_result_in_space(
    thick: Volume, root: Path, order: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    expected = upscale(thick, precision="fp32", zoo_root=root).volume
    turned = thick.permute(order).flip(flips)
    found = upscale(turned, precision="fp32", zoo_root=root).volume
    back = found.flip(flips).permute([order.index(axis) for axis in range(3)])
    assert back.geometry.same_grid(expected.geometry, 1e-6)
    np.testing.assert_allclose(back.data, expected.data, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("value", [0, 700])
def test_constants_stay_constant(value: int, root: Path) -> None:
    data = np.full((12, 11, 6), value, np.int16)
    options = {"array_spacing": (0.9, 0.9, 3.3), "modality": "mr", "zoo_root": root}
    result = upscale(data, model="plain-z4", allow=["labels"], **options)
    np.testing.assert_allclose(result.volume.data, value, rtol=1e-5)


def test_hu_is_never_clipped(root: Path) -> None:
    data = np.full((12, 11, 6), -1000, np.int16)
    data[4:8, 4:8] = 20000
    data[:2] = -3024
    options = {"array_spacing": (0.9, 0.9, 3.6), "modality": "ct", "zoo_root": root}
    result = upscale(data, model="plain-z4", **options).volume.data
    # The named model is for MR, but here only its linearity matters.
    assert result.max() == pytest.approx(20000, rel=1e-5)
    assert result.min() == pytest.approx(-3024, rel=1e-5)


def test_files_saturate_in_their_own_type(root: Path, tmp_path: Path) -> None:
    data = np.full((14, 12, 8), 100, np.uint8)
    data[5:9, 4:8] = 255
    data[:3] = 0
    nib.Nifti1Image(data, np.diag([-0.9, 0.9, 3.6, 1])).to_filename(tmp_path / "in.nii.gz")
    _store(tmp_path / "wild", "mr-wild", detail=0.3)
    source, target = tmp_path / "in.nii.gz", tmp_path / "out.nii.gz"
    options = {"model": tmp_path / "wild" / "mr-wild", "precision": "fp32", "zoo_root": root}
    result = upscale(source, target, limits=False, allow=["labels"], **options)
    raw = result.volume.data
    assert raw.max() > 256
    assert raw.min() < -1
    written = nib.load(target)
    assert written.get_data_dtype() == np.uint8
    stored = np.asarray(written.dataobj)
    np.testing.assert_array_equal(stored, np.clip(np.rint(raw), 0, 255))
    np.testing.assert_allclose(written.affine, result.volume.geometry.affine, atol=1e-5)


def test_a_ratio_beyond_the_model_warns_once(
    root: Path, caplog: pytest.LogCaptureFixture, phantom: Float32Array
) -> None:
    with caplog.at_level(logging.WARNING, logger="medsr"):
        result = upscale(
            phantom[:20, :20, :8], array_spacing=(0.9, 0.9, 6.0), modality="mr", zoo_root=root
        )
    (warning,) = result.report["warnings"]
    assert "interpolated" in warning
    assert [record.getMessage() for record in caplog.records] == [warning]
    assert result.volume.shape == (20, 20, round(8 * 6.0 / 0.9))


def test_spacing_follows_the_arrays_own_axes(root: Path, phantom: Float32Array) -> None:
    result = upscale(
        phantom[:8, :20, :20], array_spacing=(3.6, 0.9, 0.9), spacing=(1.2, 0.9, 0.9), zoo_root=root
    )
    assert result.volume.shape == (24, 20, 20)
    assert result.volume.spacing == pytest.approx((1.2, 0.9, 0.9))


def test_isotropic_scans_need_a_word(root: Path, phantom: Float32Array) -> None:
    options = {"array_spacing": (1, 1, 1), "modality": "mr", "zoo_root": root}
    data = phantom[:12, :12, :12]
    with pytest.raises(OutOfScopeError, match="already isotropic"):
        upscale(data, **options)
    for asked in ({"scale": (2, 2, 2)}, {"model": "mr-iso2"}):
        result = upscale(data, **options, **asked)
        assert result.report["model"]["name"] == "mr-iso2"
        assert result.volume.shape == (24, 24, 24)
        assert result.report["warnings"] == []


def test_a_named_model_out_of_its_kind_runs_with_one_warning(
    root: Path, phantom: Float32Array
) -> None:
    options = {"array_spacing": (5, 5, 20), "modality": "ct", "zoo_root": root}
    with pytest.raises(OutOfScopeError, match="in-plane spacing"):
        upscale(phantom[:8, :8, :8] - 1000, **options)
    result = upscale(phantom[:8, :8, :8] - 1000, model="mr-z4", **options)
    (warning,) = result.report["warnings"]
    assert "CT" in warning
    assert "in-plane spacing" in warning


def test_tensors_with_an_affine(root: Path, thick: Volume) -> None:
    tensor = MetaTensor(
        torch.from_numpy(thick.data.astype(np.float32))[None],
        affine=torch.tensor(thick.geometry.affine),
    )
    found = upscale(tensor, modality="mr", precision="fp32", zoo_root=root).volume
    expected = upscale(thick, precision="fp32", zoo_root=root).volume
    np.testing.assert_allclose(found.data, expected.data, atol=1e-3)
    assert found.geometry == expected.geometry


def test_report_and_preview(root: Path, thick: Volume, tmp_path: Path) -> None:
    folder = tmp_path / "Doe_John_1970"
    folder.mkdir()
    source, target = folder / "Doe_John.nii.gz", folder / "Doe_John_sr.nii.gz"
    io.save(thick, source)
    stages: list[str] = []
    result = upscale(
        source,
        target,
        report=folder / "report.json",
        preview=folder / "preview.png",
        zoo_root=root,
        progress=lambda stage, done, total: stages.append(f"{stage} {done}/{total}"),
    )
    text = (folder / "report.json").read_text()
    assert "Doe" not in text
    report = json.loads(text)
    assert report == result.report
    names = {"start", "load", "prepare", "network", "restore", "save"}
    assert set(report["seconds"]) == {*names, "total"}
    assert report["model"]["weights_sha256"] == SRModel.load(root / "mr-z4").weight_hash
    assert report["output"]["shape"] == list(result.volume.shape)
    assert report["input"]["dtype"] == "int16"
    assert report["peak_memory_bytes"] > 10**7
    assert stages[0].startswith("network 0/")
    done, total = stages[-1].split()[1].split("/")
    assert done == total
    assert report["tiles"]["count"] == 1
    assert report["tiles"]["backend"] == "torch"
    with Image.open(folder / "preview.png") as picture:
        grey = np.asarray(picture.convert("L"), dtype=float)
    assert grey.std() > 20
    assert {p.name for p in folder.iterdir()} == {
        source.name, target.name, "report.json", "preview.png",
    }  # fmt: skip


def test_nothing_is_written_when_it_cannot_be_done(
    root: Path, thick: Volume, tmp_path: Path
) -> None:
    there = tmp_path / "there.nii.gz"
    there.write_bytes(b"kept")
    bad = thick.replace(data=np.full(thick.shape, np.nan, np.float32))
    cases: list[tuple[type[MedsrError], Any, Path, dict[str, Any]]] = [
        (OutputExistsError, thick, there, {}),
        (OutputExistsError, thick, tmp_path / "a.nii", {"report": there}),
        (OutputNotWritableError, thick, tmp_path / "missing" / "a.nii", {}),
        (OutputFormatError, thick, tmp_path / "a.jpg", {}),
        (UnknownModelError, thick, tmp_path / "a.nii", {"model": "mr-z9"}),
        (NonFiniteError, bad, tmp_path / "a.nii", {}),
        (MemoryLimitError, thick, tmp_path / "a.nii", {"max_memory": "1MB"}),
    ]
    for error, scan, output, options in cases:
        with pytest.raises(error):
            upscale(scan, output, zoo_root=root, **options)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(thick, tmp_path / "a.nii", progress=interrupt, zoo_root=root)
    assert [p.name for p in tmp_path.iterdir()] == ["there.nii.gz"]
    assert there.read_bytes() == b"kept"


def test_outputs_appear_together_or_not_at_all(
    root: Path, thick: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {"report": tmp_path / "a.json", "preview": tmp_path / "a.png"}
    output = tmp_path / "a.nii"

    def full(*_: Any, **__: Any) -> str:
        assert {p.suffix for p in tmp_path.iterdir()} == {".nii", ".png"}
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medsr.infer.outputs.json.dumps", full)
        with pytest.raises(OutputNotWritableError, match=r"a\.json.*No space left"):
            upscale(thick, output, zoo_root=root, **paths)
    assert list(tmp_path.iterdir()) == []
    upscale(thick, output, zoo_root=root, **paths)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.nii", "a.png"]


def test_outputs_that_would_overwrite_each_other_are_refused(
    root: Path, thick: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsr.infer.upscaler.Upscaler.compute", None)
    folder = tmp_path / "folder.nii"
    folder.mkdir()
    a = tmp_path / "a.nii"
    cases: list[tuple[type[MedsrError], Path, dict[str, Any]]] = [
        (UsageError, a, {"report": a}),
        (UsageError, a, {"report": tmp_path / "b", "preview": tmp_path / "b"}),
        (UsageError, folder.with_suffix(""), {"report": folder.with_suffix("") / "r.json"}),
        (OutputExistsError, folder, {}),
        (OutputExistsError, a, {"report": folder}),
    ]
    folder.with_suffix("").mkdir()
    for error, output, options in cases:
        with pytest.raises(error):
            upscale(thick, output, zoo_root=root, overwrite=True, **options)


@pytest.mark.parametrize("options", [{"scale": 4}, {"spacing": 1.0}, {"scale": (1, 4)}])
def test_grids_that_are_not_three_numbers(
    root: Path, thick: Volume, options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="three numbers"):
        upscale(thick, zoo_root=root, **options)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_a_written_file_lies_over_its_source(
    root: Path, thick: Volume, tmp_path: Path, codes: str
) -> None:
    """ITK, which reads the files by itself, finds the same values at the same places."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (8, -12, 20), degrees=True).as_matrix()
    affine = affine @ np.diag([0.9, 1.0, 3.8, 1.0])
    affine[:3, 3] = (-30.0, 20.0, -12.0)
    image = nib.Nifti1Image(thick.data, affine)
    turned = image.as_reoriented(
        ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
    )
    turned.to_filename(tmp_path / "in.nii.gz")
    options = {"model": "plain-z4", "scale": (1, 1, 4), "precision": "fp32", "zoo_root": root}
    upscale(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", **options)
    before, after = (SimpleITK.ReadImage(tmp_path / f"{n}.nii.gz") for n in ("in", "out"))
    # The model repeats every slice four times, which nearest-neighbour resampling does as well.
    expected = SimpleITK.Resample(before, after, interpolator=SimpleITK.sitkNearestNeighbor)
    found, wanted = (SimpleITK.GetArrayFromImage(i).astype(int) for i in (after, expected))
    assert found.size == 4 * thick.data.size
    assert np.abs(found - wanted).max() <= 1
    assert wanted.std() > 100


def test_real_scans_keep_their_place(shared_data: Path, root: Path, tmp_path: Path) -> None:
    source = shared_data / "dicom" / "mr_fruit"
    volume = io.load(source)
    start = [n // 2 - 12 for n in volume.shape]
    part = volume.crop(start, [s + 24 for s in start])
    result = upscale(part, spacing=None, model="plain-z4", zoo_root=root).volume
    assert result.geometry.extent_mm == pytest.approx(part.geometry.extent_mm)
    np.testing.assert_allclose(result.geometry.corners_mm(), part.geometry.corners_mm(), atol=1e-6)


def test_dicom_output_of_a_scan_that_is_none_is_refused_before_any_work(
    thick: Volume, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsr.infer.upscaler.Upscaler.compute", None)
    with pytest.raises(OutputFormatError, match="DICOM input"):
        upscale(thick, tmp_path / "series", scale=(1, 1, 4), zoo_root=root)
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_is_asked_for_gives_the_ending(
    thick: Volume, root: Path, tmp_path: Path
) -> None:
    upscale(thick, tmp_path / "sharp", format="nrrd", scale=(1, 1, 4), zoo_root=root)
    assert [path.name for path in tmp_path.iterdir()] == ["sharp.nrrd"]
    assert io.load(tmp_path / "sharp.nrrd").shape[2] == 4 * thick.shape[2]
    for name, kind in (("a.nii", "nrrd"), ("b", "png")):
        with pytest.raises(OutputFormatError):
            upscale(thick, tmp_path / name, format=kind, scale=(1, 1, 4), zoo_root=root)


def test_options_for_dicom_need_dicom_output(thick: Volume, root: Path, tmp_path: Path) -> None:
    for options in (DicomOptions(deidentify=True), DicomOptions(series_number=3)):
        with pytest.raises(UsageError, match="DICOM output"):
            upscale(thick, tmp_path / "a.nii", dicom=options, scale=(1, 1, 4), zoo_root=root)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused_before_any_work(
    thick: Volume, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "notes.txt").write_text("keep me")
    monkeypatch.setattr("medsr.infer.upscaler.Upscaler.compute", None)
    monkeypatch.setattr("medsr.io.dicom.write.layout.check_writable", lambda volume, options: None)
    with pytest.raises(OutputExistsError, match="1 entries of another kind"):
        upscale(thick, tmp_path / "series", scale=(1, 1, 4), zoo_root=root, overwrite=True)
    assert (tmp_path / "series" / "notes.txt").read_text() == "keep me"

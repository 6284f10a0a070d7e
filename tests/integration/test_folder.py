"""A folder of scans from end to end: the same results as one by one, failures, parts, Ctrl-C."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import medsr
from medsr.cli.main import main
from medsr.errors import (
    DeviceError,
    Interrupted,
    MedsrError,
    MissingExtraError,
    OutputExistsError,
    OutputNotWritableError,
    ScansFailedError,
    UnknownModelError,
    UsageError,
)
from medsr.infer.engine.backends import BACKENDS
from medsr.infer.outputs import Outputs
from medsr.infer.upscaler import Upscaler
from medsr.model import SRModel
from medsr.types import Float32Array

AFFINE = np.diag([0.9, 0.9, 3.6, 1.0])


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    """The folder of a small random model with a head."""
    return tiny_model(head="gaussian")


@pytest.fixture
def options(model: Path) -> dict[str, Any]:
    """What every call here asks for."""
    return {"model": model, "precision": "fp32", "device": "cpu", "scale": (1, 1, 4)}


@pytest.fixture
def folder(phantom: Float32Array, tmp_path: Path) -> Path:
    """Four scans in three formats and a DICOM series, at different depths."""
    data = phantom[:16, :14, :6].round().astype(np.int16)
    top = tmp_path / "in"
    (top / "p1").mkdir(parents=True)
    (top / "p2" / "deep").mkdir(parents=True)
    nib.Nifti1Image(data, AFFINE).to_filename(top / "p1" / "a.nii.gz")
    nib.Nifti1Image(data[::-1] + np.int16(3), AFFINE).to_filename(top / "p1" / "a.nii")
    image = SimpleITK.GetImageFromArray(data.T)
    image.SetSpacing((0.9, 0.9, 3.6))
    SimpleITK.WriteImage(image, top / "p2" / "deep" / "b.mha")
    (top / "p2" / "deep" / "b.json").write_text("{}")
    _write_series(top / "p2" / "series.t1", data)
    return top


def _write_series(folder: Path, data: NDArray[np.int16]) -> None:
    folder.mkdir()
    for k in range(data.shape[2]):
        slice_ = Dataset()
        slice_.SOPClassUID, slice_.SOPInstanceUID = MRImageStorage, generate_uid()
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        slice_.Modality, slice_.InstanceNumber = "MR", k + 1
        slice_.ImagePositionPatient = [0.0, 0.0, 3.6 * k]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.PixelSpacing, slice_.SliceThickness = [0.9, 0.9], 3.6
        slice_.Columns, slice_.Rows = data.shape[:2]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
        slice_.PixelRepresentation = 1
        slice_.PixelData = np.ascontiguousarray(data[:, :, k].T).tobytes()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta.MediaStorageSOPClassUID = MRImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.save_as(folder / f"{k}.dcm", enforce_file_format=True)


NAMES = ["p1/a.nii", "p1/a.nii.gz", "p2/deep/b.mha", "p2/series.t1"]


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_results_are_those_of_one_scan_at_a_time(
    folder: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.json"
    loads = []
    load = SRModel.load
    with monkeypatch.context() as patch:
        patch.setattr(SRModel, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
        summary = medsr.upscale_folder(folder, out, report=report, **options)
    assert len(loads) == 1
    assert list(summary.reports) == NAMES
    assert summary.of_kind("failed") == ()
    for name in NAMES:
        alone = tmp_path / "alone" / Path(name).name
        alone.parent.mkdir(exist_ok=True)
        if name.endswith(".t1"):
            alone = alone.with_name("series")
        medsr.upscale(folder / name, alone, **options)
        one, other = medsr.load(alone), medsr.load(out / name)
        assert one.shape == (16, 14, 24)
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_array_equal(one.geometry.affine, other.geometry.affine)
        assert one.source is not None
        assert other.source is not None
        assert one.source.format == other.source.format
        assert one.source.dtype == other.source.dtype
    stored = json.loads(report.read_text())
    assert [scan["name"] for scan in stored["scans"]] == NAMES
    assert stored["scans"][0]["report"]["model"]["name"] == "tiny"
    assert stored["counts"] == {"done": 4, "skipped": 0, "doubtful": 0, "failed": 0}
    assert stored["exit_code"] == 0


def test_a_bad_file_is_listed_and_the_rest_goes_on(
    folder: Path, tmp_path: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "p1" / "bad.nii").write_bytes((folder / "p1" / "a.nii").read_bytes()[:400])
    (folder / "z.nii").write_bytes(b"nothing")
    out, report = tmp_path / "out", tmp_path / "out" / "report.json"
    words = ["--model", str(options["model"]), "--scale", "1,1,4", "--precision", "fp32"]
    code = main(["upscale", str(folder), str(out), "--report", str(report), *words])
    assert code == ScansFailedError.exit_code == 53
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if "missing in the source" not in line]
    assert len(lines) == 3
    assert lines[0].startswith("medsr: p1/bad.nii: failed: ")
    assert "truncated" in lines[0]
    assert lines[1].startswith("medsr: z.nii: failed: ")
    assert "2 of 6 scans" in lines[2]
    assert "tiny" in said.out
    stored = json.loads(report.read_text())
    assert [(s["name"], s["outcome"], s["exit_code"]) for s in stored["scans"]] == [
        *((name, "done", 0) for name in NAMES[:2]),
        ("p1/bad.nii", "failed", 13),
        *((name, "done", 0) for name in NAMES[2:]),
        ("z.nii", "failed", 13),
    ]
    assert stored["exit_code"] == 53
    assert str(tmp_path) not in report.read_text()
    # Once they are mended or gone, the same command with --continue does what is left.
    nib.save(nib.load(folder / "p1" / "a.nii"), folder / "z.nii")
    (folder / "p1" / "bad.nii").unlink()
    call = ["upscale", str(folder), str(out), "--report", str(report), "--continue", "--quiet"]
    before = {name: (out / name).stat().st_mtime_ns for name in NAMES}
    assert main([*call, *words]) == 0
    assert capsys.readouterr() == ("", "")
    assert before == {name: (out / name).stat().st_mtime_ns for name in NAMES}
    stored = json.loads(report.read_text())
    assert [scan["name"] for scan in stored["scans"]] == [*NAMES, "z.nii"]
    assert stored["counts"] == {"done": 1, "skipped": 4, "doubtful": 0, "failed": 0}
    for scan in stored["scans"][:4]:
        assert (scan["outcome"], scan["reason"]) == ("skipped", "done before")
        assert scan["report"]["model"]["name"] == "tiny"


def test_results_that_exist_are_neither_lost_nor_taken_for_scans(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = folder / "p1" / "fine"
    first = medsr.upscale_folder(folder, out, part="1/3", **options)
    assert list(first.reports) == [NAMES[0], NAMES[3]]
    with pytest.raises(OutputExistsError, match=r"2 of 4 scans.*--continue"):
        medsr.upscale_folder(folder, out, **options)
    rest = medsr.upscale_folder(folder, out, resume=True, **options)
    assert list(rest.reports) == NAMES[1:3]
    assert [scan.name for scan in rest.of_kind("skipped")] == [NAMES[0], NAMES[3]]
    again = medsr.upscale_folder(folder, out, overwrite=True, **options)
    assert list(again.reports) == NAMES
    assert len(files(out)) == 3 + 24


def test_pictures_and_maps_go_to_folders_of_their_own(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    pictures, maps = tmp_path / "pictures", tmp_path / "maps"
    out = tmp_path / "out"
    medsr.upscale_folder(folder, out, preview=pictures, uncertainty=maps, **options)
    assert files(pictures) == sorted(f"{name}.png" for name in NAMES)
    assert files(maps) == [*NAMES[:3], f"{NAMES[3]}.nii.gz"]
    wanted = medsr.upscale(folder / NAMES[0], uncertainty=True, **options).uncertainty
    assert wanted is not None
    np.testing.assert_array_equal(medsr.load(maps / NAMES[0]).data, wanted.data)


@pytest.mark.parametrize("stage", ["reading", "network", "writing"])
def test_ctrl_c_leaves_whole_results_and_says_how_to_go_on(
    stage: str, folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out, report = tmp_path / "out", tmp_path / "report.json"
    seen: list[str] = []

    def interrupt(done: int, total: int, now: str) -> None:
        assert total == 4
        seen.append(now.split()[0])
        # In the third scan.
        if now.startswith(stage) and seen.count("reading") == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"2 of 4 scans.*--continue"):
        medsr.upscale_folder(folder, out, progress=interrupt, report=report, **options)
    assert files(out) == NAMES[:2]
    assert [scan["name"] for scan in json.loads(report.read_text())["scans"]] == NAMES[:2]
    medsr.upscale_folder(folder, out, resume=True, report=report, **options)
    assert [scan["name"] for scan in json.loads(report.read_text())["scans"]] == NAMES
    for name in NAMES:
        assert medsr.load(out / name).shape == (16, 14, 24)
    assert not [path for path in tmp_path.rglob(".*")]


def test_reading_computing_and_writing_overlap(
    folder: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of a scan waits here for another scan's step, which would never come in a row."""
    read = {name: threading.Event() for name in NAMES}
    computing = {name: threading.Event() for name in NAMES}
    steps = {"read": Upscaler.read, "compute": Upscaler.compute, "write": Outputs.write}
    missed: list[str] = []
    order: list[str] = []

    def name_of(path: Path) -> str:
        return path.relative_to(path.parents[len(path.parts) - len(folder.parts) - 1]).as_posix()

    def reading(self: Upscaler, path: Path, outputs: Outputs) -> Any:
        result = steps["read"](self, path, outputs)
        read[name_of(path)].set()
        return result

    def compute(self: Upscaler, scan: Any, *outputs: Any, **more: Any) -> Any:
        name = name_of(scan.volume.source.path)
        computing[name].set()
        order.append(name)
        for following in NAMES[NAMES.index(name) + 1 :][:1]:
            if not read[following].wait(20):
                missed.append(f"{following} is not read while {name} is computed")
        return steps["compute"](self, scan, *outputs, **more)

    def write(self: Outputs, computed: Any) -> Any:
        name = name_of(computed.scan.volume.source.path)
        for following in NAMES[NAMES.index(name) + 1 :][:1]:
            if not computing[following].wait(20):
                missed.append(f"{following} is not computed while {name} is written")
        return steps["write"](self, computed)

    monkeypatch.setattr(Upscaler, "read", reading)
    monkeypatch.setattr(Upscaler, "compute", compute)
    monkeypatch.setattr(Outputs, "write", write)
    summary = medsr.upscale_folder(folder, tmp_path / "out", **options)
    assert summary.of_kind("failed") == ()
    assert missed == []
    assert order == NAMES


def test_under_a_limit_of_memory_one_scan_is_there_at_a_time(
    folder: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for owner, step in ((Upscaler, "read"), (Upscaler, "compute"), (Outputs, "write")):
        whole = getattr(owner, step)

        def noted(*args: Any, whole: Any = whole, step: str = step, **more: Any) -> Any:
            result = whole(*args, **more)
            steps.append(step)
            return result

        monkeypatch.setattr(owner, step, noted)
    summary = medsr.upscale_folder(folder, tmp_path / "out", max_memory="64GB", **options)
    assert list(summary.reports) == NAMES
    assert steps == [*("read", "compute", "write") * 4]


def test_a_full_disk_ends_the_work(
    folder: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutputNotWritableError("no space left") from OSError(28, "No space left on device")

    monkeypatch.setattr(Outputs, "write", full)
    with pytest.raises(OutputNotWritableError, match="no space left"):
        medsr.upscale_folder(folder, tmp_path / "out", report=tmp_path / "r.json", **options)
    failures = json.loads((tmp_path / "r.json").read_text())["scans"]
    assert 1 <= len(failures) < 4
    assert failures[0]["name"] == NAMES[0]


def test_what_would_fail_for_every_scan_is_refused_before_any_is_read(
    folder: Path, tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Upscaler, "read", None)
    # As where an extra is not installed.
    monkeypatch.setattr(BACKENDS["onnxruntime"], "packages", ("no_such_package",), raising=False)
    out = tmp_path / "out"
    cases: list[tuple[type[MedsrError], dict[str, Any]]] = [
        (DeviceError, {"device": "cuda:99"}),
        (UnknownModelError, {"model": "mr-z9"}),
        (UsageError, {"backend": "abacus"}),
        (MissingExtraError, {"backend": "onnxruntime"}),
        (UsageError, {"precision": "fp8"}),
        (UsageError, {"modality": "pet"}),
        (UsageError, {"scale": (1, 4)}),
        (UsageError, {"max_memory": "much"}),
        (UsageError, {"part": "9/8"}),
        (UsageError, {"overwrite": True, "resume": True}),
        (UsageError, {"preview": out}),
    ]
    for error, wrong in cases:
        with pytest.raises(error):
            medsr.upscale_folder(folder, out, **{**options, **wrong})
    with pytest.raises(UsageError, match="one scan"):
        medsr.upscale_folder(folder / "p2" / "series.t1", out, **options)
    assert not out.exists()


def test_one_series_below_a_folder_is_one_scan(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    (folder / "p2" / "deep" / "b.mha").unlink()
    words = ["--model", str(options["model"]), "--scale", "1,1,4", "--precision", "fp32"]
    assert main(["upscale", str(folder / "p2"), str(tmp_path / "one"), *words, "--quiet"]) == 0
    assert len(files(tmp_path / "one")) == 24
    assert all("/" not in name for name in files(tmp_path / "one"))
    many = str(tmp_path / "many")
    assert main(["upscale", str(folder / "p2"), many, *words, "--quiet", "--part", "1/1"]) == 0
    assert files(tmp_path / "many") == [f"series.t1/{n}" for n in files(tmp_path / "one")]


def test_options_that_fit_no_folder_or_no_scan(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = folder / "p1" / "a.nii"
    (tmp_path / "empty").mkdir()
    cases = {
        ("upscale", scan, tmp_path / "o.nii", "--part", "1/2"): 2,
        ("upscale", scan, tmp_path / "o.nii", "--continue"): 2,
        ("upscale", folder, tmp_path / "o", "--series", "1.2", "--continue"): 2,
        ("upscale", folder, tmp_path / "o.nii.gz"): 2,
        ("upscale", folder, folder): 34,
        ("upscale", folder, tmp_path): 34,
        ("upscale", folder, tmp_path / "no" / "o"): 32,
        ("upscale", folder, scan): 31,
        ("upscale", tmp_path / "empty", tmp_path / "o"): 12,
        ("upscale", tmp_path / "empty", tmp_path / "o", "--continue"): 12,
        ("upscale", tmp_path / "none", tmp_path / "o", "--continue"): 11,
        ("upscale", scan, tmp_path / "o.nii", "--backend", "abacus"): 2,
    }
    for words, code in cases.items():
        assert main([str(word) for word in words]) == code, words
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("medsr: ")
        assert said.err.count("\n") == 1

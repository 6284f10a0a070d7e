"""What came of each scan of a folder: exit codes, the lines at the end, warnings, the report."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage, generate_uid

import medsr
from medsr.cli.main import main
from medsr.errors import (
    DoubtfulResultsError,
    ScansFailedError,
    SourceOverwriteError,
)
from medsr.model import SRModel
from tests.conftest import make_phantom

Make = Callable[..., Path]
THICK, CUBES = np.diag([0.9, 0.9, 3.6, 1.0]), np.diag([1.0, 1.0, 1.0, 1.0])
DATA = make_phantom((16, 14, 8)).astype(np.int16)


def put(path: Path, data: NDArray[Any] = DATA, affine: NDArray[Any] = THICK, **header: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    for key, value in header.items():
        image.header[key] = value
    image.to_filename(path)


@pytest.fixture
def zoo(tiny_model: Make, tmp_path: Path) -> Path:
    """One small random model, to choose from."""
    SRModel.load(tiny_model()).save(tmp_path / "zoo" / "tiny")
    return tmp_path / "zoo"


@pytest.fixture
def wild(tiny_model: Make, tmp_path: Path) -> Path:
    """A random model that says how its training scans were made, so that results are doubted."""
    tiny = SRModel.load(tiny_model())
    profile = {"kind": "slice_profile", "factor": [1, 1, 4], "thickness": 1.0}
    spec = replace(tiny.spec, name="wild", trained_degradation=profile)
    return SRModel(tiny.module, spec).save(tmp_path / "models" / "wild")


def _mixed(folder: Path) -> Path:
    put(folder / "p1" / "good.nii.gz")
    put(folder / "p1" / "cubes.nii.gz", affine=CUBES)
    put(folder / "p1" / "thin.nii.gz", affine=np.diag([0.98, 0.98, 0.6, 1]))
    put(folder / "p2" / "empty.nii.gz", np.zeros_like(DATA))
    put(folder / "p2" / "sub-01_mask.nii.gz")
    put(folder / "p2" / "organs.nii.gz", (DATA > 300).astype(np.uint8))
    return folder


def outcomes(summary: medsr.FolderSummary) -> dict[str, tuple[str, int]]:
    return {scan.name: (scan.outcome, scan.exit_code) for scan in summary.scans}


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_segmentation_objects_of_dicom_are_skipped(tmp_path: Path, zoo: Path) -> None:
    put(tmp_path / "in" / "a.nii.gz")
    drawn = Dataset()
    drawn.SOPClassUID, drawn.SOPInstanceUID = SegmentationStorage, generate_uid()
    drawn.Modality, drawn.SeriesInstanceUID = "SEG", generate_uid()
    drawn.file_meta = FileMetaDataset()
    drawn.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    drawn.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    (tmp_path / "in" / "seg").mkdir()
    drawn.save_as(tmp_path / "in" / "seg" / "1.dcm", enforce_file_format=True)
    (tmp_path / "in" / "seg" / "notes.txt").write_text("none")
    summary = medsr.upscale_folder(tmp_path / "in", tmp_path / "out", zoo_root=zoo, modality="mr")
    assert outcomes(summary) == {"a.nii.gz": ("done", 0), "seg/1.dcm": ("skipped", 85)}
    assert "Segmentation" in summary.scans[1].reason
    assert files(tmp_path / "out") == ["a.nii.gz"]


def test_what_needs_nothing_is_skipped_with_its_reason(tmp_path: Path, zoo: Path) -> None:
    folder, out = _mixed(tmp_path / "in"), tmp_path / "out"
    summary = medsr.upscale_folder(folder, out, zoo_root=zoo, modality="mr")
    assert outcomes(summary) == {
        "p1/cubes.nii.gz": ("skipped", 43),
        "p1/good.nii.gz": ("done", 0),
        "p1/thin.nii.gz": ("skipped", 43),
        "p2/empty.nii.gz": ("skipped", 27),
        "p2/organs.nii.gz": ("skipped", 27),
        "p2/sub-01_mask.nii.gz": ("skipped", 27),
    }
    assert summary.counts == {"done": 1, "skipped": 5, "doubtful": 0, "failed": 0}
    assert summary.exit_code == 0
    reasons = {scan.name: scan.reason for scan in summary.scans}
    assert "already isotropic" in reasons["p1/cubes.nii.gz"]
    assert "every voxel is 0" in reasons["p2/empty.nii.gz"]
    assert "0 and 1 alone" in reasons["p2/organs.nii.gz"]
    assert "_mask" in reasons["p2/sub-01_mask.nii.gz"]
    assert str(tmp_path) not in " ".join(reasons.values())
    assert files(out) == ["p1/good.nii.gz"]
    assert not (out / "p2").exists()
    # By itself each is refused with the same code.
    for name, (kind, code) in outcomes(summary).items():
        if kind == "skipped":
            with pytest.raises(medsr.errors.MedsrError) as caught:
                medsr.upscale(folder / name, zoo_root=zoo, modality="mr")
            assert caught.value.exit_code == code


def test_a_grid_that_is_nowhere_finer_skips_a_scan_and_a_factor_of_one_fails(
    tmp_path: Path, zoo: Path
) -> None:
    put(tmp_path / "in" / "thick.nii.gz")
    put(tmp_path / "in" / "fine.nii.gz", affine=np.diag([0.9, 0.9, 0.9, 1]))
    options: dict[str, Any] = {"zoo_root": zoo, "modality": "mr"}
    summary = medsr.upscale_folder(
        tmp_path / "in", tmp_path / "a", spacing=(0.9, 0.9, 0.9), **options
    )
    assert outcomes(summary) == {"fine.nii.gz": ("skipped", 2), "thick.nii.gz": ("done", 0)}
    summary = medsr.upscale_folder(tmp_path / "in", tmp_path / "b", scale=(1, 1, 1), **options)
    assert summary.counts["failed"] == 2


@pytest.mark.parametrize("derivatives", [False, True])
def test_segmentations_of_a_dataset_are_skipped(
    derivatives: bool, tmp_path: Path, zoo: Path
) -> None:
    ds = tmp_path / "ds"
    top = ds / "derivatives" / "seg" if derivatives else ds
    put(ds / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    (ds / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    for name in ("dseg", "label-GM_probseg", "desc-brain_mask", "label-lesion_roi"):
        put(top / "sub-01" / "anat" / f"sub-01_{name}.nii.gz")
    if derivatives:
        put(top / "sub-01" / "anat" / "sub-01_T1w_seg.nii.gz")
    summary = medsr.upscale_folder(ds, tmp_path / "out", zoo_root=zoo, modality="mr")
    assert [scan.name for scan in summary.of_kind("done")] == ["sub-01/anat/sub-01_T1w.nii.gz"]
    assert len(summary.of_kind("skipped")) == (5 if derivatives else 4)
    assert all("its name" in scan.reason for scan in summary.of_kind("skipped"))
    assert files(tmp_path / "out") == [
        "dataset_description.json",
        "sub-01/anat/sub-01_desc-sr_T1w.nii.gz",
    ]
    allowed = medsr.upscale_folder(
        ds, tmp_path / "all", zoo_root=zoo, modality="mr", allow=["labels"]
    )
    assert allowed.counts["done"] == len(summary.scans)


def test_the_command_tells_the_four_apart(
    tmp_path: Path, wild: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Doubtful results have a code of their own, and a failure goes before."""
    folder, out, report = tmp_path / "in", tmp_path / "out", tmp_path / "report.json"
    put(folder / "a.nii.gz")
    put(folder / "sub-01_dseg.nii.gz")
    words = ["--report", str(report), "--modality", "mr", "--precision", "fp32"]
    call = ["upscale", str(folder), str(out), *words, "--model", str(wild), "--scale", "1,1,4"]
    assert main(call) == DoubtfulResultsError.exit_code == 57
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[:4] == [["done", "0"], ["skipped", "1"], ["doubtful", "1"], ["failed", "0"]]
    lines = said.err.splitlines()
    assert lines[0].startswith("medsr: warning: a.nii.gz: ")
    (doubt,) = (line for line in lines if line.startswith("medsr: a.nii.gz: doubtful: "))
    assert "do not trust this result" in doubt
    assert any(line.startswith("medsr: sub-01_dseg.nii.gz: skipped: ") for line in lines)
    assert lines[-1].startswith("medsr: 1 of 2 scans have a result that is not to be trusted")
    told = json.loads(report.read_text())
    assert (told["exit_code"], told["counts"]["doubtful"]) == (57, 1)
    first, second = told["scans"]
    assert set(first) == {
        "name", "outcome", "reason", "error", "exit_code", "output", "warnings", "report",
    }  # fmt: skip
    assert (first["outcome"], first["exit_code"], first["output"]) == ("doubtful", 0, "a.nii.gz")
    assert first["reason"] in first["warnings"]
    assert first["report"]["doubts"] == [first["reason"]]
    assert (second["outcome"], second["error"], second["output"]) == (
        "skipped",
        "LabelsError",
        None,
    )
    assert second["report"] is None

    # What is left out later is still known to be doubtful; nothing is left to be done.
    assert main([*call, "--continue"]) == 0
    assert "nothing was upscaled" in capsys.readouterr().err
    told = json.loads(report.read_text())
    assert told["counts"] == {"done": 0, "skipped": 2, "doubtful": 0, "failed": 0}
    assert told["scans"][0]["reason"].startswith("done before, and doubtful: the result does not")
    assert told["scans"][0]["report"]["model"]["name"] == "wild"

    (folder / "z.nii.gz").write_bytes(b"nothing")
    assert main([*call, "--overwrite", "--quiet"]) == ScansFailedError.exit_code == 53
    said = capsys.readouterr()
    assert said.out == ""
    assert any(line.startswith("medsr: z.nii.gz: failed: ") for line in said.err.splitlines())
    assert any(line.startswith("medsr: a.nii.gz: doubtful: ") for line in said.err.splitlines())

    # By itself the result is written, the warning is shown and nothing fails.
    one = tmp_path / "one.nii.gz"
    call = ["upscale", str(folder / "a.nii.gz"), str(one), "--modality", "mr", "--model", str(wild)]
    assert main(call) == 0
    assert "do not trust" in capsys.readouterr().err


def test_a_consistency_that_is_not_met_is_doubtful(tmp_path: Path, wild: Path) -> None:
    put(tmp_path / "in" / "a.nii.gz")
    options: dict[str, Any] = {"model": wild, "scale": (1, 1, 4), "modality": "mr"}
    summary = medsr.upscale_folder(tmp_path / "in", tmp_path / "out", consistency=1e-9, **options)
    (scan,) = summary.of_kind("doubtful")
    assert "more than the tolerance" in scan.reason
    assert "does not fit" in scan.reason


def test_every_warning_names_its_scan(
    tmp_path: Path, zoo: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where reading, computing and writing of different scans overlap."""
    folder = tmp_path / "in"
    for number in range(3):
        # Metres, which reading warns of, and a factor beyond the model, which deciding warns of.
        put(folder / f"{number}" / "a.nii.gz", affine=np.diag([0.9, 0.9, 6.3, 1]), xyzt_units=1)
    handlers = list(logging.getLogger("medsr").handlers)
    with caplog.at_level(logging.WARNING, logger="medsr"):
        summary = medsr.upscale_folder(folder, tmp_path / "out", zoo_root=zoo, modality="mr")
    assert logging.getLogger("medsr").handlers == handlers
    for scan in summary.scans:
        assert any("metres" in text for text in scan.warnings)
        assert any("the rest is interpolated" in text for text in scan.warnings)
        for text in scan.warnings:
            assert f"{scan.name}: {text}" in caplog.messages
    assert {text.split(": ")[0] for text in caplog.messages} == {s.name for s in summary.scans}
    assert str(tmp_path) not in caplog.text.replace(str(Path(__file__).parent), "")
    call = ["upscale", str(folder), str(tmp_path / "o"), "--modality", "mr", "--scale", "1,1,8"]
    assert main([*call, "--model", str(zoo / "tiny"), "--quiet"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 6
    assert all(line.startswith("medsr: warning: ") and "/a.nii.gz: " in line for line in said)


def test_no_scan_of_the_folder_is_replaced(tmp_path: Path, zoo: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "p1" / "a.nii.gz")
    put(folder / "p2" / "a.nii.gz", DATA + 1)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    out.mkdir()
    options: dict[str, Any] = {"zoo_root": zoo, "modality": "mr", "overwrite": True}
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for wrong in (folder, tmp_path, tmp_path / "link", folder / "p1" / ".."):
        with pytest.raises(SourceOverwriteError):
            medsr.upscale_folder(folder, wrong, **options)
    with pytest.raises(SourceOverwriteError):
        medsr.upscale_folder(folder, out, report=folder / "p2" / "a.nii.gz", part="1/2", **options)
    # Another scan of the folder, by a link to its folder, and copies that share their data.
    (out / "p1").symlink_to(folder / "p2", target_is_directory=True)
    with pytest.raises(SourceOverwriteError):
        medsr.upscale_folder(folder, out, **options)
    (out / "p1").unlink()
    (out / "p1").mkdir()
    os.link(folder / "p1" / "a.nii.gz", out / "p1" / "a.nii.gz")
    with pytest.raises(SourceOverwriteError):
        medsr.upscale_folder(folder, out, **options)
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before

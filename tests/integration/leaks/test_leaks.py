"""Nothing leaks: markers in every place that may hold a person, looked for in all that is produced.

Every run is a process of its own with a private folder for temporary files, which is read while the
process lives. What may repeat a marker is written down here, beside each check: the path that was
typed on the command line, names of results (which are those of scans), and the patient's module of
derived DICOM. The runs, and what is planted, are in ``conftest``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_keyword

OUTPUTS = ("--report", "out/r.json", "--preview", "out/p.png", "--uncertainty", "out/u.nii.gz")


@pytest.mark.parametrize("loudness", [(), ("--quiet",)])
def test_a_nifti_scan(bench: Any, loudness: tuple[str, ...]) -> None:
    scan = bench.nifti(bench.patient / f"{bench.markers.mark}941.nii.gz", sidecar=True)
    (bench.place / "out").mkdir()
    arguments = (scan, "out/a.nii.gz", "--model", bench.model, "--modality", "ct", *OUTPUTS)
    ran = bench.run("upscale", *arguments, *loudness)
    assert ran.code == 0, ran.streams
    ran.clean(scan)
    found = dict(bench.contents(bench.place / "out"))
    sidecar = json.loads(found.pop("a.json"))
    # A source is named by its file's name, as BIDS asks.
    assert sidecar.pop("Sources") == [scan.name]
    found["sidecar"] = json.dumps(sidecar).encode()
    assert sidecar["EchoTime"] == 0.01
    assert {"a.nii.gz", "r.json", "p.png", "u.nii.gz"} < set(found)
    for name, raw in found.items():
        assert not any(secret in raw for secret in bench.secrets), name
    assert not list((bench.place / "tmp").iterdir())


def test_a_dicom_series(bench: Any) -> None:
    series = bench.series(bench.patient)
    (bench.place / "out").mkdir()
    for output in ("out/dicom", "out/a.nii.gz", "out/a.nrrd", "out/a.mha", "out/a.mgz"):
        several = OUTPUTS if output == "out/dicom" else ()
        ran = bench.run("upscale", series, output, "--model", bench.model, *several)
        assert ran.code == 0, ran.streams
        ran.clean(series)
    for name, raw in bench.contents(bench.place / "out"):
        if not name.endswith(".dcm") and "." in name:
            assert not any(secret in raw for secret in bench.secrets), name
    for file in (bench.place / "out" / "dicom").iterdir():
        # The patient's and the study's modules are the source's; what medsr adds names nobody,
        # and a maker's private tags do not travel, however deep they lie.
        assert bench.markers.mark not in file.name
        dataset, raw = pydicom.dcmread(file), file.read_bytes()
        assert dataset.PatientName == bench.markers.texts["PatientName"]
        assert bench.markers.mark not in dataset.DerivationDescription
        for private in ("900", "902", "903", " MAKER"):
            assert f"{bench.markers.mark}{private}".encode() not in raw


def test_inspecting(bench: Any) -> None:
    series = bench.series(bench.patient)
    scan = bench.nifti(bench.place / f"{bench.markers.mark}941.nii.gz", sidecar=True)
    for path in (series, scan):
        for options in ((), ("--json", "--range")):
            ran = bench.run("inspect", path, *options)
            assert ran.code == 0
            ran.clean()


@pytest.mark.parametrize(
    "spoil", ["gap", "tilt", "spacing", "pixels", "uid", "class", "text", "truncated"]
)
def test_a_dicom_series_that_fails(bench: Any, spoil: str) -> None:
    series = bench.series(bench.patient, spoil=spoil)
    ran = bench.run("--debug", "upscale", series, "out", "--model", bench.model)
    assert 10 <= ran.code < 90, ran.streams
    ran.clean(series)
    assert not (bench.place / "out").exists()


@pytest.mark.parametrize("spoil", ["cut", "nan", "conflict", "colour", "garbage"])
def test_a_nifti_scan_that_fails(bench: Any, spoil: str) -> None:
    scan = bench.nifti(bench.patient / f"{bench.markers.mark}941.nii")
    image = nib.load(scan)
    if spoil == "cut":
        scan.write_bytes(scan.read_bytes()[:700])
    elif spoil == "garbage":
        scan.write_bytes(f"{bench.markers.mark} no NIfTI at all ".encode() * 50)
    elif spoil == "nan":
        data = np.full((9, 8, 6), np.nan, np.float32)
        nib.save(nib.Nifti1Image(data, image.affine), scan)
    elif spoil == "colour":
        data = np.zeros((9, 8, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(data, image.affine), scan)
    else:
        image.set_qform(np.diag([2.0, 0.9, 3.6, 1.0]), 1)
        image.header["sform_code"] = 1
        nib.save(image, scan)
    ran = bench.run("--debug", "upscale", scan, "out.nii", "--model", bench.model)
    assert 10 <= ran.code < 30, ran.streams
    ran.clean(scan)


def test_a_folder_of_scans(bench: Any) -> None:
    """Names of scans stand in its report and its list of failures, and nothing else does."""
    raw, mark = bench.place / "raw", bench.markers.mark
    bench.nifti(raw / "sub-01" / "anat" / "sub-01_ct.nii.gz", sidecar=True)
    (raw / "dataset_description.json").write_text(
        json.dumps({"Name": f"{mark}950", "BIDSVersion": "1.9.0", "Authors": [f"{mark}951"]})
    )
    bench.series(raw / "series")
    bench.series(raw / "bad", spoil="spacing")
    shutil.copy(bench.nifti(raw / "cut.nii"), raw / "cut2.nii")
    (raw / "cut.nii").write_bytes((raw / "cut2.nii").read_bytes()[:700])
    (raw / "cut2.nii").unlink()
    ran = bench.run(
        "--debug", "upscale", raw, "out", "--model", bench.model, "--modality", "ct",
        "--report", "r.json", "--preview", "pictures", "--uncertainty", "maps",
    )  # fmt: skip
    assert ran.code == 53, ran.streams
    ran.clean()
    told = json.loads((bench.place / "r.json").read_text())["scans"]
    assert {scan["name"] for scan in told if scan["outcome"] != "failed"} == {
        "series",
        "sub-01/anat/sub-01_ct.nii.gz",
    }
    result = bench.place / "out" / "sub-01" / "anat" / "sub-01_desc-sr_ct.nii.gz"
    assert result.is_file()
    sidecar = json.loads(result.with_name("sub-01_desc-sr_ct.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_ct.nii.gz"]
    assert sidecar["EchoTime"] == 0.01
    described = json.loads((bench.place / "out" / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    for folder in ("out", "pictures", "maps"):
        for name, raw_bytes in bench.contents(bench.place / folder):
            if not (folder == "out" and name.endswith(".dcm")):
                assert not any(secret in raw_bytes for secret in bench.secrets), name
    assert not any(secret in (bench.place / "r.json").read_bytes() for secret in bench.secrets)


def test_the_markers_are_where_they_should_be(bench: Any, tmp_path: Path) -> None:
    """What is looked for can be found: in every tag, and by the search."""
    file = next(bench.series(tmp_path / "series").iterdir())
    dataset = pydicom.dcmread(file)
    for keyword, value in bench.markers.texts.items():
        assert str(dataset.get(keyword)) == (value if keyword != "BodyPartExamined" else "HEAD")
    assert dictionary_keyword(dataset["PatientName"].tag) == "PatientName"
    raw = dict(bench.contents(bench.nifti(tmp_path / "n" / "a.nii.gz", sidecar=True).parent))
    for content in raw.values():
        assert any(secret in content for secret in bench.secrets)
    with pytest.raises(AssertionError):
        bench.ran(f"a name: {bench.markers.mark}001", b"").clean()
    with pytest.raises(AssertionError):
        bench.ran("", b"19010203").clean()

"""Round trips through a real Orthanc, by DIMSE and by DICOMweb."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

import medsr
from medsr.cli.main import main
from medsr.io import load

MARKERS = ("Doe", "Marker", "PID-4711", "19510203")
SECRETS = ("robot", "secret-of-the-robot")
# Written by the archive or the clock, not by the request.
PASSING = {
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContentDate",
    "ContentTime",
    "ContributingEquipmentSequence",
}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, to see that none is left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def call(source: str, target: str, study: Any, model: Path, *more: str) -> int:
    words = ["pacs", "upscale", "--from", source, "--to", target, "--study", study.uid]
    return main([*words, "--model", str(model), "--scale", "1,1,2", "--retries", "0", *more])


def values(image: pydicom.Dataset) -> dict[str, Any]:
    return {e.keyword or str(e.tag): e.value for e in image if e.keyword not in PASSING}


@pytest.mark.parametrize("target", ["node", "web"])
@pytest.mark.parametrize("source", ["node", "web"])
def test_a_result_comes_back_as_it_was_written(
    source: str,
    target: str,
    orthanc: Any,
    study: Any,
    model: Path,
    tmp_path: Path,
    scratch: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    report = tmp_path / "report.json"
    where = getattr(orthanc, source), getattr(orthanc, target)
    assert call(*where, study, model, "--report", str(report)) == 0

    told = json.loads(report.read_text())
    assert told["status"] == "stored"
    assert told["fetched"]["instances"] == told["fetched"]["expected"] == 6
    assert told["sent"]["instances"] == told["confirmed"] == 12
    assert told["sent"]["statuses"] == {"0000": 12}
    assert told["sent"]["failures"] == {}
    assert orthanc.series_of(study.uid) == sorted([study.series, told["target"]["series"]])

    # What a folder gives is what the archive gives back: voxels, place and every attribute.
    local = tmp_path / "local"
    medsr.upscale(study.folder, local, model=model, scale=(1, 1, 2))
    stored = orthanc.images(told["target"]["series"])
    written = sorted(map(pydicom.dcmread, local.iterdir()), key=lambda i: int(i.InstanceNumber))
    assert len(stored) == len(written) == 12
    for one, other in zip(stored, written, strict=True):
        assert one.PixelData == other.PixelData
        assert one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID
        theirs, ours = values(one), values(other)
        for made_new in ("SeriesInstanceUID", "SOPInstanceUID"):
            assert theirs.pop(made_new) != ours.pop(made_new)
        assert theirs == ours

    text = capfd.readouterr()
    everything = text.out + text.err + caplog.text + report.read_text()
    assert not [word for word in (*MARKERS, *SECRETS) if word in everything]
    assert [entry for entry in scratch.iterdir() if "torchinductor" not in entry.name] == []


def test_a_request_that_is_repeated_has_one_result(
    orthanc: Any, study: Any, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert call(orthanc.node, orthanc.node, study, model, "--report", str(report)) == 0
    first = json.loads(report.read_text())
    result = first["target"]["series"]
    before = {image.SOPInstanceUID for image in orthanc.images(result)}
    capsys.readouterr()

    # The study has two series now, and the request means the same: results are not candidates.
    again = ["--report", str(report), "--overwrite"]
    assert call(orthanc.web, orthanc.web, study, model, *again) == 0
    told = json.loads(report.read_text())
    assert told["status"] == "present"
    assert told["source"]["series"] == study.series
    assert told["upscale"] is None
    assert told["sent"]["instances"] == 0
    assert "answered before" in capsys.readouterr().out
    assert orthanc.series_of(study.uid) == sorted([study.series, result])
    assert {image.SOPInstanceUID for image in orthanc.images(result)} == before

    # Another grid is another request.
    other = ["--series", study.series, "--scale", "1,1,3", "--quiet"]
    assert call(orthanc.node, orthanc.node, study, model, *other) == 0
    assert len(orthanc.series_of(study.uid)) == 3


@pytest.mark.parametrize("target", ["node", "web"])
def test_an_incomplete_result_is_completed(
    target: str, orthanc: Any, study: Any, model: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    where = orthanc.node, getattr(orthanc, target)
    assert call(*where, study, model, "--report", str(report)) == 0
    result = json.loads(report.read_text())["target"]["series"]
    whole = orthanc.images(result)
    for image in whole[3:8]:
        (key,) = orthanc.find("Instance", SOPInstanceUID=image.SOPInstanceUID)
        orthanc.rest(f"/instances/{key}", "DELETE")

    again = ["--report", str(report), "--overwrite", "--series", study.series]
    assert call(*where, study, model, *again) == 0
    told = json.loads(report.read_text())
    assert told["status"] == "completed"
    assert told["already_there"] == 7
    assert told["sent"]["instances"] == 5
    after = orthanc.images(result)
    assert [i.SOPInstanceUID for i in after] == [i.SOPInstanceUID for i in whole]
    assert [i.PixelData for i in after] == [i.PixelData for i in whole]


def test_c_move_brings_the_series_to_our_port(
    orthanc: Any, study: Any, model: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    by_move = ["--retrieve", "move", "--port", str(orthanc.move_port), "--report", str(report)]
    assert call(orthanc.node, orthanc.web, study, model, *by_move) == 0
    assert json.loads(report.read_text())["fetched"]["instances"] == 6


@pytest.mark.parametrize("where", ["node", "web"])
def test_how_the_result_is_written_is_part_of_the_request(
    where: str, orthanc: Any, study: Any, model: Path, tmp_path: Path
) -> None:
    address, report = getattr(orthanc, where), tmp_path / "report.json"
    told = []
    named = ["--series-number", "77", "--series-description", "fine slices"]
    for options in ([], named, [*named, "--dicom-layout", "enhanced"], named):
        words = ["--series", study.series, "--report", str(report), "--overwrite", "--quiet"]
        assert call(address, address, study, model, *words, *options) == 0
        told.append(json.loads(report.read_text()))
    assert [each["status"] for each in told] == ["stored", "stored", "stored", "present"]
    results = [each["target"]["series"] for each in told]
    assert results[3] == results[1]
    assert orthanc.series_of(study.uid) == sorted([study.series, *results[:3]])
    plain, classic, enhanced = (orthanc.images(uid) for uid in results[:3])
    assert [len(images) for images in (plain, classic, enhanced)] == [12, 12, 1]
    assert (plain[0].SeriesNumber, plain[0].SeriesDescription) == (1003, "T1 medsr")
    for image in (classic[0], enhanced[0]):
        assert (image.SeriesNumber, image.SeriesDescription) == (77, "fine slices")
    assert enhanced[0].NumberOfFrames == 12
    assert enhanced[0].PixelData == b"".join(image.PixelData for image in classic)


def test_consistency_is_part_of_the_request(
    orthanc: Any,
    study: Any,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--series", study.series, "--report", str(tmp_path / "report.json"), "--overwrite"]
    assert call(orthanc.node, orthanc.node, study, model, *words, "--tolerance", "20") == 2
    assert "--consistency" in capsys.readouterr().err
    assert orthanc.series_of(study.uid) == [study.series]

    known = shutil.copytree(model, tmp_path / "tiny")
    spec = json.loads((known / "spec.json").read_text())
    spec["trained_degradation"] = {"kind": "slice_profile", "thickness": 1.0}
    (known / "spec.json").write_text(json.dumps(spec))
    told = []
    # The limits of a phantom in noise keep the projection from its tolerance.
    held = ["--consistency", "--no-limits"]
    loosely = [*held, "--tolerance", "20"]
    for options in ([], held, loosely, loosely):
        assert call(orthanc.node, orthanc.web, study, known, *words, "--quiet", *options) == 0
        told.append(json.loads((tmp_path / "report.json").read_text()))
    assert [each["status"] for each in told] == ["stored", "stored", "stored", "present"]
    results = [each["target"]["series"] for each in told]
    assert results[3] == results[2]
    assert len(orthanc.series_of(study.uid)) == 4
    for each in told[1:3]:
        assert each["upscale"]["consistency"]["met"]
    assert told[2]["upscale"]["consistency"]["tolerance"] == 20.0
    plain, exact, loose = (orthanc.images(uid)[0] for uid in results[:3])
    assert "consistent with the source" not in plain.DerivationDescription
    assert "consistent with the source" in exact.DerivationDescription
    assert "consistent with the source to 20" in loose.DerivationDescription


@pytest.mark.parametrize("target", ["node", "web"])
def test_an_anonymous_result_is_one_too(
    target: str,
    orthanc: Any,
    study: Any,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = tmp_path / "report.json"
    where = orthanc.node, getattr(orthanc, target)
    words = ["--deidentify", "--report", str(report), "--overwrite"]
    monkeypatch.delenv("MEDSR_DEIDENTIFY_KEY", raising=False)
    assert call(*where, study, model, *words) == 2
    assert "MEDSR_DEIDENTIFY_KEY" in capsys.readouterr().err
    assert not report.exists()

    monkeypatch.setenv("MEDSR_DEIDENTIFY_KEY", "a long and random secret of the site")
    assert call(*where, study, model, *words) == 0
    told = json.loads(report.read_text())
    place = told["target"]
    assert (told["status"], told["confirmed"]) == ("stored", 12)
    assert place["study"] != study.uid
    assert place["study"] in capsys.readouterr().out
    assert orthanc.series_of(study.uid) == [study.series]
    assert orthanc.series_of(place["study"]) == [place["series"]]
    images = orthanc.images(place["series"])
    for image in images:
        assert image.StudyInstanceUID == place["study"]
        assert image.PatientID == images[0].PatientID
        raw = image.to_json()
        assert not [word for word in (*MARKERS, study.uid, study.series) if word in raw]

    # The same request finds it, and another secret gives another one.
    assert call(*where, study, model, *words) == 0
    assert json.loads(report.read_text())["status"] == "present"
    monkeypatch.setenv("MEDSR_DEIDENTIFY_KEY", "a long and random secret of another")
    assert call(*where, study, model, *words, "--quiet") == 0
    other = json.loads(report.read_text())["target"]
    assert not {other["study"], other["series"]} & {place["study"], place["series"]}
    assert len(orthanc.images(place["series"])) == 12


def test_what_is_allowed_in_reading_is_part_of_the_request(
    orthanc: Any,
    study: Any,
    make_slices: Any,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    series = str(generate_uid(prefix=None))
    gappy = make_slices(study.uid, series, count=7)
    del gappy[3]
    (tmp_path / "gap").mkdir()
    for image in gappy:
        image.save_as(tmp_path / "gap" / f"{image.InstanceNumber}.dcm", enforce_file_format=True)
    orthanc.push(tmp_path / "gap")
    report = tmp_path / "report.json"
    words = ["--series", series, "--report", str(report), "--overwrite", "--quiet"]
    assert call(orthanc.node, orthanc.node, study, model, *words) == 82
    assert "--allow-gaps" in capsys.readouterr().err
    assert call(orthanc.node, orthanc.node, study, model, *words, "--allow-gaps") == 0
    told = json.loads(report.read_text())
    assert (told["status"], told["confirmed"]) == ("stored", 14)


def test_a_study_is_listed_without_its_patient(
    orthanc: Any, study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.add(tmp_path / "more", count=4, seed=1)
    listed = []
    for address in (orthanc.node, orthanc.web):
        assert main(["pacs", "list", "--from", address, "--study", study.uid, "--json"]) == 0
        listed.append(sorted(json.loads(capsys.readouterr().out), key=lambda e: e["instances"]))
    assert listed[0] == listed[1]
    assert [(e["modality"], e["instances"]) for e in listed[0]] == [("MR", 4), ("MR", 6)]
    assert listed[0][1]["series"] == study.series
    assert main(["pacs", "list", "--from", orthanc.node, "--study", study.uid]) == 0
    out = capsys.readouterr().out
    assert f"{study.series}  MR  6" in out
    assert not [word for word in MARKERS if word in out]


def test_several_series_are_asked_about(
    orthanc: Any, study: Any, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = study.add(tmp_path / "more", seed=1, description="T2")
    assert call(orthanc.node, orthanc.node, study, model) == 23
    error = capsys.readouterr().err
    assert study.series in error
    assert other in error
    assert "--series" in error
    assert not [word for word in MARKERS if word in error]


def test_what_is_not_there_is_said(
    orthanc: Any, study: Any, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in (orthanc.node, orthanc.web):
        assert call(address, orthanc.node, study, model, "--series", "1.2.3") == 64
        assert "has no series 1.2.3" in capsys.readouterr().err
        assert main(["pacs", "list", "--from", address, "--study", "1.2.3"]) == 64
        assert "has no study 1.2.3" in capsys.readouterr().err


def test_wrong_credentials_are_refused_and_not_told(
    orthanc: Any,
    study: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDSR_FROM_PASSWORD", "guessed-wrongly")
    assert main(["pacs", "list", "--from", orthanc.web, "--study", study.uid]) == 63
    error = capsys.readouterr().err
    assert "MEDSR_FROM_TOKEN" in error
    assert "guessed-wrongly" not in error


def test_a_real_series_goes_round(
    orthanc: Any, shared_data: Path, model: Path, tmp_path: Path
) -> None:
    files = sorted((shared_data / "dicom" / "mr_fruit").rglob("*"))
    images = [pydicom.dcmread(file) for file in files if file.is_file()]
    images.sort(key=lambda image: float(image.InstanceNumber))
    folder = tmp_path / "fruit"
    folder.mkdir()
    for image in images[40:46]:
        cut = np.ascontiguousarray(image.pixel_array[100:132, 100:132])
        image.Rows, image.Columns, image.PixelData = 32, 32, cut.tobytes()
        image.save_as(folder / f"{image.InstanceNumber}.dcm")
    orthanc.push(folder)
    words = ["--study", images[0].StudyInstanceUID, "--series", images[0].SeriesInstanceUID]
    report = tmp_path / "report.json"
    words += ["--model", str(model), "--scale", "1,1,2", "--report", str(report), "--quiet"]
    results = []
    for name in ("node", "web"):
        address = getattr(orthanc, name)
        assert main(["pacs", "upscale", "--from", address, "--to", address, *words]) == 0
        result = json.loads(report.read_text())["target"]["series"]
        back = tmp_path / name
        back.mkdir()
        for number, image in enumerate(orthanc.images(result)):
            image.save_as(back / f"{number}.dcm")
        (key,) = orthanc.find("Series", SeriesInstanceUID=result)
        orthanc.rest(f"/series/{key}", "DELETE")
        report.unlink()
        results.append(load(back))
    local = tmp_path / "local"
    medsr.upscale(folder, local, model=model, scale=(1, 1, 2))
    expected = load(local)
    for volume in results:
        assert np.array_equal(volume.data, expected.data)
        assert volume.geometry.same_grid(expected.geometry, tol_mm=1e-6)


def test_a_stopped_server_gives_one_line(
    study: Any, model: Path, free_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in (f"dicom://GONE@{free_address}", f"http://{free_address}/dicom-web"):
        assert call(address, address, study, model) == 62
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert "no connection" in lines[0]

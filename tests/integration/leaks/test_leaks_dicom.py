"""Nothing leaks out of DICOM's less usual shapes: multi-frame, archives, discs, anonymous output.

See ``test_leaks`` for the plainer ones.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.fileset import FileSet

REPORTS = ("--report", "out/r.json", "--preview", "out/p.png")
PRIVATE = ("900", "902", "903", " MAKER")


def produced(bench: Any, *, names: bool = True) -> None:
    """Find no marker in what was written, and none in names of files."""
    for name, raw in bench.contents(bench.place / "out"):
        assert not [secret for secret in bench.secrets if secret in raw], name
        assert not (names and bench.markers.mark in name)


def pack(folder: Path, archive: Path, *, below: str) -> Path:
    """An archive of a folder's files, in a folder that is named after the patient."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.iterdir()):
            packed.write(file, f"{below}/{file.name}")
    return archive


def disc(bench: Any, folder: Path) -> Path:
    """A disc with a DICOMDIR, whose folder and files are named after the patient."""
    files = FileSet()
    for file in sorted(bench.series(bench.place / "series").iterdir()):
        files.add(file)
    files.write(folder)
    index, mark = pydicom.dcmread(folder / "DICOMDIR"), bench.markers.mark
    (folder / f"{mark}905").mkdir()
    for number, record in enumerate(index.DirectoryRecordSequence):
        if "ReferencedFileID" in record:
            old = folder.joinpath(*record.ReferencedFileID)
            record.ReferencedFileID = [f"{mark}905", f"{mark}{number}"]
            old.rename(folder.joinpath(*record.ReferencedFileID))
    index.save_as(folder / "DICOMDIR")
    return folder


def test_a_multi_frame_object(mr_bench: Any) -> None:
    bench = mr_bench
    series = bench.enhanced(bench.patient)
    (bench.place / "out").mkdir()
    for output in ("out/a.nii.gz", "out/a.nrrd"):
        ran = bench.upscale(series, output, *(REPORTS if output.endswith("gz") else ()))
        assert ran.code == 0, ran.streams
        ran.clean(series)
    produced(bench)
    for layout in ("enhanced", "classic"):
        ran = bench.upscale(series, f"dicom-{layout}", "--dicom-layout", layout)
        assert ran.code == 0, ran.streams
        ran.clean(series)
        for file in (bench.place / f"dicom-{layout}").iterdir():
            raw = file.read_bytes()
            assert bench.markers.texts["PatientName"].encode() in raw
            for private in (*PRIVATE, "800", "805"):  # and no comment on a frame
                assert f"{bench.markers.mark}{private}".encode() not in raw


@pytest.mark.parametrize("spoil", ["gap", "frames", "pixels", "text", "truncated"])
def test_a_multi_frame_object_that_fails(mr_bench: Any, spoil: str) -> None:
    series = mr_bench.enhanced(mr_bench.patient, spoil=spoil)
    for path in (series, next(series.iterdir())):
        ran = mr_bench.upscale(path, "out")
        assert 10 <= ran.code < 90, ran.streams
        ran.clean(path, path.name)
        assert not (mr_bench.place / "out").exists()


@pytest.mark.parametrize("shape", ["series", "enhanced"])
@pytest.mark.parametrize("layout", ["classic", "enhanced"])
def test_an_anonymous_result(bench: Any, mr_bench: Any, shape: str, layout: str) -> None:
    used = bench if shape == "series" else mr_bench
    series = getattr(used, shape)(used.patient)
    ran = used.upscale(series, "out", "--deidentify", "--dicom-layout", layout)
    assert ran.code == 0, ran.streams
    ran.clean(series)
    assert list((used.place / "out").iterdir())
    produced(used)


@pytest.mark.parametrize("spoil", ["", "gap", "pixels", "text", "truncated", "crc", "cut", "out"])
def test_an_archive(bench: Any, spoil: str) -> None:
    mark = bench.markers.mark
    below = f"../{mark}^JOHN" if spoil == "out" else f"{mark}^JOHN/{mark}905"
    folder = bench.series(bench.place / "series", spoil=spoil)
    archive = pack(folder, bench.place / "study.zip", below=below)
    raw = bytearray(archive.read_bytes())
    if spoil == "crc":
        raw[len(raw) // 2] ^= 0xFF
    archive.write_bytes(raw[: len(raw) // 2] if spoil == "cut" else raw)
    (bench.place / "out").mkdir()
    ran = bench.upscale(archive, "out/a.nii.gz", *REPORTS)
    assert (ran.code == 0) == (spoil == ""), ran.streams
    assert ran.code < 90
    ran.clean()
    produced(bench)
    bench.run("inspect", archive).clean()


@pytest.mark.parametrize("spoil", ["", "lost", "truncated", "index"])
def test_a_disc(bench: Any, spoil: str) -> None:
    folder = disc(bench, bench.place / "disc")
    victim = sorted((folder / f"{bench.markers.mark}905").iterdir())[2]
    if spoil == "lost":
        victim.unlink()
    elif spoil == "truncated":
        victim.write_bytes(victim.read_bytes()[:400])
    elif spoil == "index":
        raw = (folder / "DICOMDIR").read_bytes()
        (folder / "DICOMDIR").write_bytes(raw[: len(raw) // 2])
    (bench.place / "out").mkdir()
    for number, path in enumerate((folder, folder / "DICOMDIR")):
        ran = bench.upscale(path, f"out/{number}.nii.gz")
        # Files of the folder are found without the index.
        whole = spoil == "" or (spoil == "index" and path == folder)
        assert ran.code == 0 if whole else 10 <= ran.code < 90, ran.streams
        ran.clean()
    produced(bench)


def test_a_folder_of_archives_and_damaged_files(bench: Any) -> None:
    """Their own names stand in the report and in the list of failures; those within do not."""
    mark, raw = bench.markers.mark, bench.place / "raw"
    raw.mkdir()
    pack(bench.series(bench.place / "a"), raw / "good.zip", below=f"{mark}^JOHN")
    torn = bench.series(bench.place / "b", spoil="truncated")
    pack(torn, raw / "torn.zip", below=f"{mark}^JOHN")
    (raw / "stray").write_bytes((torn / f"{mark}901_3.dcm").read_bytes())
    bench.series(raw / "series")
    (bench.place / "out").mkdir()
    ran = bench.upscale(raw, "out/scans", "--report", "out/r.json", "--format", "nifti")
    assert ran.code == 53, ran.streams
    ran.clean()
    told = json.loads((bench.place / "out" / "r.json").read_text())
    outcomes = {scan["name"]: scan["outcome"] for scan in told["scans"]}
    done = dict.fromkeys(["good.zip", "series"], "done")
    assert outcomes == done | dict.fromkeys(["stray", "torn.zip"], "failed")
    produced(bench)


def test_several_series_are_listed_without_their_patient(bench: Any) -> None:
    folder = bench.place / "study"
    bench.series(folder / f"{bench.markers.mark}906")
    bench.enhanced(folder / f"{bench.markers.mark}907")
    for file in (folder / f"{bench.markers.mark}907").iterdir():
        image = pydicom.dcmread(file)
        image.SeriesInstanceUID = "1.2.826.0.1.9"
        image.save_as(file)
    (bench.place / "out").mkdir()
    listed = ("inspect", folder)
    refused = ("upscale", folder, "out/a.nii.gz", "--series", "1.2.3")
    for words, code in ((listed, 0), (refused, 23)):
        ran = bench.run("--debug", *words)
        assert ran.code == code, ran.streams
        assert "1.2.826.0.1.9" in ran.streams
        ran.clean()

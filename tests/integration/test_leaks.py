"""Nothing leaks: markers in every place that may hold a person, looked for in all that is produced.

Every run is a process of its own with a private folder for temporary files, which is read while the
process lives. What may repeat a marker is written down here, beside each check: the path that was
typed on the command line, names of results (which are those of scans), and the patient's module of
derived DICOM.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

MARK = "QZX"
"""All markers begin like this, so that a part of one is found too."""

NIFTI_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")
TEXTS = {
    name: f"{MARK}{number:03d}"
    for number, name in enumerate(
        """
        PatientName PatientID OtherPatientNames PatientComments PatientAddress
        PatientTelephoneNumbers PatientMotherBirthName MilitaryRank EthnicGroup Occupation
        AdditionalPatientHistory
        AccessionNumber StudyID StudyDescription SeriesDescription ProtocolName InstitutionName
        InstitutionAddress InstitutionalDepartmentName ReferringPhysicianName
        PerformingPhysicianName OperatorsName PhysiciansOfRecord RequestingPhysician
        NameOfPhysiciansReadingStudy StationName DeviceSerialNumber ImageComments
        RequestedProcedureDescription PerformedProcedureStepDescription
        AdmittingDiagnosesDescription MedicalAlerts Allergies ContrastBolusAgent
        DerivationDescription BodyPartExamined
        """.split()  # noqa: SIM905 - names in a column
    )
}
DATES = {
    "PatientBirthDate": "19010203",
    "StudyDate": "19020304",
    "SeriesDate": "19030405",
    "AcquisitionDate": "19040506",
    "ContentDate": "19050607",
}
FORMATTED = [f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in DATES.values()]
SECRETS = [MARK.encode(), *(date.encode() for date in [*DATES.values(), *FORMATTED])]


@dataclass
class Ran:
    """What a process left: its streams, and every temporary file that was seen."""

    code: int
    streams: str
    temporary: bytes

    def clean(self, *typed: Path | str) -> None:
        """Find no marker, but for paths that the command line held itself."""
        text = self.streams
        for path in sorted(map(str, typed), key=len, reverse=True):
            text = text.replace(path, "")
        for secret in SECRETS:
            assert secret.decode() not in text.replace("\n", ""), text
            assert secret not in self.temporary


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the runs take place; its path holds no marker."""
    (tmp_path / "tmp").mkdir()
    return tmp_path


def medsr(place: Path, *arguments: Path | str) -> Ran:
    """Run ``medsr`` in a folder, and read what lies in TMPDIR meanwhile."""
    environment = {
        **os.environ,
        "TMPDIR": str(place / "tmp"),
        "MEDSR_CACHE": "off",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "500",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "medsr", *map(str, arguments)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seen: dict[Path, bytes] = {}
    watcher = threading.Thread(target=_watch, args=(process, place / "tmp", seen), daemon=True)
    watcher.start()
    streams = process.communicate(timeout=300)[0].decode("utf-8", "replace")
    watcher.join()
    names = " ".join(path.name for path in seen).encode()
    return Ran(process.returncode, streams, names + b"".join(seen.values()))


def _watch(process: subprocess.Popen[bytes], folder: Path, seen: dict[Path, bytes]) -> None:
    while process.poll() is None:
        for path in folder.rglob("*"):
            try:
                seen[path] = path.read_bytes() if path.is_file() else b""
            except OSError:
                continue  # it has gone meanwhile
        time.sleep(0.05)


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder with its bytes, unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            raw = path.read_bytes()
            yield path.name, raw + (gzip.decompress(raw) if path.name.endswith(".gz") else b"")


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    """The folder of a small random model with a head."""
    return tiny_model("CT", head="gaussian")


def make_series(folder: Path, *, spoil: str = "") -> Path:
    """A CT series with a marker in every text, date, private tag and name of a file."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for k in range(6):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.826.0.1.7.{k}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.1", "1.2.826.0.1.3"
        dataset.FrameOfReferenceUID = "1.2.826.0.1.2"
        for keyword, value in {**TEXTS, **DATES}.items():
            setattr(dataset, keyword, value)
        dataset.BodyPartExamined = "HEAD"
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Columns, dataset.Rows, dataset.InstanceNumber = 9, 8, k + 1
        dataset.ImagePositionPatient = [
            -10.0,
            -20.0,
            3.6 * k + (9.0 if (spoil, k) == ("gap", 5) else 0.0),
        ]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.9, 0.9], 3.6
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = 0
        dataset.PixelData = rng.integers(0, 2000, (8, 9)).astype("<u2").tobytes()
        block = dataset.private_block(0x0011, f"{MARK} MAKER", create=True)
        block.add_new(0x01, "LO", f"{MARK}900")
        if spoil == "tilt":
            dataset.ImagePositionPatient[1] = -20.0 + 0.8 * k
        if spoil == "spacing" and k == 2:
            dataset.PixelSpacing = [0.0, 0.9]
        if spoil == "pixels" and k == 3:
            dataset.PixelData = dataset.PixelData[:50]
        if spoil == "uid" and k == 3:
            dataset.SeriesInstanceUID = "1.2.826.0.1.4"
        if spoil == "text" and k == 1:
            dataset.RescaleSlope = 1
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        file = folder / f"{MARK}901_{k}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        if spoil == "text" and k == 1:  # text where numbers belong
            raw = file.read_bytes()
            file.write_bytes(raw.replace(b"-20.0", MARK.encode() + b"77"))
    if spoil == "truncated":
        file = folder / f"{MARK}901_3.dcm"
        file.write_bytes(file.read_bytes()[:400])
    return folder


def make_nifti(path: Path, *, sidecar: bool = False) -> Path:
    """A NIfTI file with a marker in each free text, in an extension, and perhaps a sidecar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    image = nib.Nifti1Image(
        rng.integers(-1000, 900, (9, 8, 6)).astype(np.int16), np.diag([0.9, 0.9, 3.6, 1.0])
    )
    for number, field in enumerate(NIFTI_FIELDS):
        image.header[field] = f"{MARK}{910 + number}".encode()
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension("comment", f"{MARK}920 19010203".encode())
    )
    nib.save(image, path)
    if sidecar:
        fields = {**TEXTS, **DATES, "PatientSex": "F", "Custom": f"{MARK}930", "EchoTime": 0.01}
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(fields))
    return path


OUTPUTS = ("--report", "out/r.json", "--preview", "out/p.png", "--uncertainty", "out/u.nii.gz")


@pytest.mark.parametrize("loudness", [(), ("--quiet",)])
def test_a_nifti_scan(place: Path, model: Path, loudness: tuple[str, ...]) -> None:
    scan = make_nifti(place / f"{MARK}940" / f"{MARK}941.nii.gz", sidecar=True)
    (place / "out").mkdir()
    arguments = (scan, "out/a.nii.gz", "--model", model, "--modality", "ct", *OUTPUTS)
    ran = medsr(place, "upscale", *arguments, *loudness)
    assert ran.code == 0, ran.streams
    ran.clean(scan)
    found = dict(contents(place / "out"))
    sidecar = json.loads(found.pop("a.json"))
    # A source is named by its file's name, as BIDS asks.
    assert sidecar.pop("Sources") == [scan.name]
    found["sidecar"] = json.dumps(sidecar).encode()
    assert sidecar["EchoTime"] == 0.01
    assert {"a.nii.gz", "r.json", "p.png", "u.nii.gz"} < set(found)
    for name, raw in found.items():
        assert not any(secret in raw for secret in SECRETS), name
    assert not list((place / "tmp").iterdir())


def test_a_dicom_series(place: Path, model: Path) -> None:
    series = make_series(place / f"{MARK}940")
    (place / "out").mkdir()
    for output in ("out/dicom", "out/a.nii.gz", "out/a.nrrd", "out/a.mha", "out/a.mgz"):
        several = OUTPUTS if output == "out/dicom" else ()
        ran = medsr(place, "upscale", series, output, "--model", model, *several)
        assert ran.code == 0, ran.streams
        ran.clean(series)
    for name, raw in contents(place / "out"):
        if not name.endswith(".dcm") and "." in name:
            assert not any(secret in raw for secret in SECRETS), name
    derived = sorted((place / "out" / "dicom").iterdir())
    assert derived
    for file in derived:
        assert MARK not in file.name
        # The patient's and the study's modules are the source's; what medsr adds names nobody,
        # and a maker's private tags do not travel.
        dataset = pydicom.dcmread(file)
        assert dataset.PatientName == TEXTS["PatientName"]
        assert f"{MARK}900".encode() not in file.read_bytes()
        assert MARK not in dataset.DerivationDescription


def test_inspecting(place: Path) -> None:
    series = make_series(place / f"{MARK}940")
    scan = make_nifti(place / f"{MARK}941.nii.gz", sidecar=True)
    for path in (series, scan):
        for options in ((), ("--json", "--range")):
            ran = medsr(place, "inspect", path, *options)
            assert ran.code == 0
            ran.clean()


@pytest.mark.parametrize("spoil", ["gap", "tilt", "spacing", "pixels", "uid", "text", "truncated"])
def test_a_dicom_series_that_fails(place: Path, model: Path, spoil: str) -> None:
    series = make_series(place / f"{MARK}940", spoil=spoil)
    ran = medsr(place, "--debug", "upscale", series, "out", "--model", model)
    assert 10 <= ran.code < 90, ran.streams
    ran.clean(series)
    assert not (place / "out").exists()


@pytest.mark.parametrize("spoil", ["cut", "nan", "conflict", "colour", "garbage"])
def test_a_nifti_scan_that_fails(place: Path, model: Path, spoil: str) -> None:
    scan = make_nifti(place / f"{MARK}940" / f"{MARK}941.nii")
    image = nib.load(scan)
    if spoil == "cut":
        scan.write_bytes(scan.read_bytes()[:700])
    elif spoil == "garbage":
        scan.write_bytes(f"{MARK} no NIfTI at all ".encode() * 50)
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
    ran = medsr(place, "--debug", "upscale", scan, "out.nii", "--model", model)
    assert 10 <= ran.code < 30, ran.streams
    ran.clean(scan)


def test_a_folder_of_scans(place: Path, model: Path) -> None:
    """Names of scans stand in its report and its list of failures, and nothing else does."""
    raw = place / "raw"
    make_nifti(raw / "sub-01" / "anat" / "sub-01_ct.nii.gz", sidecar=True)
    (raw / "dataset_description.json").write_text(
        json.dumps({"Name": f"{MARK}950", "BIDSVersion": "1.9.0", "Authors": [f"{MARK}951"]})
    )
    make_series(raw / "series")
    make_series(raw / "bad", spoil="spacing")
    shutil.copy(make_nifti(raw / "cut.nii"), raw / "cut2.nii")
    (raw / "cut.nii").write_bytes((raw / "cut2.nii").read_bytes()[:700])
    (raw / "cut2.nii").unlink()
    ran = medsr(
        place, "--debug", "upscale", raw, "out", "--model", model, "--modality", "ct",
        "--report", "r.json", "--preview", "pictures", "--uncertainty", "maps",
    )  # fmt: skip
    assert ran.code == 53, ran.streams
    ran.clean()
    names = {scan["name"] for scan in json.loads((place / "r.json").read_text())["scans"]}
    assert names == {"series", "sub-01/anat/sub-01_ct.nii.gz"}
    result = place / "out" / "sub-01" / "anat" / "sub-01_desc-sr_ct.nii.gz"
    assert result.is_file()
    sidecar = json.loads(result.with_name("sub-01_desc-sr_ct.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_ct.nii.gz"]
    assert sidecar["EchoTime"] == 0.01
    described = json.loads((place / "out" / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    for folder in ("out", "pictures", "maps"):
        for name, raw_bytes in contents(place / folder):
            if not (folder == "out" and name.endswith(".dcm")):
                assert not any(secret in raw_bytes for secret in SECRETS), name
    assert not any(secret in (place / "r.json").read_bytes() for secret in SECRETS)


def test_the_markers_are_where_they_should_be(tmp_path: Path) -> None:
    """What is looked for can be found: in every tag, and by the search."""
    file = next(make_series(tmp_path / "series").iterdir())
    dataset = pydicom.dcmread(file)
    for keyword, value in TEXTS.items():
        assert str(dataset.get(keyword)) == (value if keyword != "BodyPartExamined" else "HEAD")
    assert dictionary_keyword(dataset["PatientName"].tag) == "PatientName"
    raw = dict(contents(make_nifti(tmp_path / "n" / "a.nii.gz", sidecar=True).parent))
    for content in raw.values():
        assert any(secret in content for secret in SECRETS)
    with pytest.raises(AssertionError):
        Ran(0, f"a name: {MARK}001", b"").clean()
    with pytest.raises(AssertionError):
        Ran(0, "", b"19010203").clean()

"""A real Orthanc on loopback, a tiny model, and synthetic series to send to and fro."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "robot", "secret-of-the-robot"
MARKERS = ("Doe^Marker", "PID-4711", "19510203", "Ward-Marker")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    """A server that runs: addresses, and what it holds as its own REST interface tells it."""

    dicom_port: int
    http_port: int
    move_port: int
    process: subprocess.Popen[bytes]

    @property
    def node(self) -> str:
        return f"dicom://ORTHANC@127.0.0.1:{self.dicom_port}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def rest(self, path: str, method: str = "GET", **options: Any) -> requests.Response:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        answer = requests.request(method, url, auth=(USER, PASSWORD), timeout=20, **options)
        answer.raise_for_status()
        return answer

    def find(self, level: str, **query: str) -> list[str]:
        body = {"Level": level, "Query": query}
        return list(self.rest("/tools/find", "POST", json=body).json())

    def images(self, series: str) -> list[pydicom.FileDataset]:
        """The instances of a series, as Orthanc stored them."""
        found = [
            pydicom.dcmread(pydicom.filebase.BytesIO(self.rest(f"/instances/{key}/file").content))
            for key in self.find("Instance", SeriesInstanceUID=series)
        ]
        return sorted(found, key=lambda image: int(image.InstanceNumber))

    def series_of(self, study: str) -> list[str]:
        keys = self.find("Series", StudyInstanceUID=study)
        tags = [self.rest(f"/series/{key}").json()["MainDicomTags"] for key in keys]
        return sorted(tag["SeriesInstanceUID"] for tag in tags)

    def push(self, folder: Path) -> None:
        """Send the files of a folder as a scanner would."""
        entity = AE(ae_title="SCANNER")
        entity.add_requested_context(MRImageStorage)
        association = entity.associate("127.0.0.1", self.dicom_port, ae_title="ORTHANC")
        assert association.is_established
        for file in sorted(folder.iterdir()):
            assert association.send_c_store(file).Status == 0x0000
        association.release()


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with its DICOMweb plugin, which asks for a password; it stops with the tests."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.is_file():
        pytest.skip("needs Orthanc and its DICOMweb plugin (Debian: orthanc, orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    dicom_port, http_port, move_port = free_port(), free_port(), free_port()
    settings = {
        "Name": "medsr-test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "TemporaryDirectory": str(folder),
        "Plugins": [str(PLUGIN)],
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"medsr": ["MEDSR", "127.0.0.1", move_port]},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], cwd=folder, stdout=log, stderr=log
        )
    server = Orthanc(dicom_port, http_port, move_port, process)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "orthanc.log").read_text()
            try:
                server.rest("/system")
                break
            except requests.RequestException:
                time.sleep(0.1)
        else:
            pytest.fail("Orthanc did not start: " + (folder / "orthanc.log").read_text())
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("FROM", "TO"):
        monkeypatch.setenv(f"MEDSR_{role}_USER", USER)
        monkeypatch.setenv(f"MEDSR_{role}_PASSWORD", PASSWORD)


@pytest.fixture(scope="session")
def model(tiny_model: Callable[..., Path]) -> Path:
    """A tiny random model that doubles the number of slices of MR."""
    return tiny_model(scale=(1, 1, 2))


def slices_of(
    study: str, series: str, *, count: int = 6, seed: int = 0, description: str = "T1"
) -> list[Dataset]:
    """A small MR series with markers in what identifies a patient."""
    generator = np.random.default_rng(seed)
    frame = generate_uid(prefix=None)
    made = []
    for k in range(count):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid(prefix=None)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.FrameOfReferenceUID, image.Modality = frame, "MR"
        image.PatientName, image.PatientID, image.PatientBirthDate = MARKERS[:3]
        image.PatientSex = image.StudyID = image.AccessionNumber = ""
        image.StudyDate, image.StudyTime = "20240102", "101112"
        image.ReferringPhysicianName = image.Manufacturer = ""
        image.InstitutionalDepartmentName = MARKERS[3]
        image.SeriesDescription, image.SeriesNumber = description, 3
        image.InstanceNumber = k + 1
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.ScanningSequence, image.SequenceVariant = "SE", "NONE"
        image.ImagePositionPatient = [-10.0, 12.5, 4.0 * k]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [1.0, 1.0], 4.0
        image.Rows, image.Columns = 12, 14
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 0
        pixels = generator.integers(0, 900, size=(12, 14)) + 40 * k
        image.PixelData = pixels.astype("<u2").tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        made.append(image)
    return made


@dataclass
class Study:
    """A study of one series that an archive holds."""

    orthanc: Orthanc
    uid: str
    series: str
    folder: Path

    def add(self, folder: Path, **options: Any) -> str:
        """Give the archive another series of the study; returns its UID."""
        series = str(generate_uid(prefix=None))
        folder.mkdir()
        for image in slices_of(self.uid, series, **options):
            image.save_as(folder / f"{image.InstanceNumber:03d}.dcm", enforce_file_format=True)
        self.orthanc.push(folder)
        return series


@pytest.fixture
def study(orthanc: Orthanc, tmp_path: Path) -> Study:
    """A new study of one series, which Orthanc holds."""
    made = Study(orthanc, str(generate_uid(prefix=None)), "", tmp_path / "scanner")
    made.series = made.add(made.folder)
    return made


@pytest.fixture
def free_address() -> str:
    """Host and port where nobody listens."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def make_slices() -> Callable[..., list[Dataset]]:
    """Make the images of a small MR series; see ``slices_of``."""
    return slices_of

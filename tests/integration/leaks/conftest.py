"""The program as a process of its own, watched, and scans with markers to give it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

NIFTI_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")


@dataclass
class Ran:
    """What a process left: its streams, and every temporary file that was seen."""

    code: int
    streams: str
    temporary: bytes
    secrets: tuple[bytes, ...]

    def clean(self, *typed: Path | str) -> None:
        """Find no marker, but for paths that the command line held itself."""
        text = self.streams
        for path in sorted(map(str, typed), key=len, reverse=True):
            text = text.replace(path, "")
        for secret in self.secrets:
            assert secret.decode() not in text.replace("\n", ""), text
            assert secret not in self.temporary


@dataclass
class Bench:
    """Where runs take place; its path holds no marker."""

    place: Path
    model: Path
    markers: Any

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What may be found nowhere but in DICOM that keeps its patient."""
        return (*self.markers.secrets, *(uid.encode() for uid in self.markers.uids.values()))

    @property
    def patient(self) -> Path:
        """A folder that is named after the patient."""
        return self.place / f"{self.markers.mark}940"

    def ran(self, streams: str, temporary: bytes) -> Ran:
        """A run that left this."""
        return Ran(0, streams, temporary, self.secrets)

    def run(self, *arguments: Path | str) -> Ran:
        """Run ``medsr``, and read what lies in TMPDIR meanwhile."""
        environment = {
            **os.environ,
            "TMPDIR": str(self.place / "tmp"),
            "MEDSR_CACHE": "off",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "500",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "medsr", *map(str, arguments)],
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seen: dict[Path, bytes] = {}
        watcher = threading.Thread(
            target=_watch, args=(process, self.place / "tmp", seen), daemon=True
        )
        watcher.start()
        streams = process.communicate(timeout=300)[0].decode("utf-8", "replace")
        watcher.join()
        names = " ".join(path.name for path in seen).encode()
        return Ran(process.returncode, streams, names + b"".join(seen.values()), self.secrets)

    def upscale(self, scan: Path, *more: Path | str) -> Ran:
        """Run ``medsr upscale`` with the tiny model and all messages."""
        return self.run("--debug", "upscale", scan, *more, "--model", self.model)

    def contents(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """Every file below a folder with its bytes, unpacked."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                raw = path.read_bytes()
                yield path.name, raw + (gzip.decompress(raw) if path.name.endswith(".gz") else b"")

    def series(self, folder: Path, *, spoil: str = "") -> Path:
        """Write a CT series with markers everywhere, in the names of its files too."""
        folder.mkdir(parents=True)
        rng = np.random.default_rng(5)
        mark = self.markers.mark
        for k in range(6):
            dataset = self._image(CTImageStorage, str(k))
            dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
            dataset.Columns, dataset.Rows, dataset.InstanceNumber = 9, 8, k + 1
            last = 9.0 if (spoil, k) == ("gap", 5) else 0.0
            dataset.ImagePositionPatient = [-10.0, -20.0, 3.6 * k + last]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.PixelSpacing, dataset.SliceThickness = [0.9, 0.9], 3.6
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
            dataset.BitsStored, dataset.HighBit = 12, 11
            dataset.PixelData = rng.integers(0, 2000, (8, 9)).astype("<u2").tobytes()
            if spoil == "tilt":
                dataset.ImagePositionPatient[1] = -20.0 + 0.8 * k
            if spoil == "spacing" and k == 2:
                dataset.PixelSpacing = [0.0, 0.9]
            if spoil == "pixels" and k == 3:
                dataset.PixelData = dataset.PixelData[:50]
            if spoil == "uid" and k == 3:
                dataset.SeriesInstanceUID = "1.2.826.0.1.4"
            if spoil == "class" and k == 3:
                dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
            file = folder / f"{mark}901_{k}.dcm"
            _save(dataset, file)
            if spoil == "text" and k == 1:  # text where numbers belong
                raw = file.read_bytes()
                file.write_bytes(raw.replace(b"-20.0", mark.encode() + b"77"))
        if spoil == "truncated":
            file = folder / f"{mark}901_3.dcm"
            file.write_bytes(file.read_bytes()[:400])
        return folder

    def enhanced(self, folder: Path, *, spoil: str = "") -> Path:
        """Write an enhanced MR object with markers at the top and in every functional group."""
        folder.mkdir(parents=True)
        dataset = self._image(EnhancedMRImageStorage, "0")
        dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "NONE"]
        dataset.Columns, dataset.Rows, dataset.InstanceNumber, dataset.NumberOfFrames = 9, 8, 1, 6
        dataset.BitsStored, dataset.HighBit = 16, 15
        measures, plane = Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = [0.9, 0.9], 3.6
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared = Dataset()
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
        self.markers.plant(shared)
        frames = []
        for k in range(6):
            frame, position, content = Dataset(), Dataset(), Dataset()
            gap = 9.0 if (spoil, k) == ("gap", 5) else 0.0
            position.ImagePositionPatient = [-10.0, -20.0, 3.6 * k + gap]
            content.FrameComments = f"{self.markers.mark}80{k}"
            content.FrameReferenceDateTime = self.markers.dates["ContentDate"] + self.markers.TIME
            self.markers.plant(content)
            frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
            frames.append(frame)
        dataset.SharedFunctionalGroupsSequence = [shared]
        dataset.PerFrameFunctionalGroupsSequence = frames[:5] if spoil == "frames" else frames
        pixels = np.random.default_rng(5).integers(0, 900, (6, 8, 9)).astype("<u2").tobytes()
        dataset.PixelData = pixels[:90] if spoil == "pixels" else pixels
        file = folder / f"{self.markers.mark}901"
        _save(dataset, file)
        if spoil == "text":
            mark = self.markers.mark.encode()
            file.write_bytes(file.read_bytes().replace(b"-20.0", mark + b"77"))
        if spoil == "truncated":
            raw = file.read_bytes()
            file.write_bytes(raw[: len(raw) // 2])
        return folder

    def _image(self, sop_class: str, number: str) -> Dataset:
        dataset = Dataset()
        self.markers.plant(dataset, kept={"BodyPartExamined": "HEAD"})
        uids = self.markers.uids
        dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"{uids['instance']}.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids["study"], "1.2.826.0.1.3"
        dataset.FrameOfReferenceUID = uids["frame"]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.PixelRepresentation = 16, 0
        dataset.SeriesNumber = 3
        return dataset

    def nifti(self, path: Path, *, sidecar: bool = False) -> Path:
        """Write a NIfTI file with a marker in each text, in an extension, perhaps a sidecar."""
        path.parent.mkdir(parents=True, exist_ok=True)
        mark, rng = self.markers.mark, np.random.default_rng(5)
        image = nib.Nifti1Image(
            rng.integers(-1000, 900, (9, 8, 6)).astype(np.int16), np.diag([0.9, 0.9, 3.6, 1.0])
        )
        for number, name in enumerate(NIFTI_FIELDS):
            image.header[name] = f"{mark}{910 + number}".encode()
        image.header.extensions.append(
            nib.nifti1.Nifti1Extension("comment", f"{mark}920 19010203".encode())
        )
        nib.save(image, path)
        if sidecar:
            fields = {**self.markers.texts, **self.markers.dates, "Custom": f"{mark}930"}
            fields |= {"PatientSex": "F", "EchoTime": 0.01}
            path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps(fields))
        return path


def _save(dataset: Dataset, file: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(file, enforce_file_format=True)


def _watch(process: subprocess.Popen[bytes], folder: Path, seen: dict[Path, bytes]) -> None:
    while process.poll() is None:
        for path in folder.rglob("*"):
            try:
                seen[path] = path.read_bytes() if path.is_file() else b""
            except OSError:
                continue  # it has gone meanwhile
        time.sleep(0.05)


@pytest.fixture
def bench(tmp_path: Path, tiny_model: Callable[..., Path], markers: Any) -> Bench:
    """A place for runs, with a model that has a head."""
    (tmp_path / "tmp").mkdir()
    return Bench(tmp_path, tiny_model("CT", head="gaussian"), markers)


@pytest.fixture
def mr_bench(bench: Bench, tiny_model: Callable[..., Path]) -> Bench:
    """The same with a model for MR."""
    return Bench(bench.place, tiny_model(), bench.markers)

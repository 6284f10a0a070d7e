"""Synthetic DICOM series, written by pydicom slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from medsr.types import Array

PATIENT = "Doe^Jane"
PATIENT_ID = "PID-4711"
BIRTH_DATE = "19510203"

Edit = Callable[[Dataset, int], None]


class MakeSeries(Protocol):
    """Writes a series; see ``_make_series``."""

    def __call__(self, folder: Path, data: Array | None = None, **options: Any) -> Path: ...


def oblique(degrees: tuple[float, float] = (20.0, -12.0)) -> npt.NDArray[np.float64]:
    """A rotation about x and then z; its columns are row, column and normal direction."""
    a, b = np.radians(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x)


def _common(modality: str, series: str) -> Dataset:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID = PATIENT, PATIENT_ID
    dataset.PatientBirthDate = BIRTH_DATE
    dataset.StudyInstanceUID = "1.2.826.0.1.1"
    dataset.FrameOfReferenceUID = "1.2.826.0.1.2"
    dataset.SeriesInstanceUID = series
    dataset.SeriesNumber = 7
    dataset.SeriesDescription = "T1 axial"
    dataset.Modality = modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if modality == "CT" else "M"]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    return dataset


def _save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def _make_series(
    folder: Path,
    data: Array | None = None,
    *,
    modality: str = "CT",
    directions: npt.NDArray[np.float64] | None = None,
    origin: Sequence[float] = (-30.0, 12.5, 40.0),
    spacing: Sequence[float] = (0.8, 0.9, 2.5),
    rescale: Sequence[tuple[float, float]] | tuple[float, float] | None = (1.0, -1024.0),
    bits_stored: int = 16,
    numbers: Sequence[int] | None = None,
    series: str = "1.2.826.0.1.3",
    suffix: str = ".dcm",
    prefix: str = "slice",
    edit: Edit | None = None,
) -> Path:
    """Write stored values ``data`` (X, Y, Z; int16 or uint16) as one file per slice.

    ``directions`` has the LPS+ axis directions as columns, ``origin`` is the LPS+ centre of voxel
    (0, 0, 0). ``edit`` may change each dataset before it is written.
    """
    if data is None:
        generator = np.random.default_rng(3)
        data = generator.integers(0, 2000, size=(9, 7, 6)).astype(np.int16)
    axes = np.eye(3) if directions is None else directions
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(data.shape[2]):
        dataset = _common(modality, series)
        dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        dataset.SOPInstanceUID = generate_uid()
        dataset.InstanceNumber = k + 1 if numbers is None else numbers[k]
        dataset.Columns, dataset.Rows = data.shape[0], data.shape[1]
        position = np.asarray(origin) + k * spacing[2] * axes[:, 2]
        dataset.ImagePositionPatient = [f"{value:.9f}"[:16] for value in position]
        dataset.ImageOrientationPatient = [f"{value:.9f}"[:16] for value in axes[:, :2].T.ravel()]
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.SliceThickness = spacing[2] + 1.0  # misleading on purpose
        dataset.SliceLocation = -100.0 * k
        dataset.WindowCenter, dataset.WindowWidth = 40 + k, 400
        if rescale is not None:
            pair = rescale if isinstance(rescale[0], float) else rescale[k]
            dataset.RescaleSlope, dataset.RescaleIntercept = pair
        dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
        dataset.PixelRepresentation = int(data.dtype.kind == "i")
        dataset.PixelData = np.ascontiguousarray(data[:, :, k].T).tobytes()
        block = dataset.private_block(0x0011, "MAKER", create=True)
        block.add_new(0x01, "LO", PATIENT)
        if edit is not None:
            edit(dataset, k)
        _save(dataset, folder / f"{prefix}{dataset.InstanceNumber:03d}{suffix}")
    return folder


def _make_enhanced(folder: Path, data: Array, *, edit: Edit | None = None) -> Path:
    """Write ``data`` (X, Y, Z; uint16) as one enhanced MR file with a slope per frame."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = _common("MR", "1.2.826.0.1.9")
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    dataset.InstanceNumber = 1
    dataset.Columns, dataset.Rows, dataset.NumberOfFrames = data.shape
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.9, 0.8], 9.0
    axes = oblique()
    plane.ImageOrientationPatient = [float(value) for value in axes[:, :2].T.ravel()]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in range(data.shape[2]):
        frame, place, values, echo = Dataset(), Dataset(), Dataset(), Dataset()
        position = np.array([10.0, -20.0, 30.0]) + 3.0 * k * axes[:, 2]
        place.ImagePositionPatient = [f"{value:.9f}"[:16] for value in position]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2.0 + k, 5.0, "US"
        echo.EffectiveEchoTime = 12.5
        frame.PlanePositionSequence, frame.MREchoSequence = [place], [echo]
        frame.PixelValueTransformationSequence = [values]
        frames.append(frame)
        if edit is not None:
            edit(frame, k)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 0
    dataset.PixelData = np.ascontiguousarray(data.transpose(2, 1, 0)).tobytes()
    _save(dataset, folder / "enhanced")
    return folder


@pytest.fixture
def make_series() -> MakeSeries:
    """Writes a single-frame series and returns its folder."""
    return _make_series


@pytest.fixture
def make_enhanced() -> Callable[..., Path]:
    """Writes an enhanced multi-frame MR file and returns its folder."""
    return _make_enhanced


@pytest.fixture
def oblique_axes() -> npt.NDArray[np.float64]:
    """LPS+ directions (columns) of a stack that is oblique to all planes."""
    return oblique()


@pytest.fixture
def identifiers() -> tuple[str, ...]:
    """What no message, log or note may hold."""
    return PATIENT, "Doe", PATIENT_ID, BIRTH_DATE

"""Fixtures that several integration tests share.

Three tiny scans with their manifest, a recipe and a teacher, for the tests of training; markers in
place of everything that names a patient, for the tests that look for leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from pydicom.dataset import Dataset


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three scans, their manifest, a recipe, and a teacher."""
    from medsr.train import run

    folder = tmp_path_factory.mktemp("world")
    rows = ["path,split,patient_id,modality,sharp_axes"]
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 22),) * 3, indexing="ij"))
    for number, split in enumerate(("train", "train", "dev")):
        radius = np.sqrt((grid**2).sum(0))
        waves = np.sin((7 + number) * grid[2]) + np.cos((5 + number) * grid[0] * grid[1])
        data = np.where(radius < 0.95, 600 + 150 * waves, 0).astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.diag([0.9, 0.9, 1.1, 1.0])), folder / f"{number}.nii.gz")
        rows.append(f"{number}.nii.gz,{split},p{number},MR,{'xyz' if number else 'xy'}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    plain = {
        "name": "tiny",
        "data": {"manifest": str(folder / "manifest.csv"), "modality": "MR"},
        "degradation": {
            "kind": "slice_profile",
            "factor": [1, 1, 2],
            "options": {"noise": [0.0, 0.02]},
        },
        "network": {"name": "RepPlain3D", "options": {"width": 16, "depth": 2}},
        "patches": {"size": [8, 8, 4], "batch": 2},
        "optimiser": {"learning_rate": 2e-3, "warmup_steps": 2, "ema_decay": 0.9},
        "loop": {
            "steps": 8,
            "precision": "fp32",
            "validate_every": 4,
            "checkpoint_every": 4,
            "log_every": 3,
        },
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(plain))
    teacher = [
        "name=teacher",
        "role=teacher",
        "network={name: ResNet3D, options: {width: 32, blocks: 1}}",
        "loop.steps=2",
    ]
    run(folder / "tiny.yaml", teacher, out=folder / "teacher", device="cpu", quiet=True)
    return folder


@pytest.fixture(scope="session")
def distilling(world: Path) -> list[str]:
    """Overrides that make the recipe one of distillation."""
    return [
        f"teacher={world / 'teacher' / 'model'}",
        "terms=[{name: output, weight: 0.5}, "
        "{name: feature, weight: 0.01, options: {student: body.1, teacher: fuse}}]",
    ]


@pytest.fixture(scope="session")
def opposed(distilling: list[str]) -> list[str]:
    """Overrides that distil with what has a state of its own: an adversary, and random attacks."""
    return [
        distilling[0],
        "terms=[{name: adversarial, weight: {start: 0, end: 0.02, begin: 0.2, until: 0.9}, "
        "options: {real: both, width: 4, r1: 0.1}}, "
        "{name: robust, weight: 0.3, options: {steps: 2}}, "
        "{name: robust, weight: 0.3, options: {attack: noise, noise: rician}}]",
    ]


@pytest.fixture
def train(world: Path) -> Callable[..., Path]:
    """Train the tiny recipe on the CPU; the result is the run folder."""
    from medsr.train import run

    def call(out: Path, *overrides: str, **options: Any) -> Path:
        model = run(world / "tiny.yaml", overrides, out=out, device="cpu", **options)
        assert model == out / "model"
        return out

    return call


@dataclass(frozen=True)
class Markers:
    """Values that stand for a patient's own.

    Args:
        mark: What all texts begin with, so that a part of one is found too.
        texts: One for each attribute.
        dates: One for each attribute.
        secrets: What must not be found: the mark, and dates and times as they may be written.
        uids: Identifiers of study, frame of reference and instances, which DICOM output keeps or
            refers to and nothing else tells.
    """

    mark: str
    texts: dict[str, str]
    dates: dict[str, str]
    secrets: tuple[bytes, ...]
    uids: dict[str, str]

    def plant(self, dataset: Dataset, *, kept: dict[str, str] | None = None) -> None:
        """Put them at the top, into sequences at several depths, and into private attributes.

        Args:
            dataset: Changed in place.
            kept: Values that are needed instead.
        """
        for keyword, value in {**self.texts, **self.dates, **(kept or {})}.items():
            setattr(dataset, keyword, value)
        dataset.StudyTime = dataset.ContentTime = self.TIME
        dataset.AcquisitionDateTime = self.dates["AcquisitionDate"] + self.TIME
        dataset.RequestAttributesSequence = [self._request()]
        dataset.OtherPatientIDsSequence = [
            self._item(PatientID="700", IssuerOfPatientID="701", TypeOfPatientID="TEXT")
        ]
        dataset.ReferencedPatientSequence = [self._reference("40")]
        dataset.ReferencedStudySequence = [self._reference("41")]
        dataset.ReferringPhysicianIdentificationSequence = [
            self._item(InstitutionName="702", PersonAddress="703", PersonTelephoneNumbers="704")
        ]
        dataset.ProcedureCodeSequence = [self._code("705")]
        dataset.OriginalAttributesSequence = [self._original()]
        dataset.ContributingEquipmentSequence = [
            self._item(Manufacturer="Maker", InstitutionName="707", OperatorsName="708")
        ]
        self._private(dataset)

    TIME = "013157.246813"

    def _text(self, number: str) -> str:
        return f"{self.mark}{number}" if number.isdigit() else number

    def _item(self, **attributes: str) -> Dataset:
        item = Dataset()
        for keyword, number in attributes.items():
            setattr(item, keyword, self._text(number))
        self._private(item)
        return item

    def _code(self, number: str) -> Dataset:
        return self._item(CodeValue=number, CodingSchemeDesignator="99LOCAL", CodeMeaning=number)

    def _reference(self, number: str) -> Dataset:
        item = Dataset()
        item.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.1.1"
        item.ReferencedSOPInstanceUID = f"{self.uids['instance']}.{number}"
        return item

    def _request(self) -> Dataset:
        item = self._item(
            RequestedProcedureID="710",
            RequestedProcedureDescription="711",
            ReasonForTheRequestedProcedure="712",
            ScheduledProcedureStepDescription="713",
        )
        protocol = self._code("714")
        protocol.ProtocolContextSequence = [self._item(TextValue="715", PersonName="716")]
        item.ScheduledProtocolCodeSequence = [protocol]
        item.ReasonForRequestedProcedureCodeSequence = [self._code("717")]
        return item

    def _original(self) -> Dataset:
        before = self._item(PatientName="718", PatientID="719")
        before.PatientBirthDate = self.dates["PatientBirthDate"]
        item = self._item(ModifyingSystem="720", SourceOfPreviousValues="721")
        item.ModifiedAttributesSequence = [before]
        return item

    def _private(self, dataset: Dataset) -> None:
        block = dataset.private_block(0x0011, f"{self.mark} MAKER", create=True)
        block.add_new(0x01, "LO", f"{self.mark}900")
        inner = Dataset()
        inner.PatientName = f"{self.mark}902"
        block.add_new(0x02, "SQ", [inner])
        block.add_new(0x03, "UN", f"{self.mark}903".encode())


@pytest.fixture(scope="session")
def markers() -> Markers:
    """What is planted, and looked for afterwards."""
    mark = "QZX"
    names = """
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
    """
    texts = {name: f"{mark}{number:03d}" for number, name in enumerate(names.split())}
    dates = {
        "PatientBirthDate": "19010203",
        "StudyDate": "19020304",
        "SeriesDate": "19030405",
        "AcquisitionDate": "19040506",
        "ContentDate": "19050607",
    }
    written = [f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in dates.values()]
    secrets = (mark, *dates.values(), *written, Markers.TIME[:6], "01:31:57")
    root = "1.2.826.0.1.40471"
    uids = {"study": f"{root}.1", "frame": f"{root}.2", "instance": f"{root}.3"}
    return Markers(mark, texts, dates, tuple(map(str.encode, secrets)), uids)

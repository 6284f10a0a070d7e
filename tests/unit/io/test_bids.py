"""BIDS: names, inheritance of sidecars, and what a derived sidecar and dataset say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsr.geometry import Geometry
from medsr.io import bids
from medsr.volume import Derivation

DERIVATION = Derivation("mr-z4 1.0", "0.1.0", "00", "Super-resolution by medsr", (1.0, 1.0, 4.0))
THICK = Geometry((8, 8, 4), np.diag([1.0, 1.0, 4.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("sub-01_T1w.nii.gz", "sub-01_desc-sr_T1w.nii.gz"),
        (
            "sub-01/anat/sub-01_ses-2_acq-ax_T2w.nii",
            "sub-01/anat/sub-01_ses-2_acq-ax_desc-sr_T2w.nii",
        ),
        ("sub-01_desc-preproc_T1w.nii.gz", "sub-01_desc-preprocSr_T1w.nii.gz"),
        ("brain.nii.gz", "brain.nii.gz"),
        ("acq-ax_T2w.nii.gz", "acq-ax_T2w.nii.gz"),
        ("sub-01_sub-02_T1w.nii.gz", "sub-01_sub-02_T1w.nii.gz"),
        ("sub-01_T1w.mha", "sub-01_T1w.mha"),
        ("sub-01_two words_T1w.nii", "sub-01_two words_T1w.nii"),
    ],
)
def test_results_are_named_by_desc(name: str, result: str) -> None:
    assert bids.derived_name(name) == result


def write(path: Path, fields: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan in a dataset, described at three levels."""
    root = tmp_path / "raw"
    write(root / bids.DESCRIPTION, {"Name": "Study of Doe", "BIDSVersion": "1.4.0"})
    write(root / "T1w.json", {"MagneticFieldStrength": 3, "EchoTime": 9.0})
    write(root / "T2w.json", {"MagneticFieldStrength": 7})
    write(root / "sub-01" / "sub-01_T1w.json", {"EchoTime": 8.0, "FlipAngle": 9})
    write(root / "sub-01" / "anat" / "sub-01_ses-1_T1w.json", {"EchoTime": 1.0})
    anat = root / "sub-01" / "anat" / "sub-01_T1w.json"
    write(
        anat,
        {"EchoTime": 0.0037, "SliceThickness": 4, "SliceTiming": [0, 1], "SkullStripped": True},
    )
    return anat.with_name("sub-01_T1w.nii.gz")


def test_the_nearest_sidecar_wins_and_others_are_inherited(scan: Path) -> None:
    fields = bids.read_sidecar(scan)
    assert fields is not None
    assert (fields["EchoTime"], fields["FlipAngle"], fields["MagneticFieldStrength"]) == (
        0.0037,
        9,
        3,
    )


def test_without_a_dataset_only_the_file_beside_counts(tmp_path: Path) -> None:
    write(tmp_path / "T1w.json", {"EchoTime": 1.0})
    assert bids.read_sidecar(tmp_path / "sub-01_T1w.nii.gz") is None
    write(tmp_path / "Brain.json", {"EchoTime": 2.0})
    assert bids.read_sidecar(tmp_path / "Brain.nii.gz") == {"EchoTime": 2.0}
    (tmp_path / "Brain.json").write_text("[" * 5000)
    assert bids.read_sidecar(tmp_path / "Brain.nii.gz") is None


def test_what_a_result_inherits(scan: Path, tmp_path: Path) -> None:
    private = {
        "PatientName": "Doe",
        "PatientBirthDate": "1970-01-01",
        "AcquisitionTime": "10:11",
        "InstitutionName": "Doe Clinic",
        "DeviceSerialNumber": "4711",
        "ProtocolName": "Doe",
        "Manufacturer": "x" * 1000,
    }
    fields = {**(bids.read_sidecar(scan) or {}), **private, "SpacingBetweenSlices": 4.4}
    after = THICK.refine((1, 1, 4))
    derived = bids.derived_sidecar(
        fields, scan, tmp_path / "out.nii.gz", (THICK, after), DERIVATION
    )
    assert derived == {
        "MagneticFieldStrength": 3,
        "EchoTime": 0.0037,
        "FlipAngle": 9,
        "SkullStripped": True,
        "SliceThickness": 1.0,
        "SpacingBetweenSlices": 1.0,
        "Description": "Super-resolution by medsr",
        "Sources": ["sub-01/anat/sub-01_T1w.nii.gz"],
    }


def test_sources_resolve_within_and_between_datasets(scan: Path, tmp_path: Path) -> None:
    inside = "sub-01/anat/sub-01_T1w.nii.gz"
    assert bids.source_uri(scan, scan.with_name("x.nii")) == f"bids::{inside}"
    derived = tmp_path / "derived"
    root = tmp_path / "raw"
    described = bids.derived_description(root, derived, "0.1.0")
    write(derived / bids.DESCRIPTION, described)
    assert described["DatasetLinks"] == {"raw": "../raw"}
    assert (described["DatasetType"], described["BIDSVersion"]) == ("derivative", "1.8.0")
    assert described["GeneratedBy"] == [{"Name": "medsr", "Version": "0.1.0"}]
    assert "Doe" not in json.dumps(described)
    assert bids.source_uri(scan, derived / "sub-01" / "x.nii") == f"bids:raw:{inside}"
    assert bids.source_uri(tmp_path / "a.nii", derived / "x.nii") == "a.nii"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def test_what_is_no_json_is_not_handed_on(tmp_path: Path) -> None:
    scan = tmp_path / "a.nii.gz"
    (tmp_path / "a.json").write_text(
        '{"EchoTime": NaN, "FlipAngle": 9, "InversionTime": -Infinity, "RepetitionTime": 1e999,'
        ' "ImageType": ["ORIGINAL", NaN], "SliceThickness": NaN, "EchoNumber": 1'
        + "0" * 400
        + ', "AnatomicalLandmarkCoordinates": {"NAS": [1, Infinity, 2]}}'
    )
    fields = bids.read_sidecar(scan)
    assert fields is not None
    grids = (THICK, THICK.refine((1, 1, 4)))
    derived = bids.derived_sidecar(fields, scan, tmp_path / "out.nii.gz", grids, DERIVATION)
    text = bids.as_text(derived)
    assert json.loads(text, parse_constant=_refuse) == derived
    assert {"FlipAngle", "SliceThickness", "EchoNumber"} < derived.keys()
    gone = {"EchoTime", "InversionTime", "RepetitionTime", "ImageType"}
    assert not (gone | {"AnatomicalLandmarkCoordinates"}) & derived.keys()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    scan = tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    scan.parent.mkdir(parents=True)
    (tmp_path / bids.DESCRIPTION).write_text('{"BIDSVersion": "1.9.0"}', encoding=encoding)
    (tmp_path / "T1w.json").write_text('{"EchoTime": 0.5}', encoding=encoding)
    bids.sidecar_path(scan).write_text('{"Manufacturer": "Größe"}', encoding=encoding)
    assert bids.read_sidecar(scan) == {"EchoTime": 0.5, "Manufacturer": "Größe"}
    described = bids.derived_description(tmp_path, tmp_path / "derivatives", "0.1.0")
    assert described["BIDSVersion"] == "1.9.0"

"""What a model has seen is told with every run, and scans of another part of the body warned of."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medsr import zoo
from medsr.infer.upscale import upscale
from medsr.model import ModelSpec


def series(folder: Path, part: str | None) -> Path:
    """A DICOM series of eight thick slices."""
    folder.mkdir()
    study, group, frame = (generate_uid() for _ in range(3))
    rng = np.random.default_rng(0)
    for number in range(8):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = MRImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID = study, group
        image.FrameOfReferenceUID = frame
        image.Modality, image.InstanceNumber = "MR", number + 1
        image.ImageType = ["ORIGINAL", "PRIMARY"]
        if part is not None:
            image.BodyPartExamined = part
        image.ImagePositionPatient = [0, 0, 4.0 * number]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [1.0, 1.0], 4.0
        image.Rows = image.Columns = 16
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelRepresentation = 0
        image.PixelData = rng.integers(100, 900, (16, 16), dtype=np.uint16).tobytes()
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def nifti(folder: Path, sidecar: dict[str, Any] | None) -> Path:
    folder.mkdir()
    data = np.random.default_rng(0).integers(100, 900, (16, 16, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.0, 4.0, 1.0])), folder / "s.nii.gz")
    if sidecar is not None:
        (folder / "s.json").write_text(json.dumps(sidecar))
    return folder / "s.nii.gz"


KINDS = {
    "DICOM": lambda folder, part: series(folder, part),
    "BIDS": lambda folder, part: nifti(folder, part and {"BodyPart": part}),
    "dcm2niix": lambda folder, part: nifti(folder, part and {"BodyPartExamined": part}),
}


@pytest.mark.parametrize(
    ("part", "region", "warned"),
    [
        ("KNEE", "knee", True),
        ("BRAIN", "brain", False),
        ("HEAD", "head", False),
        ("QZX700", "unknown", False),
        (None, "unknown", False),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_another_region_is_warned_of(
    kind: str,
    part: str | None,
    region: str,
    warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scan = KINDS[kind](tmp_path / "scan", part)
    with caplog.at_level(logging.INFO, logger="medsr"):
        report = upscale(scan, device="cpu").report
    assert "mr-z4 was trained on brain MR (FLAIR, T1w, T2w)" in caplog.text
    assert report["model"]["trained_on"] == "brain MR (FLAIR, T1w, T2w)"
    assert report["input"]["region"] == region
    told = [text for text in report["warnings"] if "not among the training scans" in text]
    assert bool(told) == warned
    assert all("the knee" in text for text in told)
    assert "QZX" not in caplog.text + json.dumps(report)


def test_scans_larger_than_memory_are_warned_of_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = nifti(tmp_path / "scan", {"BodyPart": "KNEE"})
    whole = upscale(scan, tmp_path / "whole.nii.gz", device="cpu").report
    monkeypatch.setattr("medsr.infer.upscaler.is_large", lambda *_: True)
    large = upscale(scan, tmp_path / "large.nii.gz", device="cpu").report
    assert large["tiles"]["slabs"] >= 1
    assert large["input"]["region"] == whole["input"]["region"] == "knee"
    told = [text for text in whole["warnings"] if "the knee" in text]
    assert told == [text for text in large["warnings"] if "the knee" in text] != []


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_models_tell_what_their_scans_show(name: str, shared_data: Path) -> None:
    """Against the cohort's own columns, of the scans that the spec says it was trained on."""
    spec = ModelSpec.read(zoo.path(name))
    with (shared_data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["path"]).name.split(".")[0]: row for row in csv.DictReader(file)}
    own = [rows[scan] for scan in spec.training["scans"]]
    assert set(spec.trained_regions) == {row["region"] for row in own}
    if spec.modality == "MR":
        assert set(spec.trained_contrasts) == {row["contrast"] for row in own}


def test_every_page_about_shipped_models_tells_it(repository: Path) -> None:
    readme = (repository / "README.md").read_text(encoding="utf-8")
    reference = (repository / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    for spec in zoo.specs():
        assert spec.trained_regions
        card = (zoo.path(spec.name) / "card.md").read_text(encoding="utf-8")
        assert f"- Trained on {spec.seen}." in card
        if spec.role == "student":
            for page in (readme, reference):
                (row,) = [line for line in page.splitlines() if line.startswith(f"| `{spec.name}`")]
                assert all(word in row for word in (*spec.trained_regions, *spec.trained_contrasts))


def train(world: Path, folder: Path, table: str, *changes: str) -> ModelSpec:
    from medsr.train import run

    folder.mkdir()
    header = "path,split,patient_id,modality,sharp_axes,region,contrast"
    lines = [header, *(f"{world}/{line}" for line in table.split())]
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    short = ["loop.steps=1", "loop.validate_every=9", "loop.checkpoint_every=1"]
    manifest = f"data.manifest={folder / 'cohort.csv'}"
    model = run(
        world / "tiny.yaml", [*short, manifest, *changes], out=folder, device="cpu", quiet=True
    )
    return ModelSpec.read(model)


BOTH = "0.nii.gz,train,p0,MR,z,knee,PD 1.nii.gz,train,p1,MR,z,hip,T1w 2.nii.gz,dev,p2,MR,z,foot,X"
HALF = "0.nii.gz,train,p0,MR,z,knee,PD 1.nii.gz,train,p1,MR,z,,T1w 2.nii.gz,dev,p2,MR,z,,"
HAND = "0.nii.gz,train,p0,MR,z,hand,PD 2.nii.gz,dev,p2,MR,z,,"


def test_a_recipe_fills_it_from_the_cohort(world: Path, tmp_path: Path) -> None:
    spec = train(world, tmp_path / "a", BOTH)
    assert (spec.trained_regions, spec.trained_contrasts) == (("hip", "knee"), ("PD", "T1w"))
    # A region of one scan that is not told makes all of it unknown; contrasts are told here.
    half = train(world, tmp_path / "b", HALF)
    assert (half.trained_regions, half.trained_contrasts) == ((), ("PD", "T1w"))
    # What the start has seen, its followers have seen too.
    start = f"network.start={tmp_path / 'a' / 'model'}"
    after = train(world, tmp_path / "c", HAND, start)
    assert (after.trained_regions, after.trained_contrasts) == (
        ("hand", "hip", "knee"),
        ("PD", "T1w"),
    )
    assert train(world, tmp_path / "d", HAND, start.replace("/a/", "/b/")).trained_regions == ()


def test_locks_and_specs_keep_it(world: Path, tmp_path: Path) -> None:
    from medsr.data.cohort import freeze, read_cohort
    from medsr.data.lock import write_lock

    spec = train(world, tmp_path / "a", BOTH)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.seen == "hip, knee MR (PD, T1w)"
    lock = freeze(tmp_path / "a" / "cohort.csv", tmp_path, keep_splits=True)
    records = read_cohort(write_lock(lock, tmp_path / "lock.json"))
    assert [record.region for record in records] == ["knee", "hip", "foot"]
    older = json.loads(spec.to_json())
    del older["trained_regions"], older["trained_contrasts"]
    assert ModelSpec.from_json(json.dumps(older)).seen == "MR of a region that it does not tell"

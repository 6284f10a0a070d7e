"""Models are not scored on people whom they learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medsr import zoo
from medsr.data.manifest import ScanRecord, read_manifest, select
from medsr.data.overlap import refuse_training_patients, training_scans, training_warnings
from medsr.errors import CohortError, TrainingPatientsError
from medsr.model import ModelSpec
from medsr.patients import TrainingPatients


@pytest.fixture
def spec() -> ModelSpec:
    """A shipped model's spec, with two training patients."""
    told = TrainingPatients.gather(["SECRET-1", "SECRET-2"], cost=16)
    return replace(ModelSpec.read(zoo.path("mr-z4")), name="mine", training_patients=told)


def records(*patients: str) -> list[ScanRecord]:
    return [ScanRecord(Path(f"s{n}.nii"), "test", p, "MR") for n, p in enumerate(patients)]


def test_overlap_is_refused_and_scans_are_named(spec: ModelSpec) -> None:
    cohort = records("new", "secret_01", "SECRET-1", "SECRET-2", "other")
    with pytest.raises(TrainingPatientsError, match=r"model mine learnt from 3 of the 5") as caught:
        refuse_training_patients([spec], cohort)
    assert "(scans s1, s2, s3)" in str(caught.value)
    assert "secret" not in str(caught.value).lower()
    assert isinstance(caught.value, CohortError)
    assert caught.value.exit_code == 54
    assert [r.scan_id for r in training_scans(spec, cohort)] == ["s1", "s2", "s3"]


def test_many_scans_are_counted(spec: ModelSpec) -> None:
    with pytest.raises(TrainingPatientsError, match=r"learnt from 1 of the 1 .* and 4 more\)"):
        refuse_training_patients([spec], records(*["SECRET-1"] * 9))


def test_new_patients_pass(spec: ModelSpec) -> None:
    assert refuse_training_patients([spec], records("new", "SECRET-3")) == ()


def test_a_model_that_does_not_say_is_warned_of(spec: ModelSpec) -> None:
    silent = replace(spec, name="silent", training_patients=None)
    half = replace(
        spec,
        name="half",
        training_patients=TrainingPatients.gather(["a"], [("elder", None)], cost=16),
    )
    warnings = refuse_training_patients([spec, silent, half], records("new"))
    assert len(warnings) == 2
    assert warnings[0].startswith("model silent does not state its training patients")
    assert warnings[1].startswith("model half was taught by elder, which does not state")
    assert training_warnings([spec]) == ()
    assert training_scans(silent, records("SECRET-1")) == ()


def test_specs_without_hashes_still_load(spec: ModelSpec) -> None:
    import json

    old = json.loads(spec.to_json())
    del old["training_patients"]
    assert ModelSpec.from_json(json.dumps(old)).training_patients is None
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("name", zoo.names())
def test_shipped_models_know_whom_they_learnt_from(name: str, shared_data: Path) -> None:
    spec = ModelSpec.read(zoo.path(name))
    cohort = read_manifest(shared_data / "manifest.csv")
    # The cohort grows; a model tells of the people whose scans its own training names.
    own = set(spec.training["scans"])
    train = [record for record in cohort if record.scan_id in own]
    assert own
    assert {record.scan_id for record in train} == own
    assert spec.training_patients is not None
    assert spec.training_patients.is_complete
    assert training_scans(spec, train) == tuple(train)
    assert refuse_training_patients([spec], select(cohort, split="dev")) == ()

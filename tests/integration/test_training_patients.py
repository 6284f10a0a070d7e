"""Trained, distilled, adapted and pruned models say whom they learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsr.compress.prune import prune
from medsr.data.manifest import read_manifest, select
from medsr.data.overlap import refuse_training_patients
from medsr.errors import CohortChangedError, TrainingPatientsError
from medsr.model import ModelSpec, SRModel
from medsr.patients import TrainingPatients
from medsr.spec import SPEC_FILE

SHORT = ("loop.steps=1", "loop.validate_every=9", "loop.checkpoint_every=1")
OUTPUT = "terms=[{name: output, weight: 0.5}]"


def train(world: Path, out: Path, *changes: str) -> Path:
    from medsr.train import run

    return run(world / "tiny.yaml", [*SHORT, *changes], out=out, device="cpu", quiet=True)


def told(folder: Path) -> TrainingPatients:
    found = ModelSpec.read(folder).training_patients
    assert found is not None
    return found


def without_patients(model: Path) -> Path:
    """The model as an older version of medsr would have written it."""
    spec = (model / SPEC_FILE).read_text()
    start = spec.index(',\n  "training_patients"')
    (model / SPEC_FILE).write_text(spec[:start] + "\n}\n")
    assert ModelSpec.read(model).training_patients is None
    return model


@pytest.fixture(scope="module")
def others(world: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An override: the manifest's validation patient is the only one learnt from."""
    rows = (world / "manifest.csv").read_text().replace(",dev,", ",later,").splitlines()
    path = world / "others.csv"
    path.write_text("\n".join(rows) + "\n")
    return f"data={{manifest: {path}, modality: MR, train_split: later, validation_split: null}}"


def test_a_model_carries_its_patients_and_cannot_be_scored_on_them(
    world: Path, tmp_path: Path
) -> None:
    model = train(world, tmp_path)
    spec, cohort = ModelSpec.read(model), read_manifest(world / "manifest.csv")
    assert told(model).overlap(["p0", "p1", "p2"]) == {"p0", "p1"}
    assert told(model).is_complete
    assert '"p0"' not in (model / SPEC_FILE).read_text()
    with pytest.raises(TrainingPatientsError, match="2 of the 2 patients"):
        refuse_training_patients([spec], select(cohort, split="train"))
    assert refuse_training_patients([spec], select(cohort, split="dev")) == ()


def test_a_lock_file_is_trained_on_while_its_scans_are_the_same(
    world: Path, tmp_path: Path
) -> None:
    from medsr.data.cohort import freeze
    from medsr.data.lock import write_lock

    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for path in world.iterdir():
        if path.suffix in (".gz", ".csv"):
            (cohort / path.name).write_bytes(path.read_bytes())
    lock = freeze(cohort / "manifest.csv", cohort, keep_splits=True)
    path = write_lock(lock, cohort / "lock.json")
    data = f"data={{manifest: {path}, modality: MR}}"
    assert told(train(world, tmp_path / "run", data)).overlap(["p0", "p1", "p2"]) == {"p0", "p1"}
    (cohort / "0.nii.gz").write_bytes((cohort / "1.nii.gz").read_bytes())
    with pytest.raises(CohortChangedError, match="1 changed"):
        train(world, tmp_path / "again", data)


def test_a_student_carries_those_of_its_teacher(world: Path, others: str, tmp_path: Path) -> None:
    teacher = world / "teacher" / "model"
    student = train(world, tmp_path, others, OUTPUT, f"teacher={teacher}")
    assert told(student).overlap(["p0", "p1", "p2", "p3"]) == {"p0", "p1", "p2"}
    # A student of the same cohort needs no list of its own.
    same = train(world, tmp_path / "same", OUTPUT, f"teacher={teacher}")
    assert told(same) == told(teacher)


def test_a_start_that_does_not_say_is_named(world: Path, others: str, tmp_path: Path) -> None:
    start = train(world, tmp_path / "start", "name=elder")
    follower = train(world, tmp_path / "a", others, f"network.start={start}")
    assert told(follower).overlap(["p0", "p1", "p2"]) == {"p0", "p1", "p2"}
    without_patients(start)
    follower = train(world, tmp_path / "b", others, f"network.start={start}")
    assert told(follower).overlap(["p0", "p1", "p2"]) == {"p2"}
    assert told(follower).unstated == ("elder",)


def test_an_adapted_model_carries_both(world: Path, others: str, tmp_path: Path) -> None:
    from medsr.train.adapt import adapt

    base = train(world, tmp_path / "base")
    adapted = adapt(
        base,
        world / "others.csv",
        ["loop.precision=fp32"],
        split="later",
        held_out="train",
        out=tmp_path / "adapted",
        steps=1,
        rank=1,
        device="cpu",
        quiet=True,
    )
    assert adapted.spec.training_patients is not None
    assert told(adapted.folder) == adapted.spec.training_patients
    assert told(adapted.folder).overlap(["p0", "p1", "p2", "p3"]) == {"p0", "p1", "p2"}


def test_a_model_of_synthetic_volumes_carries_those_of_its_teacher(
    world: Path, tmp_path: Path
) -> None:
    teacher = world / "teacher" / "model"
    data = "data={modality: MR, synthetic: {}, validation_split: null}"
    model = train(world, tmp_path, data, "losses=[]", OUTPUT, f"teacher={teacher}")
    assert told(model) == told(teacher)


def test_a_pruned_model_keeps_them(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    wide = train(world, tmp_path, "network.options={width: 32, depth: 2}")
    small = prune(SRModel.load(wide), width=16).save(tmp_path / "small")
    assert told(small) == told(wide)

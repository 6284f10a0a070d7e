"""Whole runs: assistants, several teachers, several modalities, pairs, and no scans at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

import medsr
import medsr.train.loop
import medsr.train.teachers
from medsr.errors import CheckpointError, CohortError, RecipeError
from medsr.infer import choose
from medsr.model import ModelSpec, SRModel
from medsr.train.checkpoint import CHECKPOINT_FILE
from medsr.train.state import TrainState

OUTPUT = "terms=[{name: output, weight: 0.5}]"
SMALL = "network: {name: RepPlain3D, options: {width: 16, depth: 1}}"


class Crash(Exception):
    """Stands for whatever ends a process."""


def crash_before(patch: pytest.MonkeyPatch, name: str, step: int) -> None:
    """Crash before the step of this number in the run of the model of this name."""
    take_step = medsr.train.loop.take_step

    def wrapped(fabric: Any, recipe: Any, module: Any, batch: Any, state: Any) -> Any:
        if (recipe.name, state.step) == (name, step):
            raise Crash
        return take_step(fabric, recipe, module, batch, state)

    patch.setattr(medsr.train.loop, "take_step", wrapped)


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def both(world: Path) -> list[str]:
    """Overrides for a cohort that has CT scans as well."""
    rows = (world / "manifest.csv").read_text().splitlines()
    rows = [rows[0] + ",contrast", *(row + ",T1w" for row in rows[1:])]
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 22),) * 3, indexing="ij"))
    for number, split in enumerate(("train", "dev")):
        inside = (grid**2).sum(0) < 0.9
        data = np.where(inside, 60 + 200 * np.sin((6 + number) * grid[2]), -1000).astype(np.int16)
        nib.save(nib.Nifti1Image(data, np.diag([0.7, 0.7, 1.0, 1.0])), world / f"ct{number}.nii.gz")
        rows.append(f"ct{number}.nii.gz,{split},c{number},CT,xyz,chest")
    (world / "both.csv").write_text("\n".join(rows) + "\n")
    return [
        f"data={{manifest: {world / 'both.csv'}, modality: [MR, CT]}}",
        "degradation.by_modality={CT: {kind: ct_slab}}",
    ]


@pytest.fixture(scope="module")
def teachers(world: Path, both: list[str]) -> str:
    """An override that names two teachers: that of the MR scans, and one trained on CT."""
    from medsr.train import run

    ct = [f"data={{manifest: {world / 'both.csv'}, modality: CT}}", "degradation.kind=ct_slab"]
    ct += ["degradation.options={}", "name=ct", "role=teacher", "loop.steps=6"]
    folder = run(world / "tiny.yaml", ct, out=world / "ct", device="cpu", quiet=True)
    return f"teachers=[{world / 'teacher' / 'model'}, {folder}]"


class TestAssistants:
    @pytest.fixture
    def chain(self, distilling: list[str]) -> list[str]:
        first = "{name: large, network: {name: ResNet3D, options: {width: 16, blocks: 1}}}"
        second = f"{{name: small, {SMALL}, steps: 3}}"
        return [distilling[0], OUTPUT, f"assistants=[{first}, {second}]"]

    def test_each_learns_under_the_one_before(
        self, train: Callable[..., Path], tmp_path: Path, chain: list[str]
    ) -> None:
        taught: list[tuple[str, Any]] = []
        fresh = TrainState.fresh

        def watched(recipe: Any, device: Any, teacher: Any = None) -> TrainState:
            state = fresh(recipe, device, teacher)
            assert state.objective.distiller is not None
            taught.append((recipe.name, state.objective.distiller.teacher))
            return state

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainState, "fresh", staticmethod(watched))
            out = train(tmp_path / "run", *chain)
        names, networks = zip(*taught, strict=True)
        assert names == ("tiny-large", "tiny-small", "tiny")
        places = [out / "assistants" / name / "model" for name in ("1-large", "2-small")]
        for network, place in zip(networks[1:], places, strict=True):
            state = SRModel.load(place).module.state_dict()
            assert all(torch.equal(value, state[k]) for k, value in network.state_dict().items())
        large, small = (ModelSpec.read(place) for place in places)
        assert (large.network, large.role) == ("ResNet3D", "teacher")
        assert small.training["recipe"]["loop"]["steps"] == 3
        assert len(small.training["recipe"]["assistants"]) == 1

    def test_a_chain_goes_on_where_it_stopped(
        self, train: Callable[..., Path], tmp_path: Path, chain: list[str]
    ) -> None:
        whole = train(tmp_path / "whole", *chain)
        parts = tmp_path / "parts"
        for name, step in [("tiny-small", 1), ("tiny", 6)]:
            with pytest.MonkeyPatch.context() as patch:
                crash_before(patch, name, step)
                with pytest.raises(Crash):
                    train(parts, *chain)
            assert not (parts / "model").exists()
        first = parts / "assistants" / "1-large" / CHECKPOINT_FILE
        before = first.stat().st_mtime_ns
        train(parts, *chain)
        assert first.stat().st_mtime_ns == before
        for place in ("model", "assistants/1-large/model", "assistants/2-small/model"):
            assert weights(whole / place) == weights(parts / place)

    def test_what_a_later_stage_lacks_is_told_before_the_first_begins(
        self, train: Callable[..., Path], tmp_path: Path, distilling: list[str]
    ) -> None:
        for assistant, message in [
            ("{network: {name: Fog}}", r"assistants\.0\.network: network 'Fog' is unknown"),
            (f"{{{SMALL}}}", r"terms: tap 'fuse' is no submodule of the teacher RepPlain3D"),
        ]:
            with pytest.raises(RecipeError, match=message):
                train(tmp_path / "run", *distilling, f"assistants=[{assistant}]")
        assert not (tmp_path / "run").exists()


class TestTeachers:
    def test_they_are_measured_once_and_a_resumed_run_is_the_same(
        self, train: Callable[..., Path], tmp_path: Path, both: list[str], teachers: str
    ) -> None:
        overrides = [*both, teachers, OUTPUT]
        whole = train(tmp_path / "whole", *overrides)
        stored = json.loads((whole / "teachers.json").read_text())
        assert stored["mse"].keys() == {"MR/T1w", "CT/chest"}
        assert all(0 < value < 1 for row in stored["mse"].values() for value in row)
        with pytest.MonkeyPatch.context() as patch:
            crash_before(patch, "tiny", 6)
            with pytest.raises(Crash):
                train(tmp_path / "parts", *overrides)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(medsr.train.teachers, "measure", lambda *a: pytest.fail("measured"))
            parts = train(tmp_path / "parts", *overrides)
        assert weights(whole / "model") == weights(parts / "model")

    def test_other_scores_are_refused_under_a_run_that_has_begun(
        self, train: Callable[..., Path], tmp_path: Path, both: list[str], teachers: str
    ) -> None:
        overrides = [*both, teachers, OUTPUT, "loop.steps=4"]
        out = train(tmp_path / "run", *overrides)
        stored = json.loads((out / "teachers.json").read_text())
        stored["weights_sha256"][0] = "0"
        (out / "teachers.json").write_text(json.dumps(stored))
        with pytest.raises(CheckpointError, match=r"teachers .* changed .*--restart"):
            train(out, *overrides)

    def test_a_split_without_scans_and_terms_that_read_features_are_refused(
        self, train: Callable[..., Path], tmp_path: Path, teachers: str, distilling: list[str]
    ) -> None:
        with pytest.raises(CohortError, match="'nobody' holds no scan to score"):
            train(tmp_path / "a", teachers, OUTPUT, "data.validation_split=nobody")
        with pytest.raises(RecipeError, match=r"terms: several teachers .* no common features"):
            train(tmp_path / "b", teachers, distilling[1])


def test_one_student_serves_both_modalities(
    train: Callable[..., Path], tmp_path: Path, both: list[str], world: Path
) -> None:
    model = SRModel.load(train(tmp_path / "run", *both, "loop.steps=2") / "model")
    spec = model.spec
    assert spec.modalities == ("MR", "CT")
    assert spec.intensity.kind == "percentile"
    assert spec.intensity_for("CT").kind == "linear"
    assert spec.trained_degradation["by_modality"] == {"CT": {"kind": "ct_slab"}}
    assert ModelSpec.from_json(spec.to_json()) == spec
    # A network that repeats what it is given shows how values reach it.
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.zero_()
    for name in ("0", "ct0"):
        scan = medsr.load(world / f"{name}.nii.gz")
        thick = scan.replace(
            data=np.ascontiguousarray(scan.data[:, :, ::2]),
            geometry=scan.geometry.coarsen((1, 1, 2)),
        )
        for modality in ("mr", "ct"):
            kind = "CT" if modality == "ct" else "MR"
            own = thick.replace(modality=kind)
            target = choose.find_target(own.geometry, spacing=None, scale=(1, 1, 2))
            assert choose.choose([spec], own.geometry, kind, target) is spec
            result = medsr.upscale(own, model=model, scale=(1, 1, 2))
            assert not any("is for" in warning for warning in result.report["warnings"])
            np.testing.assert_allclose(result.volume.data[:, :, ::2], own.data, rtol=1e-3, atol=0.5)


def test_contrasts_choose_scans(
    train: Callable[..., Path], tmp_path: Path, both: list[str]
) -> None:
    overrides = [*both, "data.modality=MR", "loop.steps=1", "data.contrasts=[T1w]"]
    spec = ModelSpec.read(train(tmp_path / "run", *overrides) / "model")
    assert spec.training["scans"] == ["0", "1"]
    with pytest.raises(CohortError, match="holds no MR FLAIR scan in split 'train'"):
        train(tmp_path / "none", *both, "data.modality=MR", "data.contrasts=[FLAIR]")
    with pytest.raises(CohortError, match="holds no MR chest scan"):
        train(tmp_path / "none", *both, "data.contrasts=[chest]")


def test_a_student_learns_without_scans(
    train: Callable[..., Path], tmp_path: Path, world: Path, distilling: list[str]
) -> None:
    overrides = [distilling[0], OUTPUT, "losses=[]", "data={synthetic: {}, modality: MR}"]
    whole = train(tmp_path / "whole", *overrides)
    spec = ModelSpec.read(whole / "model")
    teacher = ModelSpec.read(world / "teacher" / "model")
    assert spec.training["scans"] == []
    assert spec.trained_spacing_mm == teacher.trained_spacing_mm
    with pytest.MonkeyPatch.context() as patch:
        crash_before(patch, "tiny", 6)
        with pytest.raises(Crash):
            train(tmp_path / "parts", *overrides)
    parts = train(tmp_path / "parts", *overrides)
    assert weights(whole / "model") == weights(parts / "model")


def test_scans_may_be_validated_on_where_none_is_learnt_from(
    train: Callable[..., Path], tmp_path: Path, world: Path, distilling: list[str]
) -> None:
    data = f"data={{synthetic: {{}}, modality: MR, manifest: {world / 'manifest.csv'}}}"
    out = train(tmp_path / "run", distilling[0], OUTPUT, "losses=[]", data)
    assert "validation/psnr" in (out / "log.csv").read_text()
    assert ModelSpec.read(out / "model").training["scans"] == []


def test_a_pair_is_trained_for_its_student(train: Callable[..., Path], tmp_path: Path) -> None:
    options = "{width: 32, depth: 2, student_width: 16, student_depth: 2, shared: 1}"
    term = "{name: dam, options: {student: pupil.body.1, teacher: body.1, pair: true}}"
    start = train(tmp_path / "start", "loop.steps=2")
    overrides = [
        f"network={{name: DAM3D, options: {options}, start: {start / 'model'}}}",
        f"terms=[{term}]",
        "loop.steps=4",
    ]
    out = train(tmp_path / "run", *overrides)
    student, pair = SRModel.load(out / "model"), SRModel.load(out / "pair")
    assert (student.spec.network, student.spec.role) == ("RepPlain3D", "student")
    assert (student.spec.name, student.spec.options["width"]) == ("tiny", 16)
    assert (pair.spec.network, pair.spec.role, pair.spec.name) == ("DAM3D", "teacher", "tiny-pair")
    lr = torch.rand(1, 1, 6, 6, 4)
    with torch.no_grad():
        # The pair is stored in half precision, the student is not.
        torch.testing.assert_close(student.module(lr), pair.module.pupil(lr), rtol=1e-2, atol=1e-2)
    whole = train(tmp_path / "teacher", *overrides, "role=teacher")
    assert SRModel.load(whole / "model").spec.network == "DAM3D"
    assert not (whole / "pair").exists()


def test_branches_and_peers_stay_with_the_run(train: Callable[..., Path], tmp_path: Path) -> None:
    network = "{name: RepPlain3D, options: {width: 16, depth: 2}}"
    terms = [
        f"{{name: mutual, options: {{peer: {network}}}}}",
        f"{{name: student_branches, options: {{student: {network}, taps: {{body.0: body.0}}}}}}",
    ]
    out = train(tmp_path / "run", f"terms=[{', '.join(terms)}]", "loop.steps=2")
    saved = torch.load(out / CHECKPOINT_FILE, weights_only=True)["objective"]
    assert any(".peer." in name for name in saved)
    assert any(".branches." in name for name in saved)
    plain = train(tmp_path / "plain", "loop.steps=1")
    kept = [SRModel.load(folder / "model").module.state_dict().keys() for folder in (out, plain)]
    assert kept[0] == kept[1]

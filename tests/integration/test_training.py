"""Whole training runs on tiny scans: resuming, stopping, distilling, and what is left behind."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

import medsr.train.loop
from medsr.cli.main import main
from medsr.errors import CheckpointError, MedsrError, OutputNotWritableError
from medsr.model import SRModel
from medsr.train import run
from medsr.train.checkpoint import CHECKPOINT_FILE
from medsr.train.state import TrainState

SECONDS = 600
"""How long another process may take on a busy machine."""


def nested(value: Any, path: str = "") -> dict[str, Any]:
    """Flatten dictionaries and lists into leaves by path."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {path: value}
    return {k: v for key, part in items for k, v in nested(part, f"{path}/{key}").items()}


def assert_same_checkpoint(ours: Path, theirs: Path) -> None:
    first, second = (
        nested(torch.load(folder / CHECKPOINT_FILE, weights_only=True)) for folder in (ours, theirs)
    )
    assert first.keys() == second.keys()
    for key, value in first.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, second[key]), key
        else:
            assert value == second[key], key


def log_of(folder: Path) -> list[list[str]]:
    with (folder / "log.csv").open(newline="") as file:
        return [row for row in csv.reader(file) if row[1] != "train/steps_per_second"]


class Crash(Exception):
    """Stands for whatever ends a process."""


def crash_before(monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Call ``action`` before the step of this number, counted from 0, is taken."""
    take_step = medsr.train.loop.take_step

    def wrapped(*args: Any) -> dict[str, float]:
        if args[-1].step == step:
            action()
        return take_step(*args)

    monkeypatch.setattr(medsr.train.loop, "take_step", wrapped)


def crash() -> NoReturn:
    raise Crash


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["alone", "taught", "opposed"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    train: Callable[..., Path],
    tmp_path: Path,
    distilling: list[str],
    opposed: list[str],
    precision: str,
    kind: str,
) -> None:
    chosen = {"alone": [], "taught": distilling, "opposed": opposed}[kind]
    overrides = [f"loop.precision={precision}", *chosen]
    whole = train(tmp_path / "whole", *overrides)
    with pytest.MonkeyPatch.context() as patch:
        crash_before(patch, 6, crash)  # two steps and a line of the log after the checkpoint
        with pytest.raises(Crash):
            train(tmp_path / "parts", *overrides)
    assert not (tmp_path / "parts" / "model").exists()
    parts = train(tmp_path / "parts", *overrides)
    assert_same_checkpoint(whole, parts)
    assert log_of(whole) == log_of(parts)
    weights = "model/weights.safetensors"
    assert (whole / weights).read_bytes() == (parts / weights).read_bytes()


def test_a_crash_between_checkpoint_and_validation_loses_no_line(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    whole = train(tmp_path / "whole")
    assert [row[0] for row in log_of(whole) if row[1] == "validation/psnr"] == ["4", "8"]
    real = medsr.train.loop.validate
    for number in (4, 8):
        out, turns = tmp_path / str(number), iter((4, 8))

        def late(*args: Any, turns: Any = turns, last: int = number) -> dict[str, float]:
            return crash() if next(turns) == last else real(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(medsr.train.loop, "validate", late)
            with pytest.raises(Crash):
                train(out)
        train(out)
        assert log_of(out) == log_of(whole)
        assert_same_checkpoint(out, whole)


def test_how_often_a_run_looks_does_not_change_it(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    often = train(tmp_path / "a", "loop.validate_every=1", "loop.log_every=2")
    seldom = train(tmp_path / "b", "loop.validate_every=8", "loop.checkpoint_every=1")
    first, second = (
        torch.load(folder / CHECKPOINT_FILE, weights_only=True) for folder in (often, seldom)
    )
    for key in ("objective", "ema", "random"):
        ours, theirs = nested(first[key]), nested(second[key])
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), key


def test_a_finished_run_stays_as_it_is(train: Callable[..., Path], tmp_path: Path) -> None:
    out = train(tmp_path / "run")
    log, weights = log_of(out), (out / "model" / "weights.safetensors").read_bytes()
    train(out)
    assert log_of(out) == log
    assert (out / "model" / "weights.safetensors").read_bytes() == weights


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    world: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    steps = 150
    overrides = [f"loop.steps={steps}", "loop.checkpoint_every=2", "data.validation_split=null"]
    overrides += ["patches.batch=1", "loop.log_every=10"]
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "medsr", "train", str(world / "tiny.yaml"), *overrides]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--device", "cpu", "--quiet"], env=environment()
    )
    try:
        end = time.monotonic() + SECONDS
        while not (out / CHECKPOINT_FILE).exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    saved = torch.load(out / CHECKPOINT_FILE, weights_only=True)
    assert 0 < saved["step"] < steps
    train(out, *overrides)
    whole = train(tmp_path / "whole", *overrides)
    assert_same_checkpoint(out, whole)
    assert log_of(out) == log_of(whole)
    losses = [float(value) for _, name, value in log_of(whole) if name == "train/l1"]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_leaves_with_130(
    world: Path, train: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    arguments = ["train", str(world / "tiny.yaml"), "--out", str(out), "--device", "cpu"]
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        crash_before(patch, 2, lambda: signal.raise_signal(number))
        assert main([*arguments, "--quiet"]) == 130
    assert torch.load(out / CHECKPOINT_FILE, weights_only=True)["step"] == 3
    assert not (out / "model").exists()
    assert signal.getsignal(number) is before
    train(out)
    assert_same_checkpoint(out, train(tmp_path / "whole"))


def test_a_second_ctrl_c_leaves_at_once(
    train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    crash_before(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT_FILE).exists()


def test_another_recipe_is_refused_and_restart_begins_again(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    out = train(tmp_path / "run", "loop.steps=2")
    with pytest.raises(CheckpointError, match=r"another recipe.*--restart"):
        train(out, "seed=1", "loop.steps=2")
    with pytest.MonkeyPatch.context() as patch:
        crash_before(patch, 1, crash)
        with pytest.raises(Crash):
            train(out, "seed=1", "loop.steps=2", resume=False)
    # Whoever restarts and is cut off must not go on from what was given up.
    assert not (out / CHECKPOINT_FILE).exists()
    train(out, "seed=1", "loop.steps=2")
    assert_same_checkpoint(out, train(tmp_path / "fresh", "seed=1", "loop.steps=2"))


def test_nothing_is_loaded_for_a_recipe_that_cannot_work(
    world: Path, train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medsr.train.loop, "load_cohort", lambda recipe: crash())
    for override, message in [
        ("degradation.kind=fog", r"recipe: degradation: degradation 'fog' is unknown"),
        ("degradation.options.fog=1", r"recipe: degradation: .*fog"),
        ("network.name=Fog", r"recipe: network: network 'Fog' is unknown"),
        ("network.options.fog=1", r"recipe: network: .*fog"),
        ("losses=[{name: fog}]", r"recipe: losses\.0: loss 'fog' is unknown"),
    ]:
        with pytest.raises(MedsrError, match=message) as caught:
            train(tmp_path / "run", override)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_an_error_and_saves_nothing_broken(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(MedsrError, match=r"not finite at step \d.*learning_rate"):
        train(tmp_path / "run", "optimiser.learning_rate=1e30", "loop.checkpoint_every=1")
    saved = nested(torch.load(tmp_path / "run" / CHECKPOINT_FILE, weights_only=True)["objective"])
    assert all(value.isfinite().all() for value in saved.values())
    assert not (tmp_path / "run" / "model").exists()


def test_a_run_folder_that_cannot_be_made_is_an_error(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputNotWritableError, match="run folder"):
        train(tmp_path / "file")


def test_a_terminal_alone_gets_a_progress_bar(
    train: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    train(tmp_path / "run", "loop.steps=2")
    out, err = capfd.readouterr()
    assert out == ""
    assert "training" not in err
    assert "\x1b" not in err


def test_distillation_changes_the_student_alone(
    world: Path, tmp_path: Path, distilling: list[str], train: Callable[..., Path]
) -> None:
    states: list[TrainState] = []
    fresh = TrainState.fresh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            TrainState, "fresh", staticmethod(lambda *a: states.append(fresh(*a)) or states[-1])
        )
        out = train(tmp_path / "run", *distilling)
    (state,) = states
    distiller = state.objective.distiller
    assert distiller is not None

    teacher = distiller.teacher
    before = SRModel.load(world / "teacher" / "model").module.state_dict()
    assert before.keys() == teacher.state_dict().keys()
    assert all(torch.equal(value, before[k]) for k, value in teacher.state_dict().items())
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())

    saved = torch.load(out / CHECKPOINT_FILE, weights_only=True)
    student = {f"distiller.student.{name}" for name in state.objective.network.state_dict()}
    extra = saved["objective"].keys() - student
    assert extra == {
        "distiller.terms.feature.projection.weight",
        "distiller.terms.feature.projection.bias",
    }
    assert saved["ema"].keys() == state.objective.network.state_dict().keys()

    model = SRModel.load(out / "model")
    assert set(model.module.state_dict()) == set(state.averaged().state_dict())
    assert not any("projection" in name for name in model.module.state_dict())
    scan = torch.rand(1, 1, 7, 6, 5)
    with torch.no_grad():
        assert torch.equal(model.module(scan), state.averaged()(scan))
    names = {row[1] for row in log_of(out)}
    assert {"train/l1", "train/distill_output", "train/distill_feature"} <= names


def test_the_model_says_where_it_comes_from(world: Path, train: Callable[..., Path]) -> None:
    student = SRModel.load(train(world / "student", "loop.steps=1") / "model")
    spec = student.spec
    assert (spec.name, spec.role, spec.scale, spec.modality) == ("tiny", "student", (1, 1, 2), "MR")
    assert spec.options == {"width": 16, "depth": 2, "branches": False}
    assert spec.parameters == sum(p.numel() for p in student.module.parameters())
    assert spec.halo == student.module.halo
    # Scan 0 turns x and y to the slice axis, scan 1 all three; slices are twice as thick.
    assert spec.trained_spacing_mm.in_plane == (0.9, 1.1)
    assert spec.trained_spacing_mm.slice == (1.8, 2.2)
    assert spec.training["patients"] == 2
    assert spec.training["scans"] == ["0", "1"]
    teacher = world / "teacher" / "model" / "weights.safetensors"
    spec = SRModel.load(teacher.parent).spec
    assert spec.role == "teacher"
    assert teacher.stat().st_size < 3 * spec.parameters  # half precision: two bytes each


@pytest.mark.slow
def test_two_processes_share_the_work(world: Path, tmp_path: Path) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("needs torch.distributed with gloo, which this build of torch lacks")
    out = tmp_path / "pair"
    command = [sys.executable, "-m", "medsr", "train", str(world / "tiny.yaml"), "loop.steps=2"]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--device", "cpu", "--devices", "2"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # so that the second process can be ended with the first
    )
    try:
        told, complaints = process.communicate(timeout=SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, complaints[-2000:]
    assert told.count("model folder:") == 1
    pair = torch.load(out / CHECKPOINT_FILE, weights_only=True)
    assert pair["step"] == 2
    assert SRModel.load(out / "model").spec.name == "tiny"
    alone = run(
        world / "tiny.yaml", ["loop.steps=2"], out=tmp_path / "alone", device="cpu", quiet=True
    )
    one = torch.load(alone.parent / CHECKPOINT_FILE, weights_only=True)["objective"]
    # The second process brought patches of its own.
    assert any(not torch.equal(value, pair["objective"][name]) for name, value in one.items())

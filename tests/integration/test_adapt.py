"""Adapting a model end to end: learning, checking, resuming, and what is left behind."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
import pytest
import torch

import medsr.train.loop
from medsr.cli.main import main
from medsr.errors import CohortError, OutputExistsError, RecipeError
from medsr.model import SRModel
from medsr.train.adapt import Adapted, adapt

SMALL = ("loop.precision=fp32", "loop.log_every=5", "loop.checkpoint_every=5")


@pytest.fixture(scope="module")
def base(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained model."""
    from medsr.train import run

    out = tmp_path_factory.mktemp("base")
    changes = ["name=base", "loop.steps=30", "loop.log_every=30", "loop.validate_every=30"]
    return run(world / "tiny.yaml", changes, out=out, device="cpu", quiet=True)


def write_cohort(folder: Path, splits: list[str]) -> Path:
    """Scans of a scanner with a contrast of its own: the squared intensities of the others."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, 22),) * 3, indexing="ij"))
    rows = ["path,split,patient_id,modality"]
    for number, split in enumerate(splits):
        waves = np.sin((9 + number) * grid[2]) + np.cos((6 + number) * grid[0] * grid[1])
        data = np.where((grid**2).sum(0) < 0.9, (600 + 150 * waves) ** 2 / 900, 0)
        image = nib.Nifti1Image(data.astype(np.int16), np.diag([1.2, 1.2, 1.2, 1.0]))
        nib.save(image, folder / f"scan{number}.nii.gz")
        rows.append(f"scan{number}.nii.gz,{split},SECRET{number},MR")
    path = folder / "scanner.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with a split to check on."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), ["train", "train", "dev"])


@pytest.fixture
def adapting(base: Path, cohort: Path) -> Callable[..., Adapted]:
    """Adapt the tiny model for 20 steps on the CPU."""

    def call(out: Path, *overrides: str, manifest: Path = cohort, **options: Any) -> Adapted:
        options = {"steps": 20, "rank": 2, "device": "cpu", "quiet": True} | options
        return adapt(base, manifest, [*SMALL, *overrides], out=out, **options)

    return call


def losses(run: Path) -> list[float]:
    with (run / "log.csv").open(newline="") as file:
        return [float(r[2]) for r in csv.reader(file) if r[1] == "train/charbonnier"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_adapted_model_is_an_ordinary_one(
    adapting: Callable[..., Adapted], base: Path, tmp_path: Path
) -> None:
    before = files(base)
    adapted = adapting(tmp_path / "run", "optimiser.learning_rate=0.005", steps=60)
    assert files(base) == before
    found = losses(tmp_path / "run")
    assert np.mean(found[-3:]) < np.mean(found[:3])

    old, new = SRModel.load(base), SRModel.load(adapted.folder)
    assert new.spec == adapted.spec
    assert (new.spec.name, new.spec.network) == ("base-adapted", old.spec.network)
    assert (new.spec.options, new.spec.scale) == (old.spec.options, old.spec.scale)
    assert new.spec.parameters == old.spec.parameters
    assert new.spec.training["adapted_from"] == {
        "name": "base",
        "version": old.spec.version,
        "weights_sha256": old.weight_hash,
        "scans": ["0", "1"],
        "rank": 2,
    }
    assert new.spec.training["scans"] == ["scan0", "scan1"]
    ours, theirs = new.spec.trained_spacing_mm, old.spec.trained_spacing_mm
    assert ours.in_plane == (theirs.in_plane[0], 1.2)
    # Every kernel moved by a matrix of the adapters' rank, and nothing else moved.
    values = new.module.state_dict()
    for name, value in old.module.state_dict().items():
        if name.endswith("weight"):
            change = (values[name] - value).flatten(1).double()
            size = torch.linalg.svdvals(change)
            assert size[0] > 1e-4, name
            assert (size[2:] < 1e-3 * size[0]).all(), name
        else:
            assert torch.equal(values[name], value), name


def test_the_check_on_held_out_scans_is_what_the_models_score(
    adapting: Callable[..., Adapted], tmp_path: Path
) -> None:
    adapted = adapting(tmp_path / "run")
    found = adapted.held_out
    assert found is not None
    assert len(found.before) == len(found.after) == 1
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        logged = [float(r[2]) for r in csv.reader(file) if r[1] == "validation/psnr"]
    assert found.after[0] == pytest.approx(logged[-1], abs=1e-3)
    stored = adapted.spec.training["held_out"]
    assert stored["psnr_gain"] == pytest.approx(found.after[0] - found.before[0], abs=1e-4)
    assert f"{found.gain:+.2f} dB on 1 held-out" in adapted.spec.description
    assert (found.gain > 0) == ("no better" not in adapted.spec.description)


def test_the_command_says_so_when_nothing_was_gained(
    base: Path,
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = f"--cohort {cohort} --out {tmp_path / 'run'} --steps 3 --device cpu"
    # A step size that ruins any model.
    ruin = ["optimiser.learning_rate=0.5", "optimiser.warmup_steps=0", "optimiser.ema_decay=0"]
    assert main(["adapt", str(base), *options.split(), *ruin, *SMALL]) == 0
    said = capsys.readouterr()
    assert "not better than base on held-out scans" in " ".join(said.err.split())
    assert "better on 0 of 1" in said.out
    assert "learnt from 2 scans of 2 patients" in said.out
    assert "SECRET" not in said.out + said.err
    spec = json.loads((tmp_path / "run" / "model" / "spec.json").read_text())
    assert "no better than base" in spec["description"]

    thick = tmp_path / "thick.nii.gz"
    data = np.random.default_rng(0).integers(0, 900, (16, 14, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([1.2, 1.2, 2.4, 1.0])), thick)
    out = tmp_path / "fine.nii.gz"
    words = ["upscale", str(thick), str(out), "--model", str(tmp_path / "run" / "model")]
    assert main([*words, "--modality", "mr", "--device", "cpu"]) == 0
    assert nib.load(out).shape == (16, 14, 12)


def test_a_resumed_adaptation_equals_an_uninterrupted_one(
    adapting: Callable[..., Adapted], tmp_path: Path
) -> None:
    whole = adapting(tmp_path / "whole")

    class Crash(Exception):
        pass

    real = medsr.train.loop.take_step

    def crashing(*args: Any) -> dict[str, float]:
        if args[-1].step == 12:
            crash()
        return real(*args)

    def crash() -> NoReturn:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medsr.train.loop, "take_step", crashing)
        with pytest.raises(Crash):
            adapting(tmp_path / "parts")
    parts = adapting(tmp_path / "parts")
    assert files(parts.folder)["weights.safetensors"] == files(whole.folder)["weights.safetensors"]
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert parts.held_out == whole.held_out


@pytest.mark.parametrize(("patients", "kept"), [(3, True), (2, False)])
def test_without_a_split_to_check_on_a_patient_is_kept_back_where_one_can_be_spared(
    adapting: Callable[..., Adapted],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    patients: int,
    kept: bool,
) -> None:
    manifest = write_cohort(tmp_path, ["train"] * patients)
    with caplog.at_level("INFO", logger="medsr"):
        adapted = adapting(tmp_path / "run", manifest=manifest, steps=2)
    assert (adapted.held_out is not None) == kept
    assert adapted.spec.training["scans"] == ["scan0", "scan1"]
    assert ("kept back" in caplog.text) == kept
    assert ("nobody will know" in caplog.text) == (not kept)
    assert ("never checked" in adapted.spec.description) == (not kept)
    assert "SECRET" not in caplog.text


def test_a_split_to_check_on_can_be_chosen(
    adapting: Callable[..., Adapted], tmp_path: Path
) -> None:
    manifest = write_cohort(tmp_path, ["train", "site", "dev", "dev"])
    chosen = adapting(tmp_path / "a", manifest=manifest, steps=1, held_out="site").held_out
    default = adapting(tmp_path / "b", manifest=manifest, steps=1).held_out
    assert chosen is not None
    assert default is not None
    assert (len(chosen.before), len(default.before)) == (1, 2)
    with pytest.raises(CohortError, match="'train', apart from those learnt from"):
        adapting(tmp_path / "c", manifest=manifest, held_out="train")


def test_the_base_is_not_overwritten(
    adapting: Callable[..., Adapted], base: Path, tmp_path: Path
) -> None:
    before = files(base)
    with pytest.raises(OutputExistsError, match="would replace the one that it starts from"):
        adapting(base.parent)
    with pytest.raises(RecipeError, match="write it as key=value"):
        adapting(tmp_path / "run", "patches")
    assert files(base) == before


def test_a_model_for_several_modalities_is_adapted_to_its_own(
    base: Path, cohort: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(base, both)
    spec = json.loads((both / "spec.json").read_text())
    spec["trained_degradation"]["by_modality"] = {"CT": {"kind": "ct_slab", "thickness": 1.1}}
    (both / "spec.json").write_text(json.dumps(spec))
    adapted = adapt(both, cohort, SMALL, steps=1, out=tmp_path / "run", device="cpu", quiet=True)
    recipe = adapted.spec.training["recipe"]
    assert recipe["data"]["modality"] == "MR"
    assert recipe["degradation"]["options"] == {"noise": [0.0, 0.02]}
    other = {"kind": "ct_slab", "options": {"thickness": 1.1}}
    assert recipe["degradation"]["by_modality"] == {"CT": other}
    assert adapted.held_out is not None

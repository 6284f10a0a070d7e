"""Fixtures of the training tests: three tiny scans with their manifest, a recipe, a teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml


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

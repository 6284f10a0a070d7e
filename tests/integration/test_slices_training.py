"""A network for slices of any kind is trained, and validated at several ratios."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

import medsr
from medsr.model import SRModel
from medsr.networks import KnotPlain3D
from medsr.recipe import Recipe, recipe_from_dict
from medsr.train import run


def _recipe(folder: Path, steps: int, **more: object) -> Recipe:
    x, y, z = np.mgrid[-1:1:40j, -1:1:40j, -1:1:72j]
    rows = ["path,split,patient_id,modality,contrast,sharp_axes"]
    for number in range(2):
        waves = 1 + np.sin(9 * x * (1 + number)) * np.cos(11 * y) * np.sin(25 * z)
        data = (500 * waves * (x**2 + y**2 < 0.9)).astype(np.float32)
        grid = medsr.Geometry(data.shape, np.diag([1.0, 1.0, 1.0, 1.0]))
        medsr.save(medsr.Volume(data, grid, "MR"), folder / f"p{number}.nii.gz", overwrite=True)
        rows.append(f"p{number}.nii.gz,{('train', 'dev')[number]},p{number},MR,T1w,xyz")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return recipe_from_dict(
        {
            "name": "any",
            "data": {"manifest": str(folder / "cohort.csv"), "modality": "MR"},
            "degradation": {
                "kind": "slices",
                "factor": [1, 1, 9],
                "options": {"ratio": [1.5, 4.0], "noise": [0.0, 0.02]},
            },
            "network": {"name": "KnotPlain3D", "options": {"width": 16, "depth": 2}, **more},
            "losses": [{"name": "charbonnier"}],
            "patches": {"size": [16, 16, 6], "batch": 2},
            "loop": {"steps": steps, "precision": "fp32", "validate_every": 4, "log_every": 1},
        }
    )


def test_training_is_validated_by_ratio_and_says_what_it_saw(tmp_path: Path) -> None:
    model = SRModel.load(run(_recipe(tmp_path, 4), out=tmp_path / "run", device="cpu", quiet=True))
    assert isinstance(model.module, KnotPlain3D)
    assert model.spec.scale == (1, 1, 9)
    assert model.spec.trained_spacing_mm.slice == (1.5, 4.0)
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    gains = {row["name"] for row in rows if row["name"].startswith("validation/")}
    assert gains == {f"validation/gain_{ratio}" for ratio in ("2", "3", "4", "5.5", "8")}


def test_a_model_of_a_whole_factor_is_a_start(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 4, options={"width": 32, "depth": 8}, start="mr-z4")
    whole = run(recipe, out=tmp_path / "whole", device="cpu", quiet=True)
    started = SRModel.load(whole)
    fresh = SRModel.load("mr-z4")
    lr = torch.rand(1, 1, 12, 12, 6)
    told = started.module.told(torch.zeros(8))(lr)[..., 4::9]  # type: ignore[operator]
    middle = fresh.module(lr).reshape(1, 1, 12, 12, 6, 4)[..., 1:3].mean(-1)
    assert (told - middle).abs().mean() < 0.05

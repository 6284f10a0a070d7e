"""The comparison of compressions: its rows, its numbers, its resuming, its table and picture."""

from __future__ import annotations

import json
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from medsr.benchmark import compression, compression_report
from medsr.benchmark.compression_models import Settings, Variant, Workshop, variants
from medsr.benchmark.measure import DevScans, cost, summarise
from medsr.errors import MissingExtraError, UsageError
from medsr.evaluate.cohort import evaluate
from medsr.evaluate.plan import Plan
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network

RECIPE = {
    "name": "tiny",
    "data": {"manifest": "elsewhere.csv", "modality": "MR", "validation_size": [24, 24, 24]},
    "degradation": {"kind": "slice_profile", "factor": [1, 1, 2]},
    "network": {"name": "RepPlain3D", "options": {"depth": 1, "branches": ["identity"]}},
    "patches": {"size": [8, 8, 4], "batch": 1},
    "loop": {"steps": 5, "precision": "fp32"},
}


def save(folder: Path, *, width: int = 16, role: Any = "student", **training: Any) -> Path:
    torch.manual_seed(width)
    network = build_network("RepPlain3D", (1, 1, 2), width=width, depth=1, branches=False).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    spec = ModelSpec(
        name=folder.name,
        version="1",
        network="RepPlain3D",
        options={"width": width, "depth": 1, "branches": False},
        scale=(1, 1, 2),
        modality="MR",
        role=role,
        intensity=Intensity.for_modality("MR"),
        halo=network.halo,
        multiple_of=network.multiple_of,
        trained_spacing_mm=SpacingRange((0.5, 1.5), (1.0, 4.0)),
        trained_degradation={"kind": "slice_profile", "factor": [1, 1, 2], "thickness": 1.0},
        parameters=sum(p.numel() for p in network.parameters()),
        training=training,
        description="random weights",
    )
    return SRModel(network, spec).save(folder)


@pytest.fixture
def cohort(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Path:
    rows = ["path,split,patient_id,modality,sharp_axes"]
    for name, split, axes in (("a", "train", "xyz"), ("b", "dev", "z"), ("c", "dev", "z")):
        data = phantom if name != "c" else phantom[::-1]
        image = nib.Nifti1Image(data[:28, :26, :24].astype(np.int16), np.eye(4))
        nib.save(image, tmp_path / f"{name}.nii.gz")
        rows.append(f"{name}.nii.gz,{split},{name},MR,{axes}")
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def settings(cohort: Path, tmp_path: Path) -> Settings:
    return Settings(
        cohort=cohort, work=tmp_path / "work", steps=1, shape=(8, 8, 8), runs=2, precision="fp32"
    )


def test_the_rows_are_every_way_and_their_combination() -> None:
    rows = variants("t", ["s"], {"t": 32, "s": None})
    assert [row.label for row in rows] == [
        "t",
        "t, int8",
        "t, width 32",
        "t, width 32, trained on",
        "t, width 32, distilled",
        "t, width 32, distilled, int8",
        "s",
        "s, int8",
    ]
    assert [row.role for row in rows] == ["teacher"] * 6 + ["student"] * 2


def test_gains_are_those_of_the_evaluation(cohort: Path, tmp_path: Path) -> None:
    model = SRModel.load(save(tmp_path / "model"))
    scans = DevScans(cohort, model.spec)
    found = {gain.scan_id: gain for gain in scans.gains(model, precision="fp32")}
    plan = Plan(
        cohort,
        split="dev",
        scale=(1, 1, 2),
        models=[tmp_path / "model"],
        baselines=("bspline",),
        parts=(),
        precision="fp32",
    )
    results = evaluate(plan)
    wanted = [row for row in results.rows() if row["method"] == "model"]
    assert len(wanted) == len(found) == 2
    for row in wanted:
        assert found[row["scan_id"]].gain == pytest.approx(row["psnr_gain"], abs=1e-6)
        assert found[row["scan_id"]].psnr == pytest.approx(row["psnr"], abs=1e-6)
    summary = summarise(list(found.values()))
    values = [row["psnr_gain"] for row in wanted]
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["std"] == pytest.approx(np.std(values, ddof=1))


def test_costs_are_counted(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    found = cost(SRModel.load(folder), folder, shape=(8, 7, 6), runs=3)
    # Head 1 to 16, body 16 to 16, tail 16 to 2 channels, 27 taps each, for two voxels out of one.
    assert found.macs_per_voxel == 27 * (16 + 256 + 32) / 2
    assert found.parameters == 27 * (16 + 256 + 32) + 16 + 16 + 2
    assert found.file_bytes == (folder / "weights.safetensors").stat().st_size
    assert len(found.seconds) == 3
    assert min(found.seconds) > 0
    plain = found.to_dict()
    assert plain["seconds_range"][0] <= plain["median_seconds"] <= plain["seconds_range"][1]


def test_scores_on_the_training_split_are_refused(cohort: Path, tmp_path: Path) -> None:
    model = SRModel.load(save(tmp_path / "model"))
    with pytest.raises(UsageError, match="split train"):
        DevScans(cohort, model.spec, split="train")
    assert len(DevScans(cohort, model.spec, limit=1)) == 1


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("openvino", "nncf")),
    reason="needs openvino and nncf (extra 'compress')",
)
def test_a_stopped_run_goes_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Width 16 cannot be pruned, so nothing is trained here."""
    arguments = (save(tmp_path / "big", role="teacher"), [save(tmp_path / "small")])
    out = tmp_path / "out.json"
    measured: list[str] = []

    def costs(model: SRModel, *args: Any, **options: Any) -> Any:
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(model.spec.name)
        return cost(model, *args, **options)

    monkeypatch.setattr(compression, "cost", costs)
    with pytest.raises(KeyboardInterrupt):
        compression.run(*arguments, out, settings)
    labels = [row["label"] for row in json.loads(out.read_text())["rows"]]
    assert labels == ["big", "big, int8", "small"]
    measured.clear()
    told: list[str] = []
    results = compression.run(
        *arguments, out, settings, progress=lambda done, total, what: told.append(what)
    )
    assert measured == ["small-int8"]
    assert told == ["big", "big, int8", "small", "small, int8", "done"]
    assert json.loads(out.read_text()) == json.loads(json.dumps(results))
    assert all(math.isfinite(row["gain"]["mean"]) for row in results["rows"])
    assert str(tmp_path) not in out.read_text()


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch_pruning", "lightning_fabric")),
    reason="needs torch-pruning and lightning-fabric (extras 'compress' and 'train')",
)
def test_a_pruned_model_is_distilled_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "big", width=32, role="teacher", recipe=RECIPE)
    workshop = Workshop(settings, "big", {"big": folder})
    variant = Variant("big", "teacher", 16, "distilled")
    model, made = workshop.make(variant)
    recipe = model.spec.training["recipe"]
    assert model.spec.options == {"width": 16, "depth": 1, "branches": False}
    assert recipe["teacher"] == str(folder)
    assert recipe["terms"][0]["name"] == "output"
    assert recipe["loop"]["steps"] == 1
    monkeypatch.delattr("medsr.benchmark.compression_models.train")
    again, same = workshop.make(variant)
    assert same == made
    assert again.weight_hash == model.weight_hash


def test_a_key_tells_what_a_row_depends_on(settings: Settings, tmp_path: Path) -> None:
    folder = save(tmp_path / "big", width=32, role="teacher", recipe=RECIPE)
    workshop = Workshop(settings, "big", {"big": folder})
    rows = variants("big", [], {"big": 16})
    assert len({workshop.key(row) for row in rows}) == len(rows)
    assert workshop.key(rows[0]) == workshop.key(rows[0])
    settings.cohort.write_text(settings.cohort.read_text() + "\n", encoding="utf-8")
    assert workshop.key(rows[0]) != Workshop(settings, "big", {"big": folder}).key(rows[1])


def test_a_model_without_recipe_asks_for_one(settings: Settings, tmp_path: Path) -> None:
    teacher = save(tmp_path / "big", width=32, role="teacher")
    with pytest.raises(UsageError, match="--recipe"):
        compression.run(teacher, [], tmp_path / "out.json", settings)
    assert not (tmp_path / "out.json").exists()


def test_a_file_of_something_else_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text('{"benchmark": "networks"}')
    with pytest.raises(UsageError, match="no result of this benchmark"):
        compression.run(save(tmp_path / "big"), [], out, settings)
    assert out.read_text() == '{"benchmark": "networks"}'


@pytest.fixture
def results() -> dict[str, Any]:
    def row(label: str, gain: float, std: float | None, **more: Any) -> dict[str, Any]:
        return {
            "label": label,
            "role": "student",
            "width": None,
            "training": "none",
            "int8": False,
            "parameters": 225796,
            "macs_per_voxel": 56e3,
            "file_bytes": 907264,
            "median_seconds": 1.25,
            "seconds_range": [1.2, 1.5],
            "gain": {"mean": gain, "std": std},
            **more,
        }

    return {"rows": [row("s", 2.5, 0.31), row("s, int8", 2.4, None, int8=True, file_bytes=3.1e5)]}


def test_the_table_says_what_the_results_hold(results: dict[str, Any]) -> None:
    lines = compression_report.table(results).splitlines()
    assert lines[2] == "| s | +2.50 ± 0.31 | 226 K | 56 K | 1.25 (1.2 … 1.5) | 907 K |"
    assert lines[3] == "| s, int8 | +2.40 | 226 K | 56 K | 1.25 (1.2 … 1.5) | 310 K |"


def test_the_picture_is_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra 'report')")
    from PIL import Image

    path = compression_report.plot(results, tmp_path / "picture.png")
    with Image.open(path) as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2


def test_a_missing_matplotlib_names_the_extra(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"medsr\[report\]"):
        compression_report.plot(results, tmp_path / "picture.png")

"""The commands do what their options say, on small synthetic scans."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner, Result

from medsr import zoo
from medsr.cli import app
from medsr.cli.main import main
from medsr.degrade import build_degradation, degrade_volume
from medsr.errors import (
    OutputExistsError,
    OutputFormatError,
    OutputNotWritableError,
    RecipeError,
    UsageError,
)
from medsr.io import load

AFFINE = np.array(
    [[-0.9, 0.0, 0.0, 40.0], [0.0, 0.9, 0.0, -30.0], [0.0, 0.0, 0.9, 12.0], [0.0, 0.0, 0.0, 1.0]]
)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.fixture
def sharp(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Path:
    """An isotropic int16 scan of 40 x 36 x 32 voxels."""
    path = tmp_path / "sharp.nii.gz"
    nib.save(nib.Nifti1Image(phantom.astype(np.int16), AFFINE), path)
    return path


@pytest.fixture
def thick(tmp_path: Path, phantom: npt.NDArray[np.float32]) -> Path:
    """The same with 3.6 mm slices along its first axis, as a sagittal scan stores them."""
    path = tmp_path / "thick.nii.gz"
    data = phantom.reshape(10, 4, 36, 32).mean(axis=1)
    affine = AFFINE @ np.diag([4.0, 1.0, 1.0, 1.0])
    nib.save(nib.Nifti1Image(data.astype(np.int16), affine), path)
    return path


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    """A folder with a small untrained model for thick MR slices."""
    return tiny_model()


def test_upscale_writes_scan_report_and_picture(thick: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "fine.nii.gz"
    result = call(
        *("upscale", thick, output, "--model", model, "--modality", "MR"),
        *("--scale", "1,1,4", "--precision", "fp32"),
        *("--report", tmp_path / "report.json", "--preview", tmp_path / "picture.png"),
    )
    assert result.exception is None
    assert "3.6 x 0.9 x 0.9 -> 0.9 x 0.9 x 0.9 mm" in result.output
    assert "tiny" in result.output
    image = nib.load(output)
    assert image.shape == (40, 36, 32)
    assert image.get_data_dtype() == np.int16
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["model"]["name"] == "tiny"
    assert str(thick.name) not in json.dumps(report)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_upscale_quiet_says_nothing(thick: Path, model: Path, tmp_path: Path) -> None:
    result = call("upscale", thick, tmp_path / "fine.nii", "--model", model, "--quiet")
    assert result.exception is None
    assert result.output == ""
    assert (tmp_path / "fine.nii").is_file()


def test_upscale_refuses_an_existing_output_and_leaves_it(
    thick: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "fine.nii.gz"
    output.write_bytes(b"older")
    code = main(["upscale", str(thick), str(output), "--model", str(model)])
    assert code == OutputExistsError.exit_code
    assert output.read_bytes() == b"older"
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fine.nii.gz", "thick.nii.gz"]


def test_inspect_prints_facts_and_json(thick: Path) -> None:
    text = call("inspect", thick)
    assert "10 x 36 x 32" in text.output
    assert "int16" in text.output
    facts = json.loads(call("inspect", thick, "--json", "--range").output)
    assert facts["shape"] == [10, 36, 32]
    assert facts["slice_axis"] == 0
    assert facts["modality"] == "MR"
    data = np.asanyarray(nib.load(thick).dataobj)
    assert facts["value_range"] == [float(data.min()), float(data.max())]


def test_models_lists_specs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "ROOT", model.parent)
    lines = call("models").output.splitlines()
    assert lines[1].split()[:2] == ["tiny", "MR"]
    told = "random weights, for tests; trained on MR of a region that it does not tell."
    assert lines[-1] == f"tiny: {told}"
    (spec,) = json.loads(call("models", "--json").output)
    assert (spec["name"], spec["scale"]) == ("tiny", [1, 1, 4])
    monkeypatch.setattr(zoo, "ROOT", model)
    assert "no models ship" in call("models").output
    assert json.loads(call("models", "--json").output) == []


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_degrade_equals_the_library_along_any_axis(sharp: Path, tmp_path: Path, axis: str) -> None:
    output = tmp_path / "low.nii.gz"
    result = call(
        "degrade", sharp, output, "--scale", "1,1,4", "--kind", "slice_profile", "--axis", axis
    )
    assert result.exception is None
    index = "xyz".index(axis)
    order = [i for i in range(3) if i != index] + [index]
    volume = load(sharp, modality="MR")
    expected = degrade_volume(
        volume.permute(order), build_degradation("slice_profile", (1, 1, 4))
    ).permute(np.argsort(order).tolist())
    written = load(output, modality="MR")
    assert written.geometry.same_grid(expected.geometry)
    assert written.spacing[index] == pytest.approx(3.6)
    np.testing.assert_allclose(written.data, expected.data, atol=0.51)


def test_degrade_takes_kinds_from_elsewhere(
    sharp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry_points(*, group: str) -> tuple[EntryPoint, ...]:
        assert group == "medsr.degradations"
        return (EntryPoint("mine", "medsr.degrade.ct_slab:CTSlab", group),)

    monkeypatch.setattr("medsr.plugins.entry_points", entry_points)
    outputs = tmp_path / "mine.nii", tmp_path / "slab.nii"
    for kind, output in zip(("mine", "ct_slab"), outputs, strict=True):
        assert call("degrade", sharp, output, "--scale", "1,1,2", "--kind", kind).exception is None
    mine, slab = (np.asanyarray(nib.load(output).dataobj) for output in outputs)
    np.testing.assert_array_equal(mine, slab)
    unknown = call("degrade", sharp, tmp_path / "c.nii", "--scale", "1,1,2", "--kind", "other")
    assert isinstance(unknown.exception, UsageError)
    assert "mine" in str(unknown.exception)


def test_degrade_refuses_an_output_before_it_reads(tmp_path: Path) -> None:
    (tmp_path / "there.nii").write_bytes(b"older")
    for name, error in (
        ("there.nii", OutputExistsError),
        ("a.png", OutputFormatError),
        ("no/a.nii", OutputNotWritableError),
    ):
        options = ("--scale", "1,1,2", "--kind", "kspace")
        done = call("degrade", tmp_path / "absent.nii", tmp_path / name, *options)
        assert isinstance(done.exception, error)


def test_degrade_noise_depends_on_the_seed_alone(sharp: Path, tmp_path: Path) -> None:
    def noisy(name: str, seed: str) -> npt.NDArray[Any]:
        options = ("--scale", "2,2,2", "--kind", "kspace", "--noise", "30", "--seed", seed)
        assert call("degrade", sharp, tmp_path / name, *options, "--quiet").exception is None
        return np.asanyarray(nib.load(tmp_path / name).dataobj)

    first, again, other = noisy("a.nii", "1"), noisy("b.nii", "1"), noisy("c.nii", "2")
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 5


def test_evaluate_writes_results(sharp: Path, model: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(
        "path,split,patient_id,modality,sharp_axes\nsharp.nii.gz,dev,p1,MR,yz\n", encoding="utf-8"
    )
    options = ("--cohort", manifest, "--split", "dev", "--scale", "1,1,4", "--out", tmp_path / "o")
    result = call("evaluate", "--model", model, *options)
    assert result.exception is None
    assert "bspline" in result.output
    content = json.loads((tmp_path / "o" / "results.json").read_text(encoding="utf-8"))
    assert {row["axis"] for row in content["scans"]} == {"y", "z"}
    assert content["summary"].keys() == {"nearest", "linear", "bspline", "lanczos", "tv", "tiny"}
    assert "the one patient scored" in result.output
    assert "tiny" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert isinstance(call("evaluate", *options).exception, OutputExistsError)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--method", "other"), "NAME=DIR"),
        (("--method", "linear=."), "taken"),
        (("--baselines", "cubic"), "'cubic' is unknown"),
        (("--parts", "lesion"), "'lesion' is unknown"),
        (("--margin", "-1"), "zero or more"),
        (("--margin", "nan"), "zero or more"),
        (("--margin", "inf"), "zero or more"),
        (("--pairs",), "leave them out"),
        (("--pdf", "--no-report"), "leave out --no-report"),
    ],
)
def test_evaluate_refuses_wrong_options_and_leaves_nothing(
    wrong: tuple[str, ...], words: str, sharp: Path, tmp_path: Path
) -> None:
    (tmp_path / "cohort.csv").write_text(
        "path,split,patient_id,modality\nsharp.nii.gz,dev,p1,MR\n", encoding="utf-8"
    )
    options = ("--cohort", tmp_path / "cohort.csv", "--split", "dev", "--scale", "1,1,4")
    done = call("evaluate", *options, *wrong, "--out", tmp_path / "o")
    assert isinstance(done.exception, UsageError)
    assert words in str(done.exception)
    assert not (tmp_path / "o").exists()


RECIPE = """
name: student
data: {manifest: cohort.csv, modality: MR}
degradation: {kind: slice_profile, factor: [1, 1, 4]}
network: {name: RepPlain3D}
"""
DISTILLED = RECIPE + "teacher: big\nterms: [{name: output}]\n"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Record what the training loop is asked for instead of training."""
    pytest.importorskip("lightning_fabric", reason="training needs the extra `train`")
    asked: list[dict[str, Any]] = []

    def run(recipe: Path, overrides: list[str], **options: Any) -> Path:
        asked.append({"recipe": recipe, "overrides": overrides, **options})
        return Path("runs/student/model")

    monkeypatch.setattr("medsr.train.run", run)
    return asked


@pytest.mark.parametrize(("command", "text"), [("train", RECIPE), ("distill", DISTILLED)])
def test_recipes_reach_the_loop(
    command: str, text: str, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    result = call(command, recipe, "loop.steps=3", "--restart", "--out", tmp_path / "run")
    assert result.exception is None
    (asked,) = runs
    assert asked["recipe"] == recipe
    assert asked["overrides"] == ["loop.steps=3"]
    assert asked["out"] == tmp_path / "run"
    assert asked["resume"] is False
    call(command, recipe, "--quiet")
    assert runs[1]["resume"] is True
    assert runs[1]["quiet"] is True


def test_train_and_distill_refuse_each_others_recipes(
    tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    wrong = call("distill", recipe).exception
    assert isinstance(wrong, RecipeError)
    assert "use medsr train" in str(wrong)
    recipe.write_text(DISTILLED, encoding="utf-8")
    wrong = call("train", recipe).exception
    assert isinstance(wrong, RecipeError)
    assert "use medsr distill" in str(wrong)
    assert isinstance(call("train", tmp_path / "absent.yaml").exception, RecipeError)
    assert runs == []


def test_distill_takes_terms_that_need_no_teacher(
    tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    peer = "terms: [{name: mutual, options: {peer: {name: RepPlain3D}}}]\n"
    recipe.write_text(RECIPE + peer, encoding="utf-8")
    assert isinstance(call("train", recipe).exception, RecipeError)
    assert runs == []
    assert call("distill", recipe).exception is None
    assert len(runs) == 1


def test_a_wrong_recipe_is_one_line_on_standard_error(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="training needs the extra `train`")
    recipe = tmp_path / "recipe.yaml"
    wrong = "terms: [{name: fog}]\nloop: {precision: bf16}\n"  # of which Fabric has a word to say
    recipe.write_text(RECIPE + wrong, encoding="utf-8")
    words = [sys.executable, "-m", "medsr", "distill", str(recipe), "--out", str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == RecipeError.exit_code
    (line,) = done.stderr.splitlines()
    assert line.startswith("medsr: recipe: terms.0: distillation term 'fog' is unknown")
    assert not (tmp_path / "run").exists()


def test_inspect_and_models_load_neither_torch_nor_monai(thick: Path) -> None:
    code = (
        "import sys\n"
        "from medsr.cli.main import main\n"
        f"for words in (['inspect', {str(thick)!r}], ['models']):\n"
        "    assert main(words) == 0\n"
        "sys.exit(str({'torch', 'monai'} & set(sys.modules)).replace('set()', '') or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

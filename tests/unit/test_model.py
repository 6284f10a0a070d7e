"""Specs, normalisation, and weights that come back as they were written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from medsr.errors import ModelFileError
from medsr.model import Intensity, ModelSpec, SpacingRange, SRModel
from medsr.networks import build_network
from medsr.spec import SPEC_FILE, WEIGHTS_FILE

NETWORKS = [
    ("RepPlain3D", {"width": 16, "depth": 2}),
    ("ResNet3D", {"width": 16, "blocks": 1}),
    ("RRDBNet3D", {"width": 16, "growth": 16, "blocks": 1}),
]


def make_spec(network: str = "RepPlain3D", options: Any = None, **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "name": "mr-z4",
        "version": "1.0",
        "network": network,
        "options": options or {"width": 16, "depth": 2},
        "scale": (1, 1, 4),
        "modality": "MR",
        "role": "student",
        "intensity": Intensity.for_modality("MR"),
        "halo": (4, 4, 4),
        "multiple_of": (1, 1, 1),
        "trained_spacing_mm": SpacingRange((0.6, 1.2), (2.4, 4.8)),
        "trained_degradation": {"kind": "slice_profile", "factor": [1, 1, 4]},
        "parameters": 1000,
        "training": {"steps": 3},
        "description": "for tests",
    }
    return ModelSpec(**{**values, **changes})


def make_model(network: str = "RepPlain3D", options: Any = None) -> SRModel:
    spec = make_spec(network, options)
    torch.manual_seed(1)
    module = build_network(spec.network, spec.scale, **spec.options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return SRModel(module, spec)


@pytest.mark.parametrize(("network", "options"), NETWORKS)
def test_weights_come_back_and_branches_are_merged(
    network: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(network, options)
    folder = model.save(tmp_path / "model")
    loaded = SRModel.load(folder)
    lr = torch.rand(1, 1, 6, 5, 4)
    with torch.no_grad():
        expected = model.module.eval()(lr)
        torch.testing.assert_close(loaded.module(lr), expected, rtol=1e-4, atol=1e-5)
    assert loaded.spec == model.spec
    assert not loaded.module.training
    assert not any(p.requires_grad for p in loaded.module.parameters())
    if network == "RepPlain3D":
        assert not loaded.module.branches


def test_the_hash_is_the_files(tmp_path: Path) -> None:
    model = make_model()
    folder = model.save(tmp_path)
    content = (folder / WEIGHTS_FILE).read_bytes()
    assert model.weight_hash == hashlib.sha256(content).hexdigest()
    assert SRModel.load(folder).weight_hash == model.weight_hash


def test_half_precision_storage_is_computed_with_in_float32(tmp_path: Path) -> None:
    model = make_model()
    full = (model.save(tmp_path / "full") / WEIGHTS_FILE).stat().st_size
    folder = model.save(tmp_path / "half", dtype=torch.float16)
    assert (folder / WEIGHTS_FILE).stat().st_size < 0.6 * full
    loaded = SRModel.load(folder)
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    lr = torch.rand(1, 1, 6, 5, 4)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(lr), model.module(lr), rtol=0, atol=5e-3)


def test_saving_again_replaces_and_leaves_the_card(tmp_path: Path) -> None:
    make_model().save(tmp_path)
    (tmp_path / "card.md").write_text("kept")
    second = make_model()
    with torch.no_grad():
        next(second.module.parameters()).zero_()
    second.save(tmp_path)
    assert SRModel.load(tmp_path).weight_hash == second.weight_hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.md", SPEC_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_model_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    first = make_model()
    first.save(tmp_path)

    def half(path: Path, content: bytes) -> None:
        path.open("wb").write(content[:100])
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    expected = ModelFileError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"No space left on device|^$"):
        make_model(*NETWORKS[1]).save(tmp_path)
    assert SRModel.load(tmp_path).weight_hash == first.weight_hash
    assert sorted(p.name for p in tmp_path.iterdir()) == [SPEC_FILE, WEIGHTS_FILE]


def test_a_module_that_its_spec_does_not_describe_is_not_saved(tmp_path: Path) -> None:
    model = make_model()
    with pytest.raises(ModelFileError, match="parameter"):
        SRModel(model.module.merged(), model.spec).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def _drop(folder: Path) -> None:
    state = load_file(folder / WEIGHTS_FILE)
    state.pop("tail.bias")
    save_file(state, folder / WEIGHTS_FILE)


def _add(folder: Path) -> None:
    state = load_file(folder / WEIGHTS_FILE)
    save_file({**state, "surplus": torch.zeros(2)}, folder / WEIGHTS_FILE)


def _truncate(folder: Path) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:-40])


def _edit(**changes: Any) -> Any:
    def damage(folder: Path) -> None:
        spec = json.loads((folder / SPEC_FILE).read_text())
        (folder / SPEC_FILE).write_text(json.dumps({**spec, **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "tail.bias is missing"),
        (_add, "surplus is unknown"),
        (_truncate, "damaged"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "cannot be read"),
        (lambda folder: (folder / SPEC_FILE).unlink(), "cannot be read"),
        (lambda folder: (folder / SPEC_FILE).write_text("{"), "JSON"),
        (_edit(options={"width": 32, "depth": 2}), "has shape"),
        (_edit(options={"width": 16, "wings": 2}), "wings"),
        (_edit(network="Unheard3D"), "Unheard3D"),
        (_edit(colour="red"), "colour"),
        (_edit(scale=[1, 1, 0]), "scale"),
        (_edit(trained_spacing_mm={"in_plane": [2, 1], "slice": [1, 2]}), "in_plane"),
    ],
)
def test_damaged_folders_are_refused_with_the_reason(
    damage: Any, message: str, tmp_path: Path
) -> None:
    folder = make_model().save(tmp_path)
    damage(folder)
    with pytest.raises(ModelFileError, match=message):
        SRModel.load(folder)


def test_specs_round_trip_through_json() -> None:
    spec = make_spec()
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["scale"] == [1, 1, 4]


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "linear", "divisor": 0.0},
        {"kind": "percentile", "percentile": 0.0},
        {"kind": "percentile", "foreground": 1.0},
        {"kind": "cubic"},
    ],
)
def test_intensities_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Intensity(**options)


@given(st.floats(-5000, 5000), st.floats(0.01, 5000))
def test_normalisation_is_linear_and_comes_back(offset: float, divisor: float) -> None:
    fitted = Intensity(kind="linear", offset=offset, divisor=divisor).fit(np.zeros(1))
    values = np.array([-9000.0, -1024.0, 0.0, 3071.0, 60000.0])
    there = fitted.forward(values)
    slopes = np.diff(there) / np.diff(values)
    np.testing.assert_allclose(slopes, 1 / divisor, rtol=1e-6)
    np.testing.assert_allclose(fitted.inverse(there), values, atol=1e-6)
    copy = there.astype(np.float32)
    assert fitted.restore(copy) is copy
    np.testing.assert_allclose(copy, values, rtol=1e-4, atol=0.1)


def test_ct_takes_the_house_range() -> None:
    fitted = Intensity.for_modality("CT").fit(np.zeros((3, 3, 3), np.int16))
    np.testing.assert_allclose(fitted.forward(np.array([-1024.0, 1024.0])), [0.0, 1.0])


def test_mr_takes_the_percentile_of_the_foreground(phantom: NDArray[np.float32]) -> None:
    fitted = Intensity.for_modality("MR").fit(phantom)
    foreground = phantom[phantom > 0.02 * phantom.max()]
    assert fitted.divisor == pytest.approx(np.percentile(foreground, 99.5))
    assert fitted.offset == 0
    scaled = Intensity.for_modality("MR").fit(7 * phantom)
    assert scaled.divisor == pytest.approx(7 * fitted.divisor)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_empty_scans_have_a_usable_scale(value: float) -> None:
    fitted = Intensity.for_modality("MR").fit(np.full((4, 4, 4), value))
    assert fitted.divisor > 0
    assert fitted.inverse(fitted.forward(np.array([value])))[0] == value


def test_a_spec_may_name_further_modalities() -> None:
    ct = Intensity.for_modality("CT")
    spec = make_spec(other_modalities={"CT": ct})
    assert spec.modalities == ("MR", "CT")
    assert spec.intensity_for("CT") == ct
    assert spec.intensity_for("MR") == spec.intensity
    assert ModelSpec.from_json(spec.to_json()) == spec
    alone = make_spec()
    assert alone.modalities == ("MR",)
    assert alone.intensity_for("CT") == alone.intensity
    # Specs of models that were made before know nothing of further modalities.
    plain = json.loads(alone.to_json())
    del plain["other_modalities"]
    assert ModelSpec.from_json(json.dumps(plain)) == alone
    with pytest.raises(ValidationError, match="names MR again"):
        make_spec(other_modalities={"MR": ct})

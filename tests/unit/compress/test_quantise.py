"""int8 models stay close to their float twins and go wherever a model goes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from medsr.compress import QuantisedModel, quantise
from medsr.compress.quantise import find_backend
from medsr.errors import MissingExtraError, ModelError, ModelFileError, UsageError
from medsr.infer.monai_inferer import TiledInferer
from medsr.infer.upscale import upscale
from medsr.model import SRModel

MakeModel = Callable[..., SRModel]

CI = os.environ.get("CI")
missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]


def patches(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 1, 10, 9, 8, generator=generator) for _ in range(count)]


@pytest.fixture(scope="module")
def printed() -> io.StringIO:
    """What quantising wrote to standard output."""
    return io.StringIO()


@pytest.fixture(scope="module")
def pair(make_model: MakeModel, printed: io.StringIO) -> tuple[SRModel, QuantisedModel]:
    """A float model that folds, and its int8 twin; made once, since making it takes seconds."""
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (extra 'compress')")
    model = make_model("RepPlain3D", width=32, depth=2, fold=(2, 1, 1), interpolation="linear")
    with redirect_stdout(printed):
        return model, quantise(model, patches())


def test_int8_stays_close_to_float(pair: tuple[SRModel, QuantisedModel]) -> None:
    model, int8 = pair
    lr = torch.rand(2, 1, 13, 8, 7)  # an odd size along the folded axis
    wanted, found = model.module(lr), int8.module(lr)
    interpolated = torch.nn.functional.interpolate(lr, scale_factor=(1, 1, 2), mode="trilinear")
    assert found.shape == wanted.shape
    error = (found - wanted).abs().mean()
    detail = (wanted - interpolated).abs().mean()
    assert 0 < error < 0.1 * detail


def test_tiles_equal_the_whole(pair: tuple[SRModel, QuantisedModel]) -> None:
    _, int8 = pair
    lr = torch.rand(1, 1, 17, 12, 11)
    tiled = TiledInferer(4, precision="bf16")(lr, int8.module)
    torch.testing.assert_close(tiled, int8.module(lr), rtol=0, atol=1e-5)


def test_saving_and_loading_change_nothing(
    pair: tuple[SRModel, QuantisedModel], tmp_path: Path
) -> None:
    model, int8 = pair
    folder = int8.save(tmp_path / "model")
    assert {p.name for p in folder.iterdir()} == {"int8.xml", "int8.bin", "int8.json", "spec.json"}
    loaded = QuantisedModel.load(folder)
    lr = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(loaded.module(lr), int8.module(lr))
    assert loaded.weight_hash == int8.weight_hash != model.weight_hash
    assert loaded.spec.to_json() == int8.spec.to_json()
    assert loaded.spec.name == "tiny-int8"
    assert loaded.details["weights_sha256"] == model.weight_hash
    assert loaded.module.halo == model.module.halo
    assert (folder / "int8.bin").stat().st_size < 0.5 * 4 * model.spec.parameters


def test_it_upscales_a_scan_like_any_model(
    pair: tuple[SRModel, QuantisedModel], phantom: npt.NDArray[np.float32]
) -> None:
    scan = phantom[:16, :14, :10]
    options = {"modality": "mr", "array_spacing": (1.0, 1.0, 2.0), "precision": "fp32"}
    wanted, found = (upscale(scan, model=model, **options).volume for model in pair)
    assert found.data.shape == (16, 14, 20)
    assert np.abs(found.data - wanted.data).mean() < 0.02 * scan.max()


def test_a_missing_or_damaged_file_is_named(
    pair: tuple[SRModel, QuantisedModel], tmp_path: Path
) -> None:
    folder = pair[1].save(tmp_path / "model")
    (folder / "int8.xml").write_text("<net")
    with pytest.raises(ModelFileError, match=r"int8\.xml: damaged"):
        QuantisedModel.load(folder)
    (folder / "int8.bin").unlink()
    with pytest.raises(ModelFileError, match=r"int8\.bin: cannot be read"):
        QuantisedModel.load(folder)
    (folder / "int8.json").write_text("[]")
    with pytest.raises(ModelFileError, match="no description"):
        QuantisedModel.load(folder)


def test_it_neither_prints_nor_touches_the_environment(
    pair: tuple[SRModel, QuantisedModel], printed: io.StringIO
) -> None:
    assert printed.getvalue() == ""
    assert os.environ.get("CI") == CI


def test_integers_have_no_other_type(pair: tuple[SRModel, QuantisedModel], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float16"):
        pair[1].save(tmp_path / "model", dtype=torch.float16)


def test_patches_are_needed(make_model: MakeModel) -> None:
    with pytest.raises(UsageError, match="at least one patch"):
        quantise(make_model("RepPlain3D", width=16, depth=1), [])


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ModelError, match="openvino"):
        find_backend("abacus")


def test_networks_with_a_forward_pass_of_their_own_are_refused(make_model: MakeModel) -> None:
    class Own(type(make_model("RepPlain3D", width=16, depth=1).module)):  # type: ignore[misc]
        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return super().forward(lr)

        def merged(self) -> Own:
            return self

    model = make_model("RepPlain3D", width=16, depth=1)
    module = Own((1, 1, 2), width=16, depth=1, branches=False)
    with pytest.raises(ModelError, match="forward pass of its own"):
        quantise(SRModel(module, model.spec), patches())


@pytest.mark.parametrize("library", ["openvino", "nncf"])
def test_a_missing_library_names_the_extra(
    library: str, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"medsr\[compress\]"):
        quantise(make_model("RepPlain3D", width=16, depth=1), patches())


def test_a_head_is_kept(make_model: MakeModel, tmp_path: Path) -> None:
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (extra 'compress')")
    model = make_model("RepPlain3D", width=16, depth=1, head="gaussian")
    int8 = quantise(model, patches(1))
    loaded = QuantisedModel.load(int8.save(tmp_path / "int8")).module
    lr = torch.rand(1, 1, 7, 6, 5)
    for wanted, found, again in zip(
        model.module.distribution(lr),
        int8.module.distribution(lr),
        loaded.distribution(lr),
        strict=True,
    ):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=0.2, atol=0.05)
        torch.testing.assert_close(again, found)

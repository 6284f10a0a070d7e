"""int8 folders are loaded by the same call as any model, and run on tiles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from medsr.compress import QuantisedModel, quantise
from medsr.errors import BackendError, MissingExtraError, UnknownModelError
from medsr.infer.engine.backends import BACKENDS
from medsr.infer.engine.backends.load import load_model
from medsr.model import SRModel

MakeModel = Callable[..., SRModel]
TILE = (8, 7, 6)


@pytest.fixture
def folder(make_model: MakeModel, tmp_path: Path) -> Path:
    """A folder such as ``medsr quantise`` writes."""
    missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (extra 'compress')")
    model = make_model(options={"width": 16, "depth": 1}, detail=0.05)
    return quantise(model, [torch.rand(1, 1, *TILE)]).save(tmp_path / "int8")


def test_an_int8_folder_is_loaded_and_run_by_name_of_its_backend(folder: Path) -> None:
    model = load_model(folder)
    assert isinstance(model, QuantisedModel)
    assert model.spec.name == "mr-z4-int8"
    block = torch.rand(1, 1, *TILE)
    wanted = QuantisedModel.load(folder).module(block)
    for name in ("openvino", "torch"):
        runner = BACKENDS[name].prepare(model.module, TILE, threads=1)
        torch.testing.assert_close(runner(block), wanted)
    with pytest.raises(BackendError, match="computed by openvino"):
        BACKENDS["onnxruntime"].prepare(model.module, TILE)


def test_running_int8_needs_openvino_alone(folder: Path) -> None:
    code = (
        "import sys; sys.modules['nncf'] = None\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from medsr.infer.engine.backends.load import load_model\n"
        f"model = load_model(Path({str(folder)!r}))\n"
        "print(tuple(model.module(torch.rand(1, 1, 4, 4, 4)).shape), 'monai' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert found.stdout.strip() == "(1, 1, 4, 4, 16) False"


def test_without_openvino_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"medsr\[openvino\]"):
        load_model(folder)


def test_a_float_folder_is_loaded_as_ever(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "float")
    loaded = load_model(tmp_path / "float")
    assert type(loaded) is SRModel
    assert loaded.spec == model.spec
    block = torch.rand(1, 1, *TILE)
    torch.testing.assert_close(loaded.module(block), model.module.eval()(block))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownModelError):
        load_model("abacus-z4")

"""What was documented at another place is found there for one version more, with a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import medsr
from medsr import _aliases, io

PACKAGE = Path(medsr.__file__).parent


@pytest.mark.parametrize(("old", "new"), _aliases.MODULES.items())
def test_old_modules_are_the_new_ones(old: str, new: str) -> None:
    code = (
        f"import warnings; warnings.simplefilter('error'); import {new} as new\n"
        f"warnings.simplefilter('always')\n"
        f"with warnings.catch_warnings(record=True) as caught:\n"
        f"    import {old} as old\n"
        f"assert old is new and new.__spec__.name == {new!r}\n"
        f"told = [w for w in caught if w.category is DeprecationWarning]\n"
        f"assert [str(w.message) for w in told] == ['{old} is deprecated; use {new}']\n"
        f"assert told[0].filename == '<string>', told[0].filename\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.filterwarnings("ignore:medsr.infer.backends is deprecated")
def test_modules_below_an_old_one_are_the_new_ones() -> None:
    with pytest.warns(DeprecationWarning, match=r"medsr\.infer\.backends\.load is deprecated"):
        old = import_module("medsr.infer.backends.load")
    assert old is import_module("medsr.infer.engine.backends.load")


@pytest.mark.parametrize(
    ("module", "name", "new"),
    [(module, *pair) for module, names in _aliases.NAMES.items() for pair in names.items()],
)
def test_old_names_are_the_new_ones(module: str, name: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is deprecated; use {new}"):
        old = getattr(import_module(module), name)
    place, _, attribute = new.rpartition(".")
    assert old is getattr(import_module(place), attribute)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        import_module(module).nothing  # noqa: B018


def test_other_modules_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("medsr.infer.planning")


def test_saving_still_saves(tmp_path: Path) -> None:
    data = np.arange(8 * 8 * 6, dtype=np.int16).reshape(8, 8, 6)
    scan = medsr.Volume(data, medsr.Geometry(data.shape, np.eye(4)), "MR")
    path = tmp_path / "scan.nii"
    saving = io.saving(scan, path)  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match="use medsr.io.creating"):
        saving.__enter__()
    assert not path.exists()
    saving.__exit__(None, None, None)
    assert path.read_bytes() == io.save(scan, tmp_path / "other.nii").read_bytes()

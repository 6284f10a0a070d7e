"""The zoo lists, finds and refuses models, with and without any on the shelf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from medsr import zoo
from medsr.errors import ModelFileError, UnknownModelError
from medsr.model import Intensity, ModelSpec, SpacingRange
from medsr.spec import SPEC_FILE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, scale in (("mr-z4", (1, 1, 4)), ("mr-iso2", (2, 2, 2))):
        spec = ModelSpec(
            name=name,
            version="1",
            network="RepPlain3D",
            options={},
            scale=scale,
            modality="MR",
            role="student",
            intensity=Intensity.for_modality("MR"),
            halo=(1, 1, 1),
            multiple_of=(1, 1, 1),
            trained_spacing_mm=SpacingRange((0.5, 1), (2, 4)),
            trained_degradation={},
            parameters=1,
            training={},
            description="",
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / SPEC_FILE).write_text(spec.to_json())
    (tmp_path / "__pycache__").mkdir()
    return tmp_path


def test_names_and_specs(root: Path) -> None:
    assert zoo.names(root) == ["mr-iso2", "mr-z4"]
    assert [spec.scale for spec in zoo.specs(root)] == [(2, 2, 2), (1, 1, 4)]


def test_an_empty_shelf(tmp_path: Path) -> None:
    assert zoo.names(tmp_path) == []
    assert zoo.specs(tmp_path / "missing") == []
    with pytest.raises(UnknownModelError, match="shipped models: none"):
        zoo.path("mr-z4", tmp_path)


def test_unknown_names_list_the_shipped_ones(root: Path) -> None:
    with pytest.raises(UnknownModelError, match="mr-iso2, mr-z4"):
        zoo.path("mr-z5", root)
    with pytest.raises(UnknownModelError, match="mr-iso2, mr-z4"):
        zoo.resolve("nowhere/mr-z5", root)


def test_names_go_before_folders(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "mr-z4").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    assert zoo.resolve("mr-z4", root) == root / "mr-z4"
    assert zoo.resolve(Path("mr-z4"), root) == Path("mr-z4")
    assert zoo.resolve(elsewhere, root) == elsewhere


def test_a_damaged_spec_is_named(root: Path) -> None:
    (root / "mr-z4" / SPEC_FILE).write_text("{}")
    with pytest.raises(ModelFileError, match="mr-z4"):
        zoo.specs(root)


def test_whatever_ships_is_listed_under_its_folders_name() -> None:
    assert [spec.name for spec in zoo.specs()] == zoo.names()


def test_listing_imports_no_torch(root: Path, repository: Path) -> None:
    code = (
        "import sys, pathlib; from medsr import zoo; "
        f"zoo.specs(pathlib.Path({str(root)!r})); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, check=False)
    assert done.returncode == 0

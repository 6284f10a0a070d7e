"""Imports point downward, third parties stay in their rooms, and light commands stay light.

Every module is parsed, so an import inside a function or under ``TYPE_CHECKING`` counts too.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "medsr"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up: a module may import any module of a lower floor.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "deferred"}),
    frozenset({"geometry", "plugins"}),
    frozenset({"networks", "losses", "volume", "batch", "values"}),
    frozenset({"intensity", "patients", "regions"}),
    frozenset({"model", "zoo", "degrade", "recipe", "io"}),
    frozenset({"infer", "distill", "compress", "data"}),
    frozenset({"train", "evaluate", "pacs"}),
    frozenset({"benchmark"}),
    frozenset({"cli", "demo"}),
    frozenset({"__main__"}),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

# Neighbours on one floor that may know each other, each with its reason.
NEIGHBOURS = {
    ("model", "zoo"): "a shipped model is loaded by its name",
    ("zoo", "model"): "the shipped specs are read as ModelSpec",
    ("recipe", "degrade"): "a recipe names a degradation",
    ("infer", "compress"): "an int8 model is loaded and run like any other",
    ("compress", "data"): "integer ranges are chosen on patches of a cohort",
}

# Third party -> the modules (paths inside the package) that may import it.
ROOMS: dict[str, tuple[str, ...]] = {
    "pydicom": ("io/dicom/*", "pacs/*"),
    "pynetdicom": ("pacs/*",),
    "dicomweb_client": ("pacs/*",),
    "requests": ("pacs/dicomweb.py",),
    "tenacity": ("pacs/persistent.py",),
    "gdcm": (),
    "imagecodecs": ("io/dicom/read/decode.py",),
    "SimpleITK": ("evaluate/baselines.py",),
    "monai": (
        "data/*",
        "infer/*",
        "evaluate/*",
        "io/monai_reader.py",
        "benchmark/inference_peer.py",
    ),
    "lightning_fabric": ("train/*",),
    "lightning": (),
    "pytorch_lightning": (),
    "typer": ("cli/*",),
    "click": ("cli/*",),
    "nilearn": ("demo.py",),
    "torch_pruning": ("compress/prune.py",),
    "nncf": ("compress/openvino_int8.py",),
    "openvino": (
        "compress/openvino_library.py",
        "compress/openvino_int8.py",
        "infer/engine/backends/openvino.py",
    ),
    "onnx": (),
    "onnxruntime": ("infer/engine/backends/onnxruntime.py",),
}

# Modules that may import the standard library, medsr and these packages only.
ALONE: dict[str, frozenset[str]] = {
    "networks/*": frozenset({"torch"}),
    "losses/*": frozenset({"torch"}),
    "batch.py": frozenset({"torch"}),
    "distill/terms/*": frozenset({"torch"}),
    "errors.py": frozenset(),
}

# Modules that must stay light, so that a scan is inspected without waiting for torch.
NO_TORCH = ("errors.py", "geometry.py", "volume.py", "io/*")
EVERY_MODULE = [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in MODULES]


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that the file at ``path`` imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(_from(node, path))
    return names


def _from(node: ast.ImportFrom, path: Path) -> set[str]:
    base = node.module or ""
    if node.level:
        package = ("medsr", *path.relative_to(PACKAGE).parent.parts)
        base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [base])))
    if base == "medsr":  # `from medsr import zoo` names a module
        return {f"medsr.{alias.name}" for alias in node.names}
    return {base}


def inside(path: Path, patterns: tuple[str, ...]) -> bool:
    """Whether ``path`` (in the package) fits one of the ``patterns``."""
    return any(fnmatch(path.relative_to(PACKAGE).as_posix(), pattern) for pattern in patterns)


def part(dotted: str) -> str:
    """The part of the package that a dotted name belongs to: ``medsr.io.itk`` -> ``io``."""
    return dotted.split(".")[1] if "." in dotted else ""


def test_every_part_of_the_package_stands_on_a_floor() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert parts - {"__init__"} <= FLOOR.keys()


# The front door may name every part; what it loads is tested below.
@pytest.mark.parametrize("path", [case for case in EVERY_MODULE if case.id != "__init__.py"])
def test_imports_point_downward(path: Path) -> None:
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imported(path):
        there = part(name)
        if not name.startswith("medsr.") or there in {here, "__version__"}:
            continue
        assert there in FLOOR, f"{name} is no part of the package"
        allowed = FLOOR[there] < FLOOR[here] or (here, there) in NEIGHBOURS
        assert allowed, f"{here} (floor {FLOOR[here]}) imports {name} (floor {FLOOR[there]})"


@pytest.mark.parametrize("path", EVERY_MODULE)
def test_third_parties_stay_in_their_rooms(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    for root in sorted(roots & ROOMS.keys()):
        assert inside(path, ROOMS[root]), f"{root} is imported outside {ROOMS[root]}"
    for pattern, allowed in ALONE.items():
        if inside(path, (pattern,)):
            others = roots - sys.stdlib_module_names - {"medsr"} - allowed
            assert not others, f"{pattern} may import {sorted(allowed)} alone, not {others}"
    if inside(path, NO_TORCH) and path.name != "monai_reader.py":
        assert "torch" not in roots


def _modules_loaded_by(code: str, folder: Path) -> set[str]:
    report = "import sys; print('LOADED', *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", f"import atexit\natexit.register(lambda: exec({report!r}))\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    line = next(row for row in result.stdout.splitlines() if row.startswith("LOADED"))
    return set(line.split())


# What a command may do without. ``scipy`` by itself is small; its parts are not.
NEVER = frozenset(
    {"monai", "skimage", "pandas", "matplotlib", "lightning_fabric", "SimpleITK", "pydicom", "PIL"}
    | {"scipy.ndimage", "scipy.interpolate", "openvino", "onnxruntime", "tensorboard", "yaml"}
)
READS = NEVER | {"torch", "safetensors", "medsr.model", "medsr.infer"}
SPEAKS = READS | {"numpy", "nibabel", "medsr.geometry", "rich.progress"}


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], SPEAKS),
        (["upscale", "--help"], SPEAKS | {"medsr.cli.train"}),
        (["inspect", "scan.nii.gz"], READS | {"medsr.cli.train"}),
        (["inspect", "scan.nii.gz", "--json"], READS),
        (["upscale", "scan.nii.gz", "fine.nii.gz", "--model", "mr-z4"], NEVER),
        (["upscale", "in", "out", "--model", "mr-z4"], NEVER),
        (["upscale", "scan.nrrd", "fine.mha", "--model", "mr-z4"], NEVER),
        (["upscale", "scan.mha", "fine.nrrd", "--model", "mr-z4"], NEVER),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_commands_load_only_what_they_need(
    arguments: list[str], forbidden: frozenset[str], tmp_path: Path
) -> None:
    import nibabel as nib

    import medsr

    data = np.arange(10 * 9 * 6, dtype=np.int16).reshape(10, 9, 6)
    image = nib.Nifti1Image(data, np.diag([1.0, 1.0, 4.0, 1.0]))
    nib.save(image, tmp_path / "scan.nii.gz")
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in" / "scan.nii.gz")
    for name in ("scan.nrrd", "scan.mha"):
        medsr.save(medsr.load(tmp_path / "scan.nii.gz"), tmp_path / name)
    call = f"from medsr.cli.main import main\nassert main({arguments!r}) == 0"
    loaded = _modules_loaded_by(call, tmp_path)
    assert "medsr.cli.main" in loaded
    assert not loaded & forbidden
    assert ("torch" in loaded) == (forbidden == NEVER)


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = _modules_loaded_by("import medsr; assert medsr.__version__", tmp_path)
    assert "medsr" in loaded
    assert not loaded & {"numpy", "torch", "monai", "nibabel", "pydicom", "SimpleITK"}


def test_every_public_name_is_there() -> None:
    import medsr

    for name in medsr.__all__:
        assert getattr(medsr, name) is not None
    assert set(medsr.__all__) <= set(dir(medsr))
    with pytest.raises(AttributeError, match="no attribute 'enhance'"):
        medsr.enhance  # noqa: B018

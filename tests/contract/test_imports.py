"""Imports point downward, libraries stay where they are needed, and light commands stay light.

import-linter holds layers, circles and libraries; what it cannot say is parsed here, so that an
import inside a function counts too.
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

# Modules that may import the standard library, medsr and these packages only.
ALONE: dict[str, frozenset[str]] = {
    "networks/*": frozenset({"torch"}),
    "losses/*": frozenset({"torch"}),
    "batch.py": frozenset({"torch"}),
    "distill/terms/*": frozenset({"torch"}),
    "errors.py": frozenset(),
}


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


def test_layers_circles_and_libraries() -> None:
    """The contracts of import-linter in ``pyproject.toml``."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(
        command,
        cwd=PACKAGE.parent,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_some_modules_need_next_to_nothing() -> None:
    wrong = []
    for path in MODULES:
        roots = {name.split(".")[0] for name in imported(path)}
        for pattern, allowed in ALONE.items():
            others = roots - sys.stdlib_module_names - {"medsr"} - allowed
            if inside(path, (pattern,)) and others:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {sorted(others)}")
    assert wrong == []


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


def test_options_are_checked_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    loaded = _modules_loaded_by("import medsr; medsr.UpscaleOptions(scale=(1, 1, 2))", tmp_path)
    assert "medsr.infer.options" in loaded
    assert not loaded & (NEVER | {"torch", "nibabel", "safetensors", "medsr.infer.upscaler"})


def test_every_public_name_is_there() -> None:
    import medsr

    for name in medsr.__all__:
        assert getattr(medsr, name) is not None
    assert set(medsr.__all__) <= set(dir(medsr))
    with pytest.raises(AttributeError, match="no attribute 'enhance'"):
        medsr.enhance  # noqa: B018

"""Every extra that a message or a page names exists, and installs what the message is about."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medsr.infer.engine.backends import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"(?:medsr|['\"]\.)\[([a-z0-9_,\- ]+)\]")
PLACES = ("medsr/**/*.py", "docs/**/*.md", "*.md", "Makefile", "examples/**/*", "configs/**/*")


def project() -> dict[str, Any]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = table["project"]
    return found


def extras() -> dict[str, list[str]]:
    """The requirements of each extra."""
    found: dict[str, list[str]] = project()["optional-dependencies"]
    return found


def always() -> set[str]:
    """What is installed without any extra."""
    return {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}


def named_extras() -> dict[str, set[str]]:
    """Each extra that is named anywhere, with the files that name it."""
    found: dict[str, set[str]] = {}
    for pattern in PLACES:
        for file in ROOT.glob(pattern):
            if file.is_file() and file.suffix in (".py", ".md", ".sh", ".yaml", ""):
                for names in NAMED.findall(file.read_text(encoding="utf-8")):
                    for name in names.split(","):
                        place = str(file.relative_to(ROOT))
                        found.setdefault(name.strip(), set()).add(place)
    return found


def test_every_extra_that_is_named_exists() -> None:
    found = named_extras()
    assert {"dicom", "pacs", "train"} <= set(found)  # the search finds something
    assert {name: files for name, files in found.items() if name not in extras()} == {}


def test_all_holds_every_extra_of_users() -> None:
    (everything,) = extras()["all"]
    assert Requirement(everything).extras == set(extras()) - {"all", "dev"}


def test_every_backend_that_is_no_part_of_medsr_has_its_extra() -> None:
    named = {backend.extra for backend in BACKENDS.values() if backend.extra}
    assert named
    assert named <= set(extras())


def requirements(extra: str) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in extras()[extra]}


def guarded_imports() -> Iterator[tuple[str, str, set[str]]]:
    """Where a failed import is told of: the place, the extra named, and the modules imported."""
    for file in sorted((ROOT / "medsr").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Try):
                continue
            said = "".join(ast.get_source_segment(text, each) or "" for each in node.handlers)
            modules = {
                name.partition(".")[0]
                for statement in node.body
                for inner in ast.walk(statement)
                for name in _imported(inner)
            } - {"medsr", "__future__"}
            for extra in NAMED.findall(said):
                if modules:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", extra, modules


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


GUARDED = list(guarded_imports())


def test_guarded_imports_are_found() -> None:
    assert len(GUARDED) >= 5


@pytest.mark.parametrize(("place", "extra", "modules"), GUARDED, ids=[each[0] for each in GUARDED])
def test_the_extra_brings_what_could_not_be_imported(
    place: str, extra: str, modules: set[str]
) -> None:
    known = packages_distributions()
    for module in modules:
        bringing = {canonicalize_name(name) for name in known[module]}
        # PyTorch's own module for TensorBoard fails without the package of that name.
        assert bringing & (requirements(extra) | always()), (place, module)

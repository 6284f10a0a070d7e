"""The Python API: every public class and function has examples, and they run as they stand.

Public is what the pages of ``docs/reference/api`` show: of the modules that they name by ``:::``
the names in ``__all__``, or, of a module without it, all that it defines under a public name; and
the classes that register themselves in one of those names (``tools/registered.py``). An
example imports what it uses, so that a reader can paste it; it needs no network, no GPU and no
scan, and writes into temporary folders only.

One exception: a class may leave the examples to a public base class of the same module that has
some, such as the errors of one family. It is documented all the same.
"""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import medsr
from medsr.plugins import Registry

ROOT = Path(__file__).resolve().parents[2]
API = ROOT / "docs" / "reference" / "api"
DIRECTIVE = re.compile(r"^::: (\S+)", re.MULTILINE)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LISTED = re.compile(r"`(medsr[.\w]*)`")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_by_page() -> dict[str, list[str]]:
    """The modules that each page shows, by the page's name."""
    pages = sorted(API.glob("*.md"))
    return {page.name: DIRECTIVE.findall(page.read_text(encoding="utf-8")) for page in pages}


MODULES = [module for modules in modules_by_page().values() for module in modules]


def members(module: str) -> dict[str, Any]:
    """The public classes and functions of a module, by name."""
    found = vars(import_module(module))
    names = found.get("__all__") or [
        name
        for name, each in found.items()
        if not name.startswith("_") and getattr(each, "__module__", "") == module
    ]
    objects = {name: getattr(import_module(module), name) for name in names}
    for each in tuple(objects.values()):
        if isinstance(each, Registry) and each.package == module:
            objects |= each.public()
    return {name: each for name, each in objects.items() if _is_documented(each)}


def _is_documented(each: object) -> bool:
    """Whether it is a class or a function of this package, and no constant or type alias."""
    is_code = inspect.isclass(each) or inspect.isroutine(each)
    return is_code and str(getattr(each, "__module__", "")).startswith("medsr")


def has_examples(each: object) -> bool:
    return bool(re.search(r"^ *Examples:\n *>>> ", inspect.getdoc(each) or "", re.MULTILINE))


def is_covered(each: Any, module: str) -> bool:
    """Whether it has examples, or a base class of its family has."""
    bases = inspect.getmro(each)[1:] if inspect.isclass(each) else ()
    family = [base for base in bases if base in members(module).values()]
    return bool(each.__doc__) and any(has_examples(one) for one in [each, *family])


def test_the_overview_lists_every_module_that_a_page_shows() -> None:
    rows = [
        (match[1], sorted(LISTED.findall(line)))
        for line in (API / "index.md").read_text(encoding="utf-8").splitlines()
        if (match := re.match(r"\| \[[^]]+\]\((\w+\.md)\) \|", line))
    ]
    pages = {page: sorted(modules) for page, modules in modules_by_page().items() if modules}
    assert dict(rows) == pages


def test_the_documentation_builds(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(build, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "reference/api/geometry/index.html").read_text(encoding="utf-8")
    assert 'id="medsr.geometry.Geometry.refine"' in page


# What a codec, which is a file of the package, is built of; CONTRIBUTING.md shows one.
FOR_CODECS = {f"medsr.io.{name}" for name in ("allow", "checks", "inspection", "planes", "scaling")}


def test_what_scripts_import_is_public() -> None:
    """The names of the package, and those that the code of pages and examples imports."""
    imported = [("medsr", name) for name in medsr.__all__]
    for source in [*python_blocks(), *(p.read_text("utf-8") for p in ROOT.glob("examples/*.py"))]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("medsr"):
                imported += [(str(node.module), alias.name) for alias in node.names]
    shown = [each for module in MODULES for each in members(module).values()]
    hidden = {
        f"{module}.{name}"
        for module, name in imported
        if module not in FOR_CODECS
        and _is_documented(each := getattr(import_module(module), name, None))
        and each not in shown
    }
    assert hidden == set()


def python_blocks() -> list[str]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return [
        block for page in pages for block in PYTHON_BLOCK.findall(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_class_and_function_has_examples(module: str) -> None:
    assert [name for name, each in members(module).items() if not is_covered(each, module)] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run(module: str) -> None:
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=OPTIONS)
    report: list[str] = []
    for name, each in members(module).items():
        for test in finder.find(each, f"{module}.{name}", globs={}):
            runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)

"""What no linter knows: paths of one machine, the changelog, extras, constraints, models."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import medsr

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    path
    for folder in ("medsr", "configs", "tests", "docs", "examples", "tools")
    for suffix in ("*.py", "*.md", "*.yaml", "*.json", "*.csv")
    for path in sorted((ROOT / folder).rglob(suffix))
] + [ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]
# A path of one person's or one machine's file system.
ABSOLUTE = re.compile(r"(?<![\w.:/~<-])/(?:home|root|work|Users|mnt|private)/\w+")


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_paths_of_one_machine() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in TEXTS if path != Path(__file__)}
    assert [_id(path) for path, text in texts.items() if ABSOLUTE.search(text)] == []


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(medsr.__version__)}\]", text, re.MULTILINE)


def test_the_extra_all_takes_every_optional_part() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (requirement,) = extras["all"]
    taken = set(re.fullmatch(r"medsr\[(.+)\]", requirement)[1].split(","))
    assert taken == extras.keys() - {"all", "dev"}


def test_the_constraints_pin_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        asked += requirements if extra != "all" else []
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_normal(line.split("==")[0]) for line in lines if "==" in line}
    assert {_normal(re.split(r"[<>=!~;\[ ]", name)[0]) for name in asked} <= pinned
    assert "torch==2.13.0" in lines


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in (ROOT / "medsr" / "zoo").glob("*/spec.json")), ids=_id
)
def test_a_shipped_model_is_whole(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    assert spec["name"] == folder.name
    assert (folder / "weights.safetensors").stat().st_size > 0
    assert "not for diagnosis" in (folder / "card.md").read_text(encoding="utf-8").lower()


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.rstrip().endswith("exec make test")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")

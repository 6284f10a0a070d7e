"""Every method and network has one sentence, a source, and a recipe that parses and uses it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer

from medsr.cli import app
from medsr.cli.main import main
from medsr.degrade import DEGRADATIONS
from medsr.distill.catalogue import Line, catalogue
from medsr.distill.terms import TERMS
from medsr.networks import NETWORKS
from medsr.plugins import first_sentence, source_of
from medsr.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = catalogue()

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.kind}-{e.name}")


def test_every_term_and_network_is_listed_once() -> None:
    assert [e.name for e in ENTRIES if e.kind == "term"] == sorted(TERMS)
    networks = [e.name for e in ENTRIES if e.kind == "network"]
    assert sorted(networks) == sorted(NETWORKS)
    assert [e.name for e in ENTRIES if e.kind == "degradation"] == sorted(DEGRADATIONS)
    assert len({(e.kind, e.name) for e in ENTRIES}) == len(ENTRIES)


@every_entry
def test_it_is_described_in_one_sentence_with_a_source(entry: Line) -> None:
    assert entry.description.endswith(".")
    assert 20 < len(entry.description) < 200
    assert entry.description.count(". ") == 0
    # That of a degradation may be plain physics.
    has_year = any(character.isdigit() for character in entry.source)
    assert has_year or entry.kind == "degradation"
    assert "\n" not in entry.description + entry.source


@every_entry
def test_its_recipe_parses_and_uses_it(entry: Line) -> None:
    recipe = read_recipe(ROOT / entry.recipe)
    if entry.kind == "term":
        assert entry.name in {term.name for term in recipe.terms}
    elif entry.kind == "network":
        assert entry.name == recipe.network.name
    elif entry.kind == "degradation":
        assert entry.name == recipe.degradation.kind
    else:
        assert recipe.terms


@every_entry
def test_its_command_is_one_of_medsr(entry: Line) -> None:
    program, name, *rest = shlex.split(entry.command)
    assert program == "medsr"
    assert name in typer.main.get_command(app).commands
    if name in ("train", "distill"):
        assert rest == [entry.recipe]
        assert bool(read_recipe(ROOT / entry.recipe).terms) == (name == "distill")


def test_the_command_prints_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(e["kind"], e["name"]) for e in printed] == [(e.kind, e.name) for e in ENTRIES]
    assert all(e["description"] and e["recipe"] and e["command"] for e in printed)
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert all(entry.name in shown for entry in ENTRIES)


def test_docstrings_are_read_as_they_are_written() -> None:
    def documented() -> None:
        """Do something that takes
        two lines.

        Args:
            none: at all.

        Source: Somebody 1999, "A title
            over lines", equation 3.

        More.
        """

    assert first_sentence(documented) == "Do something that takes two lines."
    assert source_of(documented) == 'Somebody 1999, "A title over lines", equation 3.'
    assert source_of(test_docstrings_are_read_as_they_are_written) == ""

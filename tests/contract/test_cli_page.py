"""The reference of the command line lists every command and option, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from medsr.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"


def _flat(group: Any, before: str = "") -> dict[str, Any]:
    """Commands by the words that call them, those of groups included."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= _flat(command, f"{before}{name} ")
        else:
            found[before + name] = command
    return found


COMMANDS = _flat(typer.main.get_command(app))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def _sections() -> dict[str, str]:
    pieces = re.split(
        r"^## `medsr ([a-z]+(?: [a-z]+)*)[^\n]*\n", PAGE.read_text("utf-8"), flags=re.MULTILINE
    )
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def test_every_command_has_a_section() -> None:
    assert sorted(_sections()) == sorted(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_listed(name: str) -> None:
    known = {
        option
        for parameter in COMMANDS[name].params
        for option in [*parameter.opts, *parameter.secondary_opts]
        if option.startswith("--")
    } - {"--help"}
    assert set(OPTION.findall(_sections()[name])) == known

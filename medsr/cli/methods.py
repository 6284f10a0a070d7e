"""``medsr methods``: every method of distillation, network and degradation, with its source."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from medsr.cli.options import write_json

_HEADINGS = {
    "term": "term",
    "way": "another way",
    "network": "network",
    "degradation": "degradation",
}


def methods_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods of distillation, networks and degradations, with sources and recipes."""
    from dataclasses import asdict

    from medsr.distill.catalogue import catalogue

    entries = catalogue()
    if as_json:
        write_json([asdict(entry) for entry in entries])
        return
    console = Console()
    for kind, heading in _HEADINGS.items():
        table = Table(box=None, pad_edge=False)
        table.add_column(heading, no_wrap=True)
        table.add_column("what it is", overflow="fold")
        table.add_column("run", overflow="fold")
        for entry in entries:
            if entry.kind == kind:
                table.add_row(entry.name, entry.description, entry.command)
        console.print(table, markup=False, highlight=False)
        console.print()

"""``medsr inspect``: what a scan is, from its header where that suffices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from medsr.cli.options import write_json


def inspect_command(
    scan: Annotated[
        Path, typer.Argument(metavar="INPUT", help="NIfTI, NRRD, MHA, MGZ file or DICOM folder.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    with_range: Annotated[
        bool,
        typer.Option("--range", help="Read the voxels too: value range, and modality if unknown."),
    ] = False,
) -> None:
    """Show format, grid, orientation, units and whether the slices are thick."""
    from medsr.io import inspect

    facts = inspect(scan, with_range=with_range).to_dict()
    if as_json:
        write_json(facts)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        for text in value if key == "warnings" and isinstance(value, list | tuple) else [value]:
            table.add_row(key.replace("_", " "), _plain(text))
    Console().print(table, markup=False, highlight=False)


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        words = all(isinstance(item, str) for item in value)
        return (" " if words else " x ").join(_plain(item) for item in value)
    return str(value)

"""``medsr inspect``: what a scan is, from its header where that suffices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medsr.cli.options import (
    AllowDuplicates,
    AllowFewSlices,
    AllowGaps,
    AllowTilt,
    allowed,
    write_json,
    write_table,
)
from medsr.errors import SeveralSeriesError

if TYPE_CHECKING:
    from medsr.io import ListedVolume


def inspect_command(
    scan: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="NIfTI, NRRD, MHA, MGZ file, DICOM folder, zip or DICOMDIR."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    with_range: Annotated[
        bool,
        typer.Option("--range", help="Read the voxels too: value range, and modality if unknown."),
    ] = False,
    series: Annotated[
        str | None,
        typer.Option("--series", metavar="UID", help="Which of several volumes, or its number."),
    ] = None,
    allow_gaps: AllowGaps = False,
    allow_tilt: AllowTilt = False,
    allow_duplicates: AllowDuplicates = False,
    allow_few_slices: AllowFewSlices = False,
) -> None:
    """Show format, grid, orientation, units and whether the slices are thick.

    Where a DICOM source holds several volumes, they are listed with the names that pick them.
    """
    from medsr.io import inspect, list_volumes

    allow = allowed(
        gaps=allow_gaps,
        tilt=allow_tilt,
        duplicates=allow_duplicates,
        few_slices=allow_few_slices,
    )
    try:
        facts = inspect(scan, with_range=with_range, series=series, allow=allow).to_dict()
    except SeveralSeriesError:
        if series is not None:
            raise
        _show_list(list_volumes(scan, allow=allow), as_json=as_json)
        return
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


def _show_list(volumes: tuple[ListedVolume, ...], *, as_json: bool) -> None:
    """One line for each volume, and why where it cannot be read."""
    if as_json:
        write_json({"volumes": [volume.to_dict() for volume in volumes]})
        return
    rows = []
    for volume in volumes:
        about = [volume.mark] if volume.mark else []
        if volume.fault is not None:
            about.append(f"cannot be read (exit code {volume.exit_code}): {volume.fault}")
        rows.append(
            (
                str(volume.number),
                volume.series,
                volume.modality,
                _plain(volume.shape),
                _plain(volume.spacing_mm),
                "; ".join(about),
            )
        )
    write_table(("no.", "series", "modality", "voxels", "spacing mm", "what it is"), rows)


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        is_text = all(isinstance(item, str) for item in value)
        return (" " if is_text else " x ").join(_plain(item) for item in value)
    return str(value)

"""``medsr models``: which models ship, and what each was trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medsr.cli.options import write, write_json

if TYPE_CHECKING:
    from medsr.model import ModelSpec


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the shipped models."""
    from medsr import zoo

    specs = zoo.specs()
    if as_json:
        write_json([_facts(spec) for spec in specs])
        return
    if not specs:
        write("no models ship with this installation; pass a model folder to --model")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "for", "scale", "role", "parameters", "in-plane mm", "slice mm"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it is", overflow="fold")
    for spec in specs:
        trained = spec.trained_spacing_mm
        table.add_row(
            spec.name,
            "/".join(spec.modalities),
            " x ".join(map(str, spec.scale)),
            spec.role,
            f"{spec.parameters:,}",
            _range(trained.in_plane),
            _range(trained.slice),
            spec.description,
        )
    Console().print(table, markup=False, highlight=False)


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3g}-{limits[1]:.3g}"


def _facts(spec: ModelSpec) -> dict[str, Any]:
    import json

    facts: dict[str, Any] = json.loads(spec.to_json())
    return facts

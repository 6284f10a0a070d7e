"""``medsr models``: which models ship, and what each was trained for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from medsr.cli.options import write, write_json, write_table

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
    headings = ("model", "for", "seen", "scale", "role", "parameters", "in-plane mm", "slice mm")
    rows = [
        (
            spec.name,
            "/".join(spec.modalities),
            ", ".join(spec.trained_regions) or "-",
            " x ".join(map(str, spec.scale)),
            spec.role,
            f"{spec.parameters:,}",
            _range(spec.trained_spacing_mm.in_plane),
            _range(spec.trained_spacing_mm.slice),
        )
        for spec in specs
    ]
    write_table(headings, rows)
    write("")
    for spec in specs:
        write(f"{spec.name}: {spec.description.removesuffix('.')}; trained on {spec.seen}.")


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:.3g}-{limits[1]:.3g}"


def _facts(spec: ModelSpec) -> dict[str, Any]:
    import json

    facts: dict[str, Any] = json.loads(spec.to_json())
    return facts

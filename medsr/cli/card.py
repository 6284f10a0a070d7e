"""``medsr card``: writes a model's card from its spec and an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import write
from medsr.errors import UsageError


def card_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder or shipped name.")],
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="results.json of medsr evaluate.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="A training data set with origin and licence; repeatable."),
    ] = None,
    note: Annotated[
        list[str] | None, typer.Option("--note", help="What a user should know; repeatable.")
    ] = None,
    undistilled: Annotated[
        str | None,
        typer.Option("--undistilled", metavar="METHOD", help="The same without a teacher."),
    ] = None,
    precision: Annotated[
        Path | None,
        typer.Option("--precision-json", metavar="FILE", help="Of medsr benchmark inference."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write here, not to the screen.")
    ] = None,
) -> None:
    """Write the card of a model, with the scores of an evaluation it took part in."""
    import hashlib

    from medsr import zoo
    from medsr.evaluate.card import model_card, read_precision, read_results
    from medsr.io.atomic import atomic_file
    from medsr.model import ModelSpec
    from medsr.spec import WEIGHTS_FILE

    if not data:
        raise UsageError("name at least one training data set with --data")
    folder = zoo.resolve(model)
    spec = ModelSpec.read(folder)
    rounded = None
    if precision is not None:
        weights = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        rounded = read_precision(precision, spec.name, weights)
    text = model_card(
        spec, read_results(results), spec.name, data, note or [], undistilled, rounded
    )
    if out is None:
        write(text)
        return
    with atomic_file(out, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8")

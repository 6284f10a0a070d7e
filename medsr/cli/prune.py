"""``medsr prune``: takes the least important channels out of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import write
from medsr.errors import OutputExistsError


def prune_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Shipped name or model folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder of the result.")],
    width: Annotated[
        int | None, typer.Option("--width", min=16, help="Channels to keep, a multiple of 16.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Share to take out, in place of --width.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No summary.")] = False,
) -> None:
    """Prune a model to fewer channels; train it on afterwards with network.start.

    Without either option half of the channels go.
    """
    refuse_existing(output, overwrite=overwrite)

    from medsr.compress import prune
    from medsr.model import SRModel

    if width is None and ratio is None:
        ratio = 0.5
    source = SRModel.load(model)
    pruned = prune(source, width=width, ratio=ratio)
    pruned.save(output)
    if not quiet:
        before, after = source.spec.parameters, pruned.spec.parameters
        write(f"{pruned.spec.name}: {after} parameters of {before}; model folder: {output}")


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something already.

    Raises:
        OutputExistsError: It does, and ``overwrite`` is False.
    """
    if not overwrite and folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists already; choose another name or --overwrite")

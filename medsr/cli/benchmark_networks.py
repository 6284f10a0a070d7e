"""``medsr benchmark networks``: how fast the student networks are at one size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import (
    Device,
    parse_shape,
    parse_whole_scale,
    progress_bar,
    suppress_info,
    write,
)


def networks_command(
    out: Annotated[Path, typer.Option("--json", metavar="FILE", help="Result.")],
    shape: Annotated[
        str, typer.Option("--shape", metavar="X,Y,Z", help="Volume that is timed, input voxels.")
    ] = "96,96,24",
    scale: Annotated[
        str, typer.Option("--scale", help="Whole factors in-plane, in-plane, through-plane.")
    ] = "1,1,4",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often it is timed.")] = 9,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads. Default: PyTorch's.")
    ] = None,
    device: Device = "cpu",
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE.md", help="Write a Markdown table.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table.")] = False,
) -> None:
    """Time student networks of equal size side by side; parameters do not tell their speed."""
    suppress_info(quiet)
    volume, factors = parse_shape(shape), parse_whole_scale(scale)

    from medsr.io.atomic import atomic_file, check_output

    for path in (out, table):
        if path is not None:
            check_output(path, overwrite=overwrite)

    from medsr.benchmark import networks

    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("timing", total=None)
        results = networks.run(
            shape=volume,
            scale=factors,
            rounds=rounds,
            threads=threads,
            device=device,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    networks.save(results, out, overwrite=overwrite)
    text = networks.table(results)
    if table is not None:
        with atomic_file(table, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if not quiet:
        write(text.rstrip())

"""``medsr benchmark compression``: pruning, int8 and distillation side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import (
    Device,
    Precision,
    PrecisionOption,
    parse_shape,
    progress_bar,
    suppress_info,
    write,
)
from medsr.errors import UsageError


def compression_command(
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="NAME|DIR", help="Shipped name or folder.")
    ],
    student: Annotated[
        list[str], typer.Option("--student", metavar="NAME|DIR", help="The same; repeatable.")
    ],
    cohort: Annotated[Path, typer.Option("--cohort", metavar="CSV", help="Manifest of scans.")],
    out: Annotated[
        Path, typer.Option("--json", metavar="FILE", help="Result; what it holds is kept.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe of --recipe."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="YAML", help="To train by after pruning."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training after pruning.")] = 1000,
    teacher_width: Annotated[
        int | None, typer.Option("--teacher-width", min=16, help="Channels. Default: half.")
    ] = None,
    student_width: Annotated[
        int | None, typer.Option("--student-width", min=16, help="Channels. Default: half.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which split is scored.")] = "dev",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Score N scans, spread evenly.")
    ] = None,
    shape: Annotated[
        str, typer.Option("--shape", metavar="X,Y,Z", help="Volume that is timed, input voxels.")
    ] = "128,128,32",
    runs: Annotated[int, typer.Option("--runs", min=1, help="How often it is timed.")] = 5,
    work: Annotated[
        Path, typer.Option("--work", metavar="DIR", help="Folder of models that come about.")
    ] = Path("runs/compression"),
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE.md", help="Write a Markdown table.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw a picture.")
    ] = None,
    device: Device = "cpu",
    precision: Precision = PrecisionOption.auto,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table.")] = False,
) -> None:
    """Set pruning, int8 and distillation side by side, alone and combined.

    Ctrl-C keeps finished rows; the same command goes on.
    """
    suppress_info(quiet)
    volume = parse_shape(shape)
    if overrides and recipe is None:
        raise UsageError("KEY=VALUE changes a recipe; name one with --recipe")

    from medsr.io.atomic import atomic_file, check_output

    for path in (out, table, plot):
        if path is not None:
            check_output(path, overwrite=True)

    from medsr.benchmark import compression, compression_report
    from medsr.benchmark.compression_models import Settings

    settings = Settings(
        cohort=cohort,
        work=work,
        split=split,
        limit=limit,
        steps=steps,
        recipe=recipe,
        overrides=tuple(overrides or ()),
        shape=volume,
        runs=runs,
        device=device,
        precision=precision.value,
    )
    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)
        results = compression.run(
            teacher,
            student,
            out,
            settings,
            teacher_width=teacher_width,
            student_width=student_width,
            progress=lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    text = compression_report.table(results)
    if table is not None:
        with atomic_file(table, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if plot is not None:
        compression_report.plot(results, plot, overwrite=True)
    if not quiet:
        write(text.rstrip())

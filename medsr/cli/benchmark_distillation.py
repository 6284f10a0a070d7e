"""``medsr benchmark distillation``: every method of distillation on the same student."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from medsr.cli.options import Device, progress_bar, suppress_info, write


def distillation_command(
    recipe: Annotated[Path, typer.Option("--recipe", metavar="YAML", help="Base recipe and arms.")],
    out: Annotated[
        Path, typer.Option("--json", metavar="FILE", help="Result; what it holds is kept.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as base.loop.steps=100."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each arm.")] = 3,
    methods: Annotated[
        str, typer.Option("--methods", metavar="NAME,...", help="Only these arms.")
    ] = "",
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the trainings.")
    ] = Path("runs/distillation"),
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="Processes of one thread each."),
    ] = 1,
    device: Device = "cpu",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw a picture.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.md", help="Write a page about it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table.")] = False,
) -> None:
    """Train the same student by every method, and say what each gained and cost.

    All arms of a seed start from the same weights and see the same batches. Ctrl-C keeps finished
    arms; the same command goes on.
    """
    suppress_info(quiet)

    from medsr.io.atomic import check_output

    for path in (out, plot, page):
        if path is not None:
            check_output(path, overwrite=True)

    from medsr.benchmark import distillation, distillation_report

    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)
        results = distillation.run(
            recipe,
            out,
            overrides or [],
            seeds=seeds,
            methods=[name.strip() for name in methods.split(",") if name.strip()],
            folder=folder,
            workers=workers,
            device=device,
            progress=lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    if plot is not None:
        distillation_report.plot(results, plot, overwrite=True)
    if page is not None:
        distillation_report.write_page(
            results, page, data=_link(out, page), picture=_link(plot, page)
        )
    if not quiet:
        write(distillation_report.table(results).rstrip())


def _link(target: Path | None, page: Path) -> str | None:
    """The way from a page to a file, as a link in it."""
    if target is None:
        return None
    return Path(os.path.relpath(target, page.parent)).as_posix()

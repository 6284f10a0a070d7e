"""``medsr benchmark inference``: the engine beside MONAI, all backends and the machine's limit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medsr.cli.options import Device, parse_shape, progress_bar, suppress_info
from medsr.errors import UsageError

if TYPE_CHECKING:
    from medsr.benchmark.inference_report import Table


def inference_command(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|DIR", help="Shipped name or model folder.")
    ] = "mr-z4",
    shape: Annotated[
        str, typer.Option("--shape", metavar="X,Y,Z", help="Volume that is timed, input voxels.")
    ] = "256,256,64",
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result here.")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="How often each arm is timed.")] = 5,
    device: Device = "auto",
    linear: Annotated[
        bool, typer.Option("--linear", help="Also time growing volumes, 64³ to 512 × 512 × 128.")
    ] = False,
    cohort: Annotated[
        Path | None,
        typer.Option("--cohort", metavar="CSV", help="Also score bf16 against fp32 on its scans."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which split of it is scored.")] = "dev",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Score N scans, spread evenly.")
    ] = None,
    difference: Annotated[
        bool,
        typer.Option("--difference", help="Score bf16 alone; the rest of --json's file is kept."),
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.md", help="Write a page about it.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing result.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no tables.")] = False,
) -> None:
    """Time the engine beside MONAI's sliding window, other backends and the machine's limit.

    All arms run in turn in one process, with the same weights on the same volume.
    """
    suppress_info(quiet)
    volume = parse_shape(shape)
    if difference and cohort is None:
        raise UsageError("--difference scores scans; name their manifest with --cohort")
    if difference and linear:
        raise UsageError("--difference times nothing; leave out --linear")

    from medsr.io.atomic import check_output

    results = _kept(out) if difference else {}
    if page is not None and difference and "arms" not in results:
        raise UsageError("--page tells of times; measure them first, without --difference")
    if out is not None:
        check_output(out, overwrite=overwrite or difference)
    if page is not None:
        check_output(page, overwrite=True)

    from medsr import zoo
    from medsr.benchmark import inference, inference_report

    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("loading", total=None)

        def told(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        def keep(replace: bool = True) -> None:
            # After each part: a later one that fails takes nothing along.
            if out is not None:
                inference.save(results, out, overwrite=replace)

        if not difference:
            results = inference.run(model, shape=volume, runs=runs, device=device, progress=told)
            keep(overwrite)
        if linear:
            from medsr.benchmark.inference_linear import linearity

            results["linearity"] = linearity(model, runs=min(runs, 3), device=device, progress=told)
            results["command"] += " --linear"
            keep()
        if cohort is not None:
            from medsr.benchmark.inference_precision import precision_differences

            models = zoo.names() + ([] if model in zoo.names() else [model])
            results["precision_psnr_db"] = precision_differences(
                models, cohort, split=split, limit=limit, device=device, progress=told
            )
            keep()
    if page is not None:
        inference_report.write_page(results, page, data=_link(out, page))
    if not quiet:
        _draw(inference_report.tables(results), results.get("missing", {}))


def _kept(path: Path | None) -> dict[str, Any]:
    """Read an earlier result, which scores are added to.

    Raises:
        UsageError: The file holds something else.
    """
    if path is None or not path.exists():
        return {"schema": 1, "benchmark": "inference"}
    try:
        plain: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        plain = None
    if not isinstance(plain, dict) or plain.get("benchmark") != "inference":
        raise UsageError(f"{path} is no result of medsr benchmark inference; name another file")
    return plain


def _draw(tables: list[Table], missing: Mapping[str, str]) -> None:
    """Show tables on standard output."""
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # nobody's window: lines are not to be broken
    for table in tables:
        drawn = Drawn(title=table.title, title_justify="left", box=None, pad_edge=False)
        for number, name in enumerate(table.header):
            drawn.add_column(name, justify="right" if number else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn, markup=False, highlight=False)
        console.print()
    for name, reason in missing.items():
        console.print(f"not measured: {name}: {reason}", markup=False, highlight=False)


def _link(target: Path | None, page: Path) -> str | None:
    """The way from a page to a file, as a link in it."""
    if target is None:
        return None
    return Path(os.path.relpath(target, page.parent)).as_posix()

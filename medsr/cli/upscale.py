"""``medsr upscale``: a scan from end to end, or a folder of them (``upscale_folder``)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medsr.cli.options import progress_bar, suppress_info, takes_upscale_options
from medsr.cli.upscale_folder import follow_folder, is_for_folders, show_folder
from medsr.io.formats import BUILT_IN

if TYPE_CHECKING:
    from rich.progress import Progress

    from medsr.infer.options import UpscaleOptions


@takes_upscale_options
def upscale_command(
    scan: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="NIfTI, NRRD, MHA, MGZ file or DICOM folder, or a folder of such scans.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="Its ending chooses the format; without one, a DICOM folder. For a folder of "
            "scans, the folder of the results.",
        ),
    ],
    options: UpscaleOptions,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.json", help="Write what was done as JSON."),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview",
            metavar="FILE.png",
            help="Write a before/after picture; of a folder of scans, a folder of pictures.",
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            "--uncertainty",
            metavar="FILE.nii.gz",
            help="Write the error that the network expects, voxel by voxel; of a folder of scans, "
            "a folder of maps.",
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option("--series", metavar="UID", help="Which series of a DICOM folder."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--continue", help="Of a folder, leave out scans whose results exist."),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="K/N", help="Of a folder, part K of N, for job arrays."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"{', '.join(BUILT_IN[:-1])} or {BUILT_IN[-1]}, where the name of OUTPUT does not "
            "say it.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Bring a scan to a finer grid over the same space, in the same format and units."""
    suppress_info(quiet)
    options = options.replace(format=format, overwrite=overwrite, uncertainty=uncertainty)
    places = [output, *filter(None, (preview, uncertainty))]
    if is_for_folders(scan, places, series=series, part=part, resume=resume):
        from medsr.infer.folder import upscale_folder

        with progress_bar(quiet=quiet) as bar:
            summary = upscale_folder(
                scan,
                output,
                options,
                report=report,
                preview=preview,
                resume=resume,
                part=part,
                progress=follow_folder(bar),
            )
        show_folder(summary, output, quiet=quiet)
        return

    from medsr.infer.upscale import upscale
    from medsr.io import name_output

    with progress_bar(quiet=quiet) as bar:
        result = upscale(
            scan,
            output,
            options,
            report=report,
            preview=preview,
            series=series,
            progress=_follow(bar),
        )
    if not quiet:
        written = name_output(output, options.output_format)
        _print_summary(result.report, [written, *filter(None, (uncertainty, report, preview))])


def _follow(bar: Progress) -> Callable[[str, int, int], None]:
    task = bar.add_task("reading", total=None)

    def progress(stage: str, done: int, total: int) -> None:
        bar.update(task, description=stage, completed=done, total=total)

    return progress


def _print_summary(report: dict[str, Any], written: list[Path]) -> None:
    """Spacing before and after, model, seconds and memory; warnings have been logged already."""
    from rich.console import Console
    from rich.table import Table

    before, after, model = report["input"], report["output"], report["model"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("spacing", f"{_by(before['spacing_mm'])} -> {_by(after['spacing_mm'])} mm")
    table.add_row("voxels", f"{_by(before['shape'])} -> {_by(after['shape'])}")
    table.add_row("model", f"{model['name']} {model['version']} ({before['modality']})")
    table.add_row("ran on", f"{report['device']}, {report['precision']}")
    seconds = report["seconds"]
    table.add_row("seconds", f"{seconds['total']:.1f} (network {seconds['network']:.1f})")
    sigma = report.get("uncertainty")
    if sigma:
        unit = " HU" if sigma["units"] == "HU" else ""
        table.add_row("uncertainty", f"median {sigma['median']:.4g}{unit}")
    consistent = report.get("consistency")
    if consistent:
        unit = " HU" if consistent["units"] == "HU" else ""
        before, after = (consistent[when]["largest"] for when in ("before", "after"))
        table.add_row("differs from scan", f"by up to {after:.3g}{unit} (was {before:.3g}{unit})")
    peak = report.get("peak_memory_bytes")
    if peak:
        table.add_row("peak memory", f"{peak / 2**20:.0f} MiB")
    for path in written:
        table.add_row("written", str(path))
    Console().print(table, markup=False, highlight=False)


def _by(values: list[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)

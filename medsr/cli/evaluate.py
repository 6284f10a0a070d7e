"""``medsr evaluate``: scores models beside linear and cubic B-spline on a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from medsr.cli.options import (
    MODALITY_NAMES,
    Device,
    MaxMemory,
    ModalityName,
    ModalityOption,
    Precision,
    PrecisionOption,
    hush,
    parse_whole_scale,
    progress_bar,
    write,
)

if TYPE_CHECKING:
    from medsr.evaluate.results import Results


def evaluate_command(
    cohort: Annotated[Path, typer.Option("--cohort", metavar="CSV", help="Manifest of scans.")],
    split: Annotated[str, typer.Option("--split", help="Which split of the manifest.")],
    scale: Annotated[
        str, typer.Option("--scale", help="1,1,N for through-plane, N,N,N for isotropic.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of results.json and scans.csv.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME|DIR", help="Shipped name or folder; repeatable."),
    ] = None,
    modality: ModalityName = ModalityOption.auto,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Degradation. Default: CT ct_slab, MR slice_profile, MR isotropic kspace.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Score only the first N scans.")
    ] = None,
    device: Device = "auto",
    precision: Precision = PrecisionOption.auto,
    max_memory: MaxMemory = None,
    allow_train: Annotated[
        bool, typer.Option("--allow-train", help="Permit the train split.")
    ] = False,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Score parts of the scans noisy and under attack too."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Score models, linear and cubic B-spline on a split of a cohort.

    Every scan is degraded, restored by every method and compared with the truth. For 1,1,N every
    sharp axis of a scan serves as slice axis in turn.
    """
    hush(quiet)
    factor = parse_whole_scale(scale)
    wanted = None if modality is ModalityOption.auto else MODALITY_NAMES[modality]

    from medsr.evaluate.cohort import evaluate
    from medsr.evaluate.results import check_folder, write_results
    from medsr.evaluate.robustness import Disturbances

    check_folder(out, overwrite=overwrite)
    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)
        results = evaluate(
            cohort,
            split=split,
            scale=factor,
            models=model or [],
            modality=wanted,
            kind=kind,
            limit=limit,
            device=device,
            precision=precision.value,
            max_memory=max_memory,
            allow_train=allow_train,
            robust=Disturbances() if robust else None,
            progress=lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    path = write_results(results, out, overwrite=overwrite)
    if not quiet:
        _print_summary(results)
        if results.disturbed:
            _print_robustness(results)
        write(f"written: {path}")


def _print_summary(results: Results) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("PSNR dB", "over B-spline (min … max)", "SSIM", "NRMSE", "MAE", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, row in results.summary().items():
        gain = row.get("psnr_gain_over_bspline")
        table.add_row(
            method,
            f"{row['psnr']['mean_over_rows']:.2f}",
            f"{gain['mean']:+.2f} ({gain['min']:+.2f} … {gain['max']:+.2f})" if gain else "",
            f"{row['ssim']['mean_over_rows']:.4f}",
            f"{row['nrmse']['mean_over_rows']:.4f}",
            f"{row['mae']['mean_over_rows']:.3g}",
            f"{row['mean_seconds']:.2f}",
        )
    Console().print(table, markup=False, highlight=False)


def _print_robustness(results: Results) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("PSNR dB of parts", no_wrap=True)
    for heading in ("clean", "noise (lost)", "attacked (lost)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, inputs in results.robustness().items():
        cells = []
        for name in ("clean", "noise", "pgd"):
            row = inputs.get(name)
            lost = row.get("psnr_loss") if row else None
            mean = f"{row['psnr']['mean']:.2f}" if row else ""
            cells.append(f"{mean} ({lost['mean']:.2f})" if lost else mean)
        table.add_row(method, *cells)
    Console().print(table, markup=False, highlight=False)

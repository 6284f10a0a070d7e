"""``medsr evaluate``: scores models beside classical baselines on a cohort, and reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    parse_whole_scale,
    progress_bar,
    suppress_info,
    write,
)
from medsr.errors import ScansFailedError, UsageError

if TYPE_CHECKING:
    from medsr.evaluate.results import Results

_ALL = "all"
_SHOWN = ("psnr", "ssim", "mae", "resolution_z_mm", "consistency_rmse")


def evaluate_command(
    cohort: Annotated[
        Path, typer.Option("--cohort", metavar="PATH", help="Manifest (CSV), lock or BIDS folder.")
    ],
    split: Annotated[str, typer.Option("--split", help="Which split of the cohort.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of results, tables and report.")
    ],
    scale: Annotated[
        str | None,
        typer.Option("--scale", help="1,1,N for through-plane, N,N,N for isotropic."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME|DIR", help="Shipped name or folder; repeatable."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME=DIR", help="Results of another tool; repeatable."),
    ] = None,
    baselines: Annotated[
        str, typer.Option("--baselines", metavar="NAMES", help="Such as linear,bspline,tv; or all.")
    ] = _ALL,
    modality: ModalityName = ModalityOption.auto,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Degradation. Default: CT ct_slab, MR slice_profile, MR isotropic kspace.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Draw degradations and noise instead of the nominal."),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Compare real thick scans with thin ones (lr_path).")
    ] = False,
    parts: Annotated[
        str,
        typer.Option(
            "--parts", metavar="NAMES", help="consistency,downstream,lesions; all or none."
        ),
    ] = _ALL,
    consistency: Annotated[
        bool, typer.Option("--consistency", help="Score models also projected onto the scan.")
    ] = False,
    margin: Annotated[
        float, typer.Option("--margin", metavar="DB", help="Of non-inferiority to the teacher.")
    ] = 0.1,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Score only the first N scans.")
    ] = None,
    write_inputs: Annotated[
        Path | None,
        typer.Option("--write-inputs", metavar="DIR", help="Write the scans that methods get."),
    ] = None,
    device: Device = "auto",
    precision: Precision = PrecisionOption.auto,
    max_memory: MaxMemory = None,
    allow_train: Annotated[
        bool,
        typer.Option("--allow-train", help="Permit patients that a model was trained on."),
    ] = False,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="Score parts of the scans noisy and under attack too."),
    ] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")] = True,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write report.pdf too.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing results.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")] = False,
) -> None:
    """Score models, other tools and classical baselines on a split of a cohort.

    Every scan is degraded, restored by every method and compared with the truth. For 1,1,N every
    sharp axis of a scan serves as slice axis in turn. A run that was stopped goes on where it was.
    """
    suppress_info(quiet)
    if pdf and not report:
        raise UsageError("--pdf prints the report; leave out --no-report")

    from medsr.evaluate.baselines import BASELINES
    from medsr.evaluate.plan import Plan
    from medsr.evaluate.robustness import Disturbances
    from medsr.evaluate.run import evaluate_into
    from medsr.evaluate.runner import PARTS

    plan = Plan(
        cohort,
        split=split,
        scale=None if scale is None else parse_whole_scale(scale),
        models=tuple(model or ()),
        others=_parse_methods(method or []),
        baselines=_parse_names(baselines, BASELINES),
        modality=None if modality is ModalityOption.auto else MODALITY_NAMES[modality],
        kind=kind,
        seed=seed,
        pairs=pairs,
        parts=_parse_names(parts, PARTS),
        consistency=consistency,
        margin_db=margin,
        limit=limit,
        device=device,
        precision=precision.value,
        max_memory=max_memory,
        allow_train=allow_train,
        robust=Disturbances() if robust else None,
        write_inputs=write_inputs,
    )
    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)
        results, path = evaluate_into(
            plan,
            out,
            report=report,
            pdf=pdf,
            overwrite=overwrite,
            progress=lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    if not quiet:
        _print_summary(results)
        if results.disturbed:
            _print_robustness(results)
        write(f"written: {path}")
    if results.failed:
        count = len(results.failed)
        what = (
            "scan or restoration failed and is"
            if count == 1
            else ("scans or restorations failed and are")
        )
        raise ScansFailedError(
            f'{count} {what} listed in the results under "failed"; the same command with '
            "--overwrite tries again"
        )


def _parse_names(text: str, known: Collection[str]) -> tuple[str, ...]:
    """Read ``a,b``, ``all`` or ``none``."""
    if text.strip().lower() == _ALL:
        return tuple(known)
    names = [name.strip().lower() for name in text.split(",")]
    return tuple(name for name in names if name and name != "none")


def _parse_methods(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=DIR`` options.

    Raises:
        UsageError: One is something else, or a name comes twice.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not (name.strip() and folder) or name.strip() in folders:
            raise UsageError(f"--method {text}: give NAME=DIR, each name once")
        folders[name.strip()] = Path(folder)
    return folders


def _print_summary(results: Results) -> None:
    from medsr.evaluate.metrics.catalogue import describe
    from medsr.evaluate.report.answers import answers
    from medsr.evaluate.report.headline import lede, title, warnings
    from medsr.evaluate.report.reading import ReportData as Reading

    means = results.found["statistics"]["means"]
    shown = [name for name in _SHOWN if any(name in row for row in means.values())]
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in shown:
        info = describe(name)
        table.add_column(" ".join(filter(None, (info.label, info.unit))), justify="right")
    for method, row in means.items():
        table.add_row(method, *(_interval(row.get(name)) for name in shown))
    Console().print(table, markup=False, highlight=False)
    of = Reading(results.to_dict())
    for line in (title(of), lede(of)):
        write(line)
    for answer in answers(of):
        write(f"{answer.question} {answer.short}: {answer.detail}")
    for line in warnings(of):
        write(f"note: {line}")


def _interval(found: Mapping[str, Any] | None) -> str:
    """A mean over patients with its interval, as many digits as the size asks for."""
    if found is None or found["mean"] is None:
        return ""
    digits = 4 if abs(found["mean"]) < 1 else 2
    text = f"{found['mean']:.{digits}f}"
    if found["low"] is None:
        return text
    return f"{text} ({found['low']:.{digits}f} … {found['high']:.{digits}f})"


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

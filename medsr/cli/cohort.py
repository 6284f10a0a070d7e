"""``medsr cohort``: splits a cohort by patient, freezes the split, and looks for leaks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from medsr.cli.options import messages, progress_bar, suppress_info, write
from medsr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medsr.data.leaks import Leaks, Twins
    from medsr.data.lock import Stratum
    from medsr.data.manifest import ScanRecord

cohort_app = typer.Typer(
    help="Split a cohort by patient, freeze the split, and look for leaks.", no_args_is_help=True
)

DEFAULT_FRACTIONS = "train=0.7,dev=0.15,test=0.15"

Cohort = Annotated[
    Path, typer.Argument(metavar="COHORT", help="CSV manifest, BIDS folder or lock file.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no tables.")]


@cohort_app.command("split")
def split_command(
    cohort: Cohort,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Lock file, such as cohort.lock.json.")
    ],
    fractions: Annotated[
        str | None,
        typer.Option(
            "--fractions",
            metavar="NAME=F,...",
            help=f"Share of each split. Default: {DEFAULT_FRACTIONS}.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the hash that orders patients. Default: 0.")
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option("--extend", metavar="LOCK", help="Known patients keep their splits."),
    ] = None,
    keep_splits: Annotated[
        bool, typer.Option("--keep-splits", help="Freeze the splits that the cohort names.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing lock file.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Split a cohort by patient and freeze the split in a lock file.

    Patients go to splits by a fixed hash, stratified by modality, contrast and site.
    """
    suppress_info(quiet)
    if keep_splits and (fractions or extend or seed is not None):
        raise UsageError("--keep-splits splits nothing; leave --fractions, --seed, --extend out")

    from medsr.data.cohort import freeze, is_lock
    from medsr.data.lock import read_lock, write_lock
    from medsr.data.split import parse_fractions
    from medsr.io.atomic import check_output

    if not is_lock(out):
        raise UsageError(f"{out}: a lock file is named .json, such as cohort.lock.json")
    check_output(out, overwrite=overwrite)
    old = None if extend is None else read_lock(extend)
    if old is not None and old.seed is not None and (fractions or seed is not None):
        raise UsageError("--extend takes seed and fractions of the lock; leave both options out")
    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)
        lock = freeze(
            cohort,
            out.parent,
            fractions=parse_fractions(fractions or DEFAULT_FRACTIONS),
            seed=seed or 0,
            extend=old,
            keep_splits=keep_splits,
            progress=lambda done, total, what: bar.update(
                task, completed=done, total=total, description=what
            ),
        )
    write_lock(lock, out, overwrite=overwrite)
    if not quiet:
        _print_strata(lock.strata)
        write(f"written: {out}")


@cohort_app.command("check")
def check_command(
    cohort: Cohort,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Verify the hashes of this split alone, and for --model."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME|DIR", help="Did it learn from these patients? Repeatable."
        ),
    ] = None,
    content: Annotated[
        bool, typer.Option("--content/--no-content", help="Compare what the scans show, too.")
    ] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Check a cohort: hashes of a lock, patients under two names, scans saved twice, models.

    Leaves with 55 where locked scans have changed, 56 where one acquisition stands in two splits,
    and 54 where a model learnt from the patients.
    """
    suppress_info(quiet)

    from medsr.data.cohort import is_lock, read_cohort
    from medsr.data.leaks import check_leaks
    from medsr.data.lock import read_lock, table, verify
    from medsr.data.manifest import UNSPLIT, select
    from medsr.io.atomic import check_output

    if json_file is not None:
        check_output(json_file, overwrite=True)
    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        if not cohort.is_dir() and is_lock(cohort):
            verify(read_lock(cohort), cohort, split=split, progress=show)
        records = read_cohort(cohort, needs_split=False)
        if {record.split for record in records} != {UNSPLIT}:
            records = read_cohort(cohort)
        scored = select(records, split=split)
        leaks = check_leaks(records, content=content, progress=show)
    if not quiet:
        _print_strata(table(records))
        _print_leaks(leaks, records)
    if json_file is not None:
        _write_findings(leaks, records, json_file)
    leaks.refuse()
    if model:
        _check_models(model, scored, quiet=quiet)


def _check_models(models: Sequence[str], records: Sequence[ScanRecord], *, quiet: bool) -> None:
    from medsr import zoo
    from medsr.data.overlap import refuse_training_patients
    from medsr.model import ModelSpec

    specs = [ModelSpec.read(zoo.resolve(name)) for name in models]
    for warning in refuse_training_patients(specs, records):
        messages().print(f"medsr: warning: {warning}", markup=False, highlight=False)
    if not quiet:
        write(f"models that learnt from none of these patients: {len(specs)}")


def _print_strata(strata: Sequence[Stratum]) -> None:
    grid = Table(box=None, pad_edge=False)
    grid.add_column("patients (scans)", overflow="fold")
    splits = list(strata[0].patients)
    for name in splits:
        grid.add_column(name, justify="right", no_wrap=True)
    for row in strata:
        cells = [f"{row.patients[name]} ({row.scans[name]})" for name in splits]
        grid.add_row(row.stratum, *cells)
    if len(strata) > 1:
        totals = [
            f"{sum(r.patients[name] for r in strata)} ({sum(r.scans[name] for r in strata)})"
            for name in splits
        ]
        grid.add_row("all", *totals)
    Console().print(grid, markup=False, highlight=False)


def _print_leaks(leaks: Leaks, records: Sequence[ScanRecord]) -> None:
    findings = (
        ("nearly the same patient_id: the same person?", leaks.spellings),
        ("the same acquisition under two patient_ids", leaks.contents),
    )
    names = _names(records)
    for title, pairs in findings:
        if not pairs:
            continue
        grid = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("scan", "split", "scan", "split"):
            grid.add_column(heading, overflow="fold")
        grid.add_column("likeness", justify="right")
        for row in (_row(twins, names) for twins in pairs):
            grid.add_row(*(str(row[key] or "") for key in _KEYS))
        Console().print(grid, markup=False, highlight=False)
    for scan, reason in leaks.unread:
        write(f"not compared: {scan} cannot be read ({reason})")
    if not leaks.spellings and not leaks.contents:
        compared = f"; {leaks.compared} pairs of scans compared" if leaks.compared else ""
        write(f"no patient found under two names{compared}")


_KEYS = ("first", "first_split", "second", "second_split", "likeness")


def _row(twins: Twins, names: dict[Path, str]) -> dict[str, Any]:
    values = (
        names[twins.first.path],
        twins.first.split,
        names[twins.second.path],
        twins.second.split,
        twins.likeness,
    )
    return dict(zip(_KEYS, values, strict=True))


def _names(records: Sequence[ScanRecord]) -> dict[Path, str]:
    """Scans by their paths below the folder that holds them all."""
    root = os.path.commonpath([record.path.parent for record in records])
    return {record.path: record.path.relative_to(root).as_posix() for record in records}


def _write_findings(leaks: Leaks, records: Sequence[ScanRecord], path: Path) -> None:
    import json

    from medsr.io.atomic import atomic_file

    names = _names(records)
    findings = {
        "spellings": [_row(twins, names) for twins in leaks.spellings],
        "contents": [_row(twins, names) for twins in leaks.contents],
        "unread": [{"scan": scan, "reason": reason} for scan, reason in leaks.unread],
        "compared": leaks.compared,
    }
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(findings, indent=2) + "\n", encoding="utf-8")

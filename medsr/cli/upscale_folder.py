"""``medsr upscale INDIR OUTDIR``: the part of ``medsr upscale`` that serves a folder of scans."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medsr.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from medsr.infer.folder import FolderSummary


def is_for_folders(
    scan: Path, places: list[Path], *, series: str | None, part: str | None, resume: bool
) -> bool:
    """Whether a call means a folder of scans, and not one scan.

    Args:
        scan: What is to be upscaled.
        places: Where results go, which may be folders below ``scan``.
        series: ``--series``, which picks one scan.
        part: ``--part``, which only a folder has.
        resume: ``--continue``, which only a folder has.

    Raises:
        UsageError: The options fit neither.
    """
    asked = part is not None or resume
    if not scan.is_dir():
        if asked and scan.exists():
            raise UsageError(f"--part and --continue are for folders, and {scan} is one scan")
        return False
    if series is not None:
        if asked:
            raise UsageError("--series picks one scan; --part and --continue are for folders")
        return False
    if asked:
        return True
    from medsr.io.scans import count_scans

    # A folder without any scan is refused in the words for one scan.
    return count_scans(scan, leave_out=places) == "several"


def show_folder(summary: FolderSummary, output: Path, *, quiet: bool) -> None:
    """Show what came of a folder, and list what was skipped, doubtful or failed.

    Raises:
        ScansFailedError: At least one scan could not be upscaled.
        DoubtfulResultsError: None failed, and at least one result is not to be trusted.
    """
    if not quiet:
        _print_summary(summary, output)
    for scan in summary.scans:
        if scan.outcome != "done" and not scan.is_old:
            code = f" (exit code {scan.exit_code})" if scan.outcome == "failed" else ""
            sys.stderr.write(f"medsr: {scan.name}: {scan.outcome}: {scan.reason}{code}\n")
    if not quiet and len(summary.of_kind("skipped")) == len(summary.scans):
        sys.stderr.write("medsr: nothing was upscaled: every scan was skipped\n")
    summary.check()


def follow_folder(bar: Progress) -> Callable[[int, int, str], None]:
    """Let a progress bar follow the scans of a folder."""
    task = bar.add_task("reading", total=None)

    def progress(done: int, total: int, stage: str) -> None:
        bar.update(task, description=stage, completed=done, total=total)

    return progress


def _print_summary(summary: FolderSummary, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for kind, count in summary.counts.items():
        old = sum(scan.is_old for scan in summary.of_kind(kind))
        table.add_row(kind, f"{count} ({old} done before)" if old else str(count))
    models = sorted({report["model"]["name"] for report in summary.reports.values()})
    if models:
        table.add_row("model", ", ".join(models))
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("written", str(output))
    Console().print(table, markup=False, highlight=False)

"""``medsr upscale INDIR OUTDIR``: the part of ``medsr upscale`` that serves a folder of scans."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsr.cli.options import progress_bar
from medsr.errors import ScansFailedError, UsageError

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


def run_folder(folder: Path, output: Path, *, quiet: bool, **options: Any) -> None:
    """Upscale a folder, show what came of it and list what failed.

    Raises:
        ScansFailedError: At least one scan could not be upscaled.
    """
    from medsr.infer.folder import upscale_folder

    with progress_bar(quiet=quiet) as bar:
        summary = upscale_folder(folder, output, progress=_follow(bar), **options)
    if not quiet:
        _print_summary(summary, output)
    for failure in summary.failures:
        line = f"medsr: {failure.name}: {failure.reason} (exit code {failure.exit_code})"
        sys.stderr.write(line + "\n")
    if summary.failures:
        count = len(summary.failures) + len(summary.reports)
        raise ScansFailedError(
            f"{len(summary.failures)} of {count} scans could not be upscaled; see above"
        )


def _follow(bar: Progress) -> Callable[[int, int, str], None]:
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
    table.add_row("upscaled", str(len(summary.reports)))
    if summary.skipped:
        table.add_row("done before", str(len(summary.skipped)))
    if summary.failures:
        table.add_row("failed", str(len(summary.failures)))
    models = sorted({report["model"]["name"] for report in summary.reports.values()})
    if models:
        table.add_row("model", ", ".join(models))
    table.add_row("seconds", f"{summary.seconds:.1f}")
    table.add_row("written", str(output))
    Console().print(table, markup=False, highlight=False)

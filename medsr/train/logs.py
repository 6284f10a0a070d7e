"""Where a run writes what happens: a CSV file, TensorBoard where installed, a progress bar."""

from __future__ import annotations

import csv
import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medsr.io.atomic import atomic_file

logger = logging.getLogger(__name__)

LOG_FILE = "log.csv"
COLUMNS = ("step", "name", "value")


class RunLog:
    """Named values by step, in ``log.csv`` (step, name, value) and TensorBoard.

    Args:
        folder: Run folder.
        start: Step at which the run starts or resumes; later lines of an earlier run that was
            cut off are dropped, so that no step is logged twice.
        steps: Steps in all, for the progress bar.
        main: Only the main process writes.
        quiet: No progress bar, even on a terminal.
    """

    def __init__(
        self, folder: Path, start: int, steps: int, *, main: bool = True, quiet: bool = False
    ):
        earlier_rows = _rows_before(folder / LOG_FILE, start) if main else []
        self._known = {(int(row[0]), row[1]) for row in earlier_rows}
        self._file = _open_csv(folder / LOG_FILE, earlier_rows) if main else None
        self._board = _open_board(folder / "tensorboard", start) if main else None
        quiet = quiet or not main
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            # Not console.is_terminal: FORCE_COLOR, which many CI services set, makes that true.
            disable=quiet or not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("training", total=steps, completed=start, note="")

    def __enter__(self) -> RunLog:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def knows(self, step: int, prefix: str) -> bool:
        """Whether an earlier run logged a value of this step whose name starts so."""
        return any(known == step and name.startswith(prefix) for known, name in self._known)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log values of one step."""
        if self._file is not None:
            rows = [[step, name, f"{value:.6g}"] for name, value in values.items()]
            csv.writer(self._file).writerows(rows)
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def advance(self, step: int, losses: dict[str, float]) -> None:
        """Move the progress bar to ``step`` finished steps and show the losses."""
        note = " ".join(f"{name.rpartition('/')[2]} {value:.4f}" for name, value in losses.items())
        self._progress.update(self._task, completed=step, note=note)


def _open_csv(path: Path, kept: list[list[str]]) -> TextIO:
    """Open the log for appending, without the lines that a resumed run will write again."""
    with (
        atomic_file(path, overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([COLUMNS, *kept])
    return path.open("a", newline="", encoding="utf-8")


def _open_board(folder: Path, start: int) -> Any:
    """Open TensorBoard's writer; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed; pip install 'medsr[train]' adds it")
        return None
    return SummaryWriter(str(folder), purge_step=start + 1)


def _rows_before(path: Path, step: int) -> list[list[str]]:
    """Return the rows of an earlier log whose step lies at or before ``step``."""
    if step == 0 or not path.exists():
        return []
    # A machine that lost power may leave the last line torn, or filled with zero bytes.
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    rows = [row for row in csv.reader(text.splitlines()) if len(row) == len(COLUMNS)]
    return [row for row in rows if row[0].isdecimal() and int(row[0]) <= step]

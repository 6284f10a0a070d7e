"""Where a run writes what happens: a CSV file, TensorBoard where installed, a progress bar."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
        quiet: No progress bar, even on a terminal.
    """

    def __init__(self, folder: Path, start: int, steps: int, quiet: bool = False):
        path = folder / LOG_FILE
        kept = _rows_before(path, start)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *kept])
        self._file = path.open("a", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            logger.info("tensorboard is not installed; pip install 'medsr[train]' adds it")
            self._board = None
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=quiet or not console.is_terminal,
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
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log values of one step."""
        for name, value in values.items():
            self._csv.writerow([step, name, f"{value:.6g}"])
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        self._file.flush()

    def advance(self, step: int, note: str | None = None) -> None:
        """Move the progress bar to ``step`` finished steps."""
        if note is None:
            self._progress.update(self._task, completed=step)
        else:
            self._progress.update(self._task, completed=step, note=note)


def _rows_before(path: Path, step: int) -> list[list[str]]:
    """Return the rows of an earlier log whose step lies at or before ``step``."""
    if step == 0 or not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return [row for row in rows if len(row) == len(COLUMNS) and int(row[0]) <= step]

"""The folder of an evaluation: ``results.json``, the tables, and what an unfinished run left.

``results.json`` carries everything needed to read the numbers (conventions, degradation, versions,
models), ``scans.csv`` the rows alone, ``lesions.csv`` and ``robustness.csv`` those of implanted
lesions and disturbed inputs. Rows of an unfinished run lie in ``unfinished/``, one file a scan and
axis, beside the settings they were made with, so that only a run of the same settings goes on.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsr.errors import OutputExistsError, OutputNotWritableError
from medsr.evaluate.results.table import Results, finite
from medsr.io.atomic import atomic_file, check_output

RESULTS_FILE = "results.json"
TABLE_FILE = "scans.csv"
LESIONS_FILE = "lesions.csv"
ROBUSTNESS_FILE = "robustness.csv"
REPORT_FILE = "report.html"
PDF_FILE = "report.pdf"
UNFINISHED = "unfinished"

_FILES = (RESULTS_FILE, TABLE_FILE, LESIONS_FILE, ROBUSTNESS_FILE, REPORT_FILE, PDF_FILE)
_SETTINGS = "settings.json"
_WRITING = "writing"  # there as soon as the results beside it are those of the unfinished run


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot take results, before any work is spent on them.

    Results of a run that was stopped before its report was written may be replaced.

    Raises:
        OutputExistsError: It holds results already and ``overwrite`` is False, or is a file.
        OutputNotWritableError: It cannot be made or written.
    """
    if not folder.is_dir():
        check_output(folder, overwrite=False)
        return
    replaceable = overwrite or (folder / UNFINISHED / _WRITING).is_file()
    for name in _FILES:
        check_output(folder / name, overwrite=replaceable)


def write_results(results: Results, folder: Path, *, overwrite: bool = False) -> Path:
    """Write ``results.json``, ``scans.csv`` and, where there are such rows, the other tables.

    Each file appears whole or not at all. Tables and reports that another evaluation left are
    taken away.

    Returns:
        The path of ``results.json``.

    Raises:
        OutputExistsError: One of them is there and ``overwrite`` is False.
        OutputNotWritableError: The folder cannot be written.
    """
    check_folder(folder, overwrite=overwrite)
    make_folder(folder)
    tables = {
        TABLE_FILE: results.rows(),
        LESIONS_FILE: results.found.get("lesions", {}).get("rows", ()),
        ROBUSTNESS_FILE: results.disturbed_rows(),
    }
    for name, rows in tables.items():
        if rows:
            _write_table(folder / name, rows, overwrite=overwrite)
    stale = {name for name, rows in tables.items() if not rows} | {REPORT_FILE, PDF_FILE}
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    target = folder / RESULTS_FILE
    with atomic_file(target, overwrite=overwrite) as temporary:
        text = json.dumps(results.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def make_folder(folder: Path) -> None:
    """Make a folder whose parent exists.

    Raises:
        OutputNotWritableError: It cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputNotWritableError(f"{folder}: cannot be made ({error.strerror})") from error


class Unfinished:
    """What an evaluation has found so far, kept on disk until all of it is there.

    Args:
        folder: The folder of the evaluation; None keeps nothing.
        settings: All that the rows depend on, as plain data.
        overwrite: Whether rows of other settings may be thrown away.

    Raises:
        OutputExistsError: Rows of other settings are there and ``overwrite`` is False.
        OutputNotWritableError: The folder cannot be made.
    """

    def __init__(
        self, folder: Path | None, settings: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self._folder = None if folder is None else folder / UNFINISHED
        if folder is None or self._folder is None:
            return
        make_folder(folder)
        text = json.dumps(finite(settings), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        settings_file = self._folder / _SETTINGS
        if self._folder.exists() and _read(settings_file) != json.loads(text):
            if not overwrite:
                raise OutputExistsError(
                    f"{self._folder} holds part of an evaluation with other settings; finish that "
                    "one, choose another folder, or pass --overwrite to throw it away"
                )
            shutil.rmtree(self._folder)
        make_folder(self._folder)
        with atomic_file(settings_file, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def load(self, name: str) -> dict[str, Any] | None:
        """What was kept under a name, or None."""
        file = self._file(name)
        stored = None if file is None else _read(file)
        return stored if isinstance(stored, dict) else None

    def keep(self, name: str, found: Mapping[str, Any]) -> None:
        """Keep plain data under a name; numbers survive to the last digit, NaN included."""
        file = self._file(name)
        if file is None:
            return
        with atomic_file(file, overwrite=True) as temporary:
            temporary.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")

    def writing(self) -> bool:
        """Note that the folder's results are this run's own from here on.

        Returns:
            Whether a stopped run of the same settings had come so far before.
        """
        if self._folder is None:
            return False
        note = self._folder / _WRITING
        is_ours = note.is_file()
        with atomic_file(note, overwrite=True) as temporary:
            temporary.write_text("", encoding="utf-8")
        return is_ours

    def clear(self) -> None:
        """Remove it all, once the results are written."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)

    def _file(self, name: str) -> Path | None:
        # Names of scans are the user's: their hash is safe in any file system.
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        return None if self._folder is None else self._folder / f"{digest}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, overwrite: bool) -> None:
    table = io.StringIO(newline="")
    columns = list(dict.fromkeys(_columns(rows)))
    writer = csv.DictWriter(table, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(list(rows)))
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(table.getvalue(), encoding="utf-8")


def _columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield from row

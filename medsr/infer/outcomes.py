"""What came of each scan of a folder: done, skipped, doubtful or failed, and why; and the report.

``medsr.infer.folder`` does the work and tells of it here. Warnings that are logged while a scan is
read, computed or written are given its name, and kept with what came of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from medsr import io
from medsr._version import __version__
from medsr.errors import (
    DoubtfulResultsError,
    MedsrError,
    OutputExistsError,
    ScansFailedError,
)
from medsr.infer.folder_jobs import Job, Places
from medsr.io.atomic import atomic_file

logger = logging.getLogger(__name__)

Kind = Literal["done", "skipped", "doubtful", "failed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

DONE_BEFORE = "done before"
UNEXPECTED = 70
"""Exit code of a fault of medsr itself, as the command line has it."""


@dataclass(frozen=True)
class Outcome:
    """What came of one scan.

    Args:
        name: Its path relative to the folder.
        outcome: ``"done"``; ``"skipped"``, where there is nothing to do; ``"doubtful"``, a result
            that is not to be trusted; ``"failed"``.
        reason: One line; empty where it is done.
        error: Name of the class in ``medsr.errors`` that says why there is no result.
        exit_code: What ``medsr upscale`` of this scan alone would leave with.
        output: The result, relative to the folder of the results; None where there is none.
        warnings: What was warned of.
        report: What was done, as for a single scan; None where there is no result.

    Examples:
        >>> from medsr.infer.folder import Outcome
        >>> scan = Outcome("p3.nii.gz", "failed", "the file is empty", "CorruptFileError", 13)
        >>> scan.outcome, scan.exit_code
        ('failed', 13)
    """

    name: str
    outcome: Kind
    reason: str = ""
    error: str | None = None
    exit_code: int = 0
    output: str | None = None
    warnings: tuple[str, ...] = ()
    report: dict[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def of_error(cls, job: Job, error: Exception, warnings: list[str]) -> Outcome:
        """Say what whatever was raised means."""
        logger.debug("traceback", exc_info=error)
        kind = type(error).__name__
        if not isinstance(error, MedsrError):
            # The text of an unforeseen error may quote anything.
            reason, code = f"unexpected {kind}; see medsr --debug", UNEXPECTED
            return cls(job.name, "failed", reason, kind, code, None, tuple(warnings))
        reason = " ".join(str(error).removeprefix(f"{job.path}: ").split())
        outcome: Kind = "skipped" if error.nothing_to_do else "failed"
        return cls(job.name, outcome, reason, kind, error.exit_code, None, tuple(warnings))

    @classmethod
    def of_report(cls, job: Job, report: dict[str, Any], warnings: list[str]) -> Outcome:
        """Say what the report of a scan that was upscaled means."""
        said = tuple(dict.fromkeys([*warnings, *report["warnings"]]))
        doubts = "; ".join(report["doubts"])
        outcome: Kind = "doubtful" if doubts else "done"
        return cls(job.name, outcome, doubts, output=job.result, warnings=said, report=report)

    @classmethod
    def of_before(cls, job: Job) -> Outcome:
        """A scan whose result was there already."""
        return cls(job.name, "skipped", DONE_BEFORE, output=job.result)

    @property
    def is_old(self) -> bool:
        """Whether the result was there already."""
        return self.reason.startswith(DONE_BEFORE)


@dataclass(frozen=True)
class FolderSummary:
    """What came of a folder.

    Args:
        scans: What came of each scan, in the order of names; after an interrupt of those that were
            settled.
        seconds: From beginning to end.

    Examples:
        >>> from medsr import FolderSummary
        >>> from medsr.infer.folder import Outcome
        >>> scans = (Outcome("p1.nii.gz", "done"), Outcome("p2.nii.gz", "doubtful", "does not fit"))
        >>> summary = FolderSummary(scans, seconds=12.5)
        >>> summary.counts, summary.exit_code
        ({'done': 1, 'skipped': 0, 'doubtful': 1, 'failed': 0}, 57)
    """

    scans: tuple[Outcome, ...]
    seconds: float

    def of_kind(self, kind: Kind) -> tuple[Outcome, ...]:
        """Those scans of which this came."""
        return tuple(scan for scan in self.scans if scan.outcome == kind)

    @property
    def counts(self) -> dict[Kind, int]:
        """How many scans there are of each kind."""
        return {kind: len(self.of_kind(kind)) for kind in KINDS}

    @property
    def reports(self) -> dict[str, dict[str, Any]]:
        """The report of every scan that was upscaled now, by name."""
        return {s.name: s.report for s in self.scans if s.report is not None and not s.is_old}

    @property
    def exit_code(self) -> int:
        """What the command leaves with: 0, or the code of what :meth:`check` raises."""
        try:
            self.check()
        except MedsrError as error:
            return error.exit_code
        return 0

    def check(self) -> None:
        """Raise where not all is well.

        Raises:
            ScansFailedError: Some scans could not be upscaled.
            DoubtfulResultsError: None failed, but some results are not to be trusted.
        """
        counts, total = self.counts, len(self.scans)
        if counts["failed"]:
            raise ScansFailedError(
                f"{counts['failed']} of {total} scans could not be upscaled; see above"
            )
        if counts["doubtful"]:
            raise DoubtfulResultsError(
                f"{counts['doubtful']} of {total} scans have a result that is not to be trusted; "
                "see above"
            )

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, ready for JSON."""
        return {
            "medsr": __version__,
            "exit_code": self.exit_code,
            "counts": self.counts,
            "scans": [asdict(scan) for scan in self.scans],
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Journal:
    """The report file of a folder, if one is wanted."""

    path: Path | None
    overwrite: bool
    resume: bool

    def check(self, places: Places) -> None:
        """Refuse a name that cannot be written."""
        if self.path is None:
            return
        if self.path.is_dir() or self.path in places.folders:
            raise OutputExistsError(f"{self.path} is a folder; choose a file name")
        # The folder of the results may be made later.
        if self.path.parent.is_dir() or self.path.parent not in places.folders:
            io.check_output(self.path, overwrite=self.overwrite or self.resume)

    def write(self, summary: FolderSummary) -> None:
        """Write it, with what an earlier call wrote of the scans that were left out now."""
        if self.path is None:
            return
        content = summary.to_dict()
        if self.resume:
            earlier = self._earlier()
            content["scans"] = [
                _remembered(scan, earlier.get(scan["name"])) for scan in content["scans"]
            ]
        with atomic_file(self.path, overwrite=self.overwrite or self.resume) as file:
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _earlier(self) -> dict[str, dict[str, Any]]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            earlier_scans = json.loads((self.path or Path()).read_text(encoding="utf-8"))["scans"]
            return {scan["name"]: scan for scan in earlier_scans}
        return {}


def _remembered(scan: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """A scan that was done before, with what its report said then."""
    if scan["reason"] != DONE_BEFORE or earlier is None or not earlier.get("report"):
        return scan
    doubt = "; ".join(earlier["report"].get("doubts", ()))
    reason = f"{DONE_BEFORE}, and doubtful: {doubt}" if doubt else DONE_BEFORE
    kept = {key: earlier.get(key) for key in ("warnings", "report")}
    return {**scan, **kept, "reason": reason}


# --- warnings ---------------------------------------------------------------------------------

_now: ContextVar[tuple[Job, list[str]] | None] = ContextVar("scan", default=None)


@contextmanager
def speaking_of(job: Job, warnings: list[str]) -> Iterator[None]:
    """Give what this thread logs meanwhile the name of a scan, and keep the warnings."""
    token = _now.set((job, warnings))
    try:
        yield
    finally:
        _now.reset(token)


class _Namer(logging.Handler):
    """Comes before all other handlers, so that they get records with the scan's name."""

    def emit(self, record: logging.LogRecord) -> None:
        scan = _now.get()
        if scan is None:
            return
        job, warnings = scan
        text = record.getMessage().removeprefix(f"{job.path}: ")
        if record.levelno >= logging.WARNING:
            warnings.append(text)
        record.msg, record.args = f"{job.name}: {text}", ()


@contextmanager
def names_in_warnings() -> Iterator[None]:
    """Let :func:`speaking_of` work."""
    root, namer = logging.getLogger("medsr"), _Namer()
    root.handlers.insert(0, namer)
    try:
        yield
    finally:
        root.removeHandler(namer)

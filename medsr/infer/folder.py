"""A folder of scans: :func:`upscale_folder` reads, computes and writes different scans at once.

One scan is ahead being read, one is computed and one is being written, so at most three are in
memory. A scan that fails is noted and the next one taken. Which scans there are and where their
results go is said by ``medsr.infer.folder_jobs``; what is done to each by ``medsr.infer.upscaler``;
what came of it by ``medsr.infer.outcomes``.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

from medsr._version import __version__
from medsr.errors import (
    Interrupted,
    OutputExistsError,
    OutputNotWritableError,
    UsageError,
)
from medsr.infer.folder_jobs import Job, Places, list_jobs
from medsr.infer.options import UpscaleKeywords, UpscaleOptions
from medsr.infer.outcomes import (
    FolderSummary,
    Journal,
    Outcome,
    names_in_warnings,
    speaking_of,
)
from medsr.infer.result import UpscaleOutput
from medsr.infer.scan import LoadedScan
from medsr.infer.upscaler import Upscaler
from medsr.io import bids
from medsr.io.atomic import atomic_file
from medsr.types import Progress

logger = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

__all__ = ["FolderSummary", "Outcome", "upscale_folder"]


def upscale_folder(
    folder: str | Path,
    output: str | Path,
    options: UpscaleOptions | None = None,
    *,
    report: str | Path | None = None,
    preview: str | Path | None = None,
    resume: bool = False,
    part: str | None = None,
    progress: Progress | None = None,
    **changes: Unpack[UpscaleKeywords],
) -> FolderSummary:
    """Bring every scan below a folder to a finer grid; models are loaded once.

    Args:
        folder: Scan files, and folders and zip archives of DICOM slices, at any depth; see
            :func:`medsr.io.scans.find_scans`. A folder with DICOM slices directly in it is one
            scan, for :func:`medsr.upscale`.
        output: Folder of the results, which have the names and formats of the scans; made where
            it is missing. Below ``folder`` it is left out of the search.
        options: How every scan is upscaled; the defaults when not given. ``uncertainty`` names a
            folder of maps; without ``format`` each result has the format of its scan. Under a
            ``max_memory`` one scan at a time is in memory: nothing is read ahead.
        report: One JSON file for all scans. It names scans by their paths relative to ``folder``.
        preview: Folder of the pictures, ``NAME.png`` each.
        resume: Leave out scans whose results exist. The report keeps what it held of them.
        part: Such as ``"2/8"``: the second of eight parts, for jobs side by side.
        progress: Called with (scans settled, scans in all, what is being done).
        **changes: Fields of :class:`~medsr.infer.options.UpscaleOptions` that differ from
            ``options``.

    Returns:
        What came of each scan and why: one that cannot be used, or needs nothing, is no exception.

    Raises:
        UsageError: Options contradict each other, or the folders do.
        SourceOverwriteError: A result or the report would replace a scan.
        OutputError: Results exist and neither ``overwrite`` nor ``resume`` is set, or nothing more
            can be written.
        ModelError: The device or a model that was named cannot be used.
        Interrupted: Ctrl-C. What was finished is kept, the report included.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:6j]
        >>> ball = (800 * np.exp(-2 * (x**2 + y**2 + z**2))).astype(np.float32)
        >>> grid = medsr.Geometry(ball.shape, np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> thick = medsr.Volume(ball, grid, "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scans, results = Path(folder, "scans"), Path(folder, "results")
        ...     scans.mkdir()
        ...     for name in ("p1", "p2"):
        ...         _ = medsr.save(thick, scans / f"{name}.nii.gz")
        ...     _ = (scans / "p3.nii.gz").write_bytes(b"")  # a transfer that broke off
        ...     summary = medsr.upscale_folder(scans, results, modality="mr")
        >>> summary.counts
        {'done': 2, 'skipped': 0, 'doubtful': 0, 'failed': 1}
        >>> [(scan.name, scan.exit_code) for scan in summary.of_kind("failed")]
        [('p3.nii.gz', 13)]
    """
    start = time.perf_counter()
    options = UpscaleOptions.of(options, **changes)
    if options.overwrite and resume:
        raise UsageError("overwriting and continuing are both asked for; choose one")
    upscaler = Upscaler(options)
    folder = Path(folder)
    places = Places(Path(output), _path(preview), options.uncertainty_path, _path(report))
    places.check(folder)
    journal = Journal(_path(report), overwrite=options.overwrite, resume=resume)
    journal.check(places)
    jobs = list_jobs(folder, places, options, part=part)
    done = {job.name: job for job in jobs if job.is_done}
    if done and not (options.overwrite or resume):
        raise OutputExistsError(
            f"{places.scans} holds the results of {len(done)} of {len(jobs)} scans already; "
            "--continue leaves them out, --overwrite replaces them"
        )
    before = {name: Outcome.of_before(job) for name, job in done.items()} if resume else {}
    todo = [job for job in jobs if job.name not in before]
    run = _Run(upscaler, todo, progress)
    try:
        if todo:
            upscaler.warm_up()
        for place in places.folders:
            _make(place)
        _describe(folder, places.scans)
        with names_in_warnings():
            run.all()
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {len(run.outcomes)} of {len(todo)} scans; the same command with "
            "--continue goes on"
        ) from None
    finally:
        outcomes = before | run.outcomes
        settled = tuple(outcomes[job.name] for job in jobs if job.name in outcomes)
        summary = FolderSummary(settled, time.perf_counter() - start)
        if run.outcomes or not todo:
            journal.write(summary)
    return summary


@dataclass
class _Run:
    """The scans of one call, on their way through three lanes."""

    upscaler: Upscaler
    jobs: list[Job]
    progress: Progress | None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _warnings: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _writing: tuple[Job, Future[dict[str, Any]]] | None = None

    def all(self) -> None:
        """Read, compute and write every scan; whole results alone are left, however it ends."""
        # Under a limit of memory only one scan may be there at a time.
        ahead = self.upscaler.options.max_memory is None
        with _lane("medsr-read") as reader, _lane("medsr-write") as writer:
            try:
                self._run(reader, writer, ahead=ahead)
            except BaseException:
                self._let_finish()
                raise

    def _run(self, reader: ThreadPoolExecutor, writer: ThreadPoolExecutor, *, ahead: bool) -> None:
        coming: Future[LoadedScan] | None = None
        for number, job in enumerate(self.jobs):
            self._tell("reading")
            reading = coming or reader.submit(self._read, job)
            coming = None
            with self._noting(job):
                scan = reading.result()
                del reading
                if ahead and number + 1 < len(self.jobs):
                    coming = reader.submit(self._read, self.jobs[number + 1])
                self._make_room(job)
                with self._naming(job):
                    output = self.upscaler.compute(scan, job.outputs, progress=self._tell_stage)
                del scan
                self._tell("writing")
                self._settle()
                if output.after is None:  # one scan at a time is computed
                    self._note(job, self._write(job, output))
                else:
                    self._writing = (job, writer.submit(self._write, job, output))
                del output
                if not ahead:
                    self._settle()
            if coming is None and ahead and number + 1 < len(self.jobs):
                coming = reader.submit(self._read, self.jobs[number + 1])
        self._tell("writing")
        self._settle()
        self._tell("done")

    def _read(self, job: Job) -> LoadedScan:
        with self._naming(job):
            job.outputs.check_apart(job.path)
            return self.upscaler.read(job.path, job.outputs)

    def _write(self, job: Job, output: UpscaleOutput) -> dict[str, Any]:
        with self._naming(job):
            return self.upscaler.write(output, job.outputs)

    def _naming(self, job: Job) -> AbstractContextManager[None]:
        return speaking_of(job, self._warnings[job.name])

    def _make_room(self, job: Job) -> None:
        for path in (job.outputs.scan, job.outputs.preview, job.outputs.uncertainty):
            if path is not None:
                _make(path.parent, parents=True)

    def _settle(self) -> None:
        """Wait for the scan that is being written, and note what came of it."""
        if self._writing is None:
            return
        job, future = self._writing
        wait([future])  # Ctrl-C may come here, and the scan is still to be noted then
        self._writing = None
        with self._noting(job):
            self._note(job, future.result())

    def _note(self, job: Job, report: dict[str, Any]) -> None:
        self.outcomes[job.name] = Outcome.of_report(job, report, self._warnings[job.name])

    def _let_finish(self) -> None:
        """Keep the scan that is being written, whatever ended the rest; never half of it."""
        while self._writing is not None:
            try:
                if not self._writing[1].done():
                    logger.info("finishing the scan that is being written")
                self._settle()
            except KeyboardInterrupt:
                continue
            except OutputNotWritableError:
                return  # no room for it either, and noted

    @contextmanager
    def _noting(self, job: Job) -> Iterator[None]:
        """Note a failure and go on, unless every further scan would fail alike."""
        try:
            yield
        except Exception as error:
            self.outcomes[job.name] = Outcome.of_error(job, error, self._warnings[job.name])
            if isinstance(error, OutputNotWritableError) and _no_room(error):
                raise

    def _tell(self, stage: str) -> None:
        if self.progress is not None:
            self.progress(len(self.outcomes), len(self.jobs), stage)

    def _tell_stage(self, stage: str, done: int, total: int) -> None:
        self._tell(f"{stage} {done}/{total}")


@contextmanager
def _lane(name: str) -> Iterator[ThreadPoolExecutor]:
    """One thread; what waits in it is dropped at the end, what runs is let finish."""
    executor = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _describe(folder: Path, output: Path) -> None:
    """Make the results of a BIDS dataset a derived one, unless they are in it or described."""
    if bids.is_dataset(folder) and not bids.is_dataset(output):
        content = bids.as_text(bids.derived_description(folder, output, __version__))
        # A job beside this one may be as far.
        with suppress(OutputExistsError), atomic_file(output / bids.DESCRIPTION) as file:
            file.write_text(content, encoding="utf-8")


def _make(folder: Path, *, parents: bool = False) -> None:
    try:
        folder.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputNotWritableError(f"{folder} cannot be made: {reason}") from error


def _no_room(error: OutputNotWritableError) -> bool:
    """Whether the disk is full or read-only, so that no other scan can be written either."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_ROOM


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)

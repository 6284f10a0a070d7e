"""The loop of an evaluation: every task, every method, every part; failures are kept and told.

What was found of a scan and axis is kept on disk at once, so that a run that was stopped goes on
where it was. Which tasks and methods there are is decided in ``cohort``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medsr.errors import MedsrError
from medsr.evaluate import lesions
from medsr.evaluate.calibration import calibration
from medsr.evaluate.consistency import consistency
from medsr.evaluate.downstream import Segmenter
from medsr.evaluate.methods import Method, write_input
from medsr.evaluate.metrics import Reference, Scorer
from medsr.evaluate.results import CaseResult, DisturbedResult
from medsr.evaluate.results.store import Unfinished
from medsr.evaluate.robustness import Scored
from medsr.evaluate.tasks import Job, Task, Tasks, Unscorable, seed_for
from medsr.types import Progress, no_progress
from medsr.volume import Modality, Volume

logger = logging.getLogger(__name__)

PARTS = ("consistency", "downstream", "lesions")
"""What is looked at beside the metrics against the truth."""

"""Called with (scans and axes done, in all, what comes next)."""
Look = Callable[[Task, Reference], Iterable[Scored]]
"""Scores all methods on disturbed parts of a truth."""


@dataclass
class Found:
    """Everything a run found.

    Attributes:
        cases: One row a task and method.
        lesions: One row a task, method and lesion.
        calibrations: One row a task and method that says its expected error.
        disturbed: Rows of disturbed parts.
        notes: What is known of tasks beside their scores.
        conventions: Of the metrics, in words, one entry a task.
        failed: What went wrong.
        skipped: What could not be scored, a sentence each.
    """

    cases: list[CaseResult] = field(default_factory=list)
    lesions: list[dict[str, Any]] = field(default_factory=list)
    calibrations: list[dict[str, Any]] = field(default_factory=list)
    disturbed: list[DisturbedResult] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    conventions: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, NaN and infinity included."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Found:
        """Read what :meth:`to_dict` gave."""
        rows = dict(plain)
        rows["cases"] = [CaseResult(**row) for row in plain["cases"]]
        rows["disturbed"] = [DisturbedResult(**row) for row in plain["disturbed"]]
        return cls(**rows)

    def add(self, other: Found) -> None:
        """Take over what another found."""
        for name, rows in vars(other).items():
            getattr(self, name).extend(rows)


@dataclass(frozen=True)
class Runner:
    """How every task is looked at.

    Attributes:
        modality: Of the scans.
        methods: What restores, in the order of the results.
        parts: Those of :data:`PARTS` that are wanted.
        seed: Of the places of lesions.
        look: Scores disturbed parts, where wanted.
        inputs: Folder that takes the low-resolution scans for other tools, where wanted.
    """

    modality: Modality
    methods: Sequence[Method]
    parts: Collection[str] = PARTS
    seed: int = 0
    look: Look | None = None
    inputs: Path | None = None

    def run(self, tasks: Tasks, unfinished: Unfinished, progress: Progress | None = None) -> Found:
        """Go through all tasks; nothing that fails ends the run but an interrupt."""
        rows = Found()
        total = len(tasks.jobs)
        for done, job in enumerate(tasks.jobs):
            stored = unfinished.load(job.name)
            if stored is not None:
                rows.add(Found.from_dict(stored))
                continue
            now = self._job(tasks, job, partial(progress or no_progress, done, total))
            if not now.failed:  # what failed is tried again by the next run
                unfinished.keep(job.name, now.to_dict())
            rows.add(now)
        (progress or no_progress)(total, total, "done")
        return rows

    def _job(self, tasks: Tasks, job: Job, tell: Callable[[str], None]) -> Found:
        rows = Found()
        tell(f"{job.where}: reading")
        try:
            task = tasks.open(job)
            scorer = Scorer(task.truth.data, self.modality, task.truth.spacing, mask=task.covered)
        except (Unscorable, ValueError) as error:
            text = str(error)
            text = text if text.startswith(job.where) else f"{job.where}: {text}; not scored"
            logger.warning("%s", text)
            rows.skipped.append(text)
            return rows
        except Exception as error:
            rows.failed.append(_failure(job, None, error))
            return rows
        if task.notes:
            rows.notes.append({"scan_id": job.record.scan_id, "axis": job.label, **task.notes})
        segmenter = None
        if "downstream" in self.parts:
            segmenter = _segmenter(task, self.modality)
        segmentation = {} if segmenter is None else segmenter.conventions()
        rows.conventions.append({**scorer.conventions(), **segmentation})
        implanted = self._implant(task)
        if self.inputs is not None:
            write_input(task, task.lr, self.inputs)
            if implanted is not None:
                write_input(task, implanted.lr, self.inputs, "lesions")
        for method in self.methods:
            tell(f"{job.where}: {method.name}")
            try:
                self._score(task, method, scorer, segmenter, implanted, rows)
            except Exception as error:
                rows.failed.append(_failure(job, method.name, error))
        if self.look is not None:
            tell(f"{job.where}: disturbed")
            try:
                rows.disturbed += [
                    _disturbed(job, row) for row in self.look(task, scorer.reference)
                ]
            except ValueError as error:
                rows.skipped.append(f"{job.where}: {error}; not disturbed")
        return rows

    def _score(
        self,
        task: Task,
        method: Method,
        scorer: Scorer,
        segmenter: Segmenter | None,
        implanted: _Implanted | None,
        found: Found,
    ) -> None:
        """Restore by one method and add its rows; none is added where one step fails."""
        started = time.perf_counter()
        restored = method.restore(task, task.lr)
        seconds = time.perf_counter() - started
        sr, truth = restored.volume, task.truth.data
        metrics = dict(scorer.score(sr.data))
        if "consistency" in self.parts and task.degradation is not None:
            metrics.update(consistency(sr, task.lr, task.degradation, task.params)[0])
        if segmenter is not None:
            # Where the scan does not reach, a result says nothing; the truth's own voxels do.
            seen = sr.data if task.covered is None else np.where(task.covered, sr.data, truth)
            metrics.update(segmenter.score(seen))
        keys = _keys(task.job, method.name)
        rows = []
        if implanted is not None:
            changed = method.restore(task, implanted.lr, "lesions").volume
            rows = [
                {**keys, **asdict(row)}
                for row in lesions.measure(changed, sr, task.truth.geometry, implanted.lesions)
            ]
        if restored.sigma is not None:
            error = np.asarray(sr.data, np.float64) - truth
            # Where a result is set, to background or padding, no error is expected.
            mask = scorer.reference.mask & (restored.sigma.data > 0)
            found.calibrations.append(
                {**keys, **calibration(error, restored.sigma.data, mask).to_dict()}
            )
        found.cases.append(CaseResult(**keys, metrics=metrics, seconds=seconds))
        found.lesions += rows

    def _implant(self, task: Task) -> _Implanted | None:
        if "lesions" not in self.parts or task.degradation is None:
            return None
        planned = lesions.plan_lesions(task.truth, self.modality, seed_for(self.seed, task.job))
        if not planned:
            return None
        return _Implanted(planned, task.degrade(lesions.insert(task.truth, planned)))


@dataclass(frozen=True)
class _Implanted:
    lesions: tuple[lesions.Lesion, ...]
    lr: Volume


def _segmenter(task: Task, modality: Modality) -> Segmenter | None:
    """None where the truth itself cannot be segmented."""
    try:
        return Segmenter(task.truth.data, modality, task.truth.spacing)
    except ValueError as error:
        logger.info("%s: not segmented: %s", task.job.where, error)
        return None


def _keys(job: Job, method: str) -> dict[str, str]:
    return {
        "patient_id": job.record.patient_id,
        "scan_id": job.record.scan_id,
        "axis": job.label,
        "method": method,
        "region": job.record.region,
    }


def _failure(job: Job, method: str | None, error: Exception) -> dict[str, Any]:
    """What is said of a failure: no folder of this machine, no traceback."""
    text = " ".join(str(error).split()) or type(error).__name__
    for path in (job.record.path, job.record.lr_path):
        if path is not None:
            text = text.replace(str(path), path.name).replace(f"{path.parent}/", "")
    if not isinstance(error, MedsrError):
        text = f"{type(error).__name__}: {text}"
    by = "" if method is None else f", {method}"
    logger.warning("%s%s: failed: %s", job.where, by, text)
    logger.debug("%s%s", job.where, by, exc_info=error)
    return {
        "patient_id": job.record.patient_id,
        "scan_id": job.record.scan_id,
        "axis": job.label,
        "method": method,
        "reason": text,
    }


def _disturbed(job: Job, row: Scored) -> DisturbedResult:
    return DisturbedResult(
        **_keys(job, row.method),
        metrics=asdict(row.metrics),
        seconds=row.seconds,
        input=row.input,
    )

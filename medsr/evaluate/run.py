"""An evaluation from the plan to its folder: results, tables, report.

The order of things alone; each step lives in a module of its own. The scans shown in the report
are restored once more, so that no volume need be kept while hundreds are scored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low

from medsr.evaluate.cohort import Evaluation
from medsr.evaluate.consistency import consistency
from medsr.evaluate.plan import Plan
from medsr.evaluate.report import Case, check_report, write_pdf, write_report
from medsr.evaluate.report.pdf import check_pdf
from medsr.evaluate.report.reading import ReportData
from medsr.evaluate.results import Results
from medsr.evaluate.results.store import (
    PDF_FILE,
    REPORT_FILE,
    Unfinished,
    check_folder,
    write_results,
)
from medsr.evaluate.results.table import REFERENCE_METHOD
from medsr.types import Progress

logger = logging.getLogger(__name__)


def evaluate_into(
    plan: Plan,
    out: Path,
    *,
    report: bool = True,
    pdf: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Results, Path]:
    """Evaluate and write ``results.json``, the tables and ``report.html``.

    A run that was stopped goes on with the scan it was at, if it is the same in everything.

    Args:
        plan: What and how.
        out: The folder; its parent must exist.
        report: Whether the report is wanted.
        pdf: Whether it is wanted as PDF too.
        overwrite: Whether older results, or part of other ones, may be replaced.
        progress: Told of every restoration before it starts.

    Returns:
        The results, and the file to look at first.

    Raises:
        MissingExtraError: The report needs packages that are not installed.
        MedsrError: As :class:`~medsr.evaluate.cohort.Evaluation` and
            :func:`~medsr.evaluate.results.store.write_results`.
    """
    check_folder(out, overwrite=overwrite)
    if report:
        check_report()
    if pdf:
        check_pdf()
    evaluation = Evaluation(plan)
    unfinished = Unfinished(out, evaluation.settings, overwrite=overwrite)
    results = evaluation.run(unfinished, progress=progress)
    overwrite = unfinished.writing() or overwrite
    path = write_results(results, out, overwrite=overwrite)
    if report:
        cases = _cases(evaluation, results, progress)
        path = write_report(results.to_dict(), cases, out / REPORT_FILE, overwrite=overwrite)
        if pdf:
            write_pdf(results.to_dict(), cases, out / PDF_FILE, overwrite=overwrite)
    unfinished.clear()
    return results, path


_PICTURED = ("bspline", "tv")
"""Baselines with pictures; the others look like one of these, or like the scan itself."""


def shown(results: Results) -> tuple[tuple[str, str, str], ...]:
    """The worst and the median scan by the first model's gain over cubic B-spline.

    Returns:
        (label, scan, axis) each; the median alone where there is only one.
    """
    methods = results.about.get("methods", {})
    learned = [name for name in results.methods if methods.get(name, {}).get("role") != "baseline"]
    method = learned[0] if learned else REFERENCE_METHOD
    gains = {
        (row["scan_id"], row["axis"]): row["psnr_gain"] if learned else row["psnr"]
        for row in results.rows()
        if row["method"] == method
    }
    middle = median_low(gains.values())
    chosen = {"worst": min(gains, key=lambda key: gains[key])}
    chosen["median"] = next(key for key, gain in gains.items() if gain == middle)
    if chosen["worst"] == chosen["median"]:
        del chosen["worst"]
    return tuple((label, scan, axis) for label, (scan, axis) in chosen.items())


def _rivals(results: Results) -> set[str]:
    """The methods that the models are set against in words."""
    of = ReportData(results.to_dict())
    rivals = (of.rival(method, of.primary) for method in of.learned)
    return {rival.name for rival in rivals if rival is not None}


def _cases(evaluation: Evaluation, results: Results, progress: Progress | None) -> Sequence[Case]:
    chosen = shown(results)
    pictured = {*_PICTURED, *_rivals(results)}
    cases = []
    for done, (label, scan, axis) in enumerate(chosen):
        task = evaluation.open(scan, axis)
        restored = {}
        for method in evaluation.methods:
            if method.name not in results.methods:
                continue
            if method.role == "baseline" and method.name not in pictured:
                continue
            if progress is not None:
                progress(done, len(chosen), f"pictures: {scan}, axis {axis}: {method.name}")
            try:
                restored[method.name] = method.restore(task, task.lr).volume
            except Exception as error:  # it was scored and told before; a picture less
                logger.warning("%s: no picture of %s: %s", scan, method.name, error)
        first = next(
            (m.name for m in evaluation.methods if m.role != "baseline" and m.name in restored),
            None,
        )
        residual = None
        if first is not None and task.degradation is not None:
            _, residual = consistency(restored[first], task.lr, task.degradation, task.params)
        cases.append(
            Case(
                label=label,
                patient_id=task.job.record.patient_id,
                scan_id=scan,
                axis=axis,
                lr=task.lr,
                truth=task.truth,
                results=restored,
                consistency=residual,
            )
        )
    return cases

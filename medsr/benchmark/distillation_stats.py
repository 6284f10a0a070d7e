"""What the runs of the distillation benchmark say: means, spread, paired differences, and doubt.

A patient's rows are averaged first, so that scans of one person count once. Arms are compared
pairwise, same seed and same scan. Two doubts are kept apart: would other patients say the same
(bootstrap over patients, seeds averaged), and would other seeds (paired t over seeds, patients
averaged)? Only what both affirm is called significant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import pandas as pd

from medsr.benchmark.arms import LONGER, REFERENCE
from medsr.evaluate.results.intervals import bootstrap_interval, t_interval
from medsr.evaluate.results.patients import mean_by

LEVEL = 0.95

Scores = dict[str, float]
"""PSNR in dB by patient."""


def by_patient(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """Return the mean PSNR of every patient, dB."""
    return mean_by(pd.DataFrame(rows), "patient_id", value="psnr")


def summarise(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Compare every arm with the reference arm.

    Args:
        results: ``references`` (rows by name) and ``runs``, as ``distillation.run`` writes them.

    Returns:
        By arm: ``seeds``, ``steps``, ``psnr`` (mean over patients and seeds, dB),
        ``std_over_seeds`` (None for one seed), ``gain_over_bspline``, ``seconds`` (median over
        seeds) and ``relative_cost``; and, where the reference arm has been run with the same seeds,
        ``difference``, see :func:`compare`, ``over_longer`` likewise, and ``gap_recovered``, the
        share of the way from the reference arm to the teacher, None where the teacher is no better.
    """
    arms: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for run in results["runs"]:
        arms[run["arm"]][run["seed"]] = run
    scores = {
        arm: {seed: by_patient(run["rows"]) for seed, run in runs.items()}
        for arm, runs in arms.items()
    }
    fixed = {name: by_patient(rows) for name, rows in results["references"].items()}
    summary: dict[str, dict[str, Any]] = {}
    for arm, runs in arms.items():
        means = [fmean(own.values()) for own in scores[arm].values()]
        seconds = median(run["seconds"] for run in runs.values())
        entry: dict[str, Any] = {
            "seeds": sorted(runs),
            "steps": next(iter(runs.values()))["steps"],
            "psnr": fmean(means),
            "std_over_seeds": stdev(means) if len(means) > 1 else None,
            "seconds": seconds,
        }
        if "bspline" in fixed:
            entry["gain_over_bspline"] = fmean(means) - fmean(fixed["bspline"].values())
        if REFERENCE in arms:
            entry["relative_cost"] = seconds / median(
                r["seconds"] for r in arms[REFERENCE].values()
            )
            for key, other in (("difference", REFERENCE), ("over_longer", LONGER)):
                entry[key] = compare(scores[arm], scores.get(other, {})) if arm != other else None
            entry["gap_recovered"] = _recovered(
                scores[arm], scores[REFERENCE], fixed.get("teacher", {})
            )
        summary[arm] = entry
    return summary


def compare(ours: Mapping[int, Scores], theirs: Mapping[int, Scores]) -> dict[str, Any] | None:
    """Return the paired difference of two arms, dB.

    Args:
        ours: PSNR by seed and patient.
        theirs: The same of the other arm; seeds and patients of both are compared.

    Returns:
        ``mean``; ``by_seed`` and ``by_patient``, the differences averaged over the other;
        ``over_patients`` and ``over_seeds``, 95 % intervals of the mean (None for fewer than two);
        ``significant``, whether both lie on one side of zero (None without both). None where the
        arms have no seed in common.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    patients = sorted(ours[seeds[0]].keys() & theirs[seeds[0]].keys())
    table = np.array([[ours[s][p] - theirs[s][p] for p in patients] for s in seeds])
    over_patients = bootstrap_interval(table.mean(axis=0).tolist(), confidence=LEVEL, fewest=2)
    over_seeds = t_interval(table.mean(axis=1).tolist(), confidence=LEVEL, fewest=2)
    significant = None
    if over_patients is not None and over_seeds is not None:
        significant = any(
            all(side * end > 0 for end in (*over_patients, *over_seeds)) for side in (1, -1)
        )
    return {
        "mean": float(table.mean()),
        "by_seed": dict(zip(map(str, seeds), table.mean(axis=1).tolist(), strict=True)),
        "by_patient": dict(zip(patients, table.mean(axis=0).tolist(), strict=True)),
        "over_patients": over_patients,
        "over_seeds": over_seeds,
        "significant": significant,
    }


def _recovered(
    ours: Mapping[int, Scores], reference: Mapping[int, Scores], teacher: Scores
) -> float | None:
    seeds = ours.keys() & reference.keys()
    if not seeds or not teacher:
        return None
    start = fmean(fmean(reference[seed].values()) for seed in seeds)
    gap = fmean(teacher.values()) - start
    if gap <= 0:
        return None
    return (fmean(fmean(ours[seed].values()) for seed in seeds) - start) / gap

"""The same means and differences for each region of the body, as the manifest names them.

A cohort is rarely balanced, so that a mean over all is mostly the region that has the most
patients. Regions are described with intervals and never tested: they are small, and there are
many. Patients are averaged as in ``patients``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from medsr.evaluate.metrics.catalogue import describe
from medsr.evaluate.results.intervals import bootstrap_interval
from medsr.evaluate.results.patients import Row, Scores, differences, over_patients, scores, tidy

SHOWN = (
    "psnr",
    "ssim",
    "mae",
    "resolution_z_mm",
    "edge_width_z_mm",
    "consistency_rmse",
)
"""Metrics that are given by region, besides the primary one."""


def by_region(
    cases: Sequence[Row],
    roles: Mapping[str, str],
    *,
    primary: str = "psnr",
    **bootstrap: Any,
) -> list[dict[str, Any]]:
    """Describe every region.

    Args:
        cases: One row a scan, axis and method.
        roles: Of the methods; all but baselines are compared with everything else.
        primary: The metric that is compared.
        **bootstrap: Confidence, resamples and seed of
            :func:`~medsr.evaluate.results.intervals.bootstrap_interval`.

    Returns:
        One entry a region, that of the most patients first: ``region``, ``patients``, ``scans``,
        ``rows`` (of one method), ``means`` (method, metric, then ``mean``, ``low``, ``high``), and
        ``comparisons`` on the primary metric (``method``, ``against``, ``metric``, ``patients``,
        ``difference``, ``low``, ``high``, ``better``, ``worse``). Rows without a region are left
        out.
    """
    table = tidy(cases)
    placed = table[table["region"] != ""].groupby("region", sort=False)
    regions = [_describe(str(name), lines, roles, primary, bootstrap) for name, lines in placed]
    return sorted(regions, key=lambda entry: (-entry["patients"], entry["region"]))


def _describe(
    region: str,
    lines: pd.DataFrame,
    roles: Mapping[str, str],
    primary: str,
    bootstrap: Mapping[str, Any],
) -> dict[str, Any]:
    methods = list(lines["method"].unique())
    shown = [name for name in lines["metric"].unique() if name == primary or name in SHOWN]
    table = scores(lines[lines["metric"].isin(shown)])
    judged = [method for method in methods if roles.get(method, "external") != "baseline"]
    pairs = [(one, other) for one in judged for other in methods if one != other]
    compared = [
        _compare(one, other, primary, table[one, primary], table[other, primary], bootstrap)
        for one, other in pairs
        if {(one, primary), (other, primary)} <= table.keys()
    ]
    return {
        "region": region,
        "patients": int(lines["patient_id"].nunique()),
        "scans": int(lines["scan_id"].nunique()),
        "rows": len(lines[["scan_id", "axis"]].drop_duplicates()),
        "means": {
            method: {
                name: _mean(list(over_patients(table[method, name].by_place).values()), bootstrap)
                for name in shown
                if (method, name) in table and table[method, name].by_place
            }
            for method in methods
        },
        "comparisons": [entry for entry in compared if entry["patients"]],
    }


def _compare(
    one: str,
    other: str,
    metric: str,
    ours: Scores,
    theirs: Scores,
    bootstrap: Mapping[str, Any],
) -> dict[str, Any]:
    better = describe(metric).better
    gaps = list(over_patients(differences(ours, theirs, better)).values())
    sign = 1 if better == "higher" else -1
    mean = _mean(gaps, bootstrap) if gaps else {"mean": None, "low": None, "high": None}
    return {
        "method": one,
        "against": other,
        "metric": metric,
        "patients": len(gaps),
        "difference": mean["mean"],
        "low": mean["low"],
        "high": mean["high"],
        "better": sum(sign * gap > 0 for gap in gaps),
        "worse": sum(sign * gap < 0 for gap in gaps),
    }


def _mean(values: Sequence[float], bootstrap: Mapping[str, Any]) -> dict[str, float | None]:
    low, high = bootstrap_interval(values, **bootstrap) or (None, None)
    return {"mean": fmean(values), "low": low, "high": high}

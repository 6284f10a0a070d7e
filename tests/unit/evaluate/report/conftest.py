"""Synthetic evaluations and cases for the report: full, minimal, one patient, failures, CT.

The figures are drawn from a seeded generator around plausible means; only their structure is that
of a true ``results.json``. Cases are small phantoms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from medsr.evaluate.report import Case
from medsr.geometry import Geometry
from medsr.volume import Modality, Volume

# name -> (label, unit, better, mean of bspline, what a better method gains, spread over patients)
METRICS: dict[str, tuple[str, str, str, float, float, float]] = {
    "psnr": ("PSNR", "dB", "higher", 23.5, 2.8, 1.2),
    "ssim": ("SSIM", "", "higher", 0.874, 0.052, 0.02),
    "ms_ssim": ("MS-SSIM", "", "higher", 0.951, 0.021, 0.01),
    "nrmse": ("NRMSE", "", "lower", 0.067, -0.018, 0.008),
    "mae": ("mean absolute error", "native", "lower", 61.0, -17.0, 9.0),
    "bias": ("bias", "native", "zero", -1.4, 1.1, 0.9),
    "hfen": ("HFEN", "", "lower", 0.61, -0.17, 0.05),
    "psnr@edges": ("PSNR at edges", "dB", "higher", 20.1, 2.9, 1.1),
    "mae@edges": ("mean absolute error at edges", "native", "lower", 92.0, -26.0, 9.0),
    "mae@gray": ("mean absolute error in gray matter", "native", "lower", 55.0, -15.0, 6.0),
    "mae@white": ("mean absolute error in white matter", "native", "lower", 38.0, -9.0, 5.0),
    "mae@csf": ("mean absolute error in CSF", "native", "lower", 78.0, -22.0, 8.0),
    "resolution_x_mm": ("resolution along x", "mm", "lower", 1.18, -0.03, 0.06),
    "resolution_y_mm": ("resolution along y", "mm", "lower", 1.21, -0.04, 0.06),
    "resolution_z_mm": ("resolution along z", "mm", "lower", 3.70, -0.91, 0.25),
    "edge_width_x_mm": ("edge width along x", "mm", "lower", 1.9, -0.05, 0.1),
    "edge_width_z_mm": ("edge width along z", "mm", "lower", 4.4, -1.2, 0.3),
    "dice@gray": ("Dice of gray matter", "", "higher", 0.842, 0.046, 0.02),
    "dice@white": ("Dice of white matter", "", "higher", 0.881, 0.036, 0.02),
    "volume_error@gray": ("volume error of gray matter", "%", "zero", 4.1, -2.6, 1.0),
    "consistency_rmse": ("consistency (RMSE)", "native", "lower", 12.0, -8.0, 2.0),
}
# name -> (role, share of the gain that it reaches)
METHODS: dict[str, tuple[str, float]] = {
    "linear": ("baseline", -0.35),
    "bspline": ("baseline", 0.0),
    "lanczos": ("baseline", 0.04),
    "tv": ("baseline", 0.22),
    "mr-z4": ("student", 1.0),
    "mr-z4-teacher": ("teacher", 1.05),
    "peer": ("external", 0.7),
}

Builder = Callable[..., dict[str, Any]]


def build(
    *,
    methods: tuple[str, ...] = ("linear", "bspline", "tv", "mr-z4", "mr-z4-teacher"),
    patients: int = 7,
    modality: Modality = "MR",
    minimal: bool = False,
    gain: float = 1.0,
    seed: int = 3,
) -> dict[str, Any]:
    """Make the data of a ``results.json``; ``gain`` below zero makes the models worse."""
    generator = np.random.default_rng(seed)
    names = [f"patient-{number:02d}" for number in range(1, patients + 1)]
    metrics = ("psnr", "ssim") if minimal else tuple(METRICS)
    difficulty = {name: generator.normal(size=2) for name in names}
    rows = [
        _row(name, axis, method, metrics, difficulty[name], gain, generator)
        for name in names
        for axis in ("x", "y")
        for method in methods
    ]
    return {
        "schema": 2,
        "command": "medsr evaluate --model mr-z4 --cohort cohort.csv --split dev --scale 1,1,4",
        "versions": {"medsr": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
        "machine": {"processor": "x86_64", "device": "cpu", "precision": "auto"},
        "cohort": {
            "manifest": "cohort.csv",
            "sha256": "454ee68ef6e8e62839693191d43a6361f5cfbfd4c60c27aca6eaedbc508baab4",
            "split": "dev",
            "modality": modality,
            "scans": patients,
            "patients": patients,
        },
        "task": {"kind": "simulated", "scale": [1, 1, 4], "axes": "each sharp axis in turn"},
        "conventions": {"psnr": "10 log10(range^2 / MSE) in the mask", "ssim": "Gaussian, 1.5"},
        "degradation": {"kind": "slice_profile", "factor": [1, 1, 4], "draw": "nominal"},
        "methods": {
            name: {"what": f"what {name} is", "role": METHODS[name][0], "parameters": 173_000}
            for name in methods
        },
        "metrics": {
            name: {
                "label": METRICS[name][0],
                "unit": _unit(name, modality),
                "better": METRICS[name][2],
                "what": f"Convention of {name}.",
            }
            for name in metrics
        },
        "summary": {name: {"rows": 2 * patients, "mean_seconds": 1.3} for name in methods},
        "statistics": _statistics(rows, methods, metrics, names),
        "failed": [],
        "skipped": [],
        "scans": rows,
        **({} if minimal else {"lesions": _lesions(methods, generator)}),
    }


def _unit(name: str, modality: Modality) -> str:
    unit = METRICS[name][1]
    return {"MR": "a.u.", "CT": "HU"}[modality] if unit == "native" else unit


def _row(
    patient: str,
    axis: str,
    method: str,
    metrics: tuple[str, ...],
    difficulty: Any,
    gain: float,
    generator: np.random.Generator,
) -> dict[str, Any]:
    role, share = METHODS[method]
    share = share * (gain if role != "baseline" else 1.0) * (1 + 0.18 * difficulty[1])
    values: dict[str, Any] = {}
    for name in metrics:
        _, _, _, base, step, spread = METRICS[name]
        noise = 0.04 * abs(step) * generator.normal()
        values[name] = float(base + spread * difficulty[0] + share * step + noise)
    return {
        "patient_id": patient,
        "scan_id": f"{patient}_T1w",
        "axis": axis,
        "method": method,
        **values,
        "seconds": float(0.3 + 2.0 * abs(share)),
    }


def _statistics(
    rows: list[dict[str, Any]],
    methods: tuple[str, ...],
    metrics: tuple[str, ...],
    names: list[str],
) -> dict[str, Any]:
    patient = {
        method: {
            name: {
                metric: fmean(
                    row[metric]
                    for row in rows
                    if row["method"] == method and row["patient_id"] == name
                )
                for metric in metrics
            }
            for name in names
        }
        for method in methods
    }
    comparisons = [
        _comparison(patient, method, against, metric, names)
        for method, against in [
            *(
                (method, other)
                for method in methods
                for other in ("bspline", *(m for m in methods if m != "bspline"))
                if METHODS[method][0] != "baseline" and METHODS[other][0] == "baseline"
            ),
            *(
                (one, other)
                for one, other in itertools.permutations(methods, 2)
                if METHODS[one][0] == "student" and METHODS[other][0] == "teacher"
            ),
        ]
        for metric in metrics
    ]
    return {
        "settings": {
            "confidence": 0.95,
            "resamples": 9999,
            "seed": 0,
            "interval": "BCa bootstrap over patients",
            "test": "paired Wilcoxon signed-rank test, two-sided",
            "correction": "Holm over the metrics of a pair of methods",
            "reference": "bspline",
            "primary": "psnr",
        },
        "patients": len(names),
        "means": {
            method: {
                metric: _mean([patient[method][name][metric] for name in names])
                for metric in metrics
            }
            for method in methods
        },
        "comparisons": comparisons,
        "non_inferiority": [
            {
                "method": c["method"],
                "against": c["against"],
                "metric": "psnr",
                "margin": 0.3,
                "difference": c["difference"],
                "low": c["low"],
                "high": c["high"],
                "non_inferior": None if c["low"] is None else c["low"] > -0.3,
            }
            for c in comparisons
            if METHODS[c["against"]][0] == "teacher" and c["metric"] == "psnr"
        ],
        "per_patient": patient,
        "worst": [],
    }


def _mean(values: list[float]) -> dict[str, Any]:
    half = 2 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    mean = fmean(values)
    return {
        "mean": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "patients": len(values),
        "median": float(np.median(values)),
        "min": min(values),
        "max": max(values),
    }


def _comparison(
    patient: dict[str, Any], method: str, against: str, metric: str, names: list[str]
) -> dict[str, Any]:
    steps = [patient[method][name][metric] - patient[against][name][metric] for name in names]
    better = METRICS[metric][2]
    if better == "zero":
        won = [
            abs(patient[against][name][metric]) - abs(patient[method][name][metric])
            for name in names
        ]
    else:
        won = [step if better == "higher" else -step for step in steps]
    several = len(steps) > 1
    mean = _mean(steps)
    return {
        "method": method,
        "against": against,
        "metric": metric,
        "patients": len(names),
        "difference": mean["mean"],
        "low": mean["low"],
        "high": mean["high"],
        "p": 0.0156 if several else None,
        "p_corrected": 0.0469 if several else None,
        "effect": 1.0 if several else None,
        "effect_name": "rank-biserial correlation",
        "better": sum(value > 0 for value in won),
        "worse": sum(value < 0 for value in won),
        "equal": 0,
    }


def _lesions(methods: tuple[str, ...], generator: np.random.Generator) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for method in methods:
        share = 0.5 + 0.25 * METHODS[method][1]
        summary[method] = [
            {
                "diameter_mm": diameter,
                "contrast": contrast,
                "lesions": 14,
                "contrast_kept": _around(1 - np.exp(-share * diameter / 3), generator),
                "volume_kept": _around(1 + 0.6 * np.exp(-share * diameter / 2), generator),
            }
            for contrast in ("bright", "dark")
            for diameter in (2.0, 4.0, 6.0, 8.0, 12.0)
        ]
    return {"settings": {"profile": "smooth sphere"}, "rows": [], "summary": summary}


def _around(value: float, generator: np.random.Generator) -> dict[str, float]:
    mean = float(value + 0.01 * generator.normal())
    return {"mean": mean, "low": mean - 0.04, "high": mean + 0.04}


@pytest.fixture(scope="session")
def evaluation() -> Builder:
    """The builder of synthetic results, see :func:`build`."""
    return build


def build_case(
    *,
    modality: Modality = "MR",
    shape: tuple[int, int, int] = (40, 44, 48),
    methods: tuple[str, ...] = ("linear", "bspline", "mr-z4"),
    label: str = "worst",
    consistency: bool = True,
) -> Case:
    """A phantom, its block means along the last axis, and results that differ from the truth."""
    generator = np.random.default_rng(5)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = (x / 0.8) ** 2 + (y / 0.9) ** 2 + (z / 0.85) ** 2 < 1
    ripples = 120 * np.sin(9 * x + 4 * z) + 80 * np.cos(11 * z - 5 * y)
    data = np.where(body, 600 + ripples, 0).astype(np.float32)
    if modality == "CT":
        data = np.where(body, ripples, -1000).astype(np.float32)
    affine = np.array(
        [[0, -1.0, 0, 20], [0, 0, 1.2, -30], [1.1, 0, 0, -10], [0, 0, 0, 1]], dtype=float
    )
    truth = Volume(data, Geometry(shape, affine)).replace(modality=modality)
    grid = truth.geometry.coarsen((1, 1, 4))
    thick = data.reshape(shape[0], shape[1], shape[2] // 4, 4).mean(-1).astype(np.float32)
    lr = truth.replace(data=thick, geometry=grid)
    blocks = np.repeat(thick, 4, axis=2)
    results = {}
    for number, method in enumerate(methods):
        weight = np.float32((number + 1) / (len(methods) + 1))
        noise = generator.normal(0, 6, size=shape).astype(np.float32)
        results[method] = truth.replace(data=weight * data + (1 - weight) * blocks + noise)
    residual = lr.replace(data=generator.normal(0, 4, size=grid.shape).astype(np.float32))
    return Case(
        label=label,
        patient_id="patient-01",
        scan_id="patient-01_T1w",
        axis="z",
        lr=lr,
        truth=truth,
        results=results,
        consistency=residual if consistency else None,
    )


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    """The builder of phantom cases, see :func:`build_case`."""
    return build_case

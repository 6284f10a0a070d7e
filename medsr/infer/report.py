"""The JSON report of one run: what was done, with what, and how long it took.

It holds no patient identifier and nothing that could hide one: no file or folder name, no header.
"""

from __future__ import annotations

import logging
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from typing import Any

from medsr._version import __version__
from medsr.geometry import Geometry
from medsr.infer.result import Findings
from medsr.infer.scope import body_part
from medsr.infer.stopwatch import Stopwatch
from medsr.model import ModelSpec
from medsr.regions import region_of
from medsr.volume import Volume

logger = logging.getLogger(__name__)


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_grid(geometry: Geometry) -> dict[str, Any]:
    """Shape, spacing, orientation and affine of a grid as plain numbers."""
    return {
        "shape": list(geometry.shape),
        "spacing_mm": [round(value, 6) for value in geometry.spacing],
        "axcodes": "".join(geometry.axcodes),
        "affine": [[float(value) for value in row] for row in geometry.affine],
    }


def build_report(
    *,
    before: Volume,
    after: Geometry,
    spec: ModelSpec,
    weight_hash: str,
    device: str,
    precision: str,
    plan: dict[str, Any],
    warnings: list[str],
) -> dict[str, Any]:
    """Put together everything but the times, which :func:`finish_report` adds.

    Args:
        before: The scan as loaded.
        after: Grid of the result, in the scan's axis order.
        spec: The model.
        weight_hash: SHA-256 of its weights.
        device: Where it ran.
        precision: ``"fp32"`` or ``"bf16"``.
        plan: How the volume was run, as :meth:`medsr.infer.engine.engine.Plan.as_dict` says.
        warnings: What the user should know; those that say not to trust the result are repeated
            in "doubts".
    """
    source = before.source
    return {
        "medsr": __version__,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "torch", "monai")},
        },
        "model": {
            "name": spec.name,
            "version": spec.version,
            "role": spec.role,
            "scale": list(spec.scale),
            "weights_sha256": weight_hash,
            "trained_on": spec.seen,
        },
        "input": {
            "format": source.format if source else "array",
            "dtype": str(source.dtype if source else before.data.dtype),
            "modality": before.modality,
            "units": before.units,
            "region": region_of(body_part(source)),
            **describe_grid(before.geometry),
        },
        "output": {"units": before.units, **describe_grid(after)},
        "device": device,
        "precision": precision,
        "tiles": plan,
        "warnings": list(warnings),
        "doubts": [],
    }


def finish_report(report: dict[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Return the report with seconds by stage and the peak memory."""
    peaks: dict[str, Any] = {"peak_memory_bytes": peak_memory_bytes()}
    if str(report["device"]).startswith("cuda"):
        import torch

        where = str(report["device"]).split()[0]
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(where)
    return {**report, "seconds": watch.rounded(), **peaks}


def note_findings(report: dict[str, Any], findings: Findings) -> None:
    """Add what was found of a result, and log and add warnings where it is not to be trusted."""
    if findings.limits is not None:
        report["limits"] = findings.limits
    if findings.median_sigma is not None:
        units = report["output"]["units"]
        report["uncertainty"] = {"units": units, "median": findings.median_sigma}
    residual = findings.residual
    report["residual"] = None if residual is None else asdict(residual)
    warnings: list[str] = []
    if residual is None:
        report["residual_missing"] = findings.residual_missing
        if "slabs" in findings.tiles:
            warnings.append(
                f"not checked whether the result fits its scan: {findings.residual_missing}"
            )
    made = findings.consistency
    if made is not None:
        report["consistency"] = made.to_dict()
        if made.held:  # by the scan itself: nothing to doubt
            warnings.append(made.warning())
        elif not made.met:
            report["doubts"].append(made.warning())
    if findings.warning is not None:
        report["doubts"].append(findings.warning)
    warnings += report["doubts"]
    for warning in warnings:
        logger.warning(warning)
    report["warnings"] += warnings

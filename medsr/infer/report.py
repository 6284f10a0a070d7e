"""The JSON report of one run: what was done, with what, and how long it took.

It holds no patient identifier and nothing that could hide one: no file or folder name, no header.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, get_args

from medsr import __version__
from medsr.geometry import Geometry
from medsr.infer.scope import body_part
from medsr.model import ModelSpec
from medsr.regions import region_of
from medsr.volume import Volume

if TYPE_CHECKING:
    from medsr.infer.consistency.projection import Residual
    from medsr.infer.restore import Restored

logger = logging.getLogger(__name__)

Stage = Literal["start", "load", "prepare", "network", "restore", "save"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""``start`` is the import of torch and what needs it, where that was still to be done."""


@dataclass
class Stopwatch:
    """Wall-clock seconds by stage.

    Args:
        seconds: Seconds spent so far; a stage that is entered twice adds up.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time of a ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def rounded(self) -> dict[str, float]:
        """Seconds by stage and in total, to the millisecond."""
        stages = {name: round(value, 3) for name, value in self.seconds.items()}
        return {**stages, "total": round(sum(self.seconds.values()), 3)}


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


def note_fit(report: dict[str, Any], restored: Restored) -> None:
    """Add how a result fits its scan, and warn where it is not to be trusted."""
    made = restored.consistency
    report |= residual_of(restored.residual, "the model or the grid allows no comparison")
    if made is not None:
        report["consistency"] = made.to_dict()
        if made.held:  # by the scan itself: nothing to doubt
            logger.warning(made.warning())
            report["warnings"].append(made.warning())
        elif not made.met:
            report["doubts"].append(made.warning())
    if restored.doubt is not None:
        report["doubts"].append(restored.doubt)
    for doubt in report["doubts"]:
        logger.warning(doubt)
    report["warnings"] += report["doubts"]


def residual_of(residual: Residual | None, why_not: str) -> dict[str, Any]:
    """What a report says of the consistency check.

    Args:
        residual: How far the degraded result is from the scan, native units; None where that was
            not measured.
        why_not: The reason, where it was not.

    Returns:
        ``residual``, and where that is None ``residual_missing``, the reason.
    """
    if residual is None:
        return {"residual": None, "residual_missing": why_not}
    return {"residual": asdict(residual)}

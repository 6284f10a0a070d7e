"""Measures what the limits of results cost or gain, for several reaches, scan by scan.

Run as ``python -m medsr.benchmark.limits``. Sharp scans are degraded as ``medsr evaluate`` does,
restored once without limits, and the limits applied to that with every reach.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medsr.data.cohort import read_cohort
from medsr.data.manifest import select
from medsr.degrade import build_degradation
from medsr.evaluate.metrics import psnr, reference_for
from medsr.evaluate.plan import default_kind
from medsr.evaluate.tasks import Simulated, Task, Unscorable
from medsr.infer.axes import AxisOrder
from medsr.infer.background import Faces
from medsr.infer.engine.backends.load import load_model
from medsr.infer.limits import REACH, Limiter, Limits
from medsr.infer.upscale import upscale
from medsr.model import SRModel
from medsr.volume import Modality

REACHES = (0.0, 0.25, 0.5, REACH, 2.0)


def measure(
    cohort: Path, split: str, models: Sequence[str], reaches: Sequence[float] = REACHES
) -> Iterator[dict[str, Any]]:
    """Restore one axis of every scan that a model is for, and set limits of every reach beside it.

    Args:
        cohort: Manifest of sharp scans.
        split: Which split.
        models: Names or folders.
        reaches: See :data:`medsr.infer.limits.REACH`.

    Yields:
        The rows so far, and what they have in common.
    """
    rows: list[dict[str, Any]] = []
    for name in models:
        model = load_model(name)
        modality: Modality = "CT" if model.spec.modality == "CT" else "MR"
        for task in _tasks(cohort, split, model, modality):
            rows.append(_row(task, model, modality, reaches))
            yield {"split": split, "reach": REACH, "reaches": list(reaches), "rows": rows}


def _tasks(cohort: Path, split: str, model: SRModel, modality: Modality) -> Iterator[Task]:
    """For every scan the first axis that can be scored."""
    records = select(read_cohort(cohort, split=split), split=split, modality=modality)
    scale = model.spec.scale
    degradation = build_degradation(default_kind(modality, scale), scale)
    tasks, settled = Simulated(records, modality, scale, degradation), set()
    for job in tasks.jobs:
        if job.record.scan_id in settled:
            continue
        try:
            yield tasks.open(job)
        except Unscorable:
            continue
        settled.add(job.record.scan_id)


def _row(
    task: Task, model: SRModel, modality: Modality, reaches: Sequence[float]
) -> dict[str, Any]:
    """One scan: without limits, and with them at every reach."""
    options: dict[str, Any] = {"model": model, "precision": "fp32", "limits": False}
    options["modality"] = modality
    sr = upscale(task.lr, spacing=None, scale=model.spec.scale, **options).whole().data
    lr, truth = np.asarray(task.lr.data), np.asarray(task.truth.data)
    reference = reference_for(truth, modality)

    def score(image: Any) -> dict[str, float]:
        inside = psnr(image, truth, reference.mask, reference.data_range)
        whole = psnr(image, truth, np.ones_like(reference.mask), reference.data_range)
        return {"psnr": inside, "psnr_everywhere": whole}

    scan_limits = Limits.of(float(lr.min()), float(lr.max()), modality, Faces.of(lr).background())
    row: dict[str, Any] = {
        "model": model.spec.name,
        "scan": task.job.record.scan_id,
        "axis": task.job.label,
        "background": scan_limits.background,
        "largest": {"scan": _shown(lr.max()), "truth": _shown(truth.max())},
        "below_floor": round(float((sr < scan_limits.floor).mean()), 6),
        "without": {**score(sr), "largest": _shown(sr.max())},
        "with": [],
    }
    for reach in reaches:
        limiter = Limiter(
            replace(scan_limits, reach=reach), lr.shape, sr.shape, AxisOrder.of(task.lr.geometry)
        )
        limiter.note(0, lr)
        held = sr.copy()
        limiter.apply(0, held)
        told = limiter.described()
        shares = {name: told[name] for name in ("background_share", "limited_share")}
        row["with"].append({"reach": reach, **score(held), **shares, "largest": _shown(held.max())})
    return row


def _shown(value: Any) -> float:
    return round(float(value), 1)


def table(found: dict[str, Any]) -> str:
    """A Markdown table: PSNR without limits and what each reach changes, scan by scan."""
    reaches = found["reaches"]
    heads = [
        "Model, scan, axis",
        "PSNR without, dB",
        *(f"reach {reach:g}" for reach in reaches),
        "everywhere",
        "background",
        "limited",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in found["rows"]:
        gains = [done["psnr"] - row["without"]["psnr"] for done in row["with"]]
        chosen = row["with"][reaches.index(found["reach"])]
        everywhere = chosen["psnr_everywhere"] - row["without"]["psnr_everywhere"]
        cells = [
            f"{row['model']}, {row['scan']}, {row['axis']}",
            f"{row['without']['psnr']:.2f}",
            *(f"{gain:+.3f}" for gain in gains),
            f"{everywhere:+.3f}",
            f"{chosen['background_share']:.1%}",
            f"{chosen['limited_share']:.2%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; the table goes to standard output."""
    parser = argparse.ArgumentParser(prog="python -m medsr.benchmark.limits")
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--models", default="ct-z4,mr-iso2,mr-z4")
    parser.add_argument("--json", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    text = ""
    for found in measure(chosen.cohort, chosen.split, chosen.models.split(",")):
        text = table(found)
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sys.stderr.write(text.splitlines()[-1] + "\n")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

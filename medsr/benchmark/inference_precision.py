"""What bf16 costs in quality: PSNR in bf16 less PSNR in fp32, scan by scan, against the truth.

Both restorations go through the very call behind ``medsr upscale``, and differ in nothing but
``precision``. It runs wherever torch does; without native support bf16 is emulated, and slow.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from medsr.benchmark.measure import DevScans, Gain
from medsr.errors import CohortError
from medsr.model import SRModel
from medsr.types import Progress

logger = logging.getLogger(__name__)


def precision_differences(
    models: Sequence[str | Path],
    manifest: str | Path,
    *,
    split: str = "dev",
    limit: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Restore held-out scans by models in both precisions.

    Args:
        models: Shipped names or folders. Those for which the manifest has no scan are left out,
            with a warning.
        manifest: CSV file of scans.
        split: Split that was not learnt from.
        limit: At most so many scans for each model, spread evenly; None for all.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Told before every scan: scans done, scans in all, the model at work.

    Returns:
        By model name: ``mean`` over scans in dB, ``worst`` (the difference that is largest in
        size, with its sign), the single ``scans``, the ``split`` and the hash of the weights.

    Raises:
        CohortError: The manifest is wrong, or no model has a scan in it.
        ModelError: A model cannot be loaded.
        UsageError: The split is ``train``.
    """
    jobs: list[tuple[SRModel, DevScans]] = []
    refusals = []
    for name in models:
        model = SRModel.load(name)
        try:
            jobs.append((model, DevScans(manifest, model.spec, split=split, limit=limit)))
        except CohortError as error:
            logger.warning("%s: no difference of precisions: %s", model.spec.name, error)
            refusals.append(str(error))
    if not jobs:
        raise CohortError(refusals[0] if refusals else "name at least one model")
    total, done = 2 * sum(len(scans) for _, scans in jobs), 0
    by_model: dict[str, Any] = {}
    for model, scans in jobs:
        gains: dict[str, list[Gain]] = {"fp32": [], "bf16": []}
        for precision, kept in gains.items():
            if progress is not None:
                progress(done, total, f"{model.spec.name}, {precision}")
            for gain in scans.gains(model, device=device, precision=precision):
                kept.append(gain)
                done += 1
                if progress is not None:
                    progress(done, total, f"{model.spec.name}, {precision}")
        entry = differences(gains)
        by_model[model.spec.name] = entry | {"split": split, "weights_sha256": model.weight_hash}
    return by_model


def differences(gains: Mapping[str, Sequence[Gain]]) -> dict[str, Any]:
    """Subtract the PSNR of fp32 from that of bf16.

    Args:
        gains: Scores of the same scans, in the same order, by precision.

    Raises:
        CohortError: There is nothing to subtract.
    """
    rows = [
        {
            "scan_id": exact.scan_id,
            "axis": exact.axis,
            "fp32_psnr_db": exact.psnr,
            "bf16_psnr_db": rounded.psnr,
            "difference_db": rounded.psnr - exact.psnr,
        }
        for exact, rounded in zip(gains["fp32"], gains["bf16"], strict=True)
    ]
    if not rows:
        raise CohortError("no scan could be scored; all are too small for the factor")
    values = [float(str(row["difference_db"])) for row in rows]
    return {"mean": fmean(values), "worst": max(values, key=abs), "scans": rows}

"""Scans to score many models on: degraded once, kept in memory with their truths.

The metric and its conventions are those of ``medsr.evaluate``; models restore through
``medsr.infer.upscale``, the very call behind ``medsr upscale``. A cohort that does not fit into
memory is scored by ``medsr.evaluate.cohort`` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from medsr.benchmark.arms import Scoring
from medsr.data.manifest import ScanRecord, read_manifest
from medsr.data.reading import read_scan
from medsr.data.transforms import slice_axes
from medsr.degrade import degrade_volume
from medsr.errors import CohortError
from medsr.evaluate.baselines import Interpolation, resample
from medsr.evaluate.metrics import SSIM_WINDOW, Reference, psnr, reference_for
from medsr.geometry import Geometry
from medsr.infer.upscale import upscale
from medsr.model import SRModel
from medsr.recipe import Recipe
from medsr.train.source import simulations
from medsr.volume import Modality, Volume

Row = dict[str, Any]
"""``patient_id``, ``scan_id``, ``axis`` and ``psnr`` in dB, as plain data."""


@dataclass(frozen=True)
class HeldScan:
    """A truth and its low resolution.

    Attributes:
        record: Row of the manifest.
        axis: Degraded array axes: ``x``, ``y``, ``z`` or ``xyz``.
        truth: The scan, slice axis last, native units.
        lr: What it was degraded to, without noise.
        reference: Mask and data range.
    """

    record: ScanRecord
    axis: str
    truth: Volume
    lr: Volume
    reference: Reference


class HeldScans:
    """The scans of a split, ready to be restored.

    Args:
        recipe: Manifest, modality, contrasts and degradation.
        scoring: Split, axes, number of scans.

    Raises:
        CohortError: The manifest is wrong or no scan fits.
    """

    def __init__(self, recipe: Recipe, scoring: Scoring):
        data, factor = recipe.data, recipe.degradation.factor
        if data.manifest is None:
            raise CohortError("the base recipe names no manifest; models are scored on its scans")
        self.modality: Modality = data.modalities[0]
        self.scale = factor
        degradation = simulations(recipe)[self.modality]
        fitting = [
            (record, slice_axes(record, factor))
            for record in read_manifest(data.manifest, split=scoring.split)
            if record.split == scoring.split
            and record.modality == self.modality
            and data.takes(record.modality, record.contrast)
        ]
        chosen = _spread([entry for entry in fitting if entry[1]], scoring.limit)
        self.scans: list[HeldScan] = []
        for turn, (record, axes) in enumerate(chosen):
            scan = read_scan(record)
            for axis in axes if scoring.axes == "all" else (axes[turn % len(axes)],):
                truth = _truth(scan, axis, factor)
                if truth is None:
                    continue
                lr = degrade_volume(truth, degradation, degradation.nominal())
                if factor[0] == 1 and lr.geometry.slice_axis() not in (None, 2):
                    continue  # Upscaling would take the thickest axis for the slice axis.
                label = "xyz" if factor[0] > 1 else "xyz"[axis]
                reference = reference_for(truth.data, self.modality)
                self.scans.append(HeldScan(record, label, truth, lr, reference))
        if not self.scans:
            raise CohortError(
                f"split {scoring.split!r} holds no {self.modality} scan that can be scored for "
                f"factor {factor}; name another in scoring.split"
            )

    def score_model(self, model: SRModel, *, device: str = "auto") -> list[Row]:
        """Restore and score every scan by a model."""

        def restore(lr: Volume, grid: Geometry) -> Volume:
            return upscale(
                lr, model=model, modality=self.modality, scale=self.scale, device=device
            ).whole()

        return self._score(restore)

    def score_interpolation(self, method: Interpolation) -> list[Row]:
        """Resample and score every scan."""
        return self._score(lambda lr, grid: resample(lr, grid, method))

    def _score(self, restore: Callable[[Volume, Geometry], Volume]) -> list[Row]:
        rows = []
        for scan in self.scans:
            sr = restore(scan.lr, scan.truth.geometry)
            record, own = scan.record, scan.reference
            value = psnr(sr.data, scan.truth.data, own.mask, own.data_range)
            rows.append(
                {
                    "patient_id": record.patient_id,
                    "scan_id": record.scan_id,
                    "axis": scan.axis,
                    "psnr": round(value, 5),
                }
            )
        return rows


def _truth(scan: Volume, axis: int, scale: tuple[int, int, int]) -> Volume | None:
    """The scan with the slice axis last, cropped at the far end; None where it is too small."""
    scan = scan.permute([i for i in range(3) if i != axis] + [axis])
    stop = [size // factor * factor for size, factor in zip(scan.shape, scale, strict=True)]
    if min(stop) < SSIM_WINDOW:
        return None
    return scan.replace(data=np.ascontiguousarray(scan.data, dtype=np.float32)).crop(
        (0, 0, 0), stop
    )


def _spread(
    entries: list[tuple[ScanRecord, tuple[int, ...]]], limit: int | None
) -> list[tuple[ScanRecord, tuple[int, ...]]]:
    """Pick ``limit`` entries evenly, so that neighbours in the manifest crowd no one out."""
    if limit is None or len(entries) <= limit:
        return entries
    step = (len(entries) - 1) / max(1, limit - 1)
    return [entries[round(i * step)] for i in range(limit)]

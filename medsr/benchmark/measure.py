"""What a model costs and what it is worth, on the same axes for every kind of model.

Parameters, multiply-accumulates, bytes on disk, seconds through the tile engine, and the gain in
PSNR over B-spline interpolation on scans that were not learnt from. Float, pruned and int8 models
are measured by the same functions. Which models are compared is in ``compression``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch

from medsr.benchmark.networks import macs_per_voxel
from medsr.compress.calibrate import trained_degradation
from medsr.data.manifest import ScanRecord, read_manifest, select
from medsr.data.transforms import slice_axes
from medsr.degrade import degrade_volume
from medsr.errors import CohortError, UsageError
from medsr.evaluate.baselines import resample
from medsr.evaluate.metrics import psnr, reference_for
from medsr.infer.monai_inferer import TiledInferer
from medsr.infer.upscale import upscale
from medsr.io import load
from medsr.model import CARD_FILE, ModelSpec, SRModel
from medsr.networks import build_network
from medsr.spec import SPEC_FILE
from medsr.types import Triple
from medsr.volume import Volume

_SMALLEST = 8
"""Low-resolution voxels along an axis below which a scan is not scored."""


@dataclass(frozen=True)
class Cost:
    """What a model takes, quality aside.

    Attributes:
        parameters: At inference; those of an int8 model's float twin.
        macs_per_voxel: Multiply-accumulates per voxel of the result, tiles' halos not counted.
        file_bytes: Weights and graph on disk, without spec and card.
        seconds: Wall time of each run over the volume, after one to warm up.
    """

    parameters: int
    macs_per_voxel: float
    file_bytes: int
    seconds: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the values, the median time and its range as plain data."""
        return {
            **asdict(self),
            "seconds": list(self.seconds),
            "median_seconds": median(self.seconds),
            "seconds_range": [min(self.seconds), max(self.seconds)],
        }


@dataclass(frozen=True)
class Gain:
    """How much better than B-spline one scan was restored.

    Attributes:
        patient_id: Pseudonym from the manifest.
        scan_id: Name of the scan in the manifest.
        axis: Array axis that was coarsened, ``x``, ``y``, ``z`` or ``xyz``.
        psnr: dB, inside the body.
        gain: dB over cubic B-spline.
    """

    patient_id: str
    scan_id: str
    axis: str
    psnr: float
    gain: float


def cost(
    model: SRModel,
    folder: str | Path,
    *,
    shape: Triple,
    runs: int = 5,
    device: str = "cpu",
    precision: str = "auto",
) -> Cost:
    """Measure what a model costs.

    Args:
        model: Any loaded model, int8 ones included.
        folder: Where it is saved.
        shape: Low-resolution voxels of the volume that is timed.
        runs: How often it is timed, at least 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32`` or ``bf16``; int8 layers stay int8.

    Raises:
        UsageError: ``runs`` is below 1.
    """
    if runs < 1:
        raise UsageError(f"runs {runs} must be at least 1")
    lr = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    inferer = TiledInferer(precision=precision, device=device)
    network = model.module.to(inferer.device)
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        inferer(lr, network)
        seconds.append(time.perf_counter() - started)
    return Cost(
        parameters=model.spec.parameters,
        macs_per_voxel=_macs(model.spec),
        file_bytes=file_bytes(folder),
        seconds=tuple(seconds[1:]),
    )


def file_bytes(folder: str | Path) -> int:
    """Return the bytes of a saved model: all its files but the spec and the card."""
    files = (path for path in Path(folder).iterdir() if path.is_file())
    return sum(p.stat().st_size for p in files if p.name not in (SPEC_FILE, CARD_FILE))


def _macs(spec: ModelSpec) -> float:
    """Count on the network that the spec describes: of an int8 model this is the float twin."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(spec.network, spec.scale, **spec.options).merged().eval()
    return macs_per_voxel(network) / math.prod(spec.scale)


class DevScans:
    """Scans to score on: each is coarsened along one of its sharp axes, in turn, without noise.

    They are read anew for every model, since a cohort may not fit into memory; the B-spline's
    score is kept.

    Args:
        manifest: CSV file of scans.
        spec: A model of the task; its modality, factors and degradation are taken.
        split: Split that was not learnt from.
        limit: At most so many scans, spread evenly over the split; None for all.

    Raises:
        CohortError: The manifest is wrong or no scan fits.
        ModelError: The spec does not say how its training data were degraded.
        UsageError: The split is ``train``.
    """

    def __init__(
        self, manifest: str | Path, spec: ModelSpec, *, split: str = "dev", limit: int | None = None
    ):
        if split.lower() == "train":
            raise UsageError("split train was learnt from and its scores mislead; take another")
        self.modality, self.scale = spec.modality, spec.scale
        self.degradation = trained_degradation(spec)
        listed = read_manifest(manifest, split=split)
        records = select(listed, split=split, modality=spec.modality)
        fitting = [(record, slice_axes(record, spec.scale)) for record in records]
        fitting = _spread([entry for entry in fitting if entry[1]], limit)
        if not fitting:
            raise CohortError(
                f"split {split}: no {spec.modality} scan is sharp enough for factor {spec.scale}"
            )
        self.jobs = [(r, axes[turn % len(axes)]) for turn, (r, axes) in enumerate(fitting)]
        self._interpolated: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.jobs)

    def gains(
        self, model: SRModel, *, device: str = "auto", precision: str = "auto"
    ) -> Iterator[Gain]:
        """Restore and score scan after scan.

        Args:
            model: Model of the same task.
            device: As ``medsr upscale``.
            precision: As ``medsr upscale``.

        Yields:
            One result for each scan; those too small to be scored are left out.

        Raises:
            UsageError: The model does another task.
        """
        spec = model.spec
        if (spec.modality, spec.scale) != (self.modality, self.scale):
            raise UsageError(
                f"model {spec.name} is for {spec.modality} and {spec.scale}, the others for "
                f"{self.modality} and {self.scale}; compare models of one task"
            )
        for record, axis in self.jobs:
            truth = self._truth(record, axis)
            if truth is None:
                continue
            lr = degrade_volume(truth, self.degradation, self.degradation.nominal())
            reference = reference_for(truth.data, self.modality)

            def score(volume: Volume, truth: Volume = truth, reference: Any = reference) -> float:
                return psnr(volume.data, truth.data, reference.mask, reference.data_range)

            if record.scan_id not in self._interpolated:
                self._interpolated[record.scan_id] = score(resample(lr, truth.geometry, "bspline"))
            restored = upscale(
                lr,
                model=model,
                modality=self.modality,
                scale=self.scale,
                device=device,
                precision=precision,
            ).whole()
            value = score(restored)
            label = "xyz" if self.scale[0] > 1 else "xyz"[axis]
            gain = value - self._interpolated[record.scan_id]
            yield Gain(record.patient_id, record.scan_id, label, value, gain)

    def _truth(self, record: ScanRecord, axis: int) -> Volume | None:
        """Read a scan, slice axis last, cropped at the far end to multiples of the factor."""
        scan = load(record.path, modality=self.modality)
        scan = scan.permute([i for i in range(3) if i != axis] + [axis])
        stop = [
            size // factor * factor for size, factor in zip(scan.shape, self.scale, strict=True)
        ]
        if any(n // f < _SMALLEST for n, f in zip(stop, self.scale, strict=True)):
            return None
        data = np.ascontiguousarray(scan.data, dtype=np.float32)
        truth = scan.replace(data=data).crop((0, 0, 0), stop)
        coarse = truth.geometry.coarsen(self.scale)
        # Upscaling takes the thickest axis for the slice axis, which would be another one here.
        through_plane = self.scale[0] == 1
        return None if through_plane and coarse.slice_axis() not in (None, 2) else truth


def summarise(gains: Sequence[Gain]) -> dict[str, Any]:
    """Return mean, spread and range over scans, and the single scans, as plain data.

    Raises:
        CohortError: There is nothing to summarise.
    """
    if not gains:
        raise CohortError("no scan could be scored; all are too small for the factor")
    values = [gain.gain for gain in gains]
    return {
        "mean": fmean(values),
        "std": stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
        "scans": [asdict(gain) for gain in gains],
    }


def _spread(
    entries: list[tuple[ScanRecord, tuple[int, ...]]], limit: int | None
) -> list[tuple[ScanRecord, tuple[int, ...]]]:
    """Pick ``limit`` entries evenly, so that neighbours in the manifest crowd no one out."""
    if limit is None or len(entries) <= limit:
        return entries
    step = (len(entries) - 1) / max(1, limit - 1)
    return [entries[round(i * step)] for i in range(limit)]

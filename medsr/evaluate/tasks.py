"""What is restored and compared: a low-resolution scan and the truth on its own grid.

Two kinds. Simulated: a sharp scan is degraded. Real pairs: a thick and a thin series of one person
are compared where both lie; the truth is never interpolated. Which methods restore is in
``methods``, how results are scored in ``metrics``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from medsr.data.manifest import ScanRecord
from medsr.degrade import Degradation, degrade_volume
from medsr.evaluate import metrics
from medsr.evaluate.baselines import resample
from medsr.evaluate.provenance import describe_degradation
from medsr.evaluate.sampling import in_native_units
from medsr.geometry import Geometry
from medsr.io import load
from medsr.types import BoolArray, Scale
from medsr.volume import Modality, Volume

_AXES = {
    True: "all three axes at once, one row a scan",
    False: "every sharp axis of a scan serves as slice axis in turn, one row each",
}
_LEAST_OVERLAP = 0.05


class Unscorable(Exception):
    """A scan that cannot serve as truth; its text says why."""


@dataclass(frozen=True)
class Job:
    """A scan and the array axis that serves as slice axis (None: all axes alike).

    Attributes:
        record: The scan.
        axis: 0, 1 or 2, or None.
        label: ``x``, ``y``, ``z``, ``xyz``, or ``pair``.
    """

    record: ScanRecord
    axis: int | None
    label: str

    @property
    def name(self) -> str:
        """``scan_axis-z``: the name of its files."""
        return f"{self.record.scan_id}_axis-{self.label}"

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.record.scan_id}, axis {self.label}"


@dataclass(frozen=True)
class Task:
    """One low-resolution scan and its truth.

    Attributes:
        job: Of which scan.
        lr: What the methods are given.
        truth: What they should give back; its last axis is the slice axis of ``lr``.
        covered: (X, Y, Z), voxels of the truth that ``lr`` covers; None where that is all.
        degradation: What made ``lr`` of the truth; None for real pairs.
        params: Its parameters.
        notes: What else was found, as plain data.
    """

    job: Job
    lr: Volume
    truth: Volume
    covered: BoolArray | None = None
    degradation: Degradation[Any] | None = None
    params: Any = None
    notes: dict[str, Any] = field(default_factory=dict)

    def degrade(self, truth: Volume) -> Volume:
        """Degrade another volume on the truth's grid in the same way.

        Raises:
            Unscorable: Nobody knows how; the scans are a real pair.
        """
        if self.degradation is None:
            raise Unscorable(f"{self.job.where}: how a real scan was degraded is not known")
        return degrade_volume(truth, self.degradation, self.params)


class Tasks(Protocol):
    """A cohort's tasks, opened one at a time."""

    @property
    def jobs(self) -> Sequence[Job]:
        """All of them, scan by scan."""
        ...

    def open(self, job: Job) -> Task:
        """Read (and degrade) one.

        Raises:
            Unscorable: It cannot serve.
            MedsrError: A scan cannot be read.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """The parts ``task`` and ``degradation`` of ``results.json``."""
        ...


class Simulated:
    """Sharp scans, degraded.

    Args:
        records: The scans.
        modality: Of all of them.
        scale: (1, 1, N) or (N, N, N).
        degradation: How, with that factor.
        seed: Parameters and noise are drawn with it, another draw for every scan and axis; None
            takes the central parameters without noise.
        drawn: From which ranges, to be told; see :mod:`medsr.evaluate.sampling`. A range ``noise``
            is over the data range of the truth.
    """

    def __init__(
        self,
        records: Sequence[ScanRecord],
        modality: Modality,
        scale: Scale,
        degradation: Degradation[Any],
        seed: int | None = None,
        drawn: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self._modality: Modality = modality
        self._drawn = dict(drawn or {})
        self._scale = scale
        self._degradation = degradation
        self._seed = seed
        self._isotropic = scale[0] == scale[2]
        self._last: tuple[ScanRecord, Volume] | None = None
        self.jobs: Sequence[Job] = (
            [Job(record, None, "xyz") for record in records if record.sharp_axes == "xyz"]
            if self._isotropic
            else [Job(r, axis, "xyz"[axis]) for r in records for axis in r.sharp_axis_indices]
        )

    def open(self, job: Job) -> Task:
        """Read a scan and degrade it; see :class:`Tasks`."""
        truth = _sharp(self._scan(job.record), job.axis, self._scale)
        if min(truth.shape) < metrics.SSIM_WINDOW:
            raise Unscorable(
                f"{job.where}: fewer than {metrics.SSIM_WINDOW} voxels along an axis; not scored"
            )
        params = self._params(job, truth)
        lr = degrade_volume(truth, self._degradation, params)
        if job.axis is not None and lr.geometry.slice_axis() not in (None, 2):
            # Upscaling takes the thickest axis for the slice axis: another one here.
            raise Unscorable(
                f"{job.where}: another axis is thicker even after degradation; not scored"
            )
        notes = {} if self._seed is None else {"drawn": asdict(params)}
        return Task(job, lr, truth, degradation=self._degradation, params=params, notes=notes)

    def describe(self) -> dict[str, Any]:
        """See :class:`Tasks`."""
        about = describe_degradation(self._degradation)
        if self._seed is not None:
            about["draw"] = (
                f"parameters and noise drawn for every scan and axis from seed {self._seed}; "
                "what was drawn is under tasks"
            )
            about["ranges"] = {name: list(ends) for name, ends in self._drawn.items()}
        return {
            "task": {
                "kind": "simulated",
                "scale": list(self._scale),
                "axes": _AXES[self._isotropic],
            },
            "degradation": about,
        }

    def _scan(self, record: ScanRecord) -> Volume:
        """A scan; that of the last job is not read again."""
        if self._last is None or self._last[0] != record:
            self._last = (record, load(record.path, modality=self._modality))
        return self._last[1]

    def _params(self, job: Job, truth: Volume) -> Any:
        if self._seed is None:
            return self._degradation.nominal()
        seed = seed_for(self._seed, job)
        params = self._degradation.sample(torch.Generator().manual_seed(seed))
        if "noise" not in self._drawn:
            return params
        reference = metrics.reference_for(truth.data, self._modality)
        return in_native_units(params, reference.data_range)


class RealPairs:
    """Thick scans and the thin ones of the same people, as they were acquired.

    Args:
        records: Rows of the manifest; those with ``lr_path`` count.
        modality: Of all of them.
    """

    def __init__(self, records: Sequence[ScanRecord], modality: Modality) -> None:
        self._modality: Modality = modality
        self.jobs: Sequence[Job] = [Job(r, None, "pair") for r in records if r.lr_path is not None]

    def open(self, job: Job) -> Task:
        """Read both scans; see :class:`Tasks`."""
        path = job.record.lr_path
        if path is None:
            raise Unscorable(f"{job.where}: has no thick scan; not scored")
        lr = _float(load(path, modality=self._modality))
        truth = _float(load(job.record.path, modality=self._modality))
        truth = truth.permute(_slice_axis_last(truth.geometry, lr.geometry))
        covered = inside(truth.geometry, lr.geometry)
        share = float(covered.mean())
        if share < _LEAST_OVERLAP:
            raise Unscorable(
                f"{job.where}: only {share:.0%} of the thin scan lie in the thick one; not scored"
            )
        truth, covered = _cut(truth, covered)
        if min(truth.shape) < metrics.SSIM_WINDOW:
            raise Unscorable(
                f"{job.where}: the scans share fewer than {metrics.SSIM_WINDOW} voxels along an "
                "axis; not scored"
            )
        shift = displacement_mm(resample(lr, truth.geometry, "bspline"), truth)
        notes = {
            "covered": share,
            "lr_spacing_mm": list(lr.spacing),
            "truth_spacing_mm": list(truth.spacing),
            "displacement_mm": list(shift),
        }
        return Task(job, lr, truth, covered=covered, notes=notes)

    def describe(self) -> dict[str, Any]:
        """See :class:`Tasks`."""
        return {
            "task": {
                "kind": "pairs",
                "axes": (
                    "the thick scan is restored and brought to the grid of the thin one by their "
                    "positions in the scanner; the thin one is not interpolated, and compared "
                    "where the thick one covers it"
                ),
                "displacement": (
                    "phase correlation of the two, mm along the axes of the thin scan: "
                    "what the patient moved in between is an error of every method alike"
                ),
            }
        }


def seed_for(seed: int, job: Job) -> int:
    """A seed for one job, the same on every machine and in any order."""
    digest = hashlib.sha256(f"{seed}:{job.name}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def inside(grid: Geometry, field: Geometry) -> BoolArray:
    """Which voxel centres of a grid lie within another's outer edges, (X, Y, Z)."""
    step = np.linalg.inv(field.affine) @ grid.affine
    covered = np.ones(grid.shape, dtype=bool)
    for axis in range(3):
        # The index along an axis of `field` is a sum of one term for each axis of `grid`.
        along = [step[axis, k] * np.arange(n) for k, n in enumerate(grid.shape)]
        index = along[0][:, None, None] + along[1][None, :, None] + along[2][None, None, :]
        index += step[axis, 3]
        covered &= (index >= -0.5) & (index <= field.shape[axis] - 0.5)
    return covered


def displacement_mm(moved: Volume, still: Volume) -> tuple[float, float, float]:
    """By how much one volume lies off another on the same grid, mm along X, Y and Z.

    Source: Guizar-Sicairos et al. 2008, as scikit-image computes it, to a quarter of a voxel.
    """
    from skimage.registration import phase_cross_correlation

    correlate: Callable[..., Any] = phase_cross_correlation
    shift, _, _ = correlate(np.asarray(still.data), np.asarray(moved.data), upsample_factor=4)
    x, y, z = (-float(s) * mm for s, mm in zip(shift, still.spacing, strict=True))
    return x, y, z


def _float(volume: Volume) -> Volume:
    return volume.replace(data=np.ascontiguousarray(volume.data, dtype=np.float32))


def _sharp(scan: Volume, axis: int | None, scale: Scale) -> Volume:
    """The scan with the slice axis last, cropped at the far end to multiples of the factor."""
    if axis is not None:
        scan = scan.permute([i for i in range(3) if i != axis] + [axis])
    stop = [size // factor * factor for size, factor in zip(scan.shape, scale, strict=True)]
    scan = _float(scan)
    return scan.crop((0, 0, 0), stop) if min(stop) > 0 else scan


def _slice_axis_last(truth: Geometry, lr: Geometry) -> tuple[int, int, int]:
    """Axes of the truth in an order that puts the one along the thick slices last."""
    thick = lr.slice_axis()
    along = np.abs(truth.directions.T @ lr.directions[:, 2 if thick is None else thick])
    last = int(np.argmax(along))
    first, second = (axis for axis in range(3) if axis != last)
    return first, second, last


def _cut(truth: Volume, covered: BoolArray) -> tuple[Volume, BoolArray]:
    """Both within the box of what is covered."""
    window = []
    for axis in range(3):
        where = np.flatnonzero(covered.any(axis=tuple(k for k in range(3) if k != axis)))
        window.append((int(where[0]), int(where[-1]) + 1))
    start, stop = [low for low, _ in window], [high for _, high in window]
    box = tuple(slice(low, high) for low, high in window)
    return _float(truth.crop(start, stop)), np.ascontiguousarray(covered[box])

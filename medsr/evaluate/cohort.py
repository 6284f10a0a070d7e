"""Runs every method over the scans of a manifest and scores what comes back.

Truths are degraded without noise (nominal parameters), so nothing is left to chance. Models restore
through ``medsr.infer.upscale``, the very call behind ``medsr upscale``. Metrics and their
conventions are in ``metrics``, disturbed inputs in ``robustness``, the tables in ``results``, and
what is said about a run in ``about``.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medsr.data.manifest import ScanRecord, read_manifest, select
from medsr.degrade import Degradation, build_degradation, degrade_volume
from medsr.errors import CohortError, UsageError
from medsr.evaluate import metrics
from medsr.evaluate.about import (
    describe_degradation,
    describe_model,
    repeating_command,
    versions,
)
from medsr.evaluate.baselines import BASELINES, Interpolation, resample
from medsr.evaluate.results import CaseResult, DisturbedResult, Results
from medsr.evaluate.robustness import Disturbances, Scored, examine
from medsr.geometry import Geometry
from medsr.infer.backends.load import load_model
from medsr.infer.upscale import upscale
from medsr.io import load
from medsr.model import SRModel
from medsr.volume import Modality, Volume

logger = logging.getLogger(__name__)

Scale = tuple[int, int, int]
Progress = Callable[[int, int, str], None]
"""Called with (scans and axes done, in all, what comes next)."""
Restore = Callable[[Volume, Geometry], Volume]
"""Brings a low-resolution volume to the truth's grid."""
Look = Callable[[Volume, metrics.Reference], Iterable[Scored]]
"""Scores all methods on disturbed parts of a truth."""

_AXES = {
    True: "all three axes at once, one row a scan",
    False: "every sharp axis of a scan serves as slice axis in turn, one row each",
}


@dataclass(frozen=True)
class Job:
    """A scan and the array axis that serves as slice axis (None: all axes alike)."""

    record: ScanRecord
    axis: int | None

    @property
    def label(self) -> str:
        """``x``, ``y``, ``z`` or ``xyz``."""
        return "xyz" if self.axis is None else "xyz"[self.axis]


def evaluate(
    manifest: str | Path,
    *,
    split: str,
    scale: Scale,
    models: Sequence[str | Path] = (),
    modality: Modality | None = None,
    kind: str | None = None,
    limit: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_memory: str | int | None = None,
    allow_train: bool = False,
    robust: Disturbances | None = None,
    progress: Progress | None = None,
) -> Results:
    """Score linear, cubic B-spline and models on a split of a cohort.

    Args:
        manifest: CSV file, see :func:`medsr.data.manifest.read_manifest`.
        split: Which split.
        scale: Factors; through-plane (only the last above 1: every sharp axis of a scan serves
            as slice axis in turn) or isotropic (all equal: scans that are sharp along x, y, z).
        models: Names of shipped models or model folders, all of one modality.
        modality: Which scans; None takes the models' modality, else the manifest's only one.
        kind: Degradation; None takes ``ct_slab`` for CT, ``slice_profile`` for MR through-plane
            and ``kspace`` for MR isotropic.
        limit: Score only the first scans.
        device: As ``medsr upscale``.
        precision: As ``medsr upscale``.
        max_memory: As ``medsr upscale``.
        allow_train: Permit the split ``train``, whose scores say nothing about new patients.
        robust: Also score a part of every scan noisy and under attack; None leaves that out.
        progress: Told of every restoration before it starts.

    Returns:
        Rows, means and all that is needed to read them.

    Raises:
        CohortError: The manifest is wrong or has no scan that fits.
        UsageError: Scale, models and modality do not go together, or the train split is asked
            for without permission.
        ModelError: A model is unknown or damaged.
    """
    isotropic = _check_scale(scale)
    if split.lower() == "train" and not allow_train:
        raise UsageError(
            "split train was used for training and its scores mislead; "
            "take another split, or pass --allow-train"
        )
    records = read_manifest(manifest)
    loaded = _load_models(models, scale)
    modality = _modality(modality, loaded, select(records, split=split))
    scans = select(records, split=split, modality=modality)[:limit]
    degradation = build_degradation(kind or _default_kind(modality, isotropic), scale)
    jobs = _jobs(scans, isotropic)
    if not jobs:
        raise CohortError(
            f"split {split}: no {modality} scan is sharp along x, y and z, as an isotropic "
            "scale needs; take a through-plane scale or another split"
        )

    methods: dict[str, Restore] = {name: _baseline(name) for name in BASELINES}
    for label, model in loaded.items():
        methods[label] = _model(model, modality, scale, device, precision, max_memory)
    look: Look | None = None
    if robust is not None:
        look = partial(
            examine,
            degradation=degradation,
            methods=methods,
            models=loaded,
            how=robust,
            modality=modality,
            device=device,
            precision=precision,
        )
    cases, disturbed, skipped = _run(jobs, modality, scale, degradation, methods, look, progress)
    if not cases:
        raise CohortError(f"split {split}: nothing could be scored; {skipped[0]}")
    about = {
        "command": repeating_command(
            manifest,
            split,
            scale,
            models,
            modality,
            kind,
            limit,
            allow_train=allow_train,
            robust=robust is not None,
        ),
        "versions": versions(),
        "machine": {"processor": platform.machine(), "device": device, "precision": precision},
        "cohort": {
            "manifest": Path(manifest).name,
            "sha256": hashlib.sha256(Path(manifest).read_bytes()).hexdigest(),
            "split": split,
            "modality": modality,
            "scans": len({case.scan_id for case in cases}),
            "patients": len({case.patient_id for case in cases}),
        },
        "task": {"scale": list(scale), "axes": _AXES[isotropic]},
        "conventions": metrics.conventions(modality),
        "degradation": describe_degradation(degradation),
        "methods": {
            "linear": {"what": "SimpleITK, linear"},
            "bspline": {"what": "SimpleITK, cubic B-spline"},
            **{label: describe_model(model) for label, model in loaded.items()},
        },
    }
    if robust is not None:
        about["inputs"] = robust.describe(modality)
    return Results(about, tuple(cases), tuple(skipped), tuple(disturbed))


def _run(
    jobs: Sequence[Job],
    modality: Modality,
    scale: Scale,
    degradation: Degradation[Any],
    methods: Mapping[str, Restore],
    look: Look | None,
    progress: Progress | None,
) -> tuple[list[CaseResult], list[DisturbedResult], list[str]]:
    """Degrade, restore by every method and score every job; also say what was skipped."""
    cases: list[CaseResult] = []
    disturbed: list[DisturbedResult] = []
    skipped: list[str] = []
    params = degradation.nominal()
    for done, (job, scan) in enumerate(_loaded(jobs, modality)):
        truth = _truth(scan, job.axis, scale)
        lr = degrade_volume(truth, degradation, params)
        problem = _problem(job, truth, lr)
        try:
            reference = metrics.reference_for(truth.data, modality)
        except ValueError as error:
            problem = problem or f"{_where(job)}: {error}; not scored"
        if problem:
            logger.warning("%s", problem)
            skipped.append(problem)
            continue
        for name, restore in methods.items():
            if progress is not None:
                progress(done, len(jobs), f"{job.record.scan_id} {job.label} {name}")
            started = time.perf_counter()
            sr = restore(lr, truth.geometry)
            seconds = time.perf_counter() - started
            if not sr.geometry.same_grid(truth.geometry):
                raise CohortError(
                    f"{_where(job)}: the result of {name} does not lie on the truth's grid and "
                    "cannot be scored"
                )
            cases.append(
                CaseResult(
                    patient_id=job.record.patient_id,
                    scan_id=job.record.scan_id,
                    axis=job.label,
                    method=name,
                    metrics=metrics.score(sr.data, truth.data, reference),
                    seconds=seconds,
                )
            )
        if look is None:
            continue
        if progress is not None:
            progress(done, len(jobs), f"{job.record.scan_id} {job.label} disturbed")
        try:
            disturbed += [_disturbed(job, found) for found in look(truth, reference)]
        except ValueError as error:
            skipped.append(f"{_where(job)}: {error}; not disturbed")
    if progress is not None:
        progress(len(jobs), len(jobs), "done")
    return cases, disturbed, skipped


def _disturbed(job: Job, found: Scored) -> DisturbedResult:
    return DisturbedResult(
        patient_id=job.record.patient_id,
        scan_id=job.record.scan_id,
        axis=job.label,
        method=found.method,
        metrics=found.metrics,
        seconds=found.seconds,
        input=found.input,
    )


def _check_scale(scale: Scale) -> bool:
    """Whether the task is isotropic; refuses what is neither that nor through-plane."""
    x, y, z = scale
    if x == y == 1 and z > 1:
        return False
    if x == y == z and x > 1:
        return True
    raise UsageError(
        f"scale {x},{y},{z} cannot be scored; give 1,1,N (through-plane) or N,N,N (isotropic)"
    )


def _default_kind(modality: Modality, isotropic: bool) -> str:
    if modality == "CT":
        return "ct_slab"
    return "kspace" if isotropic else "slice_profile"


def _load_models(models: Sequence[str | Path], scale: Scale) -> dict[str, SRModel]:
    """Models by label, which is their name, numbered where two share it."""
    labelled: dict[str, SRModel] = {}
    for source in models:
        model = load_model(source)
        spec = model.spec
        if spec.scale != scale:
            raise UsageError(
                f"model {spec.name} restores {','.join(map(str, spec.scale))}, "
                f"not {','.join(map(str, scale))}; leave it out or change --scale"
            )
        label, number = spec.name, 2
        while label in labelled or label in BASELINES:
            label, number = f"{spec.name}-{number}", number + 1
        labelled[label] = model
    return labelled


def _modality(
    wanted: Modality | None, models: Mapping[str, SRModel], records: Sequence[ScanRecord]
) -> Modality:
    served: list[set[Modality]] = [set(model.spec.modalities) for model in models.values()]
    common = set.intersection(*served) if served else set()
    if served and not common:
        raise UsageError("the models are for different modalities; evaluate MR and CT apart")
    there = {record.modality for record in records}
    candidates = (common & there or common) if served else there
    if wanted is not None:
        if served and wanted not in common:
            raise UsageError(f"the models are for {' and '.join(common)}, not for {wanted}")
        return wanted
    if len(candidates) > 1:
        raise UsageError("the split holds MR and CT; choose with --modality or name a model")
    return candidates.pop()


def _jobs(scans: Sequence[ScanRecord], isotropic: bool) -> list[Job]:
    if isotropic:
        return [Job(record, None) for record in scans if record.sharp_axes == "xyz"]
    return [Job(record, axis) for record in scans for axis in record.sharp_axis_indices]


def _loaded(jobs: Sequence[Job], modality: Modality) -> Iterator[tuple[Job, Volume]]:
    """Each job with its scan; a scan of several jobs is read once."""
    path: Path | None = None
    scan: Volume | None = None
    for job in jobs:
        if scan is None or job.record.path != path:
            path = job.record.path
            scan = load(path, modality=modality)
        yield job, scan


def _truth(scan: Volume, axis: int | None, scale: Scale) -> Volume:
    """The scan with the slice axis last, cropped at the far end to multiples of the factor."""
    if axis is not None:
        scan = scan.permute([i for i in range(3) if i != axis] + [axis])
    stop = [size // factor * factor for size, factor in zip(scan.shape, scale, strict=True)]
    scan = scan.replace(data=np.ascontiguousarray(scan.data, dtype=np.float32))
    return scan.crop((0, 0, 0), stop) if min(stop) > 0 else scan


def _problem(job: Job, truth: Volume, lr: Volume) -> str | None:
    """Why a job cannot be scored, if so."""
    where = _where(job)
    if min(truth.shape) < metrics.SSIM_WINDOW:
        return f"{where}: fewer than {metrics.SSIM_WINDOW} voxels along an axis; not scored"
    if job.axis is not None and lr.geometry.slice_axis() not in (None, 2):
        # Upscaling takes the thickest axis for the slice axis, which would be another one here.
        return f"{where}: another axis is thicker even after degradation; not scored"
    return None


def _where(job: Job) -> str:
    return f"{job.record.scan_id}, axis {job.label}"


def _baseline(name: Interpolation) -> Restore:
    return lambda lr, grid: resample(lr, grid, name)


def _model(
    model: SRModel,
    modality: Modality,
    scale: Scale,
    device: str,
    precision: str,
    max_memory: str | int | None,
) -> Restore:
    def restore(lr: Volume, grid: Geometry) -> Volume:
        return upscale(
            lr,
            model=model,
            modality=modality,
            scale=scale,
            device=device,
            precision=precision,
            max_memory=max_memory,
        ).whole()

    return restore

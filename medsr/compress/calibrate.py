"""Patches that show a quantiser which values occur inside a network.

They are cut from scans of the training split, degraded as the model's own training data were, so
that no held-out patient has any part in the choice of the integer ranges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medsr.data.manifest import ScanRecord, read_manifest, select
from medsr.data.transforms import PreparedScan, prepare_scan
from medsr.degrade import Degradation, build_degradation
from medsr.errors import CohortError, ModelError
from medsr.model import ModelSpec
from medsr.types import Triple

DEFAULT_SIZE: Triple = (40, 40, 20)


def calibration_patches(
    manifest: str | Path,
    spec: ModelSpec,
    *,
    split: str = "train",
    scans: int = 4,
    count: int = 16,
    size: Triple = DEFAULT_SIZE,
    seed: int = 0,
) -> list[Tensor]:
    r"""Cut patches of low resolution from a cohort.

    Args:
        manifest: CSV file of scans.
        spec: Model that is to be quantised; its degradation and normalisation are applied.
        split: Split to take scans from, spread evenly over it.
        scans: At most so many scans.
        count: Patches in all.
        size: Patch in low-resolution voxels, cut where a scan is smaller.
        seed: Seed of the patches' places, centred on the body.

    Returns:
        Normalised patches ``(1, 1, x, y, z)`` whose sizes are multiples of what the network folds.

    Raises:
        CohortError: The manifest is wrong, or no scan of the split fits the model's factors.
        InputError: A scan cannot be used; the message names it.
        ModelError: The spec does not say how its training data were degraded.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.compress import calibration_patches
        >>> hu = np.random.default_rng(0).uniform(-200, 200, (32, 32, 48)).astype(np.float32)
        >>> scan = medsr.Volume(hu, medsr.Geometry(hu.shape, np.eye(4)), "CT", "HU")
        >>> spec = medsr.SRModel.load("ct-z4").spec
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = medsr.save(scan, Path(folder, "p1.nii.gz"))
        ...     manifest = Path(folder, "cohort.csv")
        ...     _ = manifest.write_text("path,split,patient_id,modality\np1.nii.gz,train,p1,CT")
        ...     patches = calibration_patches(manifest, spec, count=3, size=(16, 16, 8))
        >>> [tuple(patch.shape) for patch in patches]
        [(1, 1, 16, 16, 8), (1, 1, 16, 16, 8), (1, 1, 16, 16, 8)]
    """
    degradation = trained_degradation(spec)
    listed = read_manifest(manifest, split=split)
    records = select(listed, split=split, modality=spec.modality)
    prepared = _prepare(records, spec, scans)
    rng = np.random.default_rng(seed)
    volumes = [(scan, _degraded(scan, degradation)) for scan in prepared]
    return [_patch(*volumes[i % len(volumes)], spec, size, rng) for i in range(count)]


def trained_degradation(spec: ModelSpec) -> Degradation:  # type: ignore[type-arg]
    """Return the degradation that a model was trained on.

    Raises:
        ModelError: The spec does not name it.
    """
    options = dict(spec.trained_degradation)
    kind = options.pop("kind", None)
    options.pop("factor", None)
    if kind is None:
        raise ModelError(
            f"model {spec.name}: its spec names no trained_degradation; low resolution cannot be "
            "simulated for it"
        )
    return build_degradation(str(kind), spec.scale, **options)


def _prepare(records: Sequence[ScanRecord], spec: ModelSpec, scans: int) -> list[PreparedScan]:
    """Load scans spread evenly over the records, each along one of its sharp axes in turn."""
    step = max(1, math.ceil(len(records) / scans))
    prepared: list[PreparedScan] = []
    for record in records[::step]:
        entries = prepare_scan(record, spec.intensity, spec.scale)
        if entries:
            prepared.append(entries[len(prepared) % len(entries)])
    if not prepared:
        raise CohortError(
            f"no scan of the split is sharp enough for factor {spec.scale}; take another split"
        )
    return prepared


def _degraded(scan: PreparedScan, degradation: Degradation) -> Tensor:  # type: ignore[type-arg]
    cut = (n // f * f for n, f in zip(scan.shape, degradation.factor, strict=True))
    hr = scan.sample["image"][(slice(None), *(slice(n) for n in cut))]
    lr: Tensor = degradation.apply(hr, degradation.nominal())
    return lr


def _patch(
    scan: PreparedScan, lr: Tensor, spec: ModelSpec, size: Triple, rng: np.random.Generator
) -> Tensor:
    """Cut one patch around a random voxel of the body."""
    body = scan.sample["body_fg"]
    flat = int(body[int(rng.integers(len(body)))]) if len(body) else 0
    voxel = np.unravel_index(flat, scan.shape)
    cut = []
    for n, wanted, fold, factor, centre in zip(
        lr.shape[1:], size, spec.multiple_of, spec.scale, voxel, strict=True
    ):
        length = min(n, wanted) // fold * fold
        if length == 0:
            raise CohortError(
                f"scan {scan.scan_id}: {' x '.join(map(str, scan.shape))} voxels are too few to "
                "calibrate with; take it out of the split"
            )
        start = min(max(int(centre) // factor - length // 2, 0), n - length)
        cut.append(slice(start, start + length))
    return torch.clone(lr[(slice(None), *cut)])[None]

"""MONAI transforms: load and prepare scans once, then cut random patches from them.

Scans are read by medsr's own reader, not under MONAI's ``LoadImaged``, which answers whatever goes
wrong with an error that tells neither scan nor reason. A scan enters once for every axis along
which it is sharp, permuted so that this axis comes last and serves as slice axis; isotropic factors
take each scan once, and only scans that are sharp along all axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld
from monai.transforms.spatial.dictionary import RandFlipd, RandRotate90d
from monai.transforms.utility.dictionary import FgBgToIndicesd

from medsr.data.manifest import ScanRecord
from medsr.data.reading import read_scan
from medsr.hu import BODY_HU
from medsr.intensity import Intensity, Normaliser
from medsr.recipe import PatchRecipe

__all__ = ["PreparedScan", "prepare_scan"]

BODY_MR = 0.08
"""In units of the scan's normalisation (its 99.5th foreground percentile is 1)."""


@dataclass(frozen=True)
class PreparedScan:
    """A scan in memory, seen along one slice axis.

    Attributes:
        sample: ``image`` (1, X, Y, Z) float32 in the network's range with the slice axis last,
            and the flat voxel indices of body and background that MONAI's crop draws from.
        patient_id: Pseudonym of the person.
        scan_id: Name of the scan.
        axis: Array axis of the file that comes last here.
        spacing_mm: Spacing in the order of ``image``.
        copies: How many entries share this scan's voxels.
        body_threshold: Normalised intensity above which a voxel counts as body.
        domain: Modality and contrast, for example ``"MR/T1w"``.
        region: Part of the body that it shows; empty where not known.

    Examples:
        >>> import torch
        >>> from medsr.data.transforms import PreparedScan
        >>> scan = PreparedScan(
        ...     sample={"image": torch.rand(1, 32, 32, 24)},
        ...     patient_id="p1",
        ...     scan_id="p1_T1w",
        ...     axis=2,
        ...     spacing_mm=(1.0, 1.0, 1.0),
        ...     copies=1,
        ...     body_threshold=0.08,
        ...     domain="MR/T1w",
        ... )
        >>> scan.shape, scan.modality
        ((32, 32, 24), 'MR')
    """

    sample: dict[str, Any]
    patient_id: str
    scan_id: str
    axis: int
    spacing_mm: tuple[float, float, float]
    copies: int
    body_threshold: float
    domain: str = ""
    region: str = ""

    @property
    def modality(self) -> str:
        """``"MR"`` or ``"CT"``; empty where no domain is stated."""
        return self.domain.partition("/")[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y and Z."""
        x, y, z = self.sample["image"].shape[1:]
        return (x, y, z)


def body_threshold(modality: str, normaliser: Normaliser) -> float:
    """Return the normalised intensity above which a voxel counts as body."""
    if modality == "MR":
        return BODY_MR
    return (BODY_HU - normaliser.offset) / normaliser.divisor


def slice_axes(record: ScanRecord, factor: Sequence[int]) -> tuple[int, ...]:
    """Return the axes that may come last: the sharp ones, or one for isotropic factors."""
    sharp = record.sharp_axis_indices
    if factor[0] == factor[1] == 1:
        return sharp
    return (2,) if len(sharp) == 3 else ()


def prepare_scan(
    record: ScanRecord, intensity: Intensity, factor: Sequence[int]
) -> tuple[PreparedScan, ...]:
    """Load a scan and return one entry for each of its slice axes.

    Args:
        record: Row of the manifest.
        intensity: How the model normalises.
        factor: Factors along (in-plane, in-plane, slice) axis.

    Returns:
        The entries; none where the scan is not sharp along the axes that the factor needs.

    Raises:
        InputError: The scan cannot be used; the message names it.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.data.manifest import ScanRecord
        >>> from medsr.data.transforms import prepare_scan
        >>> from medsr.model import Intensity
        >>> data = np.random.default_rng(0).uniform(0, 900, (32, 28, 24)).astype(np.float32)
        >>> scan = medsr.Volume(data, medsr.Geometry(data.shape, np.eye(4)), "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = medsr.save(scan, Path(folder, "p1.nii.gz"))
        ...     record = ScanRecord(file, "train", "p1", "MR", sharp_axes="xz")
        ...     entries = prepare_scan(record, Intensity.for_modality("MR"), (1, 1, 4))
        >>> [(entry.axis, entry.shape) for entry in entries]  # each sharp axis in turn comes last
        [(0, (28, 24, 32)), (2, (32, 28, 24))]
    """
    axes = slice_axes(record, factor)
    if not axes:
        return ()
    volume = read_scan(record)
    spacing = volume.spacing
    native = torch.from_numpy(np.array(volume.data, dtype=np.float32, order="C"))[None]
    normaliser = intensity.fit(native.numpy())
    image = normaliser.forward(native)
    threshold = body_threshold(record.modality, normaliser)
    indices = FgBgToIndicesd("body", fg_postfix="_fg", bg_postfix="_bg")
    entries = []
    for axis in axes:
        order = [a for a in range(3) if a != axis] + [axis]
        turned = image.permute(0, *(a + 1 for a in order)).contiguous()
        body_indices = indices({"body": turned > threshold})
        sample = {
            "image": turned,
            "body_fg": torch.as_tensor(body_indices["body_fg"]).to(torch.int32),
            "body_bg": torch.as_tensor(body_indices["body_bg"]).to(torch.int32),
        }
        entries.append(
            PreparedScan(
                sample=sample,
                patient_id=record.patient_id,
                scan_id=record.scan_id,
                axis=axis,
                spacing_mm=(spacing[order[0]], spacing[order[1]], spacing[order[2]]),
                copies=len(axes),
                body_threshold=threshold,
                domain=record.domain,
                region=record.region,
            )
        )
    return tuple(entries)


def random_patch_transform(
    size: Sequence[int], recipe: PatchRecipe, planes: Sequence[tuple[int, int]]
) -> Compose:
    """Return the random transforms: body-weighted crop, flips, turns by 90°.

    Args:
        size: Patch in high-resolution voxels.
        recipe: Augmentation settings.
        planes: Planes in which to turn; a plane whose sizes differ is left out.
    """
    steps: list[Any] = [
        RandCropByPosNegLabeld(
            "image",
            label_key="image",
            spatial_size=tuple(size),
            pos=recipe.foreground,
            neg=1 - recipe.foreground,
            num_samples=1,
            fg_indices_key="body_fg",
            bg_indices_key="body_bg",
        )
    ]
    if recipe.flips:
        steps += [RandFlipd("image", prob=0.5, spatial_axis=axis) for axis in range(3)]
    if recipe.rotations:
        steps += [
            RandRotate90d("image", prob=0.75, max_k=3, spatial_axes=plane)
            for plane in planes
            if size[plane[0]] == size[plane[1]]
        ]
    return Compose(steps)

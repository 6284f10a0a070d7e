"""Where numbers count beside the whole body: edges, tissue classes, windows of CT.

All regions come from the truth alone, so that every method is scored at the same voxels. What is
measured in them is in ``scorer``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medsr.evaluate.anatomy import MR_CLASSES, ct_compartments, mr_thresholds
from medsr.types import BoolArray, Float32Array

if TYPE_CHECKING:
    from medsr.volume import Modality

LEAST_VOXELS = 200
"""In a region, below which its numbers are NaN."""

WORDS = {
    "edges": "the strongest tenth of gradients of the truth in the mask (smoothed by one voxel)",
    "dark": "the darkest of three classes of the truth in the mask (multi-Otsu)",
    "middle": "the middle of three classes of the truth in the mask (multi-Otsu)",
    "bright": "the brightest of three classes of the truth in the mask (multi-Otsu)",
    "lung": "truth below -500 HU inside the body, gas in airways and bowel included",
    "soft": "truth from -100 to 200 HU inside the body",
    "bone": "truth above 200 HU inside the body, contrast agent and metal included",
}
"""Each region in words."""


def tissue_regions(hr: Float32Array, modality: Modality, mask: BoolArray) -> dict[str, BoolArray]:
    """The regions of a truth beside its edges.

    Args:
        hr: (X, Y, Z) truth, native units.
        modality: ``MR``: three classes of intensity in the mask, named by their brightness alone
            since what is bright depends on the contrast. ``CT``: lung, soft tissue and bone.
        mask: (X, Y, Z) voxels of the body.

    Returns:
        (X, Y, Z) masks by name; empty masks where the truth has no three classes.
    """
    if modality == "CT":
        compartments = ct_compartments(hr)
        return {"lung": compartments.lung, "soft": compartments.soft, "bone": compartments.bone}
    try:
        low, high = mr_thresholds(hr[mask])
    except ValueError:
        return {name: np.zeros(hr.shape, dtype=np.bool_) for name in MR_CLASSES}
    middle = mask & (hr > low) & (hr <= high)
    return dict(zip(MR_CLASSES, (mask & (hr <= low), middle, mask & (hr > high)), strict=True))

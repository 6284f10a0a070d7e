"""Classical segmentation of any volume from itself: CT compartments and MR tissue classes.

Thresholds and connected components, nothing learned and nothing random. ``metrics.regions`` uses
it on truths to say where numbers count, ``downstream`` on results to see what a reader of them
would measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_multiotsu, threshold_otsu

from medsr.hu import BODY_HU
from medsr.types import BoolArray, Float32Array

SOFT_HU = (-100.0, 200.0)
BONE_HU = 200.0

ENCLOSED = 2.5
"""Of the six rays from a voxel along the axes, how many must meet the body on average."""

MR_CLASSES = ("dark", "middle", "bright")
_LEVELS = 256


@dataclass(frozen=True)
class Compartments:
    """What a CT scan shows, each (X, Y, Z).

    Attributes:
        body: Tissue and the air inside the body; the air around it left out.
        lung: Air and lung inside the body, below -500 HU; gas in airways and bowel counts.
        soft: Soft tissue, -100 to 200 HU.
        bone: Above 200 HU; vessels full of contrast agent and metal count.
    """

    body: BoolArray
    lung: BoolArray
    soft: BoolArray
    bone: BoolArray


def ct_compartments(volume: Float32Array) -> Compartments:
    """Split a CT scan by thresholds, with air and table around the body taken away.

    The largest connected part above -500 HU is the body's tissue. What hangs together in the rest
    is inside the body if, of the six rays along the axes that leave each of its voxels, 2.5 meet
    that tissue on average: true of lungs even where the scan's edge cuts them open, untrue of air
    around the body.

    Args:
        volume: (X, Y, Z), HU.
    """
    tissue = _largest(volume >= BODY_HU)
    labels, count = ndimage.label(~tissue)
    hits = np.zeros(count + 1)
    for axis in range(3):
        for turned in (np.s_[::1], np.s_[::-1]):
            along = tuple(turned if other == axis else slice(None) for other in range(3))
            met = np.logical_or.accumulate(tissue[along], axis=axis)[along]
            hits += np.bincount(labels[met], minlength=count + 1)
    enclosed = hits >= ENCLOSED * np.bincount(labels.ravel(), minlength=count + 1)
    enclosed[0] = True
    body = np.asarray(enclosed[labels], dtype=np.bool_)
    low, high = SOFT_HU
    return Compartments(
        body=body,
        lung=body & (volume < BODY_HU),
        soft=body & (volume >= low) & (volume <= high),
        bone=body & (volume > BONE_HU),
    )


def _largest(mask: BoolArray) -> BoolArray:
    """The largest connected part of a mask, or the mask where it is empty."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(sizes.argmax()))


def mr_thresholds(values: Float32Array) -> tuple[float, float]:
    """Two thresholds between three classes of intensities (multi-Otsu).

    Source: Liao, Chen and Chung 2001, over 256 levels up to the 99.5th percentile.

    Args:
        values: Intensities inside the body, any shape.

    Raises:
        ValueError: Fewer than three levels are there.
    """
    top = float(np.percentile(values, 99.5))
    bottom = float(values.min())
    counts, edges = np.histogram(np.clip(values, bottom, top), bins=_LEVELS, range=(bottom, top))
    centres = (edges[:-1] + edges[1:]) / 2
    multi_otsu: Callable[..., Any] = threshold_multiotsu
    low, high = multi_otsu(hist=(counts, centres), classes=3)
    return float(low), float(high)


def mr_body(volume: Float32Array, spacing_mm: tuple[float, float, float]) -> BoolArray:
    """The head or body in an MR scan: its largest bright part, with dark cavities filled.

    Smoothed by a Gaussian of 1 mm, split by half of Otsu's threshold, the largest connected part
    taken, and dark parts that do not touch the volume's faces added to it.

    Args:
        volume: (X, Y, Z), any units with a dark background.
        spacing_mm: Voxel size along each axis.

    Raises:
        ValueError: The volume is constant.
    """
    smooth = ndimage.gaussian_filter(volume, [1.0 / s for s in spacing_mm], output=np.float32)
    if not smooth.min() < smooth.max():
        raise ValueError("a constant volume has no body")
    otsu: Callable[..., Any] = threshold_otsu
    dark = float(np.percentile(smooth, 0.5))
    bright = smooth > dark + 0.5 * (float(otsu(smooth)) - dark)
    holes, count = ndimage.label(~_largest(bright))
    open_ = np.zeros(count + 1, dtype=np.bool_)
    for axis in range(3):
        for face in (0, -1):
            open_[np.unique(np.take(holes, face, axis=axis))] = True
    open_[0] = False
    return np.asarray(~open_[holes], dtype=np.bool_)

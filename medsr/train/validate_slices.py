"""Validation of networks for slices of any kind: scans at several ratios, over cubic B-spline."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medsr.data.transforms import PreparedScan
from medsr.degrade.slices import SliceParams, Slices, sampling_rows
from medsr.infer.monai_inferer import TiledInferer
from medsr.networks import SRNetwork
from medsr.networks.knots import KnotPlain3D
from medsr.recipe import Recipe
from medsr.train.validate import centre, psnr, squared_error

logger = logging.getLogger(__name__)

RATIOS = (2.0, 3.0, 4.0, 5.5, 8.0)
"""Of the distance of slices to the fine voxels."""
FEWEST = 4


def validate_slices(
    network: SRNetwork,
    scans: Sequence[PreparedScan],
    degradations: Mapping[str, Slices],
    recipe: Recipe,
) -> dict[str, float]:
    """Score a network on nominal slices that it is told all of.

    Args:
        network: Merged network in evaluation mode.
        scans: Prepared scans; the central ``validation_size`` of each is used.
        degradations: By modality.
        recipe: The run's recipe.

    Returns:
        ``validation/gain_RATIO``: foreground PSNR over cubic B-spline on the same slices, dB, mean
        over scans.
    """
    gains: dict[float, list[float]] = {}
    for scan in scans:
        slices = degradations[scan.modality]
        hr = centre(scan.sample["image"], recipe.data.validation_size, (1, 1, 1))
        x, y, z = scan.spacing_mm
        for ratio in RATIOS:
            told = replace(slices.nominal(ratio), in_plane=math.sqrt(x * y) / z)
            gain = _gain(cast(KnotPlain3D, network), slices, hr, told, scan.body_threshold, recipe)
            if gain is not None:
                gains.setdefault(ratio, []).append(gain)
                logger.debug(
                    "%s, axis %d, ratio %g: %+.2f dB", scan.scan_id, scan.axis, ratio, gain
                )
    return {f"validation/gain_{ratio:g}": fmean(values) for ratio, values in gains.items()}


def _gain(
    network: KnotPlain3D,
    slices: Slices,
    hr: Tensor,
    told: SliceParams,
    threshold: float,
    recipe: Recipe,
) -> float | None:
    """PSNR over B-spline of one scan; None where it has too few slices or no body."""
    count = int(hr.shape[-1] / told.ratio)
    truth = hr[..., : math.floor(count * told.ratio)]
    body = truth > threshold
    if count < FEWEST or not body.any():
        return None
    centres = (torch.arange(count, dtype=torch.float64) + 0.5) * told.ratio - 0.5
    lr = slices.degrade(hr, centres, told)
    places = (torch.arange(truth.shape[-1], dtype=torch.float64) - centres[0]) / told.ratio
    plain_network = network.told(told.condition()).eval()
    with torch.inference_mode():
        knots = TiledInferer(precision=recipe.loop.precision)(lr[None], plain_network)[0]
        sr = knots.float().cpu() @ sampling_rows(places, count, network.scale[2]).T
    grid = np.meshgrid(*(np.arange(n) for n in lr.shape[1:3]), places.numpy(), indexing="ij")
    spline = ndimage.map_coordinates(lr[0].numpy(), grid, order=3, mode="nearest")
    error, reference = (
        squared_error(one, truth, body) for one in (sr, torch.from_numpy(spline)[None])
    )
    return psnr(error) - psnr(reference)

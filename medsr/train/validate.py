"""Validation during training: whole scans through the engine that inference uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from medsr.data.transforms import PreparedScan
from medsr.degrade import Degradation
from medsr.infer.engine import TiledInferer
from medsr.networks import SRNetwork
from medsr.recipe import Recipe


def validate(
    network: SRNetwork,
    scans: Sequence[PreparedScan],
    degradation: Degradation[Any],
    recipe: Recipe,
) -> dict[str, float]:
    """Score a network on the centres of scans, in the network's range.

    Args:
        network: Merged network in evaluation mode.
        scans: Prepared scans; the central ``validation_size`` of each is used.
        degradation: Applied with its nominal parameters.
        recipe: The run's recipe.

    Returns:
        ``validation/psnr`` (foreground, data range 1) and ``validation/gain``, its difference to
        trilinear interpolation, as means over scans in dB.
    """
    inferer = TiledInferer(precision=recipe.loop.precision)
    scores, gains = [], []
    for scan in scans:
        hr = _centre(scan.sample["image"], recipe.data.validation_size, degradation.factor)
        lr = degradation.apply(hr, degradation.nominal())
        with torch.inference_mode():
            sr = inferer(lr[None], network)[0].float().cpu()
            plain = functional.interpolate(lr[None], size=hr.shape[1:], mode="trilinear")[0]
        body = hr > scan.body_threshold
        if not body.any():
            continue
        scores.append(_psnr(sr, hr, body))
        gains.append(scores[-1] - _psnr(plain, hr, body))
    if not scores:
        return {}
    return {
        "validation/psnr": float(np.mean(scores)),
        "validation/gain": float(np.mean(gains)),
    }


def _psnr(sr: torch.Tensor, hr: torch.Tensor, body: torch.Tensor) -> float:
    """PSNR in dB over the body, data range 1."""
    error = float(((sr - hr)[body] ** 2).mean())
    return -10 * math.log10(max(error, 1e-20))


def _centre(image: torch.Tensor, size: Sequence[int], factor: Sequence[int]) -> torch.Tensor:
    """Return the centre of ``(1, X, Y, Z)``, cut to multiples of the factor."""
    cut = [slice(None)]
    for n, wanted, f in zip(image.shape[1:], size, factor, strict=True):
        length = min(n, wanted) // f * f
        start = (n - length) // 2
        cut.append(slice(start, start + length))
    return image[tuple(cut)]

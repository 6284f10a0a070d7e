"""Validation during training: whole scans through the engine that inference uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from medsr.data.transforms import PreparedScan
from medsr.degrade import Degradation, for_domain
from medsr.infer.monai_inferer import TiledInferer
from medsr.networks import SRNetwork
from medsr.recipe import Recipe


def validate(
    network: SRNetwork,
    scans: Sequence[PreparedScan],
    degradation: Degradation[Any] | Mapping[str, Degradation[Any]],
    recipe: Recipe,
) -> dict[str, float]:
    """Score a network on the centres of scans, in the network's range.

    Args:
        network: Merged network in evaluation mode.
        scans: Prepared scans; the central ``validation_size`` of each is used.
        degradation: Applied with its nominal parameters; one for all scans, or one for each
            modality.
        recipe: The run's recipe.

    Returns:
        ``validation/psnr`` (foreground, data range 1) and ``validation/gain``, its difference to
        trilinear interpolation, as means over scans in dB.
    """
    scores, gains = [], []
    for scan in scans:
        errors = foreground_errors(network, scan, degradation, recipe)
        if errors is None:
            continue
        ours, plain = (psnr(error) for error in errors)
        scores.append(ours)
        gains.append(ours - plain)
    if not scores:
        return {}
    return {
        "validation/psnr": float(np.mean(scores)),
        "validation/gain": float(np.mean(gains)),
    }


def holds_body(scan: PreparedScan, recipe: Recipe) -> bool:
    """Whether the part of a scan that is validated on holds any voxel of the body."""
    factor = recipe.degradation.factor
    middle = centre(scan.sample["image"], recipe.data.validation_size, factor)
    return bool((middle > scan.body_threshold).any())


def foreground_errors(
    network: SRNetwork,
    scan: PreparedScan,
    degradation: Degradation[Any] | Mapping[str, Degradation[Any]],
    recipe: Recipe,
) -> tuple[float, float] | None:
    """Restore the centre of one scan, and compare it with the truth in the body.

    Args:
        network: Merged network in evaluation mode.
        scan: Prepared scan.
        degradation: See :func:`validate`.
        recipe: The run's recipe.

    Returns:
        Mean squared errors, in the network's range, of the network and of trilinear interpolation;
        None where the centre holds no body.
    """
    own = for_domain(degradation, scan.domain)
    hr = centre(scan.sample["image"], recipe.data.validation_size, own.factor)
    body = hr > scan.body_threshold
    if not body.any():
        return None
    lr = own.apply(hr, own.nominal())
    with torch.inference_mode():
        sr = TiledInferer(precision=recipe.loop.precision)(lr[None], network)[0].float().cpu()
        plain = functional.interpolate(lr[None], size=hr.shape[1:], mode="trilinear")[0]
    return squared_error(sr, hr, body), squared_error(plain, hr, body)


def squared_error(sr: torch.Tensor, hr: torch.Tensor, body: torch.Tensor) -> float:
    """Mean squared error in the body."""
    return float(((sr - hr)[body] ** 2).mean())


def psnr(error: float) -> float:
    """PSNR in dB, data range 1."""
    return -10 * math.log10(max(error, 1e-20))


def centre(image: torch.Tensor, size: Sequence[int], factor: Sequence[int]) -> torch.Tensor:
    """Return the centre of ``(1, X, Y, Z)``, cut to multiples of the factor."""
    cut = [slice(None)]
    for n, wanted, f in zip(image.shape[1:], size, factor, strict=True):
        length = min(n, wanted) // f * f
        start = (n - length) // 2
        cut.append(slice(start, start + length))
    return image[tuple(cut)]

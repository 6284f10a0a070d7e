"""Noise that comes after the loss of resolution: Rician for MR, correlated for CT.

Pure functions of a tensor, a level and a generator; nothing here knows about geometry.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_like(x: Tensor, seed: int) -> Tensor:
    """Return standard normal noise of ``x``'s shape and device, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x.device, x.dtype)


def add_rician(x: Tensor, sigma: float, seed: int) -> Tensor:
    """Take the magnitude after adding complex Gaussian noise.

    Args:
        x: Non-negative magnitude image, any shape; negative values (ringing) keep their sign.
        sigma: Standard deviation of the real and of the imaginary part, in units of ``x``.
        seed: Seed of the noise.

    Returns:
        Noisy image of the same shape; ``x`` itself for ``sigma == 0``.

    Source: Gudbjartsson and Patz 1995, "The Rician distribution of noisy MRI data".
    """
    if sigma == 0:
        return x
    real = x + sigma * gaussian_like(x, seed)
    imaginary = sigma * gaussian_like(x, seed + 1)
    sign = torch.where(x < 0, -1.0, 1.0).to(x.dtype)
    return sign * torch.sqrt(real**2 + imaginary**2)


def gaussian_matrix(size: int, sigma_voxels: float) -> Tensor:
    """Return a Gaussian filter as a matrix, cut and renormalised at borders, float64.

    Args:
        size: Voxels along the axis.
        sigma_voxels: Standard deviation in voxels, above 0.
    """
    index = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((index[None, :] - index[:, None]) / sigma_voxels) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def smooth_in_plane(x: Tensor, sigma_voxels: float) -> Tensor:
    """Filter with a Gaussian along X and Y, cut and renormalised at borders.

    Args:
        x: Tensor ``(…, X, Y, Z)``.
        sigma_voxels: Standard deviation in voxels; 0 returns ``x``.
    """
    if sigma_voxels <= 0:
        return x
    for axis in (-3, -2):
        weights = gaussian_matrix(x.shape[axis], sigma_voxels)
        x = torch.matmul(x.movedim(axis, -1), weights.to(x.device, x.dtype).T).movedim(-1, axis)
    return x


def add_correlated(x: Tensor, sigma: float, correlation_voxels: float, seed: int) -> Tensor:
    """Add Gaussian noise that is correlated in plane, as a CT reconstruction kernel makes it.

    Args:
        x: Tensor ``(…, X, Y, Z)`` in HU or normalised units.
        sigma: Standard deviation of the noise in units of ``x``.
        correlation_voxels: Standard deviation of the in-plane filter in voxels; 0 is white noise.
        seed: Seed of the noise.

    Returns:
        Noisy tensor of the same shape; ``x`` itself for ``sigma == 0``.
    """
    if sigma == 0:
        return x
    noise = smooth_in_plane(gaussian_like(x, seed), correlation_voxels)
    return x + noise * (sigma / noise.std().clamp_min(1e-12))

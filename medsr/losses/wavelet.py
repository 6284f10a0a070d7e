"""Loss on Haar sub-bands: absolute errors by direction and scale, each at its place in space.

Loss on whole-volume spectra: :mod:`medsr.losses.frequency`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.losses import LOSSES

BANDS: tuple[str, ...] = tuple("".join(letters) for letters in product("lh", repeat=3))
"""Sub-bands of one level: low (``l``) or high (``h``) along X, Y and Z; ``llh`` is detail in Z."""


def haar(volume: Tensor) -> dict[str, Tensor]:
    """Split volumes into the eight sub-bands of the orthonormal 3D Haar transform.

    Args:
        volume: (…, X, Y, Z); along an axis of odd size the last voxel is repeated.

    Returns:
        Every band of :data:`BANDS` as (…, ⌈X/2⌉, ⌈Y/2⌉, ⌈Z/2⌉). Where sizes are even, energy is
        kept.

    Source: Mallat, "A theory for multiresolution signal decomposition", IEEE PAMI 11(7), 1989,
        with the Haar pair (1, 1)/√2 and (1, −1)/√2 along each axis.
    """
    bands = {"": volume}
    for axis in (-3, -2, -1):
        split: dict[str, Tensor] = {}
        for name, band in bands.items():
            if band.shape[axis] % 2:
                last = band.narrow(axis, band.shape[axis] - 1, 1)
                band = torch.cat((band, last), dim=axis)
            size = (*band.shape[:axis], -1, 2, *band.shape[axis:][1:])
            even, odd = band.reshape(size).unbind(axis)
            split[name + "l"] = (even + odd) * math.sqrt(0.5)
            split[name + "h"] = (even - odd) * math.sqrt(0.5)
        bands = split
    return bands


@LOSSES.register("wavelet")
class WaveletLoss(nn.Module):
    """Weighted mean of the absolute errors in the sub-bands of a 3D Haar transform.

    The detail bands of all levels take part, and ``lll``, what remains, of the last level. Within
    a band the mean runs over its coefficients, so that a band counts by its weight and not by its
    size.

    Args:
        levels: How often the low band is split again; at least 1.
        bands: Which bands, for example ``["llh", "lhh"]``, or their weights, for example
            ``{"lll": 0.1, "llh": 1.0}``; bands that are not named are left out. All with weight
            one where None.

    Raises:
        UsageError: If ``levels`` is below 1, a band is unknown, or a weight is negative or all are
            zero.

    Source: sub-bands as a loss for super-resolution: Huang et al., "Wavelet-SRNet", ICCV 2017.

    Examples:
        >>> import torch
        >>> from medsr.losses import WaveletLoss
        >>> loss = WaveletLoss(levels=1, bands=["llh"])  # detail along the slice axis alone
        >>> hr = torch.zeros(1, 1, 8, 8, 8)
        >>> stripes = hr.clone()
        >>> stripes[..., ::2] = 1.0  # every other slice is brighter
        >>> round(float(loss(stripes, hr)), 3), float(loss(hr + 1.0, hr))
        (1.414, 0.0)
    """

    def __init__(
        self, levels: int = 1, bands: Sequence[str] | Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        if levels < 1:
            raise UsageError(f"wavelet loss: levels is {levels}; give 1 or more")
        if bands is None:
            bands = BANDS
        elif isinstance(bands, str):
            bands = (bands,)
        weights = dict(bands) if isinstance(bands, Mapping) else dict.fromkeys(bands, 1.0)
        unknown = sorted(set(weights) - set(BANDS))
        if unknown:
            raise UsageError(f"wavelet loss: band {unknown[0]!r} is none of {', '.join(BANDS)}")
        if not all(weight >= 0 for weight in weights.values()) or not sum(weights.values()) > 0:
            raise UsageError(
                f"wavelet loss: band weights are {weights}; none may be negative, one must be "
                "above zero"
            )
        self.levels = levels
        self.weights = {band: float(weight) for band, weight in weights.items() if weight > 0}

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare the sub-bands.

        Args:
            sr: Restored volume, (B, C, X, Y, Z).
            hr: True volume, same shape.

        Returns:
            A float32 scalar, zero when both are equal in all bands that count.

        Raises:
            ValueError: If the shapes differ.
        """
        if sr.shape != hr.shape:
            raise ValueError(
                f"wavelet loss: shapes differ, sr {tuple(sr.shape)} and hr {tuple(hr.shape)}"
            )
        # The transform is linear: one pass over sr - hr does for both volumes.
        low = sr.float() - hr.float()
        errors, total = [], 0.0
        for level in range(1, self.levels + 1):
            split = haar(low)
            low = split["lll"]
            for band, weight in self.weights.items():
                if band != "lll" or level == self.levels:
                    errors.append(weight * split[band].abs().mean())
                    total += weight
        return torch.stack(errors).sum() / total

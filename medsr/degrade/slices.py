"""Slices of any distance, thickness and profile, and what a network is told of them.

A scan's slices are described by :class:`SliceParams` in units of the distance between slices, the
finer grid by how many of its voxels lie in that distance (``ratio``, fractions welcome). What a
slice of one profile would have been with another is, by least squares, a filter along the slice
axis (:func:`canonical_filter`), so that a network which is trained on one profile serves others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from medsr.degrade import DEGRADATIONS
from medsr.degrade.base import (
    Operators,
    along_axis,
    as_range,
    as_triple,
    centres_between,
    coarse_centres,
    draw_seed,
    normalise_rows,
    uniform,
)
from medsr.degrade.ct_slab import slab_rows
from medsr.degrade.kspace import window_weights
from medsr.degrade.noise import add_correlated, add_rician
from medsr.degrade.slice_profile import profile_rows
from medsr.types import Triple

__all__ = ["SliceParams", "Slices"]

PROFILES = ("gaussian", "box", "triangle", "partition")
"""Selective excitation; ideal slab; slab of a real CT; partition of a 3D acquisition."""
CONDITIONS = 8
"""Numbers of :meth:`SliceParams.condition`."""
REACH = 1.5
"""Distances of slices from a slice's centre beyond which nothing of it is seen in training."""
PRIOR_REACH = 2.0
"""Distance, in slices, over which the correlation of the object falls to 1/e."""
PRIOR_VARIANCE = 0.04
"""Of the object in the network's units; with it noise is weighed."""
SMALLEST_NOISE = 0.005
"""Taken for the noise of clean scans too, so that no filter amplifies without bound."""
THINNEST = 1.6
"""Fine voxels that a slice is thick at least; the centre of a thinner one is that of a voxel."""
NOMINAL = 0.051
"""Thicknesses this near to 1 are taken for nominal."""

_PARTITION_REACH = 3.0
_FINE = 12


@dataclass(frozen=True)
class SliceParams:
    """What slices are like.

    Attributes:
        ratio: Fine voxels from slice centre to slice centre, at least 1.
        thickness: Full width at half maximum of the profile over the distance of slices.
        profile: One of :data:`PROFILES`; None where it and the thickness are not known.
        sigma: Noise level in the network's units; None where it is not known.
        seed: Seed of the noise.
        in_plane: In-plane spacing over that of the fine voxels along the slice axis.

    Examples:
        >>> from medsr.degrade import SliceParams
        >>> SliceParams(ratio=5.5, thickness=0.9).condition().shape
        torch.Size([8])
    """

    ratio: float
    thickness: float = 1.0
    profile: str | None = "gaussian"
    sigma: float | None = 0.0
    seed: int = 0
    in_plane: float = 1.0

    def condition(self) -> Tensor:
        """Return what a network is told, float32 ``(8,)``; zeros for what is not known."""
        known = self.profile is not None
        shapes = {"box": (1.0, 0.0), "triangle": (0.5, 0.0), "partition": (0.0, 1.0)}
        box, partition = shapes.get(self.profile or "", (0.0, 0.0))
        return torch.tensor(
            [
                math.log2(self.ratio / 4),
                math.log2(self.in_plane),
                20 * (self.sigma or 0.0),
                float(self.sigma is not None),
                math.log2(self.thickness) if known else 0.0,
                box,
                partition,
                float(known),
            ]
        )


def slice_rows(size: int, centres: Tensor, params: SliceParams) -> Tensor:
    """Return the profiles of slices on a fine grid, float64 ``(slices, size)``; rows sum to 1.

    Args:
        size: Fine voxels along the slice axis.
        centres: Centres of the slices in fine indices, float64 ``(slices,)``.
        params: Distance, thickness and profile; a profile that is not known is Gaussian.
    """
    width = params.thickness * params.ratio
    if params.profile in ("gaussian", None):
        return profile_rows(size, centres, width)
    if params.profile == "box":
        return slab_rows(size, centres, width)
    if params.profile == "triangle":
        edges = torch.arange(size + 1, dtype=torch.float64)[None] - 0.5 - centres[:, None]
        return normalise_rows(_triangle_below(edges / width).diff(dim=1))
    offset = (torch.arange(size, dtype=torch.float64)[None] - centres[:, None]) / width
    frequency = torch.linspace(0, 1, 65, dtype=torch.float64)
    waves = torch.cos(math.pi * frequency * offset[..., None])
    rows = torch.trapezoid(waves * window_weights(frequency, "hamming"), frequency)
    rows[offset.abs() > _PARTITION_REACH] = 0
    return normalise_rows(rows)


def _triangle_below(x: Tensor) -> Tensor:
    """Share of a triangle, of unit width at half its height, that lies below ``x``."""
    x = x.clamp(-1, 1)
    return 0.5 + x - 0.5 * x * x.abs()


def canonical_filter(slices: int, params: SliceParams, nominal: SliceParams) -> Tensor:
    """Return the filter from slices of one profile to slices of another, float64 ``(n, n)``.

    It is the least-squares estimate of what slices of the ``nominal`` profile would have shown,
    given those of ``params``, under an exponential autocovariance of the object and white noise.

    Args:
        slices: Slices along the axis.
        params: Profile and noise of the slices.
        nominal: Profile wanted.

    Source: the Wiener estimate, Kay 1993, "Fundamentals of Statistical Signal Processing:
        Estimation Theory", section 12.5.
    """
    around = 2  # slices beyond the ends, so that profiles are whole there
    size = (slices + 2 * around) * _FINE
    centres = (torch.arange(around, around + slices, dtype=torch.float64) + 0.5) * _FINE - 0.5
    own = slice_rows(size, centres, replace(params, ratio=float(_FINE)))
    wanted = slice_rows(size, centres, replace(nominal, ratio=float(_FINE)))
    index = torch.arange(size, dtype=torch.float64) / _FINE
    prior = torch.exp(-(index[:, None] - index[None]).abs() / PRIOR_REACH)
    noise = max(params.sigma or 0.0, SMALLEST_NOISE) ** 2 / PRIOR_VARIANCE
    gram = own @ prior @ own.T + noise * torch.eye(slices, dtype=torch.float64)
    return normalise_rows(torch.linalg.solve(gram, own @ prior @ wanted.T).T)


def sampling_rows(places: Tensor, slices: int, knots: int) -> Tensor:
    """Return the matrix that samples knots linearly, float32 ``(places, slices · knots)``.

    Args:
        places: Where to sample, in slices: 0 is the centre of the first slice, float64.
        slices: Slices of the scan.
        knots: Knots in each slice, evenly spaced over its distance to its neighbours.
    """
    at = ((places + 0.5) * knots - 0.5).clamp(0, slices * knots - 1)
    low = at.floor().clamp(max=slices * knots - 2).long()
    share = (at - low).float()
    rows = torch.zeros(len(places), slices * knots)
    index = torch.arange(len(places))
    rows[index, low] = 1 - share
    rows[index, low + 1] += share
    return rows


@DEGRADATIONS.register(
    "slices",
    recipe="configs/students/mr-start.yaml",
    draws=("thickness", "noise"),
)
class Slices:
    """Slices of any kind along the last axis, drawn anew for every patch or scan.

    Args:
        factor: Distance of slices in fine voxels, ``(1, 1, n)``; a network that is trained on
            slices of any distance (:class:`medsr.data.slices.SliceStream`) has ``n`` knots a slice.
        ratio: Fine voxels from slice to slice in training, lowest and highest; drawn evenly in the
            logarithm.
        profile: The nominal profile, to which others are filtered.
        nominal: Share of patches whose slices have that profile and a thickness near 1.
        profiles: The other profiles and the odds of each; the nominal one when not given.
        thickness: Lowest and highest thickness of the others, over the distance of slices.
        unknown: Share of the others whose profile nobody tells.
        noise: Lowest and highest noise in the network's units.
        clean: Share of patches without noise.
        correlation_voxels: In-plane correlation of the noise of CT; 0 for Rician noise of MR.

    Examples:
        >>> import torch
        >>> from medsr.degrade import Slices
        >>> slices = Slices(factor=(1, 1, 4))
        >>> slices.apply(torch.rand(16, 16, 24), slices.nominal()).shape
        torch.Size([16, 16, 6])
        >>> 1.5 <= slices.draw_ratio(torch.Generator().manual_seed(0)) <= 8.0
        True
    """

    def __init__(
        self,
        factor: Triple = (1, 1, 4),
        ratio: tuple[float, float] = (1.5, 8.0),
        profile: str = "gaussian",
        nominal: float = 0.6,
        profiles: Mapping[str, float] | None = None,
        thickness: float | tuple[float, float] = (0.5, 1.6),
        unknown: float = 0.25,
        noise: float | tuple[float, float] = 0.0,
        clean: float = 0.4,
        correlation_voxels: float = 0.0,
    ):
        self.factor = as_triple(factor)
        if self.factor[:2] != (1, 1):
            raise ValueError(f"factor is {[*self.factor]}; slices lie along the last axis alone")
        self.ratio = as_range(ratio, "ratio")
        self.profile, self.share = profile, nominal
        self.profiles = {k: float(v) for k, v in (profiles or {profile: 1.0}).items()}
        for name in (profile, *self.profiles):
            if name not in PROFILES:
                raise ValueError(f"profile {name!r} is none of {', '.join(PROFILES)}")
        self.thickness = as_range(thickness, "thickness")
        if min(self.thickness[0], self.ratio[0] - 1, sum(self.profiles.values())) <= 0:
            raise ValueError("thickness and the odds of profiles are above 0, ratios above 1")
        self.noise = as_range(noise, "noise")
        self.unknown, self.clean = unknown, clean
        self.correlation_voxels = correlation_voxels

    @property
    def margin(self) -> Triple:
        """What the widest profile sees beyond a patch, in whole slices."""
        widest = _PARTITION_REACH if "partition" in (*self.profiles, self.profile) else REACH
        return (0, 0, self.factor[2] * math.ceil(widest * max(1.05, self.thickness[1])))

    def for_patches(self) -> Slices:
        """Return itself: beyond the margin, borders play no part."""
        return self

    def draw_ratio(self, generator: torch.Generator | None = None) -> float:
        """Draw how many fine voxels lie between slice centres."""
        low, high = (math.log(end) for end in self.ratio)
        return math.exp(uniform(low, high, generator))

    def sample(
        self, generator: torch.Generator | None = None, *, ratio: float | None = None
    ) -> SliceParams:
        """Draw profile, thickness, noise level and noise seed.

        Args:
            generator: Of random numbers.
            ratio: Fine voxels from slice to slice; those of ``factor`` when not given.
        """
        profile, thickness = self.profile, uniform(0.95, 1.05, generator)
        if uniform(0, 1, generator) > self.share:
            odds = torch.tensor([*self.profiles.values()])
            drawn = int(torch.multinomial(odds, 1, generator=generator))
            profile, thickness = list(self.profiles)[drawn], uniform(*self.thickness, generator)
        noisy = uniform(0, 1, generator) >= self.clean
        sigma = uniform(*self.noise, generator) if noisy else 0.0
        ratio = float(self.factor[2]) if ratio is None else ratio
        thickness = max(thickness, THINNEST / ratio)
        return SliceParams(ratio, thickness, profile, sigma, draw_seed(generator))

    def told(self, params: SliceParams, generator: torch.Generator | None = None) -> SliceParams:
        """Draw what is known of slices: nothing of some, and a noise level that is not exact."""
        share = self.unknown if not self._is_nominal(params) else self.unknown / 4
        known = params
        if uniform(0, 1, generator) < share:
            known = replace(known, profile=None, thickness=1.0)
        if uniform(0, 1, generator) < self.unknown / 2:
            return replace(known, sigma=None)
        return replace(known, sigma=(params.sigma or 0.0) * uniform(0.8, 1.2, generator))

    def nominal(self, ratio: float | None = None) -> SliceParams:
        """Return slices of the nominal profile, as thick as they are apart, without noise."""
        return SliceParams(float(self.factor[2]) if ratio is None else ratio, 1.0, self.profile)

    def operators(self, fine: Triple, coarse: Triple, params: SliceParams) -> Operators:
        """Return the matrix along each axis; see :class:`medsr.degrade.base.Separable`."""
        n, m = fine[2], coarse[2]
        if n == m:
            return (None, None, None)
        rows = slice_rows(n, centres_between(n, m), replace(params, ratio=n / m))
        return (None, None, rows)

    def apply(self, hr: Tensor, params: SliceParams) -> Tensor:
        """Degrade ``(…, X, Y, Z)``; the remainder of a size that is no multiple is dropped."""
        centres = coarse_centres(hr.shape[-1], self.factor[2])
        return self.degrade(hr, centres, replace(params, ratio=float(self.factor[2])))

    def degrade(self, hr: Tensor, centres: Tensor, params: SliceParams) -> Tensor:
        """Return the slices of ``(…, X, Y, Z)`` at ``centres``, with their noise."""
        lr = along_axis(hr, slice_rows(hr.shape[-1], centres, params), 2)
        sigma = params.sigma or 0.0
        if self.correlation_voxels:
            return add_correlated(lr, sigma, self.correlation_voxels, params.seed)
        return add_rician(lr, sigma, params.seed)

    def canonical(self, lr: Tensor, known: SliceParams) -> Tensor:
        """Filter slices to the nominal profile; those of unknown profile are left as they are."""
        if known.profile is None or self._is_nominal(known):
            return lr
        rows = canonical_filter(lr.shape[-1], known, self.nominal(known.ratio))
        return along_axis(lr, rows, 2)

    def _is_nominal(self, params: SliceParams) -> bool:
        return params.profile == self.profile and abs(params.thickness - 1) < NOMINAL

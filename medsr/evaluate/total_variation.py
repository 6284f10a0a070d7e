"""Super-resolution without learning: the smoothest scan that explains the slices.

Among all scans that the degradation turns into the low-resolution one, the result is the one with
the least total variation: flat tissue with sharp borders. It knows the physics that the models were
trained on, and nothing else. The iteration is here; which grids and degradations it is given is
decided in ``baselines``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medsr.degrade import Degradation
from medsr.hu import CT_RANGE_HU
from medsr.volume import Volume

__all__ = ["total_variation"]

WEIGHT = 3e-4
"""Weight of the total variation, in units of the data range; chosen on training scans."""
ITERATIONS = 40

# Step of the image, and how much of the step bound the gradient takes (the rest: the data).
_STEP = 0.02
_SHARE = 0.5
# More voxels than these are restored in parts, each with a halo of voxels around it that is
# restored along with it and then left out.
_MOST_VOXELS = 6_000_000
_HALO = 16
_POWER_ITERATIONS = 12

Adjoint = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Part:
    """A chunk of the scan along one axis: what is restored (``start``…) and what is kept."""

    start: int
    stop: int
    first: int
    last: int


def total_variation(
    start: Volume,
    lr: Volume,
    degradation: Degradation[Any],
    *,
    weight: float = WEIGHT,
    iterations: int = ITERATIONS,
    most_voxels: int = _MOST_VOXELS,
) -> Volume:
    """Minimise ½‖D x − y‖² + weight · TV(x), x and y over the data range.

    D is the degradation at its nominal parameters, TV the isotropic total variation with
    differences per mm (the finest spacing counting as 1). The data range is 2048 HU for CT, else
    the 99.5th percentile of ``lr`` above its least value.

    Args:
        start: First guess on the grid of the result, native units.
        lr: The low-resolution scan y; ``degradation`` takes the grid of ``start`` to its grid.
        degradation: Linear at its nominal parameters, without noise.
        weight: From 0, which asks for D x = y exactly (met as far as the iterations go).
        iterations: How many.
        most_voxels: Above these the scan is restored in parts along one axis, so that memory stays
            below some 50 bytes for each of these voxels.

    Returns:
        Float32 on the grid of ``start``, native units, neither clipped nor rounded.

    Source: Rudin, Osher & Fatemi 1992 (total variation); Chambolle & Pock 2011, algorithm 1;
    Shi et al. 2015 (the same prior for the super-resolution of MR).

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.degrade import SliceProfile, degrade_volume
        >>> from medsr.evaluate.baselines import resample
        >>> from medsr.evaluate.total_variation import total_variation
        >>> grid = Geometry((16, 16, 16), np.eye(4))
        >>> step = np.where(np.arange(16) < 8, 100.0, 900.0).astype(np.float32)
        >>> truth = Volume(np.tile(step, (16, 16, 1)), grid, "MR")
        >>> profile = SliceProfile(factor=(1, 1, 4))
        >>> thick = degrade_volume(truth, profile)
        >>> plain = resample(thick, grid, "bspline")
        >>> sharp = total_variation(plain, thick, profile)
        >>> errors = [float(np.abs(v.data - truth.data).mean()) for v in (plain, sharp)]
        >>> errors[1] < errors[0]  # the border is sharper
        True
    """
    span = data_range(lr)
    first = np.asarray(start.data, dtype=np.float32)
    if span <= 0:
        return start.replace(data=first)
    axis, parts = _parts(start.shape, degradation.factor, most_voxels)
    factor = degradation.factor[axis]
    if len(parts) > 1:
        degradation = degradation.for_patches()
    result = np.empty_like(first)
    measured = np.asarray(lr.data, dtype=np.float32)
    spacing = np.asarray(start.spacing)
    for part in parts:
        here = _along(axis, part.start, part.stop)
        low = _along(axis, part.start // factor, part.stop // factor)
        restored = _minimise(
            torch.from_numpy(first[here] / span),
            torch.from_numpy(measured[low] / span),
            degradation,
            (spacing.min() / spacing).tolist(),
            weight,
            iterations,
        )
        core = _along(axis, part.first - part.start, part.last - part.start)
        result[_along(axis, part.first, part.last)] = restored.numpy()[core] * np.float32(span)
    return start.replace(data=result)


def data_range(lr: Volume) -> float:
    """The range that weights refer to: 2048 HU for CT, else a robust maximum above the minimum.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.total_variation import data_range
        >>> hu = np.zeros((4, 4, 4), dtype=np.float32)
        >>> data_range(Volume(hu, Geometry(hu.shape, np.eye(4)), "CT", "HU"))
        2048.0
    """
    if lr.modality == "CT":
        return CT_RANGE_HU
    return float(np.percentile(lr.data, 99.5)) - float(lr.data.min())


def _minimise(
    x: Tensor,
    y: Tensor,
    degradation: Degradation[Any],
    slopes: list[float],
    weight: float,
    iterations: int,
) -> Tensor:
    """Primal-dual iterations; p is the dual of the gradient, q that of the data."""
    params = degradation.nominal()
    adjoint = _adjoint(degradation, params, x)
    data_bound = _squared_norm(degradation, params, adjoint, x)
    # A forward difference has a norm below 2, so its square is below 4 along each axis.
    gradient_step = _SHARE / (_STEP * 4 * sum(slope**2 for slope in slopes))
    data_step = (1 - _SHARE) / (_STEP * data_bound)
    p = [torch.zeros_like(x) for _ in range(3)]
    q = torch.zeros_like(y)
    ahead = x.clone()
    scratch = torch.empty_like(x)
    for _ in range(iterations):
        scratch.zero_()
        for axis, dual in enumerate(p):
            near, far = _pair(ahead, axis)
            inner = dual.narrow(axis, 0, near.shape[axis])
            inner.add_(far, alpha=gradient_step * slopes[axis])
            inner.sub_(near, alpha=gradient_step * slopes[axis])
            scratch.addcmul_(dual, dual)
        scratch.sqrt_().clamp_(min=1)
        for dual in p:
            dual.div_(scratch)
        residual = degradation.apply(ahead, params).sub_(y)
        q.add_(residual, alpha=data_step).div_(1 + data_step * weight)
        # The image steps down against the adjoints of both; `ahead` becomes 2 x_new − x_old.
        scratch.copy_(adjoint(q))
        for axis, dual in enumerate(p):
            near, far = _pair(scratch, axis)
            inner = dual.narrow(axis, 0, near.shape[axis])
            far.add_(inner, alpha=slopes[axis])
            near.sub_(inner, alpha=slopes[axis])
        torch.add(x, scratch, alpha=-2 * _STEP, out=ahead)
        x = x.sub_(scratch, alpha=_STEP)
    return x


def _adjoint(degradation: Degradation[Any], params: Any, like: Tensor) -> Adjoint:
    """The transpose of the degradation, by differentiating it once."""
    x = torch.zeros_like(like, requires_grad=True)
    y = degradation.apply(x, params)

    def transpose(q: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(y, x, q, retain_graph=True)
        return found

    return transpose


def _squared_norm(
    degradation: Degradation[Any], params: Any, adjoint: Adjoint, like: Tensor
) -> float:
    """The largest eigenvalue of DᵀD by power iteration, rounded up."""
    vector = torch.rand(like.shape, generator=torch.Generator().manual_seed(0))
    size = 0.0
    for _ in range(_POWER_ITERATIONS):
        vector /= vector.norm()
        vector = adjoint(degradation.apply(vector, params))
        size = float(vector.norm())
    return 1.05 * size


def _pair(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Views of all voxels that have a next one along an axis, and of those next ones."""
    count = x.shape[axis] - 1
    return x.narrow(axis, 0, count), x.narrow(axis, 1, count)


def _parts(
    shape: tuple[int, int, int], factor: tuple[int, int, int], most_voxels: int
) -> tuple[int, list[_Part]]:
    """Cut along the longest axis that is not degraded, else along the longest of all."""
    free = [axis for axis in range(3) if factor[axis] == 1] or [0, 1, 2]
    axis = max(free, key=lambda one: shape[one])
    size, step = shape[axis], factor[axis]
    halo = -(-_HALO // step) * step
    plane = int(np.prod(shape)) // size
    if size * plane <= most_voxels:
        return axis, [_Part(0, size, 0, size)]
    thickness = max(most_voxels // plane - 2 * halo, halo) // step * step
    parts = []
    for first in range(0, size, thickness):
        last = min(first + thickness, size)
        parts.append(_Part(max(first - halo, 0), min(last + halo, size), first, last))
    return axis, parts


def _along(axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if one == axis else slice(None) for one in range(3))

"""The physics of low resolution: how scanners lose detail, as deterministic operators.

Each registers itself; :func:`degrade_volume` carries the geometry along. Third parties add
degradations by an entry point in the group ``medsr.degradations``, or register them themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from medsr.degrade.base import Degradation, Separable
from medsr.errors import UsageError
from medsr.plugins import Registry, check_options
from medsr.types import Triple
from medsr.volume import Volume

__all__ = [
    "DEGRADATIONS",
    "Degradation",
    "Separable",
    "build_degradation",
    "degrade_volume",
    "for_domain",
]

DEGRADATIONS: Registry[type[Any]] = Registry(
    "degradation", __name__, UsageError, group="medsr.degradations"
)
"""Every degradation by the name that recipes use."""


def __getattr__(name: str) -> Any:
    return DEGRADATIONS.attribute(name)


def build_degradation(kind: str, factor: Triple, **options: Any) -> Degradation[Any]:
    """Build a degradation by name.

    Args:
        kind: A key of :data:`DEGRADATIONS`, or an entry point of ``medsr.degradations``.
        factor: Integer factors along X, Y and Z.
        **options: The degradation's own arguments.

    Raises:
        UsageError: If the kind is unknown or an option is none of its own.

    Examples:
        >>> from medsr.degrade import build_degradation
        >>> slab = build_degradation("ct_slab", (1, 1, 5), thickness=1.2)
        >>> slab.factor, slab.margin  # overlapping slabs reach beyond their slice
        ((1, 1, 5), (0, 0, 5))
    """
    cls = DEGRADATIONS.find(kind).factory
    try:
        check_options(cls, options)
        built: Degradation[Any] = cls(factor=factor, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"degradation {kind}: {error}") from error
    return built


def for_domain(
    degradation: Degradation[Any] | Mapping[str, Degradation[Any]], domain: str
) -> Degradation[Any]:
    """Return the degradation that a scan of a domain takes.

    Args:
        degradation: One for all scans, or one for each modality.
        domain: Modality and contrast, for example ``"MR/T1w"``.

    Raises:
        UsageError: There is none for the modality.

    Examples:
        >>> from medsr.degrade import CTSlab, SliceProfile, for_domain
        >>> both = {"MR": SliceProfile(factor=(1, 1, 4)), "CT": CTSlab(factor=(1, 1, 4))}
        >>> type(for_domain(both, "MR/T1w")).__name__
        'SliceProfile'
    """
    if not isinstance(degradation, Mapping):
        return degradation
    modality = domain.partition("/")[0]
    if modality not in degradation:
        available = ", ".join(degradation)
        raise UsageError(
            f"no degradation is given for {modality or 'unknown'} scans, only {available}"
        )
    return degradation[modality]


def degrade_volume(
    volume: Volume,
    degradation: Degradation[Any],
    params: Any | None = None,
    seed: int | None = None,
) -> Volume:
    """Degrade a whole scan; its grid becomes ``Geometry.coarsen(factor)``.

    Args:
        volume: Scan ``(X, Y, Z)`` in native units; the factors refer to its array axes.
        degradation: What to apply.
        params: Parameters to replay; by default drawn with ``seed``, or nominal without one.
        seed: Seed for drawing parameters.

    Returns:
        The degraded scan in float32 and the same units.

    Raises:
        UsageError: If an axis has fewer voxels than its factor.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.degrade import SliceProfile, degrade_volume
        >>> grid = Geometry((32, 32, 20), np.eye(4))  # 1 mm voxels
        >>> data = np.random.default_rng(0).uniform(0, 800, grid.shape).astype(np.float32)
        >>> thick = degrade_volume(Volume(data, grid, "MR"), SliceProfile(factor=(1, 1, 5)))
        >>> thick.shape, thick.spacing, thick.geometry.origin
        ((32, 32, 4), (1.0, 1.0, 5.0), (0.0, 0.0, 2.0))
    """
    for size, factor, name in zip(volume.geometry.shape, degradation.factor, "XYZ", strict=True):
        if size < factor:
            raise UsageError(f"axis {name} has {size} voxels, fewer than the factor {factor}")
    if params is None:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        params = degradation.nominal() if seed is None else degradation.sample(generator)
    hr = torch.from_numpy(np.ascontiguousarray(volume.data, dtype=np.float32))
    lr = degradation.apply(hr, params).contiguous().numpy()
    geometry = volume.geometry.coarsen(degradation.factor)
    return volume.replace(data=lr, geometry=geometry)

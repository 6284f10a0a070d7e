"""Data consistency of any method's result: degraded again, how far is it from its scan?

No truth is needed, so real scans can be looked at too. Numbers in the body and a signed map on the
scan's grid. Making a result consistent is ``medsr.infer.consistency.project``; :func:`consistent`
wraps a method so that it is scored with and without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from medsr.degrade import Degradation, Separable, degrade_volume
from medsr.errors import UsageError
from medsr.evaluate.metrics import reference_for
from medsr.geometry import Geometry
from medsr.infer.consistency.project import make_consistent
from medsr.infer.consistency.projection import Projection
from medsr.volume import Volume

Restore = Callable[[Volume, Geometry], Volume]
"""Brings a low-resolution scan to a grid."""


def consistency(
    sr: Volume, lr: Volume, degradation: Degradation[Any], params: Any = None
) -> tuple[dict[str, float], Volume]:
    """Degrade a result again and compare it with the scan that it came from.

    Args:
        sr: The result, native units, axes as in ``lr``.
        lr: The scan. It covers the same space, but for what is left over of ``sr`` at the far end
            where its size is no multiple of the factor.
        degradation: What made ``lr``, or is thought to have; factors along the array's axes.
        params: Its parameters; noise in them is left out, so that of the scan counts as difference.
            Nominal when not given.

    Returns:
        ``consistency_rmse`` and ``consistency_max`` (root mean square and largest absolute
        difference in the body, native units; the body is found in the scan as metrics find it in
        a truth), and the map: the degraded result minus the scan, float32, on the scan's grid.

    Raises:
        UsageError: The result does not cover the scan's space.
        ValueError: The scan has no body.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.degrade import CTSlab, degrade_volume
        >>> from medsr.evaluate.consistency import consistency
        >>> grid = Geometry((24, 24, 24), np.eye(4))
        >>> hu = np.random.default_rng(0).uniform(0, 100, grid.shape).astype(np.float32)
        >>> sharp, slab = Volume(hu, grid, "CT", "HU"), CTSlab(factor=(1, 1, 4))
        >>> scan = degrade_volume(sharp, slab)
        >>> numbers, difference = consistency(sharp.replace(data=hu + 3), scan, slab)
        >>> round(numbers["consistency_rmse"], 3), difference.shape  # HU, on the scan's grid
        (3.0, (24, 24, 6))
    """
    again = _again(sr, lr, degradation, params)
    difference = (again - np.asarray(lr.data, dtype=np.float32)).astype(np.float32)
    mask = reference_for(lr.data, lr.modality or "MR").mask
    inside = difference[mask].astype(np.float64)
    residuals = {
        "consistency_rmse": float(np.sqrt(np.square(inside).mean())),
        "consistency_max": float(np.abs(inside).max()),
    }
    # A difference is no stored value of the scan's file.
    return residuals, lr.replace(data=difference, source=None)


def consistent(
    restore: Restore,
    degradation: Degradation[Any],
    params: Any = None,
    *,
    tolerance: float | None = None,
) -> Restore:
    """Return a method that restores and then projects, as ``medsr upscale --consistency`` does.

    Args:
        restore: Any method; its result must cover the space of the scan.
        degradation: As for :func:`medsr.infer.consistency.project.make_consistent`.
        params: As there.
        tolerance: As there.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.degrade import CTSlab
        >>> from medsr.evaluate.baselines import restore_baseline
        >>> from medsr.evaluate.consistency import consistency, consistent
        >>> thick = Geometry((16, 16, 6), np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> hu = np.random.default_rng(0).uniform(0, 100, thick.shape).astype(np.float32)
        >>> scan, slab = Volume(hu, thick, "CT", "HU"), CTSlab(factor=(1, 1, 4))
        >>> def linear(lr, grid):
        ...     return restore_baseline("linear", lr, grid)
        >>> projected = consistent(linear, slab, tolerance=0.5)
        >>> results = [method(scan, thick.refine((1, 1, 4))) for method in (linear, projected)]
        >>> [consistency(sr, scan, slab)[0]["consistency_max"] <= 0.5 for sr in results]  # HU
        [False, True]
    """

    def both(lr: Volume, grid: Geometry) -> Volume:
        result = restore(lr, grid)
        return make_consistent(result, lr, degradation, params, tolerance=tolerance)[0]

    return both


def _again(
    sr: Volume, lr: Volume, degradation: Degradation[Any], params: Any
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The result degraded to the scan's grid, without noise where the degradation can."""
    if isinstance(degradation, Separable) and lr.geometry.resize(sr.shape).same_grid(
        sr.geometry, tol_mm=1e-2
    ):
        return Projection(degradation, sr.shape, lr.shape, params).degrade(sr.data)
    again = degrade_volume(sr, degradation, params)
    if not again.geometry.same_grid(lr.geometry, tol_mm=1e-2):
        raise UsageError(
            f"the result of {sr.shape} voxels, degraded by {degradation.factor}, does not lie on "
            f"the scan's grid of {lr.shape}; give them the same extent"
        )
    return np.asarray(again.data, dtype=np.float32)

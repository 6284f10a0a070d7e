"""Does a result fit its scan? What degrades to another scan was restored by the wrong model.

A model undoes the degradation that it was trained on. Where a scan was made in another way, for
example as a 3D acquisition with thick partitions, the network still gives an image, and a wrong
one. The scan itself tells: degraded again, the result does not give it back. Here that is measured
for every result that is whole in memory, and said. Nothing is changed; that is ``consistency``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import UsageError
from medsr.infer.consistency.project import nearest, projections
from medsr.infer.consistency.projection import Residual
from medsr.infer.decide import Decision
from medsr.intensity import Intensity
from medsr.volume import Modality

MR_LIMIT = 0.03
"""Root mean square difference that raises doubt, as a share of the scan's range. On held-out scans
restored by a model that knows their kind it was at most 0.015, with 3 % of noise, which a model
takes away, 0.021; with a kind that a model had never seen (k-space partitions) 0.034 and more."""

CT_LIMIT_HU = 20.0
"""The same for CT, HU; with the right model it was 0.3."""


def measure(
    sr: npt.NDArray[Any],
    lr: npt.NDArray[Any],
    decision: Decision,
    modality: Modality,
    counted: npt.NDArray[np.bool_] | None = None,
) -> Residual | None:
    """Degrade a result as its model's training scans were, and compare it with the scan.

    Where they were degraded in several ways, the one that fits best counts: there is doubt where
    none fits.

    Args:
        sr: ``(X, Y, Z)`` result in canonical order, native units.
        lr: The scan alike, as the network saw it.
        decision: Model and grids.
        modality: What the scan is.
        counted: Voxels of the scan that hold data.

    Returns:
        The difference; None where the model does not say how its training scans were made, or the
        grid asked for allows no comparison.
    """
    try:
        candidates = projections(
            decision.model.spec, modality, decision.target.shape, decision.grid.shape
        )
    except UsageError:
        return None
    return nearest(candidates, sr, lr, counted)[1]


def words(residual: Residual, lr: npt.NDArray[Any], modality: Modality) -> str | None:
    """A warning, where a residual gives reason for one.

    Args:
        residual: What :func:`measure` found.
        lr: Voxels of the scan that hold data, any shape.
        modality: What the scan is.
    """
    if modality == "CT":
        excess, shown = residual.rms / CT_LIMIT_HU, f"{residual.rms:.3g} HU"
    else:
        share = residual.rms / Intensity.for_modality("MR").fit(lr).divisor
        excess, shown = share / MR_LIMIT, f"{share:.1%} of its range"
    if excess <= 1:
        return None
    return (
        f"the result does not fit the scan: degraded again, it differs by {shown} (root mean "
        "square). The scan was made in another way than those the model learnt from (a 3D "
        "acquisition with thick partitions, for example); do not trust this result"
    )

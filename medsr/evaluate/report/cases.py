"""A case: one scan, what it looked like at low resolution, and what every method made of it.

Only the value is here. Its pictures are made in ``pictures``, its volumes for the browser in
``viewer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medsr.volume import Volume


@dataclass(frozen=True, eq=False)
class Case:
    """What is shown side by side of one restored scan.

    Args:
        label: Why it is shown, a word or two: ``worst``, ``median``.
        patient_id: Pseudonym from the manifest.
        scan_id: Name of the scan in the manifest.
        axis: Degraded array axes of the scan: ``x``, ``y``, ``z`` or ``xyz``.
        lr: The scan at low resolution; native units.
        truth: The sharp scan; native units.
        results: Restored scans by method, each on the truth's grid; native units.
        consistency: What the result of a model, degraded again, differs by from ``lr``, on the
            grid of ``lr``; native units. None where it was not computed.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.degrade import SliceProfile, degrade_volume
        >>> from medsr.evaluate.baselines import resample
        >>> from medsr.evaluate.report import Case
        >>> data = np.random.default_rng(0).uniform(0, 800, (16, 16, 16)).astype(np.float32)
        >>> truth = Volume(data, Geometry(data.shape, np.eye(4)), "MR")
        >>> thick = degrade_volume(truth, SliceProfile(factor=(1, 1, 4)))
        >>> plain = resample(thick, truth.geometry, "bspline")
        >>> case = Case("median", "p1", "p1_T1w", "z", thick, truth, {"bspline": plain})
        >>> sorted(case.results)
        ['bspline']
    """

    label: str
    patient_id: str
    scan_id: str
    axis: str
    lr: Volume
    truth: Volume
    results: Mapping[str, Volume]
    consistency: Volume | None = None

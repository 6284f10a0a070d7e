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
    """

    label: str
    patient_id: str
    scan_id: str
    axis: str
    lr: Volume
    truth: Volume
    results: Mapping[str, Volume]
    consistency: Volume | None = None

"""What a seeded evaluation draws about the nominal degradation: thickness of slices, and noise.

Without a seed every scan is degraded alike and without noise. ``medsr.degrade`` draws
parameters from these ranges, ``tasks`` chooses the seed of each scan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medsr.degrade import DEGRADATIONS, Degradation, build_degradation
from medsr.volume import Modality

THICKNESS = (0.8, 1.2)
"""Of slices, over their separation: from a gap of a fifth to an overlap of a fifth."""
NOISE: dict[Modality, tuple[float, float]] = {"MR": (0.0, 0.03), "CT": (0.0, 0.01)}
"""Standard deviation over the data range of the metrics; 0.01 of it is 20 HU."""


def ranges(kind: str, modality: Modality) -> dict[str, tuple[float, float]]:
    """Options of a degradation to draw from: those of its entry's ``draws``.

    Args:
        kind: As for :func:`medsr.degrade.build_degradation`.
        modality: Of the scans.

    Returns:
        Such as ``{"thickness": (0.8, 1.2), "noise": (0.0, 0.03)}``, noise over the data range.
    """
    available = {"thickness": THICKNESS, "noise": NOISE[modality]}
    return {name: available[name] for name in DEGRADATIONS.find(kind).draws}


def build_drawn(
    kind: str, scale: tuple[int, int, int], modality: Modality
) -> tuple[Degradation[Any], dict[str, tuple[float, float]]]:
    """Build a degradation that draws from :func:`ranges`, and say which they are."""
    options = ranges(kind, modality)
    return build_degradation(kind, scale, **options), options


def in_native_units(params: Any, data_range: float) -> Any:
    """Drawn parameters with the noise in units of the scan.

    Args:
        params: Of a degradation of :func:`build_drawn`.
        data_range: Of the truth, native units.
    """
    return replace(params, sigma=params.sigma * data_range)

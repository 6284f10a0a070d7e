"""Which lesions a scan is given, and where: a seeded rule that depends on the scan alone.

Lesions of every size and contrast lie in fairly even tissue, away from the borders and from each
other, at any offset from the voxel centres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.evaluate.metrics import reference_for
from medsr.hu import BODY_HU
from medsr.types import BoolArray
from medsr.volume import Modality, Volume

DIAMETERS_MM = (3.0, 5.0, 8.0, 12.0)
MR_SHARES = (-0.5, -0.2, 0.2, 0.5)
"""Contrasts in MR: shares of the intensity around."""
CT_CONTRASTS_HU = (-100.0, -30.0, 30.0, 100.0)
"""Contrasts in soft tissue."""
NODULE_HU = 40.0
"""What a nodule in the lung is made of."""

GAP_MM = 12.0
"""From surface to surface of two lesions, at least."""
EDGE_MM = 8.0
"""From a lesion's surface to the borders of the scan, at least."""

_RIM_MM = 2.0  # around the lesion, that has to be even too
_TISSUE_SHARE = 0.98  # of the voxels of lesion and rim
_EVENNESS = 0.25  # share of the places of a kind that count as even
_TRIES = 4000
_MR_LEVELS = (0.25, 1.0)  # of the data range
_SOFT_HU = (-200.0, 300.0)
_SOFT_MEAN_HU = (0.0, 100.0)
_LUNG_HU = (-1100.0, BODY_HU)
_LUNG_MEAN_HU = (-950.0, -650.0)


@dataclass(frozen=True)
class Lesion:
    """One sphere.

    Attributes:
        centre_mm: RAS+.
        diameter_mm: Of the sphere.
        contrast: What it is called in tables, the same for all scans: ``"+20 %"``, ``"-100 HU"``,
            ``"nodule"``.
        contrast_native: What it adds to the scan, native units.
        tissue: ``"tissue"`` (MR), ``"soft"`` or ``"lung"`` (CT).

    Examples:
        >>> from medsr.evaluate.lesions import Lesion
        >>> nodule = Lesion((0.0, -12.0, 30.0), 6.0, "+60 HU", contrast_native=60.0, tissue="soft")
        >>> nodule.diameter_mm
        6.0
    """

    centre_mm: tuple[float, float, float]
    diameter_mm: float
    contrast: str
    contrast_native: float
    tissue: str


@dataclass(frozen=True)
class _Places:
    """Where a lesion of one size may lie in one tissue."""

    centres: NDArray[np.intp]  # (places, 3) voxel indices
    levels: NDArray[np.float64]  # mean around each, native units


def plan_lesions(hr: Volume, modality: Modality, seed: int = 0) -> tuple[Lesion, ...]:
    """Choose lesions for a sharp scan.

    Args:
        hr: The scan, native units.
        modality: What it is.
        seed: Of the places.

    Returns:
        At most one lesion of each diameter and contrast (CT: in soft tissue, and nodules in lung),
        the largest first. What finds no place is left out. The same scan and seed give the same
        lesions.

    Raises:
        ValueError: The scan has no foreground.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.evaluate.lesions import plan_lesions
        >>> grid = Geometry((48, 48, 48), np.eye(4))
        >>> scan = Volume(np.full(grid.shape, 500, dtype=np.float32), grid, "MR")
        >>> lesions = plan_lesions(scan, "MR", seed=0)
        >>> lesions == plan_lesions(scan, "MR", seed=0)
        True
        >>> sorted({lesion.diameter_mm for lesion in lesions})  # mm
        [3.0, 5.0, 8.0, 12.0]
    """
    generator = np.random.default_rng(seed)
    data = np.asarray(hr.data, dtype=np.float32)
    tissues = dict(_tissues(data, modality))
    placed: list[Lesion] = []
    for diameter in sorted(DIAMETERS_MM, reverse=True):
        for tissue, (mask, low, high) in tissues.items():
            places = _even_places(hr, data, mask, (low, high), diameter)
            for contrast, share, added in _contrasts(modality, tissue):
                free_place = _free(hr, places, diameter, placed, generator)
                if free_place is None:
                    continue
                centre, level = free_place
                native = added + share * level
                placed.append(Lesion(centre, diameter, contrast, native, tissue))
    return tuple(placed)


def settings(modality: Modality) -> dict[str, Any]:
    """What :func:`plan_lesions` does, as plain data for result files.

    Examples:
        >>> from medsr.evaluate.lesions import settings
        >>> settings("CT")["contrasts"]["lung"]
        'nodule: 40 HU in place of the mean around'
    """
    if modality == "CT":
        contrasts: dict[str, Any] = {
            "soft": [f"{value:+g} HU" for value in CT_CONTRASTS_HU],
            "lung": f"nodule: {NODULE_HU:g} HU in place of the mean around",
        }
    else:
        contrasts = {"tissue": [f"{value:+.0%} of the mean around" for value in MR_SHARES]}
    return {
        "diameters_mm": list(DIAMETERS_MM),
        "contrasts": contrasts,
        "gap_mm": GAP_MM,
        "edge_mm": EDGE_MM,
        "places": (
            "seeded, one lesion of each diameter and contrast a scan and axis, among the "
            f"{_EVENNESS:.0%} most even of the places that lie in tissue"
        ),
        "shape": "spheres, every voxel filled by the share inside, added before degradation",
        "measured": "on the difference of the results with and without lesions",
        "contrast_kept": "mean in the inner half of the radius, over that of the truth",
        "volume_kept": "volume above half of the true contrast, over that of the truth",
        "extent_kept": "volume above half of the own contrast, over the truth's alike",
        "shift_mm": "distance of the centroid of that volume from the truth's",
        "false_response": "energy of the response outside the lesion, over the lesion's",
        "plain_contrast": (
            "mean in the inner half of the radius minus that of a shell around, in the result with "
            "lesions alone, over the true contrast; anatomy around included"
        ),
    }


def _contrasts(modality: Modality, tissue: str) -> Iterator[tuple[str, float, float]]:
    """Names of contrasts, with the share of the level around and the native value that they add."""
    if modality != "CT":
        yield from ((f"{100 * share:+.0f} %", share, 0.0) for share in MR_SHARES)
    elif tissue == "lung":
        yield ("nodule", -1.0, NODULE_HU)
    else:
        yield from ((f"{value:+g} HU", 0.0, value) for value in CT_CONTRASTS_HU)


def _tissues(
    data: NDArray[np.float32], modality: Modality
) -> Iterator[tuple[str, tuple[BoolArray, float, float]]]:
    """Tissues by name: their voxels, and between which means around a lesion may lie."""
    if modality == "CT":
        for name, (low, high), means in (
            ("soft", _SOFT_HU, _SOFT_MEAN_HU),
            ("lung", _LUNG_HU, _LUNG_MEAN_HU),
        ):
            yield name, ((data > low) & (data < high), *means)
        return
    reference = reference_for(data, modality)
    low, high = (level * reference.data_range for level in _MR_LEVELS)
    yield "tissue", (reference.mask, low, high)


def _even_places(
    hr: Volume,
    data: NDArray[np.float32],
    mask: BoolArray,
    means: tuple[float, float],
    diameter_mm: float,
) -> _Places:
    """Voxels around which a cube that holds the lesion and a rim is in tissue and fairly even."""
    from scipy.ndimage import uniform_filter

    cube = [max(3, round((diameter_mm + 2 * _RIM_MM) / s)) for s in hr.spacing]
    # Sums of squares lose digits far from zero.
    shift = np.float32(np.mean(means))
    level = uniform_filter(data - shift, cube, mode="nearest")
    spread = uniform_filter(np.square(data - shift), cube, mode="nearest") - np.square(level)
    level += shift
    fits = uniform_filter(mask.astype(np.float32), cube, mode="constant") >= _TISSUE_SHARE
    fits &= (level >= means[0]) & (level <= means[1])
    inner = []
    for size, spacing in zip(hr.shape, hr.spacing, strict=True):
        away = int(np.ceil((diameter_mm / 2 + EDGE_MM) / spacing + 0.5))
        inner.append(slice(away, max(size - away, away)))
    within = np.zeros_like(fits)
    within[tuple(inner)] = True
    centres = np.argwhere(fits & within)
    if not len(centres):
        return _Places(centres, np.empty(0))
    spreads = spread[tuple(centres.T)]
    centres = centres[spreads <= np.quantile(spreads, _EVENNESS)]
    return _Places(centres, level[tuple(centres.T)].astype(np.float64))


def _free(
    hr: Volume,
    places: _Places,
    diameter_mm: float,
    placed: list[Lesion],
    generator: np.random.Generator,
) -> tuple[tuple[float, float, float], float] | None:
    """A random place away from what was placed, somewhere in its voxel; None where none is left."""
    count = len(places.centres)
    for index in generator.choice(count, min(count, _TRIES), replace=False):
        offset = generator.uniform(-0.5, 0.5, 3)
        x, y, z = hr.geometry.voxel_to_world(places.centres[index] + offset).tolist()
        centre = (float(x), float(y), float(z))
        if all(
            np.linalg.norm(np.subtract(centre, other.centre_mm))
            >= (diameter_mm + other.diameter_mm) / 2 + GAP_MM
            for other in placed
        ):
            return centre, float(places.levels[index])
    return None

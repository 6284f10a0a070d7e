"""Calibration: is a map of uncertainty worth its name?

A sigma map is honest where the error is within k sigma as often as it says. Arrays of any shape in
and figures out, or what ``medsr.upscale`` gave; running models and reading scans is done elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medsr.errors import UsageError
from medsr.evaluate.metrics import reference_for

if TYPE_CHECKING:
    from medsr.infer.upscale import UpscaleResult
    from medsr.volume import Volume

LEVELS = (0.5, 1.0, 2.0, 3.0)
"""Multiples of sigma at which errors are counted."""

_AVERAGED = (
    "levels",
    "observed",
    "expected",
    "difference",
    "factor",
    "rank_correlation",
    "sigma",
)


@dataclass(frozen=True)
class Calibration:
    """How errors and the sigma that was expected of them compare.

    Attributes:
        levels: Multiples of sigma.
        observed: Share of voxels whose absolute error is within that multiple, from 0 to 1.
        expected: The same share for normally distributed errors.
        difference: Mean absolute difference between observed and expected.
        factor: By which sigma must be multiplied for the squared errors to fit it on average;
            above 1 the map promises too much.
        rank_correlation: Spearman's correlation between sigma and absolute error, from -1 to 1;
            NaN where one of them is constant. What a map is worth for telling good voxels from bad
            ones, whatever its scale.
        sigma: Mean of sigma, in the units of the arrays.
        voxels: How many were counted.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.calibration import calibration
        >>> rng = np.random.default_rng(0)
        >>> sigma = rng.uniform(5, 15, 20_000)  # HU
        >>> found = calibration(rng.normal(0, 2 * sigma), sigma)
        >>> round(found.factor, 1)  # the map must be doubled
        2.0
        >>> found.observed < found.expected
        True
    """

    levels: tuple[float, ...]
    observed: tuple[float, ...]
    expected: tuple[float, ...]
    difference: float
    factor: float
    rank_correlation: float
    sigma: float
    voxels: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def calibration(
    error: NDArray[Any],
    sigma: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Calibration:
    """Compare errors with the standard deviation that was expected of them.

    Args:
        error: Result minus truth, any shape.
        sigma: What was expected, same shape and units; above zero.
        mask: Voxels that count, same shape; all where not given.
        levels: Multiples of sigma, above zero.

    Returns:
        The figures.

    Raises:
        UsageError: If shapes differ, no voxel counts, or sigma or a level is not above zero.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; the factor: Laves et al.
        2020, "Well-calibrated regression uncertainty in medical imaging with deep learning"
        (sigma scaling).

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.calibration import calibration
        >>> rng = np.random.default_rng(0)
        >>> sigma = rng.uniform(5, 15, (32, 32, 32))
        >>> found = calibration(rng.normal(0, sigma), sigma, levels=(1, 2))
        >>> [round(share, 2) for share in found.expected], round(found.difference, 2)
        ([0.68, 0.95], 0.0)
    """
    if error.shape != sigma.shape or (mask is not None and mask.shape != error.shape):
        raise UsageError(
            f"calibration: error has shape {error.shape} and sigma {sigma.shape}; "
            "give both, and the mask, one shape"
        )
    chosen = np.ones(error.shape, dtype=bool) if mask is None else mask
    size = np.abs(np.asarray(error[chosen], dtype=np.float64))
    width = np.asarray(sigma[chosen], dtype=np.float64)
    if size.size == 0:
        raise UsageError("calibration: no voxel counts; widen the mask")
    if not (width > 0).all() or not all(level > 0 for level in levels):
        raise UsageError("calibration: sigma and levels must be above zero everywhere")
    ratio = size / width
    observed = tuple(float((ratio <= level).mean()) for level in levels)
    expected = tuple(math.erf(level / math.sqrt(2)) for level in levels)
    gaps = [abs(o - e) for o, e in zip(observed, expected, strict=True)]
    return Calibration(
        levels=tuple(float(level) for level in levels),
        observed=observed,
        expected=expected,
        difference=float(np.mean(gaps)),
        factor=float(np.sqrt(np.square(ratio).mean())),
        rank_correlation=_rank_correlation(width, size),
        sigma=float(width.mean()),
        voxels=int(size.size),
    )


def calibration_of(
    result: UpscaleResult,
    truth: Volume,
    mask: NDArray[np.bool_] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Calibration:
    """Check the map of uncertainty that came with a result.

    Args:
        result: What :func:`medsr.upscale` gave, asked for ``uncertainty``.
        truth: The sharp scan, native units, on the result's grid.
        mask: Voxels that count, (X, Y, Z); the body where not given, found in the truth as the
            metrics find it.
        levels: As for :func:`calibration`.

    Raises:
        UsageError: There is no map, or the truth lies on another grid.
        MemoryLimitError: The result was only written.
        ValueError: The truth has no body.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, UpscaleResult, Volume
        >>> from medsr.evaluate.calibration import calibration_of
        >>> rng = np.random.default_rng(0)
        >>> grid = Geometry((24, 24, 24), np.eye(4))
        >>> truth = Volume(rng.uniform(0, 100, grid.shape).astype(np.float32), grid, "CT", "HU")
        >>> noise = rng.normal(0, 12.0, grid.shape).astype(np.float32)
        >>> sigma = truth.replace(data=np.full(grid.shape, 12.0, dtype=np.float32))
        >>> result = UpscaleResult(truth.replace(data=truth.data + noise), {}, uncertainty=sigma)
        >>> round(calibration_of(result, truth).factor, 1)  # 1: the map fits the errors
        1.0
    """
    sr = result.whole()
    if result.uncertainty is None:
        raise UsageError(
            "calibration: the result has no map of uncertainty; ask for one, of a model with a head"
        )
    if not sr.geometry.same_grid(truth.geometry, tol_mm=1e-2):
        raise UsageError("calibration: the truth does not lie on the grid of the result")
    if mask is None:
        mask = reference_for(truth.data, truth.modality or "MR").mask
    error = np.asarray(sr.data, dtype=np.float64) - truth.data
    return calibration(error, result.uncertainty.data, mask, levels)


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's correlation; NaN where one side is constant."""
    # SciPy's statistics take longer to import than everything else here.
    from scipy import stats

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(stats.spearmanr(first, second).statistic)


def mean_calibrations(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Average the calibration of every method over patients, all rows of a patient first.

    Args:
        rows: Fields of :class:`Calibration` with ``patient_id`` and ``method``.

    Returns:
        The averaged fields by method, with ``patients`` and ``rows`` counted; voxels are summed.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.calibration import calibration, mean_calibrations
        >>> rng = np.random.default_rng(0)
        >>> rows = [
        ...     {"patient_id": patient, "method": "m"}
        ...     | calibration(rng.normal(0, 1, 5000), np.ones(5000)).to_dict()
        ...     for patient in ("p1", "p1", "p2")
        ... ]
        >>> found = mean_calibrations(rows)["m"]
        >>> found["patients"], found["rows"], found["voxels"]
        (2, 3, 15000)
    """
    calibrations: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        people = [
            [row for row in mine if row["patient_id"] == patient]
            for patient in dict.fromkeys(row["patient_id"] for row in mine)
        ]
        calibrations[method] = {
            name: np.mean(
                [np.mean([row[name] for row in rows_of], axis=0) for rows_of in people], axis=0
            ).tolist()
            for name in _AVERAGED
        }
        calibrations[method]["voxels"] = sum(row["voxels"] for row in mine)
        calibrations[method] |= {"rows": len(mine), "patients": len(people)}
    return calibrations

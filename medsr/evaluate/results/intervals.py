"""What a handful of patients allows one to say: intervals, a test, an effect size, a correction.

Every function takes one number a patient and leaves the arithmetic to SciPy and statsmodels. Which
comparisons are made, and of what, is in ``statistics``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from medsr.errors import MissingExtraError

FEWEST = 3
"""Below this number of patients there is neither an interval nor a p value."""

Interval = tuple[float, float]

# Rounding of a difference of equal numbers, relative to the largest.
_NOTHING = 1e-12


def bootstrap_interval(
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    fewest: int = FEWEST,
) -> Interval | None:
    """Interval of the mean by resampling patients.

    Bias-corrected and accelerated; the plain percentiles where those corrections are undefined.

    Args:
        values: One number a patient, finite.
        confidence: Two-sided level.
        resamples: How many.
        seed: Of the resampling.
        fewest: How many values an interval needs.

    Returns:
        Lower and upper end; None below ``fewest`` values.

    Source: Efron 1987, "Better bootstrap confidence intervals".
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < fewest:
        return None
    if _equal(sample):
        return float(sample[0]), float(sample[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            ends = stats.bootstrap(
                (sample,),
                np.mean,
                confidence_level=confidence,
                n_resamples=resamples,
                method=method,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(ends.low) and math.isfinite(ends.high):
            break
    return float(ends.low), float(ends.high)


def t_interval(
    values: Sequence[float], *, confidence: float = 0.95, fewest: int = FEWEST
) -> Interval | None:
    """Interval of the mean by Student's t; None below ``fewest`` values."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < fewest:
        return None
    mean, error = float(sample.mean()), float(stats.sem(sample))
    reach = error * float(stats.t.ppf((1 + confidence) / 2, len(sample) - 1))
    return mean - reach, mean + reach


def cautious_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Interval | None:
    """The wider of :func:`bootstrap_interval` and :func:`t_interval` at either end."""
    one = bootstrap_interval(values, confidence=confidence, resamples=resamples, seed=seed)
    other = t_interval(values, confidence=confidence)
    if one is None or other is None:
        return None
    return min(one[0], other[0]), max(one[1], other[1])


def sign_flip_p(values: Sequence[float], *, resamples: int = 9999, seed: int = 0) -> float | None:
    """Two-sided p value of the mean difference by flipping signs.

    Were two methods alike, each patient's difference might as well have had the other sign. All
    2ⁿ patterns of signs are counted where they are no more than ``resamples``, else that many are
    drawn.

    Args:
        values: One paired difference a patient, finite.
        resamples: Above 2ⁿ the test is exact.
        seed: Of the drawing.

    Returns:
        p, never below 2/2ⁿ; None below :data:`FEWEST` patients.

    Source: Fisher 1935, "The design of experiments", §21.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < FEWEST:
        return None
    result = stats.permutation_test(
        (sample,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def rank_biserial(values: Sequence[float]) -> float | None:
    """Matched-pairs rank-biserial correlation, -1 to 1.

    The ranks of the absolute differences that are above zero, minus those below, over all; 1 where
    every difference is above zero. Differences of zero have no say.

    Returns:
        None without any difference, and 0 where all are zero.

    Source: Kerby 2014, "The simple difference formula".
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) == 0:
        return None
    sample = sample[sample != 0]
    if len(sample) == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(sample))
    return float((np.sign(sample) * ranks).sum() / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p values of a family of comparisons.

    Raises:
        MissingExtraError: statsmodels is not installed.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    if not p_values:
        return []
    multipletests = _multipletests()
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def check_installed() -> None:
    """Refuse before any work is spent where statsmodels is missing.

    Raises:
        MissingExtraError: It is not installed.
    """
    _multipletests()


def _multipletests() -> Callable[..., Any]:
    try:
        from statsmodels.stats.multitest import multipletests
    except ImportError as error:
        raise MissingExtraError(
            "statistics need statsmodels; install it with: pip install 'medsr[report]'"
        ) from error
    function: Callable[..., Any] = multipletests
    return function


def _equal(sample: npt.NDArray[np.float64]) -> bool:
    return bool(np.ptp(sample) <= _NOTHING * np.abs(sample).max())

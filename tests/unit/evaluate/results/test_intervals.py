"""Intervals, test, effect size and correction against brute force, formulas and other libraries."""

from __future__ import annotations

import math
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from medsr.errors import MissingExtraError
from medsr.evaluate.results.intervals import (
    bootstrap_interval,
    cautious_interval,
    check_installed,
    holm,
    rank_biserial,
    sign_flip_p,
    t_interval,
)

# Student 1908 (Cushny and Peebles): extra hours of sleep, drug 2 minus drug 1. R's `sleep`.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


def test_t_interval_is_the_one_of_r() -> None:
    # R: t.test(extra ~ group, data = sleep, paired = TRUE)
    assert t_interval(SLEEP) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


@pytest.mark.parametrize("sizes", [[1.0], [], [1.0, 2.0]])
def test_too_few_patients_give_neither_interval_nor_p(sizes: list[float]) -> None:
    assert bootstrap_interval(sizes) is None
    assert t_interval(sizes) is None
    assert cautious_interval(sizes) is None
    assert sign_flip_p(sizes) is None


def test_bootstrap_agrees_with_the_formula_on_many_patients(rng: np.random.Generator) -> None:
    values = rng.normal(3.0, 2.0, 400).tolist()
    found, expected = bootstrap_interval(values, resamples=3000), t_interval(values)
    assert found is not None
    assert expected is not None
    assert found == pytest.approx(expected, abs=0.02)


def test_bootstrap_of_a_skewed_sample_leans_to_the_long_tail(rng: np.random.Generator) -> None:
    values = rng.exponential(1.0, 40)
    found = bootstrap_interval(values.tolist())
    assert found is not None
    assert found[1] - values.mean() > 1.1 * (values.mean() - found[0])


def test_bootstrap_is_repeatable_and_takes_equal_values() -> None:
    assert bootstrap_interval(SLEEP, seed=3) == bootstrap_interval(SLEEP, seed=3)
    assert bootstrap_interval(SLEEP, seed=3) != bootstrap_interval(SLEEP, seed=4)
    assert bootstrap_interval([0.1, 0.1, 0.1]) == (0.1, 0.1)


def test_coverage_on_simulated_patients(rng: np.random.Generator) -> None:
    """Of 30 patients the bootstrap covers about as promised; of 7 only the wider interval does."""
    rounds = 200

    def covered(patients: int, interval: object) -> float:
        samples = rng.normal(1.0, 1.0, (rounds, patients))
        ends = [interval(sample.tolist(), resamples=499) for sample in samples]  # type: ignore[operator]
        return float(np.mean([low <= 1.0 <= high for low, high in ends]))

    assert 0.89 <= covered(30, bootstrap_interval) <= 0.99
    assert 0.78 <= covered(7, bootstrap_interval) <= 0.95
    assert 0.91 <= covered(7, cautious_interval) <= 1.0


def brute_force_p(values: list[float]) -> float:
    """Share of sign patterns whose mean lies at least as far from zero."""
    observed = abs(sum(values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    return sum(total >= observed - 1e-9 for total in sums) / len(sums)


@pytest.mark.parametrize("count", [3, 5, 7, 10])
def test_sign_flips_equal_brute_force(count: int, rng: np.random.Generator) -> None:
    for shift in (0.0, 0.7, 3.0):
        values = rng.normal(shift, 1.0, count).tolist()
        assert sign_flip_p(values) == pytest.approx(brute_force_p(values))


def test_sign_flips_with_ties_and_zeros_equal_brute_force() -> None:
    assert sign_flip_p(SLEEP) == pytest.approx(brute_force_p(SLEEP))
    assert sign_flip_p([0.0, 0.0, 0.0, 0.0]) == 1.0


def test_the_least_p_of_seven_patients() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == 2 / 2**7


def test_drawn_sign_flips_are_near_the_t_test(rng: np.random.Generator) -> None:
    values = rng.normal(0.35, 1.0, 40)
    expected = stats.ttest_1samp(values, 0.0).pvalue
    assert sign_flip_p(values.tolist()) == pytest.approx(expected, abs=0.02)


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12))
def test_rank_biserial_follows_from_wilcoxons_statistic(values: list[float]) -> None:
    found = rank_biserial(values)
    assert found is not None
    if not any(values):
        assert found == 0.0
        return
    count = sum(value != 0 for value in values)
    total = count * (count + 1) / 2
    positive = stats.wilcoxon(values, alternative="greater", method="asymptotic").statistic
    assert found == pytest.approx(2 * positive / total - 1)


def test_rank_biserial_without_patients() -> None:
    assert rank_biserial([]) is None


def test_holm_by_hand() -> None:
    # Holm 1979: times 3, 2, 1 in ascending order, never falling, at most 1.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_without_statsmodels_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.stats.multitest", None)
    with pytest.raises(MissingExtraError, match=r"medsr\[report\]"):
        check_installed()
    monkeypatch.undo()
    check_installed()


def test_the_cautious_interval_holds_both() -> None:
    inner, outer = bootstrap_interval(SLEEP), cautious_interval(SLEEP)
    by_t = t_interval(SLEEP)
    assert inner is not None
    assert outer is not None
    assert by_t is not None
    assert outer == (min(inner[0], by_t[0]), max(inner[1], by_t[1]))
    assert all(math.isfinite(end) for end in outer)

"""The learning rate as a share of its peak: warm-up, plateau, cosine, end."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from medsr.recipe import OptimiserRecipe
from medsr.train.optimiser import learning_rate_share

COSINE = OptimiserRecipe(final_share=0.1, warmup_steps=9, plateau=0)


def test_warm_up_rises_in_even_steps_from_a_tenth_to_all() -> None:
    flat = OptimiserRecipe(final_share=1.0, warmup_steps=9)
    shares = [learning_rate_share(step, 1000, flat) for step in range(12)]
    assert shares == pytest.approx([0.1 * (step + 1) for step in range(10)] + [1, 1])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate_share(0, 100, OptimiserRecipe(warmup_steps=0)) == 1


def test_after_the_warm_up_a_half_cosine_falls_to_the_final_share() -> None:
    shares = [learning_rate_share(step, 100, COSINE) for step in range(9, 101)]
    assert all(later < earlier for earlier, later in pairwise(shares))
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * 0.25)) / 2
    assert learning_rate_share(25, 100, COSINE) == pytest.approx(expected)
    assert learning_rate_share(50, 100, COSINE) == pytest.approx(0.55)
    assert learning_rate_share(99, 100, COSINE) == pytest.approx(0.1, rel=0.01)
    assert shares[-1] == pytest.approx(0.1)


def test_the_cosine_starts_where_the_plateau_ends() -> None:
    recipe = OptimiserRecipe(final_share=0.0, warmup_steps=0, plateau=0.6)
    shares = [learning_rate_share(step, 100, recipe) for step in range(101)]
    assert shares[:61] == [1.0] * 61
    assert shares[80] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0.0)

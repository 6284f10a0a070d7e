"""The learning rate as a function of the step alone, so that a resumed run needs no state."""

from __future__ import annotations

import math

from medsr.recipe import OptimiserRecipe


def learning_rate(step: int, steps: int, recipe: OptimiserRecipe) -> float:
    """Linear warm-up, then a half cosine down to ``final_share`` of the peak.

    Args:
        step: Step about to be taken, from 0.
        steps: Steps in all.
        recipe: Peak, warm-up and final share.
    """
    warm = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
    progress = min(1.0, step / max(1, steps))
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    share = recipe.final_share + (1 - recipe.final_share) * cosine
    return recipe.learning_rate * warm * share

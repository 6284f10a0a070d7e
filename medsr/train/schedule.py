"""The learning rate as a function of the step alone, so that a resumed run needs no state."""

from __future__ import annotations

import math

from medsr.recipe import OptimiserRecipe


def learning_rate_share(step: int, steps: int, recipe: OptimiserRecipe) -> float:
    """Return the share of the peak learning rate: linear warm-up, plateau, cosine to the end.

    Args:
        step: Step about to be taken, from 0.
        steps: Steps in all.
        recipe: Warm-up, length of the plateau and final share.
    """
    warm = min(1.0, (step + 1) / (recipe.warmup_steps + 1))
    progress = step / max(1, steps)
    falling = max(0.0, progress - recipe.plateau) / max(1e-9, 1 - recipe.plateau)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, falling)))
    return warm * (recipe.final_share + (1 - recipe.final_share) * cosine)

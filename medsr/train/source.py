"""Where a run's training pairs come from: how low resolution is simulated, and the stream.

``cohort`` says which scans there are, ``medsr.data`` cuts the patches.
"""

from __future__ import annotations

from typing import Any, Protocol

from medsr.batch import Batch
from medsr.data.patches import PatchStream
from medsr.data.slices import SliceStream
from medsr.data.synthetic import SyntheticStream
from medsr.degrade import Degradation, build_degradation
from medsr.degrade.slices import Slices
from medsr.recipe import Recipe, at_key
from medsr.train.cohort import Cohort


class Stream(Protocol):
    """What gives a run its batches."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, always the same for the same step."""
        ...


def simulation(recipe: Recipe) -> Degradation[Any]:
    """Return the recipe's degradation, that of all scans without one of their own.

    Raises:
        RecipeError: It is unknown or does not take its options.
    """
    with at_key("degradation"):
        kind, factor = recipe.degradation.kind, recipe.degradation.factor
        return build_degradation(kind, factor, **recipe.degradation.options)


def simulations(recipe: Recipe) -> dict[str, Degradation[Any]]:
    """Return the degradation of each modality that the recipe names.

    Raises:
        RecipeError: One is unknown or does not take its options.
    """
    degradations = dict.fromkeys(recipe.data.modalities, simulation(recipe))
    for modality, other in recipe.degradation.by_modality.items():
        with at_key(f"degradation.by_modality.{modality}"):
            factor = recipe.degradation.factor
            degradations[modality] = build_degradation(other.kind, factor, **other.options)
    return {str(modality): degradations[modality] for modality in recipe.data.modalities}


def open_stream(recipe: Recipe, cohort: Cohort, rank: int) -> Stream:
    """Return the stream of the recipe's training pairs.

    Args:
        recipe: Scans or synthetic volumes, patches, seed.
        cohort: Prepared scans; without training scans where volumes are synthetic.
        rank: Number of the process.

    Raises:
        CohortError: No scan is as large as a patch.
        RecipeError: A degradation cannot be built.
    """
    degradations = simulations(recipe)
    if recipe.data.synthetic is not None:
        return SyntheticStream(
            degradations, recipe.patches, recipe.data.synthetic, recipe.seed, rank
        )
    slices = degradations[recipe.data.modalities[0]]
    if isinstance(slices, Slices) and recipe.network.name == "KnotPlain3D":
        return SliceStream(cohort.train, slices, recipe.patches, recipe.seed, rank)
    return PatchStream(cohort.train, degradations, recipe.patches, recipe.seed, rank)

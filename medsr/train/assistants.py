"""Teacher assistants: a run as a chain of stages, each under the network of the one before.

A large gap between teacher and student is bridged by networks of sizes between them. Each stage is
a run of its own in ``RUN/assistants/``, with checkpoint, log and model; the last stage is the
student's, in the run folder itself.

Source: Mirzadeh et al., "Improved knowledge distillation via teacher assistant", AAAI 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from medsr.model import SRModel
from medsr.networks import build_network
from medsr.recipe import Recipe, at_key
from medsr.spec import SPEC_FILE
from medsr.train.objective import build_objective

MODEL_FOLDER = "model"
ASSISTANTS_FOLDER = "assistants"


@dataclass(frozen=True)
class Stage:
    """One training of a chain.

    Attributes:
        recipe: What is trained; its own assistants are those that come before it.
        folder: Its run folder.
        previous: The stage whose network teaches; None where the recipe's own teacher does, or
            none.
    """

    recipe: Recipe
    folder: Path
    previous: Stage | None = None

    @property
    def model(self) -> Path:
        """Folder of the model that comes out."""
        return self.folder / MODEL_FOLDER

    @property
    def is_whole(self) -> bool:
        """Whether the model is there."""
        return (self.model / SPEC_FILE).is_file()

    def teacher(self) -> nn.Module | None:
        """Load the network of the stage before; None where there is none before it."""
        return None if self.previous is None else SRModel.load(self.previous.model).module


def stages(recipe: Recipe, folder: Path) -> list[Stage]:
    """Return the trainings that a recipe asks for, in their order; the student's is the last.

    Args:
        recipe: The whole recipe.
        folder: Run folder of the student.
    """
    chain: list[Stage] = []
    for number, assistant in enumerate(recipe.assistants):
        own = replace(
            recipe,
            name=f"{recipe.name}-{assistant.name}",
            role="teacher",
            network=assistant.network,
            assistants=recipe.assistants[:number],
            loop=replace(recipe.loop, steps=assistant.steps or recipe.loop.steps),
        )
        place = folder / ASSISTANTS_FOLDER / f"{number + 1}-{assistant.name}"
        chain.append(Stage(own, place, chain[-1] if chain else None))
    return [*chain, Stage(recipe, folder, chain[-1] if chain else None)]


def check_stages(chain: list[Stage]) -> None:
    """Build what the later stages will need, so that a wrong name or tap is told at the start.

    Raises:
        RecipeError: A network, loss or term is unknown, does not take its options, or does not
            find its taps in the assistant that will teach.
    """
    for stage in chain[1:]:
        before = chain[chain.index(stage) - 1].recipe
        with at_key(f"assistants.{len(before.assistants)}.network"):
            teacher = build_network(
                before.network.name, before.degradation.factor, **before.network.options
            )
        build_objective(stage.recipe, teacher.merged())

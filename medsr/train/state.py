"""All that a training run carries from step to step, and how it becomes a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medsr.errors import CheckpointError, RecipeError
from medsr.networks import SRNetwork
from medsr.networks.adapters import merge_adapters
from medsr.recipe import Recipe, recipe_from_dict
from medsr.train.checkpoint import load_checkpoint, save_checkpoint
from medsr.train.objective import Objective, build_objective, build_student
from medsr.train.optimiser import Optimiser

FREE_KEYS = ("log_every", "checkpoint_every", "validate_every")

_FOREIGN = (KeyError, TypeError, ValueError, RuntimeError, AttributeError, RecipeError)
"""What comes of taking over the checkpoint of another version."""


@dataclass
class TrainState:
    """The state of a run.

    Attributes:
        objective: Student, losses and terms.
        optimiser: Muon and AdamW over the objective's parameters.
        ema: Moving average of the student's weights.
        step: Steps taken.
        running: Sums of the losses since the last line of the log.
    """

    objective: Objective
    optimiser: Optimiser
    ema: AveragedModel
    step: int = 0
    running: dict[str, float] = field(default_factory=dict)

    @classmethod
    def fresh(
        cls, recipe: Recipe, device: torch.device, teacher: nn.Module | None = None
    ) -> TrainState:
        """Build everything as the recipe says; the seed decides the initial weights.

        Args:
            recipe: What to build.
            device: Where the networks go.
            teacher: Network that teaches in the place of the recipe's teacher.
        """
        objective = build_objective(recipe, teacher).to(device)
        optimiser = Optimiser(objective, recipe.optimiser, objective.adversaries)
        shadow = build_student(recipe, start=None)
        shadow.load_state_dict(objective.network.state_dict())
        average = get_ema_multi_avg_fn(recipe.optimiser.ema_decay)  # type: ignore[no-untyped-call]
        return cls(objective, optimiser, AveragedModel(shadow.to(device), multi_avg_fn=average))

    def averaged(self) -> SRNetwork:
        """Return the moving average as a merged network in evaluation mode."""
        network: SRNetwork = self.ema.module  # type: ignore[assignment]
        return merge_adapters(network).merged().eval()

    def save(self, folder: Path, recipe: Recipe) -> None:
        """Write the checkpoint: all that the next step depends on."""
        save_checkpoint(
            {
                "step": self.step,
                "recipe": recipe.to_yaml(),
                "objective": self.objective.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "ema": self.ema.module.state_dict(),
                "ema_updates": self.ema.n_averaged,
                "running": dict(self.running),
                "random": torch.get_rng_state(),
            },
            folder,
        )

    def restore(self, folder: Path, recipe: Recipe) -> None:
        """Load the folder's checkpoint where there is one.

        Raises:
            CheckpointError: It is damaged, or was made by another recipe.
        """
        saved = load_checkpoint(folder)
        if saved is None:
            return
        try:
            same = _comparable(saved["recipe"]) == _comparable(recipe.to_yaml())
            if same:
                self._take(saved)
        except _FOREIGN as error:
            raise CheckpointError(
                f"checkpoint in {folder.name}: is none of this version of medsr; "
                "choose another --out or start again with --restart"
            ) from error
        if not same:
            raise CheckpointError(
                f"run folder {folder.name} holds a checkpoint of another recipe; "
                "choose another --out or start again with --restart"
            )

    def _take(self, saved: dict[str, Any]) -> None:
        self.objective.load_state_dict(saved["objective"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.ema.module.load_state_dict(saved["ema"])
        self.ema.n_averaged.copy_(saved["ema_updates"])
        self.step = int(saved["step"])
        self.running = dict(saved["running"])
        torch.set_rng_state(saved["random"])


def _comparable(text: str) -> dict[str, Any]:
    """Return what must agree between a checkpoint and its recipe."""
    # Through the recipe: an older one lacks keys that have come since, and has their defaults.
    plain = recipe_from_dict(yaml.safe_load(text)).to_dict()
    for key in FREE_KEYS:
        plain["loop"].pop(key, None)
    plain.pop("description", None)
    plain["data"].pop("manifest", None)
    return plain

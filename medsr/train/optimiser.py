"""The optimiser, Muon for the hidden kernels and AdamW for everything else, and its schedule.

A hidden convolution's kernel is a matrix from (input channels × 27 neighbours) to output channels.
Muon orthogonalises the momentum of such matrices, which on these networks reaches a given error in
a fraction of AdamW's steps. PyTorch's Muon takes matrices only, so it is given views of the
kernels; they share storage with the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from medsr.recipe import OptimiserRecipe

OUTER = ("head", "tail")
"""First and last layers: maps to and from intensities, which stay with AdamW."""


ADVERSARY_BETAS = (0.5, 0.99)
"""Adam's momenta for adversaries: a short memory, since what they judge keeps changing."""


class Optimiser:
    """AdamW, joined by Muon where the recipe gives it a learning rate, and Adam for adversaries.

    Args:
        module: What is trained; already on its device.
        recipe: Learning rates, momenta, decay.
        adversaries: Submodules that learn against the rest, each with its learning rate. Their
            gradients are clipped and their steps taken apart from the others'.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: OptimiserRecipe,
        adversaries: Sequence[tuple[nn.Module, float]] = (),
    ):
        adversary_ids = {id(p) for network, _ in adversaries for p in network.parameters()}
        named = {
            name: p
            for name, p in module.named_parameters()
            if p.requires_grad and id(p) not in adversary_ids
        }
        hidden = {
            name: p
            for name, p in named.items()
            if recipe.muon_learning_rate and p.ndim == 5 and p.shape[2:].numel() > 1
            if not set(OUTER) & set(name.split("."))
        }
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        for parameter in hidden.values():
            parameter.data = parameter.data.contiguous()
            self._pairs.append((parameter, nn.Parameter(parameter.data.flatten(1))))
        self.parameters = list(named.values())
        self.adamw = torch.optim.AdamW(
            [p for name, p in named.items() if name not in hidden],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self.muon = (
            torch.optim.Muon(
                [matrix for _, matrix in self._pairs],
                lr=recipe.muon_learning_rate,
                weight_decay=recipe.muon_weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
            if self._pairs
            else None
        )
        self.adversaries = [p for network, _ in adversaries for p in network.parameters()]
        self.adam = (
            torch.optim.Adam(
                [{"params": [*network.parameters()], "lr": rate} for network, rate in adversaries],
                betas=ADVERSARY_BETAS,
            )
            if self.adversaries
            else None
        )
        self._peaks = [
            [group["lr"] for group in optimiser.param_groups]
            for optimiser in self._optimisers().values()
        ]

    def clip(self, max_norm: float) -> float:
        """Scale all gradients together to at most this norm; return the norm before.

        Those of adversaries are scaled apart; their norm counts where it is not finite.
        """
        norm = float(nn.utils.clip_grad_norm_(self.parameters, max_norm))
        if self.adversaries:
            other = float(nn.utils.clip_grad_norm_(self.adversaries, max_norm))
            return norm if math.isfinite(other) else other
        return norm

    def step(self, share: float) -> None:
        """Take one step and forget the gradients.

        Args:
            share: Share of the peak learning rates, see :func:`learning_rate_share`.
        """
        for parameter, matrix in self._pairs:
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        for optimiser, peaks in zip(self._optimisers().values(), self._peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimiser.step()
        matrices = (matrix for _, matrix in self._pairs)
        for tensor in (*self.parameters, *matrices, *self.adversaries):
            tensor.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all optimisers by name."""
        return {name: optimiser.state_dict() for name, optimiser in self._optimisers().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        own = self._optimisers()
        if own.keys() != state.keys():
            raise ValueError(f"optimisers {sorted(state)} are stored, {sorted(own)} are needed")
        for name, optimiser in own.items():
            optimiser.load_state_dict(state[name])

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        optimisers = {"adamw": self.adamw, "muon": self.muon, "adversaries": self.adam}
        return {name: optimiser for name, optimiser in optimisers.items() if optimiser is not None}


def learning_rate_share(step: int, steps: int, recipe: OptimiserRecipe) -> float:
    """Return the share of the peak learning rate: linear warm-up, plateau, cosine to the end.

    It depends on the step alone, so that a resumed run needs no state of it.

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

"""The optimiser: Muon for the hidden kernels, AdamW for everything else.

A hidden convolution's kernel is a matrix from (input channels × 27 neighbours) to output channels.
Muon orthogonalises the momentum of such matrices, which on these networks reaches a given error in
a fraction of AdamW's steps. PyTorch's Muon takes matrices only, so it is given views of the
kernels; they share storage with the parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medsr.recipe import OptimiserRecipe

OUTER = ("head", "tail")
"""First and last layers: maps to and from intensities, which stay with AdamW."""


class Optimiser:
    """AdamW, joined by Muon where the recipe gives it a learning rate.

    Args:
        module: What is trained; already on its device.
        recipe: Learning rates, momenta, decay.
    """

    def __init__(self, module: nn.Module, recipe: OptimiserRecipe):
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
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
        self._peaks = (recipe.learning_rate, recipe.muon_learning_rate)

    def clip(self, max_norm: float) -> float:
        """Scale all gradients together to at most this norm; return the norm before."""
        return float(nn.utils.clip_grad_norm_(self.parameters, max_norm))

    def step(self, share: float) -> None:
        """Take one step and forget the gradients.

        Args:
            share: Share of the peak learning rates, see :mod:`medsr.train.schedule`.
        """
        for parameter, matrix in self._pairs:
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        for optimiser, peak in zip(self._optimisers(), self._peaks, strict=False):
            for group in optimiser.param_groups:
                group["lr"] = peak * share
            optimiser.step()
        for tensor in (*self.parameters, *(matrix for _, matrix in self._pairs)):
            tensor.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimisers."""
        names = ("adamw", "muon")
        return {n: o.state_dict() for n, o in zip(names, self._optimisers(), strict=False)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for optimiser, part in zip(self._optimisers(), state.values(), strict=True):
            optimiser.load_state_dict(part)

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        return [self.adamw] if self.muon is None else [self.adamw, self.muon]

"""The losses beside each other: their weights, and whether they pull in one direction.

Weights are fixed, move with the run, or are learned by uncertainty. The losses themselves are in
``objective``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.recipe import Learned, Ramp, Weight


class LossWeights(nn.Module):
    """Weighs named losses.

    A learned weight is ``exp(-s)`` of a trained ``s``, with ``s`` added to the loss so that the
    weight cannot vanish: a loss that stays large is trusted less. Relative weights are learned
    where at least two losses have one.

    Args:
        weights: A weight for each loss's name.

    Source: Kendall, Gal, Cipolla, "Multi-task learning using uncertainty to weigh losses for scene
        geometry and semantics", CVPR 2018, in the Laplace form for absolute errors.
    """

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.log_scale = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(-math.log(weight.learned)))
                for name, weight in weights.items()
                if isinstance(weight, Learned)
            }
        )

    def now(self, name: str, progress: float) -> float:
        """Return the weight of a loss when this share of the run is over."""
        weight = self.weights[name]
        if isinstance(weight, Learned):
            return math.exp(-self.log_scale[name].item())
        if isinstance(weight, Ramp):
            return _ramp(weight, progress)
        return weight

    def active(self, progress: float) -> set[str]:
        """Return the losses whose weight is not zero now."""
        return {name for name in self.weights if self.now(name, progress) > 0}

    def forward(self, losses: Mapping[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return every loss times its weight.

        Args:
            losses: Scalars by name, each a name that has a weight.
            progress: Share of the run that is over, from 0 to 1.
        """
        weighed = {}
        for name, loss in losses.items():
            if name in self.log_scale:
                scale = self.log_scale[name]
                weighed[name] = torch.exp(-scale) * loss + scale
            else:
                weighed[name] = self.now(name, progress) * loss
        return weighed


def gradient_cosines(
    losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]
) -> dict[str, float]:
    """Return the cosine between the gradients of every pair of losses.

    The graph is kept, so that the step can be taken afterwards; no ``.grad`` is touched.

    Args:
        losses: Scalars by name that share one graph.
        parameters: What the gradients are taken of, usually the student's parameters.

    Returns:
        Values in [-1, 1] by ``"first~second"``; below 0 a step for one loss undoes some of the
        other's. A loss that does not reach the parameters is left out.

    Source: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, section 2.
    """
    vectors = {}
    for name, loss in losses.items():
        if not loss.requires_grad:
            continue
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
        vector = torch.cat([g.detach().float().flatten() for g in gradients])
        if vector.abs().max() > 0:
            vectors[name] = vector
    return {
        f"{first}~{second}": float(functional.cosine_similarity(a, b, dim=0))
        for (first, a), (second, b) in combinations(vectors.items(), 2)
    }


def _ramp(weight: Ramp, progress: float) -> float:
    if progress <= weight.begin:
        # A ramp of no length is a step: what begins at 0.8 and arrives at 0.8 has changed there.
        arrived = progress == weight.until == weight.begin and progress > 0
        return weight.end if arrived else weight.start
    if progress >= weight.until:
        return weight.end
    share = (progress - weight.begin) / (weight.until - weight.begin)
    return weight.start + share * (weight.end - weight.start)

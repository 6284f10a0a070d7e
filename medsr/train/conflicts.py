"""Do the losses pull the student in one direction? Cosines between their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional


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

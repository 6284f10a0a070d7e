"""Attacks: the small change of an input that hurts a network most, by its own gradient.

Training against them is :mod:`medsr.distill.terms.robust`; reports are ``medsr.evaluate``'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def pgd(
    harm: Callable[[Tensor], Tensor],
    lr: Tensor,
    radius: float,
    steps: int,
    start: Tensor,
    lowest: float = -math.inf,
) -> Tensor:
    """Climb a loss within a box around the input: projected gradient descent, turned round.

    Each step moves every voxel by 2.5 · radius / steps up the gradient's sign and back into the
    box, so that the far side of the box is reached from any start.

    Args:
        harm: Gives the loss to raise, one value a volume (B,), for perturbed inputs like ``lr``.
        lr: Inputs (B, 1, X, Y, Z).
        radius: Half the width of the box, in units of ``lr``; from 0.
        steps: Steps of the climb; from 0.
        start: Perturbation to begin with, of the shape of ``lr``.
        lowest: No voxel is lowered below this; for what no scanner writes, such as a magnitude
            below zero. Voxels that lie lower already may rise only.

    Returns:
        Perturbed inputs like ``lr``, without gradient, no voxel further from ``lr`` than
        ``radius``: for each volume the worst that was met on the way.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR
        2018, section 2.1.
    """
    lr = lr.detach()
    low, high = torch.maximum(lr - radius, lr.clamp(max=lowest)), lr + radius
    stride = 2.5 * radius / max(steps, 1)

    def inside(volumes: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(volumes.detach(), low), high)

    tried = inside(lr + start)
    worst = tried.detach()
    most = torch.full((lr.shape[0],), -math.inf, device=lr.device)
    for left in range(steps, -1, -1):
        with torch.set_grad_enabled(left > 0):
            tried.requires_grad_(left > 0)
            losses = harm(tried).float()
            slope = torch.autograd.grad(losses.sum(), tried)[0] if left else None
        worse = (losses.detach() > most).reshape(-1, 1, 1, 1, 1)
        worst = torch.where(worse, tried.detach(), worst)
        most = torch.maximum(most, losses.detach())
        if slope is not None:
            tried = inside(tried + stride * slope.sign())
    return worst


@contextmanager
def at_inference(network: nn.Module) -> Iterator[nn.Module]:
    """Put a network into evaluation mode for a ``with`` block, gradients untouched.

    So neither the running statistics of batch norm nor the vectors of a power iteration take notice
    of inputs that were made up. Every module's mode is put back.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield network.eval()
    finally:
        for module, training in modes:
            module.training = training

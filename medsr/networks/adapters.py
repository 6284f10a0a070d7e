"""Low-rank adapters: a trained network learns a little more through a few new parameters.

An adapter adds a low-rank matrix to a convolution's kernel; the kernel itself and everything else
stay frozen. It works on the kernel and not beside the convolution, so whatever reads the weight
sees the adapted one, and merging is exact at the borders too. Which model is adapted to which scans
is ``medsr.train.adapt``'s affair.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)
"""What takes an adapter."""


class LowRankUpdate(nn.Module):
    """Adds ``alpha / rank · up @ down`` to a kernel, as a parametrisation of its weight.

    For a plain convolution this is a convolution of the kernel's size to ``rank`` channels
    (``down``), followed by one of size 1 (``up``), beside the frozen one. ``up`` starts at zero,
    so a fresh adapter changes no bit of the kernel.

    Args:
        shape: Shape of the kernel; all axes but the first are taken together.
        rank: Rank of the update; lowered to half the smaller side of the kernel's matrix, above
            which an update is hardly smaller than the kernel.
        alpha: The update is multiplied by ``alpha / rank`` (the rank as given), so that a change
            of rank asks for no other learning rate.

    Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.

    Examples:
        >>> import torch
        >>> from medsr.networks.adapters import LowRankUpdate
        >>> kernel = torch.rand(16, 16, 3, 3, 3)
        >>> update = LowRankUpdate(kernel.shape, rank=4, alpha=4.0)
        >>> torch.equal(update(kernel), kernel)  # a fresh one changes nothing
        True
        >>> sum(p.numel() for p in update.parameters()), kernel.numel()
        (1792, 6912)
    """

    def __init__(self, shape: Sequence[int], rank: int, alpha: float):
        super().__init__()
        rows, columns = shape[0], math.prod(shape[1:])
        low_rank = max(1, min(rank, rows // 2, columns // 2))
        self.factor = alpha / rank
        self.down = nn.Parameter(torch.randn(low_rank, columns) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, low_rank))

    def forward(self, kernel: Tensor) -> Tensor:
        """Return the adapted kernel, of the kernel's shape and type."""
        # Small changes to a kernel do not survive bf16; the convolution itself may still use it.
        with torch.autocast(kernel.device.type, enabled=False):
            return kernel + self.factor * (self.up @ self.down).view_as(kernel)


def add_adapters(
    network: nn.Module, rank: int = 4, alpha: float = 4.0, layers: Sequence[str] = ("*",)
) -> int:
    """Freeze a network in place and give its convolutions adapters, which alone are trained.

    Args:
        network: A trained network with its training-time branches merged.
        rank: Rank of every update, from 1.
        alpha: See :class:`LowRankUpdate`; positive.
        layers: Patterns of module names, such as ``"body.*"``; convolutions that fit one of them
            are adapted.

    Returns:
        The number of parameters that are left to train.

    Raises:
        ValueError: If rank or alpha is out of range, no convolution fits, or a weight is
            parametrised already.

    Examples:
        >>> from medsr import SRModel
        >>> from medsr.networks.adapters import add_adapters
        >>> network = SRModel.load("mr-z4").module
        >>> trained = add_adapters(network, rank=4, layers=("body.*",))
        >>> trained == sum(p.numel() for p in network.parameters() if p.requires_grad)
        True
    """
    if rank < 1 or not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"rank is {rank} and alpha {alpha}; they must be at least 1 and above 0")
    chosen = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, CONVOLUTIONS) and any(fnmatch(name, layer) for layer in layers)
    }
    if not chosen:
        raise ValueError(f"no convolution fits the layers {', '.join(layers) or '(none)'}")
    for name, module in chosen.items():
        if parametrize.is_parametrized(module):
            raise ValueError(f"the weight of {name} is parametrised already; merge the network")
    network.requires_grad_(False)
    trained = 0
    for module in chosen.values():
        weight = module.weight
        update = LowRankUpdate(weight.shape, rank, alpha).to(weight.device, weight.dtype)
        parametrize.register_parametrization(module, "weight", update)
        trained += sum(parameter.numel() for parameter in update.parameters())
    return trained


def merge_adapters(network: Network) -> Network:
    """Return a copy of a network whose kernels hold what the adapters added.

    Args:
        network: Network with or without adapters; left as it is.

    Returns:
        The plain network, with the names and shapes of parameters that it had before it was
        adapted; those that were frozen stay so.

    Examples:
        >>> import torch
        >>> from medsr import SRModel
        >>> from medsr.networks.adapters import add_adapters, merge_adapters
        >>> network = SRModel.load("mr-z4").module
        >>> names = set(network.state_dict())
        >>> _ = add_adapters(network, rank=2)
        >>> set(merge_adapters(network).state_dict()) == names  # an ordinary network again
        True
    """
    plain = copy.deepcopy(network)
    for module in _adapted(plain):
        with torch.no_grad():
            kernel = cast(Tensor, module.weight).clone()
        # Not parametrize.remove_parametrizations: it takes the property ``weight`` off a class
        # that the copy shares with the original, which would lose it too.
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        module.weight = nn.Parameter(kernel, requires_grad=False)
    return plain


def _adapted(network: nn.Module) -> Iterator[nn.Module]:
    """Modules whose weight an adapter updates."""
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            updates = cast(nn.ModuleDict, module.parametrizations)["weight"]
            if isinstance(cast(nn.ModuleList, updates)[0], LowRankUpdate):
                yield module

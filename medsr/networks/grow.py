"""Start a large plain network as exactly the function of a small one.

A teacher grown from a trained student begins where the student stopped, instead of learning the
same again at many times the cost.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from medsr.networks.repplain import RepConv3d, RepPlain3D


def grow(small: RepPlain3D, large: RepPlain3D) -> None:
    """Set ``large``'s parameters so that it computes what ``small`` computes, borders included.

    New channels keep their random incoming weights and get zero outgoing weights; new layers are
    identities, which a ReLU in front makes exact. So nothing changes at first, and gradients reach
    every new weight within two steps.

    Args:
        small: Trained network.
        large: At least as wide and as deep, of the same scale, fold, interpolation and head.

    Raises:
        ValueError: If ``large`` is no larger version of ``small``.

    Source: Chen, Goodfellow, Shlens 2016, "Net2Net: Accelerating Learning via Knowledge Transfer",
        with zero outgoing weights in place of copied channels.

    Examples:
        >>> import torch
        >>> from medsr.networks import RepPlain3D
        >>> from medsr.networks.grow import grow
        >>> small = RepPlain3D((1, 1, 4), width=16, depth=2)
        >>> large = RepPlain3D((1, 1, 4), width=32, depth=3)
        >>> grow(small, large)
        >>> lr = torch.rand(1, 1, 8, 8, 4)
        >>> torch.allclose(small(lr), large(lr), atol=1e-5)
        True
    """
    same = ("scale", "fold", "interpolation", "head_options")
    if any(getattr(small, name) != getattr(large, name) for name in same):
        raise ValueError("growing keeps scale, fold, interpolation and head")
    if large.spectral_norm is not None:
        raise ValueError("a network with spectral_norm cannot be grown: its kernels are not free")
    width, depth = small.width, len(small.body)
    if large.width < width or len(large.body) < depth:
        raise ValueError(
            f"cannot grow {width} channels × {depth} convolutions "
            f"into {large.width} × {len(large.body)}"
        )
    plain = small.merged()
    kernels, biases = _convolutions(plain)
    with torch.no_grad():
        large.head.weight[:width] = plain.head.weight
        _bias(large.head)[:width] = _bias(plain.head)
        for i, layer in enumerate(large.body):
            target = _kernel(layer)
            target[:width, width:] = 0
            same_size = torch.empty_like(target[:width, :width])
            target[:width, :width] = kernels[i] if i < depth else nn.init.dirac_(same_size)
            _bias(layer)[:width] = biases[i] if i < depth else 0
            # The plain kernel takes up what the branches leave.
            _weight(layer).add_(target - _kernel(layer))
        large.tail.weight[:, :width] = plain.tail.weight
        large.tail.weight[:, width:] = 0
        _bias(large.tail).copy_(_bias(plain.tail))


def _convolutions(plain: RepPlain3D) -> tuple[list[Tensor], list[Tensor]]:
    return [_kernel(layer) for layer in plain.body], [_bias(layer) for layer in plain.body]


def _kernel(layer: nn.Module) -> Tensor:
    """Return a copy of the layer's one kernel, ``(out, in, 3, 3, 3)``."""
    kernel = layer.kernel() if isinstance(layer, RepConv3d) else _weight(layer)
    return kernel.detach().clone()


def _weight(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def _bias(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.bias)

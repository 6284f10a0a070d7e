"""``ResNet3D``: a residual network in the EDSR manner, the default teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks.blocks import SRNetwork, Triple, check_width, conv3


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, added to the input; no normalisation layers.

    The second convolution starts small, which takes the place of EDSR's fixed residual scaling.

    Source: Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image
    Super-Resolution", section 3.1.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = conv3(width, width)
        self.second = conv3(width, width)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        out: Tensor = x + self.second(functional.relu(self.first(x)))
        return out


class ResNet3D(SRNetwork):
    """Residual blocks between a head and a voxel-shuffle tail, one long skip around them.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the body, a multiple of 16.
        blocks: Residual blocks (two convolutions each).
        fold: Voxels folded into channels before the head, see :class:`SRNetwork`.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 64,
        blocks: int = 8,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
    ):
        super().__init__(scale, fold, interpolation)
        check_width(width)
        self.width = width
        self.radius = 3 + 2 * blocks
        self.head = conv3(self.in_channels, width)
        self.body = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.fuse = conv3(width, width)
        self.tail = conv3(width, self.out_channels)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.taps = (*(f"body.{i}" for i in range(blocks)), "fuse")

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        head = self.head(folded)
        x = head
        for block in self.body:
            x = block(x)
        out: Tensor = self.tail(self.fuse(x) + head)
        return out

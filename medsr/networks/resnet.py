"""``ResNet3D``: a residual network in the EDSR manner, the default teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import ResidualTrunk, check_width, conv3
from medsr.networks.heads import Head
from medsr.types import Triple


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


@NETWORKS.register(
    "ResNet3D",
    small={"width": 16, "blocks": 1},
    recipe="configs/teachers/mr-z4-resnet.yaml",
)
class ResNet3D(ResidualTrunk):
    """Residual blocks between a head and a voxel-shuffle tail, one long skip around them.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the body, a multiple of 16.
        blocks: Residual blocks (two convolutions each).
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution",
        figure 3.

    Examples:
        >>> import torch
        >>> from medsr.networks import ResNet3D
        >>> teacher = ResNet3D((1, 1, 4), width=32, blocks=2)
        >>> lr = torch.rand(1, 1, 8, 8, 4)
        >>> torch.equal(teacher(lr), lr.repeat_interleave(4, dim=-1))  # starts as the nearest voxel
        True
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 64,
        blocks: int = 8,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        check_width(width)
        body = [ResidualBlock(width) for _ in range(blocks)]
        super().__init__(scale, width, body, 2 * blocks, fold, interpolation, head)

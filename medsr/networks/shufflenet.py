"""``ShuffleNet3D``: units that work on half of the channels and shuffle them afterwards."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import ResidualTrunk, check_width, conv1, depthwise3, he_normal
from medsr.networks.heads import Head
from medsr.types import Triple


def interleave(first: Tensor, second: Tensor) -> Tensor:
    """Join two tensors with their channels taken in turn.

    It equals ``torch.cat`` followed by a channel shuffle of two groups, in one copy, and gives
    ``channels_last_3d``.

    Args:
        first: Tensor ``(B, C, X, Y, Z)``, which gives the even channels.
        second: Tensor of the same shape, which gives the odd ones.

    Returns:
        Tensor ``(B, 2·C, X, Y, Z)``.

    Source: Zhang et al. 2018, "ShuffleNet", section 3.1, with two groups.
    """
    pairs = torch.stack((first.movedim(1, -1), second.movedim(1, -1)), dim=-1)
    return pairs.flatten(-2).movedim(-1, 1)


class ShuffleUnit(nn.Module):
    """Keep half of the channels, filter the others (1³, depthwise 3³, 1³), and shuffle.

    Source: Ma et al. 2018, "ShuffleNet V2", figure 3 (c), without batch norm.
    """

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        self.first = he_normal(conv1(half, half))
        self.depthwise = he_normal(depthwise3(half), slope=1.0)
        self.second = he_normal(conv1(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        kept, taken = x.chunk(2, dim=1)
        taken = self.depthwise(functional.relu(self.first(taken)))
        return interleave(kept, functional.relu(self.second(taken)))


@NETWORKS.register(
    "ShuffleNet3D",
    small={"width": 32, "blocks": 2},
    recipe="configs/students/mr-z4-shufflenet.yaml",
    compared={"width": 192, "blocks": 8},
)
class ShuffleNet3D(ResidualTrunk):
    """ShuffleNetV2's units in three dimensions, without batch norm.

    A unit leaves half of the channels as they are, so a wide trunk costs little; the shuffle
    copies all of them, which no count of operations shows.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk; half of them is a multiple of 16.
        blocks: Units.
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture
    Design".

    Examples:
        >>> import torch
        >>> from medsr.networks import ShuffleNet3D
        >>> network = ShuffleNet3D((1, 1, 4), width=32, blocks=2)
        >>> network(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 1, 8, 8, 16])
        >>> sum(p.numel() for p in network.parameters())
        7396
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 192,
        blocks: int = 8,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        check_width(width)
        check_width(width // 2, "half of the width")
        body = [ShuffleUnit(width) for _ in range(blocks)]
        super().__init__(scale, width, body, blocks, fold, interpolation, head, pointwise_fuse=True)

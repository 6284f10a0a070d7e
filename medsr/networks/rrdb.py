"""``RRDBNet3D``: residual-in-residual dense blocks, the teacher of published 3D tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import ResidualTrunk, check_width, conv3
from medsr.networks.heads import Head
from medsr.types import Triple

RESIDUAL_SCALE = 0.2
DENSE_CONVOLUTIONS = 5
DENSE_BLOCKS = 3


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it.

    Source: Wang et al. 2018, "ESRGAN", figure 4, with three-dimensional kernels.
    """

    def __init__(self, width: int, growth: int):
        super().__init__()
        last = DENSE_CONVOLUTIONS - 1
        self.convolutions = nn.ModuleList(
            conv3(width + i * growth, growth if i < last else width)
            for i in range(DENSE_CONVOLUTIONS)
        )
        with torch.no_grad():
            for convolution in self.convolutions:
                convolution.weight.mul_(0.5)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        seen = [x]
        for convolution in self.convolutions[:-1]:
            grown = convolution(torch.cat(seen, dim=1))
            seen.append(functional.leaky_relu(grown, 0.2))
        out: Tensor = self.convolutions[-1](torch.cat(seen, dim=1))
        return x + RESIDUAL_SCALE * out


class RRDB(nn.Module):
    """Three dense blocks inside one more residual connection."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.blocks = nn.Sequential(*(DenseBlock(width, growth) for _ in range(DENSE_BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        out: Tensor = self.blocks(x)
        return x + RESIDUAL_SCALE * out


@NETWORKS.register(
    "RRDBNet3D",
    small={"width": 16, "growth": 16, "blocks": 1},
    recipe="configs/teachers/mr-z4-rrdb.yaml",
)
class RRDBNet3D(ResidualTrunk):
    """ESRGAN's generator in three dimensions, with a voxel-shuffle tail.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk, a multiple of 16.
        growth: Channels that each dense convolution adds, a multiple of 16.
        blocks: Residual-in-residual dense blocks (15 convolutions each).
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Wang et al. 2018, "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks".

    Examples:
        >>> import torch
        >>> from medsr.networks import RRDBNet3D
        >>> network = RRDBNet3D((2, 2, 2), width=16, growth=16, blocks=1)
        >>> network(torch.rand(1, 1, 6, 6, 6)).shape
        torch.Size([1, 1, 12, 12, 12])
        >>> network.halo  # 15 convolutions a block, and three around them
        (18, 18, 18)
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 48,
        growth: int = 16,
        blocks: int = 3,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        check_width(width)
        check_width(growth, "growth")
        body = [RRDB(width, growth) for _ in range(blocks)]
        depth = blocks * DENSE_BLOCKS * DENSE_CONVOLUTIONS
        super().__init__(scale, width, body, depth, fold, interpolation, head)
        # What a dense block has seen, its concatenation, and the skips around it.
        seen = width + (DENSE_CONVOLUTIONS - 1) * growth
        self.live_channels = 5 * seen + 2 * self.out_channels

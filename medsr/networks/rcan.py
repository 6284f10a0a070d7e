"""``RCAN3D``: residual channel attention, whose statistics are taken over a window.

RCAN weighs channels by their mean over the whole image. In a volume that is run in tiles such a
mean would differ from tile to tile, and a network that learnt from small patches meets other
statistics on whole scans. Here every voxel's weights come from the mean over a window around it,
in training and in use alike: the reach stays finite, and a tile equals the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import ResidualTrunk, check_count, check_width, conv3
from medsr.networks.heads import Head
from medsr.types import Triple


def local_mean(x: Tensor, window: int) -> Tensor:
    """Average over a cube around each voxel, over those of its voxels that exist.

    Args:
        x: Tensor ``(B, C, X, Y, Z)``.
        window: Edge of the cube in voxels, odd.

    Returns:
        Tensor of the same shape.

    Source: Chu et al. 2022, "Improving Image Restoration by Revisiting Global Information
        Aggregation" (test-time local converter); here in training too, and at borders over the
        voxels that the cube and the scan share.
    """
    # A cube's mean is three means along a line, at borders too, for a fraction of the sums.
    reach = window // 2
    for axis, size in enumerate(x.shape[2:]):
        kernel = [window if a == axis else 1 for a in range(3)]
        # Padded here, since the pooling's own padding refuses scans thinner than its kernel.
        padding = [reach if a == axis else 0 for a in (2, 2, 1, 1, 0, 0)]
        total = window * functional.avg_pool3d(functional.pad(x, padding), kernel, stride=1)
        voxel = torch.arange(size, device=x.device)
        there = (voxel + reach).clamp(max=size - 1) - (voxel - reach).clamp(min=0) + 1
        x = total / there.reshape([-1 if a == axis else 1 for a in range(3)])
    return x


class LocalChannelAttention(nn.Module):
    """Weigh the channels of every voxel by what they hold on average in its neighbourhood.

    Args:
        width: Channels.
        reduction: The weights pass through ``width // reduction`` channels.
        window: See :func:`local_mean`.

    Source: Zhang et al. 2018, "Image Super-Resolution Using Very Deep Residual Channel Attention
        Networks", section 3.3; local as in Chu et al. 2022.
    """

    def __init__(self, width: int, reduction: int, window: int):
        super().__init__()
        self.window = window
        self.squeeze = nn.Conv3d(width, width // reduction, kernel_size=1)
        self.excite = nn.Conv3d(width // reduction, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        # The squeeze is affine per voxel and the mean keeps constants, so their order is free;
        # this one averages fewer channels.
        mean = local_mean(self.squeeze(x), self.window)
        return x * torch.sigmoid(self.excite(functional.relu(mean)))


class AttentionBlock(nn.Module):
    """Convolution, ReLU, convolution, channel attention, added to the input (RCAB).

    Source: Zhang et al. 2018, section 3.4, figure 4. As in ``ResNet3D`` the second convolution
        starts small.
    """

    def __init__(self, width: int, reduction: int, window: int):
        super().__init__()
        self.first = conv3(width, width)
        self.second = conv3(width, width)
        self.attention = LocalChannelAttention(width, reduction, window)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        out: Tensor = x + self.attention(self.second(functional.relu(self.first(x))))
        return out


class ResidualGroup(nn.Module):
    """Attention blocks and a convolution inside one more residual connection (RG).

    Source: Zhang et al. 2018, section 3.2, figure 2.
    """

    def __init__(self, width: int, blocks: int, reduction: int, window: int):
        super().__init__()
        self.blocks = nn.Sequential(
            *(AttentionBlock(width, reduction, window) for _ in range(blocks))
        )
        self.fuse = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        out: Tensor = x + self.fuse(self.blocks(x))
        return out


@NETWORKS.register(
    "RCAN3D",
    small={"width": 16, "groups": 1, "blocks": 1, "window": 3},
    recipe="configs/teachers/mr-z4-rcan.yaml",
)
class RCAN3D(ResidualTrunk):
    """Residual groups of local channel-attention blocks, residual in residual.

    The halo grows by ``2 + window // 2`` folded voxels with every block, so wide windows and many
    blocks make tiles expensive: the defaults reach 66 voxels.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk, a multiple of 16.
        groups: Residual groups, at least 1.
        blocks: Attention blocks in each group (two convolutions each), at least 1.
        reduction: Channel attention passes through ``width // reduction`` channels; a divisor of
            ``width``.
        window: Edge of the cube that channel attention averages over, in folded voxels, odd and
            at least 3.
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Zhang et al. 2018, "Image Super-Resolution Using Very Deep Residual Channel Attention
        Networks"; local statistics after Chu et al. 2022, "Improving Image Restoration by
        Revisiting Global Information Aggregation".

    Examples:
        >>> import torch
        >>> from medsr.networks import RCAN3D
        >>> network = RCAN3D((1, 1, 4), width=16, groups=1, blocks=2)
        >>> network(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 1, 8, 8, 16])
        >>> network.halo  # local means widen it with every block
        (14, 14, 14)
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 64,
        groups: int = 3,
        blocks: int = 4,
        reduction: int = 4,
        window: int = 7,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        check_width(width)
        check_count(groups, "groups")
        check_count(blocks, "blocks")
        if reduction < 1 or width % reduction:
            raise ValueError(f"reduction is {reduction}; it must be a divisor of width {width}")
        if window < 3 or window % 2 == 0:
            raise ValueError(f"window is {window}; it must be odd and at least 3")
        body = [ResidualGroup(width, blocks, reduction, window) for _ in range(groups)]
        depth = groups * (blocks * (2 + window // 2) + 1)
        super().__init__(scale, width, body, depth, fold, interpolation, head)
        # Three nested skips, the detail, its weights, and their product.
        self.live_channels = 9 * width + 2 * self.out_channels

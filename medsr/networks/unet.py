"""``UNet3D``: a residual encoder and decoder without normalisation.

MONAI's ``UNet``, ``BasicUNet`` and ``DynUNet`` do not fit here, for two reasons. They normalise by
instance or by batch: an instance's mean and variance come from every voxel of the scan, so a tile
would be normalised by other figures than the whole, and intensities, which super-resolution must
keep, would be lost. And they map a grid to itself, while this skeleton folds, shuffles and adds
the interpolated scan. So this is a small one of our own, from the blocks of ``ResNet3D``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medsr.networks import NETWORKS
from medsr.networks.blocks import (
    SRNetwork,
    check_count,
    check_width,
    conv3,
    voxel_shuffle,
    zero_conv3,
)
from medsr.networks.heads import Head
from medsr.networks.resnet import ResidualBlock
from medsr.types import Triple

HALF: Triple = (2, 2, 2)
"""Voxels that one level joins along each axis."""


class Join(nn.Module):
    """Bring the coarser level up and merge it with the encoder's features of this level.

    The 1³ convolution with a voxel shuffle is a transposed 2³ convolution of stride 2, written so
    that no voxel is written twice.

    Args:
        width: Channels of this level; the coarser one has twice as many.
    """

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Conv3d(2 * width, 8 * width, kernel_size=1)
        self.mix = conv3(2 * width, width)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Map ``(B, 2·width, X/2, …)`` and ``(B, width, X, …)`` to ``(B, width, X, …)``."""
        raised = voxel_shuffle(self.up(coarse), HALF)
        out: Tensor = self.mix(torch.cat([raised, fine], dim=1))
        return out


@NETWORKS.register(
    "UNet3D",
    small={"width": 16, "levels": 2, "blocks": 1},
    recipe="configs/teachers/mr-z4-unet.yaml",
)
class UNet3D(SRNetwork):
    """A U-Net of residual blocks: wide view at little cost, since deep levels are coarse.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the finest level, a multiple of 16; each level below has twice as many.
        levels: How often the grid is halved along every axis, at least 1. Scans are padded to
            multiples of ``fold · 2**levels`` and tiles start at them.
        blocks: Residual blocks (two convolutions each) at every level of either side, at least 1.
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Çiçek et al. 2016, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse
        Annotation", figure 2; with residual blocks, strided convolutions and no normalisation.

    Examples:
        >>> import torch
        >>> from medsr.networks import UNet3D
        >>> network = UNet3D((1, 1, 4), width=16)
        >>> network(torch.rand(1, 1, 10, 10, 6)).shape  # padded to the coarsest grid, then cropped
        torch.Size([1, 1, 10, 10, 24])
        >>> network.multiple_of  # tiles begin on the coarsest grid
        (4, 4, 4)
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 32,
        levels: int = 2,
        blocks: int = 1,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        super().__init__(scale, fold, interpolation, head)
        check_width(width)
        check_count(levels, "levels")
        check_count(blocks, "blocks")
        self.stride = (2**levels, 2**levels, 2**levels)
        self.radius = reach(levels, blocks)
        widths = [width * 2**level for level in range(levels)]

        def stage(channels: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

        self.head = conv3(self.in_channels, width)
        self.encoder = nn.ModuleList(stage(w) for w in widths)
        self.down = nn.ModuleList(nn.Conv3d(w, 2 * w, kernel_size=2, stride=2) for w in widths)
        self.bottom = stage(2 * widths[-1])
        self.join = nn.ModuleList(Join(w) for w in widths)
        self.decoder = nn.ModuleList(stage(w) for w in widths)
        self.tail = zero_conv3(width, self.out_channels)
        # The finest level's: all below it together add a fraction.
        self.live_channels = 8 * width + 2 * self.out_channels
        # In the order of the forward pass: down to the coarsest level, and up again.
        self.taps = (
            *(f"encoder.{level}" for level in range(levels)),
            "bottom",
            *(f"decoder.{level}" for level in reversed(range(levels))),
        )

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``; sizes divide by the stride."""
        x = self.head(folded)
        skips: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = down(skips[-1])
        x = self.bottom(x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](self.join[level](x, skips.pop()))
        out: Tensor = self.tail(x)
        return out


def reach(levels: int, blocks: int) -> int:
    """Return how many folded voxels away an input may change an output of ``UNet3D``.

    How far it is depends on where the output lies in its cell of ``2**levels`` voxels, so the
    furthest voxel above is followed for each of them, along the longest path, which leads over
    the coarsest level. The reach below is the mirror image.

    Args:
        levels: As in :class:`UNet3D`.
        blocks: As in :class:`UNet3D`.

    Returns:
        The largest distance in folded voxels, the same along every axis.
    """
    stage, head, mix, tail = 2 * blocks, 1, 1, 1
    furthest = 0
    for start in range(2**levels):
        last = start + tail
        for _ in range(levels):
            last = (last + stage + mix) // 2
        last += stage
        for _ in range(levels):
            last = 2 * last + 1 + stage
        furthest = max(furthest, last + head - start)
    return furthest

"""``Plain25D``: two-dimensional convolutions in the planes that contain the slice axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import SRNetwork, check_width, conv1, he_normal, zero_conv3
from medsr.networks.heads import Head
from medsr.types import Triple


def plane_convolution(in_channels: int, out_channels: int) -> nn.Conv3d:
    """Return a 3 × 3 convolution in the x–z plane that keeps the size."""
    convolution = nn.Conv3d(in_channels, out_channels, (3, 1, 3), padding=(1, 0, 1))
    return he_normal(convolution)


@NETWORKS.register(
    "Plain25D",
    small={"width": 16, "depth": 2},
    recipe="configs/students/mr-z4-plain25d.yaml",
    compared={"width": 48, "depth": 10},
)
class Plain25D(SRNetwork):
    """One 2D network for the x–z and the y–z planes, whose two views are fused.

    Thick slices blur every plane that contains the slice axis in the same way, so the same
    convolutions restore both views; they see the volume once with X and Y exchanged and once as it
    is. A 1³ convolution fuses the two, and the 3³ tail is the only one that sees three dimensions
    at once: it refines what was fused, and enlarges. Made for scales ``(1, 1, s)``; the slice axis
    is always Z.

    As both views go through the same modules, a hook fires twice in a pass. Its last call, and so
    the taps of ``body``, is the x–z view.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of each view, a multiple of 16.
        depth: Convolutions from ``width`` to ``width`` channels.
        fold: Voxels folded into channels before the head, see ``SRNetwork``; with different folds
            along X and Y the two views differ in what a voxel is, which costs quality.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Zhao et al. 2021, "SMORE: A Self-Supervised Anti-Aliasing and Super-Resolution
    Algorithm for MRI Using Deep Learning" (one 2D network for the planes through the slices);
    Peng et al. 2020, "SAINT: Spatially Aware Interpolation NeTwork for Medical Slice Synthesis"
    (the two views are fused by convolutions).

    Examples:
        >>> import torch
        >>> from medsr.networks import Plain25D
        >>> network = Plain25D((1, 1, 4), width=16, depth=2)
        >>> network(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 1, 8, 8, 16])
        >>> sum(p.numel() for p in network.parameters())
        7060
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 48,
        depth: int = 10,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        super().__init__(scale, fold, interpolation, head)
        check_width(width)
        self.radius = depth + 2
        self.head = plane_convolution(self.in_channels, width)
        self.body = nn.ModuleList(plane_convolution(width, width) for _ in range(depth))
        self.fuse = he_normal(conv1(2 * width, width))
        self.tail = zero_conv3(width, self.out_channels)
        self.taps = (*(f"body.{i}" for i in range(depth)), "fuse")

    def view(self, folded: Tensor) -> Tensor:
        """Return the features of the x–z planes, ``(B, width, X, Y, Z)``."""
        x = functional.relu(self.head(folded))
        for convolution in self.body:
            x = functional.relu(convolution(x))
        return x

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        # A voxel's folded neighbours are exchanged with the grid.
        neighbours = folded.reshape(len(folded), *self.fold, *folded.shape[2:])
        exchanged = neighbours.transpose(1, 2).flatten(1, 3).transpose(2, 3)
        if folded.device.type == "cpu":
            exchanged = exchanged.contiguous(memory_format=torch.channels_last_3d)
        yz = self.view(exchanged).transpose(2, 3)
        xz = self.view(folded)
        fused = functional.relu(self.fuse(torch.cat((xz, yz), dim=1)))
        out: Tensor = self.tail(fused)
        return out

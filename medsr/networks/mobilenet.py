"""``MobileNet3D``: inverted residuals around depthwise convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import (
    ResidualTrunk,
    check_count,
    check_width,
    conv1,
    depthwise3,
    he_normal,
)
from medsr.networks.heads import Head
from medsr.types import Triple


class InvertedResidual(nn.Module):
    """Expand by 1³, filter each channel by 3³, project back by 1³, add the input.

    The projection is linear, as in the paper; a rectifier in the narrow place would lose what the
    residual carries. There is no batch norm, which costs a super-resolution network the contrast
    of the scan, and without it no ReLU6: its limit of 6 presumes normalised activations. The
    projection starts small instead.

    Args:
        width: Channels of input and output.
        expansion: The depthwise convolution works on ``expansion · width`` channels.

    Source: Sandler et al. 2018, "MobileNetV2", section 3.3 and figure 3.
    """

    def __init__(self, width: int, expansion: int):
        super().__init__()
        wide = expansion * width
        self.expand = he_normal(conv1(width, wide))
        self.depthwise = he_normal(depthwise3(wide))
        self.project = conv1(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        wide = functional.relu(self.expand(x))
        wide = functional.relu(self.depthwise(wide))
        out: Tensor = x + self.project(wide)
        return out


@NETWORKS.register(
    "MobileNet3D",
    small={"width": 16, "blocks": 2, "expansion": 2},
    recipe="configs/students/mr-z4-mobilenet.yaml",
    compared={"width": 48, "blocks": 9, "expansion": 4},
)
class MobileNet3D(ResidualTrunk):
    """MobileNetV2's inverted residuals in three dimensions, without batch norm.

    Most of its operations are 1³ convolutions. The depthwise ones are few on paper but bound by
    memory, so that on a processor it is slower than a dense network of as many operations.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk, a multiple of 16.
        blocks: Inverted residuals.
        expansion: The depthwise convolutions work on ``expansion · width`` channels.
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".

    Examples:
        >>> import torch
        >>> from medsr.networks import MobileNet3D
        >>> network = MobileNet3D((2, 2, 2), width=16, blocks=2)
        >>> network(torch.rand(1, 1, 8, 8, 8)).shape
        torch.Size([1, 1, 16, 16, 16])
        >>> sum(p.numel() for p in network.parameters())
        12024
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 48,
        blocks: int = 9,
        expansion: int = 4,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        check_width(width)
        check_count(expansion, "expansion")
        body = [InvertedResidual(width, expansion) for _ in range(blocks)]
        super().__init__(scale, width, body, blocks, fold, interpolation, head, pointwise_fuse=True)

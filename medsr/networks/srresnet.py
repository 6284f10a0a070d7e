"""``SRResNet3D``: SRGAN's generator, residual blocks with batch normalisation and PReLU.

In evaluation mode batch normalisation is a fixed scale and shift per channel, so a tile is treated
like the whole scan, and :meth:`SRResNet3D.merged` takes both up into the convolution in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from medsr.networks import NETWORKS
from medsr.networks.blocks import SRNetwork, check_count, check_width, conv3, zero_conv3
from medsr.networks.heads import Head
from medsr.types import Triple


class NormConv3d(nn.Module):
    """A 3³ convolution without bias, then batch normalisation.

    Source: Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by
        Reducing Internal Covariate Shift", algorithms 1 and 2.
    """

    def __init__(self, width: int):
        super().__init__()
        self.convolution = nn.Conv3d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        out: Tensor = self.norm(self.convolution(x))
        return out

    def merge(self) -> dict[str, Tensor]:
        """Return ``weight`` and ``bias`` of the one convolution that equals this in evaluation.

        Zero padding comes before the convolution, so both are equal at the borders too.
        """
        norm = self.norm
        with torch.no_grad():
            weight, bias = fuse_conv_bn_weights(
                self.convolution.weight,
                None,
                cast("Tensor", norm.running_mean),
                cast("Tensor", norm.running_var),
                norm.eps,
                norm.weight,
                norm.bias,
            )
        return {"weight": weight.detach(), "bias": bias.detach()}


class NormBlock(nn.Module):
    """Convolution, norm, PReLU, convolution, norm, added to the input.

    Source: Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative
        Adversarial Network", figure 4.
    """

    def __init__(self, width: int, norm: bool):
        super().__init__()
        self.first = _convolution(width, norm)
        self.activation = nn.PReLU(width)
        self.second = _convolution(width, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape."""
        out: Tensor = x + self.second(self.activation(self.first(x)))
        return out


@NETWORKS.register(
    "SRResNet3D",
    small={"width": 16, "blocks": 1},
    recipe="configs/teachers/mr-z4-srresnet.yaml",
)
class SRResNet3D(SRNetwork):
    """SRGAN's generator in three dimensions, with a voxel-shuffle tail.

    The first and last kernels are 3³ in place of 9² (729 taps in space buy too little), and the
    step to the finer grid is the skeleton's one shuffle at the end.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels of the trunk, a multiple of 16.
        blocks: Residual blocks (two convolutions each), at least 1.
        norm: Batch normalisation as published; ``False`` builds what :meth:`merged` returns.
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Ledig et al. 2017, "Photo-Realistic Single Image Super-Resolution Using a Generative
        Adversarial Network", figure 4 (SRResNet).

    Examples:
        >>> import torch
        >>> from medsr.networks import SRResNet3D
        >>> network = SRResNet3D((1, 1, 4), width=16, blocks=2).eval()
        >>> plain = network.merged()  # normalisation becomes part of the convolutions
        >>> any(isinstance(module, torch.nn.BatchNorm3d) for module in plain.modules())
        False
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 64,
        blocks: int = 8,
        norm: bool = True,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        super().__init__(scale, fold, interpolation, head)
        check_width(width)
        check_count(blocks, "blocks")
        self.width = width
        self.norm = norm
        self.radius = 2 * blocks + 3
        self.head = conv3(self.in_channels, width)
        self.activation = nn.PReLU(width)
        self.body = nn.ModuleList(NormBlock(width, norm) for _ in range(blocks))
        self.fuse = _convolution(width, norm)
        self.tail = zero_conv3(width, self.out_channels)
        self.live_channels = 7 * width + 2 * self.out_channels
        self.taps = (*(f"body.{i}" for i in range(blocks)), "fuse")

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        head = self.activation(self.head(folded))
        x = head
        for block in self.body:
            x = block(x)
        out: Tensor = self.tail(self.fuse(x) + head)
        return out

    def merged(self) -> SRResNet3D:
        """Return a network without normalisation that equals this one in evaluation mode."""
        if not self.norm:
            return self
        plain = SRResNet3D(
            self.scale,
            width=self.width,
            blocks=len(self.body),
            norm=False,
            fold=self.fold,
            interpolation=self.interpolation,
            head=self.head_options,
        )
        state = self.state_dict()
        for name, module in self.named_modules():
            if isinstance(module, NormConv3d):
                state = {k: v for k, v in state.items() if not k.startswith(f"{name}.")}
                state.update({f"{name}.{k}": v for k, v in module.merge().items()})
        plain.load_state_dict(state)
        parameter = next(self.parameters())
        return plain.to(device=parameter.device, dtype=parameter.dtype).train(self.training)

    def merged_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the network without normalisation."""
        return {**options, "norm": False}


def _convolution(width: int, norm: bool) -> nn.Module:
    return NormConv3d(width) if norm else conv3(width, width)

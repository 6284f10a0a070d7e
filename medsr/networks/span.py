"""``Span3D``: blocks whose attention is their own output, bent by an odd function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.blocks import SRNetwork, check_count, check_width, conv1, conv3, zero_conv3
from medsr.networks.heads import Head
from medsr.networks.repplain import RepConv3d, check_branches, merge_into, plain_options
from medsr.types import Triple


def attention(x: Tensor) -> Tensor:
    """Return ``sigmoid(x) - 1/2``: odd, so that strong features of either sign count alike.

    Source: Wan et al. 2024, "Swift Parameter-free Attention Network", section 3.2.
    """
    return torch.sigmoid(x) - 0.5


class AttentionBlock(nn.Module):
    """Three convolutions; their result H and the input x give ``(H + x) · attention(H)``.

    Args:
        width: Channels.
        branches: Of the convolutions in training, see ``RepConv3d``; none for plain ones.
        expansion: See ``RepConv3d``.

    Source: Wan et al. 2024, "Swift Parameter-free Attention Network", figure 2.
    """

    def __init__(self, width: int, branches: tuple[str, ...], expansion: int):
        super().__init__()

        def convolution() -> nn.Module:
            if not branches:
                return conv3(width, width)
            return RepConv3d(width, width, branches, expansion)

        self.first, self.second, self.third = convolution(), convolution(), convolution()

    def forward(self, x: Tensor, first: Tensor) -> Tensor:
        """Map ``(B, width, …)`` to the same shape.

        Args:
            x: Input.
            first: What the first convolution makes of it; the trunk uses it too.
        """
        out = self.third(functional.silu(self.second(functional.silu(first))))
        result: Tensor = (out + x) * attention(out)
        return result


@NETWORKS.register(
    "Span3D",
    small={"width": 16, "blocks": 1},
    recipe="configs/students/mr-z4-span.yaml",
    compared={"width": 32, "blocks": 2, "branches": ["identity"]},
)
class Span3D(SRNetwork):
    """SPAN in three dimensions: attention without parameters, and dense convolutions only.

    Attention multiplies features that start below one, so they shrink from block to block, and the
    trunk therefore joins the outputs of the head, of the first block, of the last block and of the
    last block's first convolution. Few wide blocks learn faster than many narrow ones. Its
    convolutions train through branches as those of ``RepPlain3D`` do, which take the place of the
    paper's three-layer convolutions and are merged in the same way.

    Args:
        scale: Integer factors along X, Y and Z.
        width: Channels, a multiple of 16.
        blocks: Attention blocks (three convolutions each).
        branches: Branches of the blocks' convolutions in training, any of
            ``medsr.networks.repplain.BRANCHES``; ``True`` for all, ``False`` for plain ones.
        expansion: See ``RepConv3d``.
        fold: Voxels folded into channels before the head, see ``SRNetwork``.
        interpolation: ``"nearest"`` or ``"linear"`` residual.
        head: ``"value"``, ``"gaussian"`` or ``"bins"``, see ``SRNetwork``.

    Source: Wan et al. 2024, "Swift Parameter-free Attention Network for Efficient
    Super-Resolution".

    Examples:
        >>> import torch
        >>> from medsr.networks import Span3D
        >>> network = Span3D((1, 1, 4), width=16, blocks=1)
        >>> plain = network.merged()
        >>> lr = torch.rand(1, 1, 8, 8, 4)
        >>> torch.allclose(network(lr), plain(lr), atol=1e-6)
        True
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 32,
        blocks: int = 2,
        branches: Sequence[str] | bool = True,
        expansion: int = 2,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        super().__init__(scale, fold, interpolation, head)
        check_width(width)
        check_count(blocks, "blocks")
        self.width = width
        self.radius = 3 * blocks + 3
        self.branches = check_branches(branches)
        self.head = conv3(self.in_channels, width)
        self.body = nn.ModuleList(
            AttentionBlock(width, self.branches, expansion) for _ in range(blocks)
        )
        self.fuse = conv3(width, width)
        self.join = conv1(4 * width, width)
        self.tail = zero_conv3(width, self.out_channels)
        self.taps = (*(f"body.{i}" for i in range(blocks)), "join")

    def residual(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``."""
        head = self.head(folded)
        x, outputs = head, []
        for block in self.body:
            first = block.first(x)  # type: ignore[operator]
            x = block(x, first)
            outputs.append(x)
        joined = self.join(torch.cat((head, self.fuse(x), outputs[0], first), dim=1))
        out: Tensor = self.tail(joined)
        return out

    def merged(self) -> Span3D:
        """Return an equal network of plain convolutions; the parameters are copies."""
        plain = Span3D(
            self.scale,
            width=self.width,
            blocks=len(self.body),
            branches=False,
            fold=self.fold,
            interpolation=self.interpolation,
            head=self.head_options,
        )
        return merge_into(plain, self)

    def merged_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of plain convolutions: no branches, nothing to expand."""
        return plain_options(options)

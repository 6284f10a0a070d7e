"""``KnotPlain3D``: a plain network for slices of any distance and profile.

It works on the slices' own grid and gives the intensity at evenly spaced places (knots) through
every slice; any finer grid samples these linearly. What is known of the slices enters as a gain and
an offset of each channel. Both are constant over a scan, so :meth:`KnotPlain3D.told` folds them
into plain convolutions, which every engine runs as fast as a network without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medsr.networks import NETWORKS
from medsr.networks.heads import Head
from medsr.networks.repplain import RepPlain3D, merge_into, plain_options
from medsr.types import Triple


@NETWORKS.register(
    "KnotPlain3D",
    small={"width": 16, "depth": 2},
    recipe="configs/students/mr-start.yaml",
)
class KnotPlain3D(RepPlain3D):
    """A plain stack of 3³ convolutions that is told what the slices are like.

    Args:
        scale: Knots in each voxel along X, Y and Z, ``(1, 1, 9)`` for slices.
        width: Channels, a multiple of 16.
        depth: Convolutions from ``width`` to ``width`` channels.
        conditions: Numbers that describe the slices.
        branches: See :class:`RepPlain3D`.
        expansion: See :class:`RepPlain3D`.
        fold: See :class:`RepPlain3D`.
        interpolation: ``"nearest"``: the knots of a slice start from its value.
        head: See :class:`RepPlain3D`.

    Source: the gain and offset of each channel follow Perez et al. 2018, "FiLM: Visual Reasoning
        with a General Conditioning Layer".

    Examples:
        >>> import torch
        >>> from medsr.networks import KnotPlain3D
        >>> network = KnotPlain3D((1, 1, 9), width=16, depth=2, conditions=8)
        >>> slices, condition = torch.rand(2, 1, 8, 8, 4), torch.rand(2, 8)
        >>> network(slices, condition).shape  # nine knots in each slice
        torch.Size([2, 1, 8, 8, 36])
        >>> network.told(condition[0]).chain() is not None  # plain convolutions
        True
    """

    def __init__(
        self,
        scale: Triple,
        width: int = 32,
        depth: int = 8,
        conditions: int = 8,
        branches: Sequence[str] | bool = ("identity",),
        expansion: int = 2,
        fold: Triple = (1, 1, 1),
        interpolation: str = "nearest",
        head: Head = "value",
    ):
        super().__init__(scale, width, depth, branches, expansion, fold, interpolation, head)
        self.conditions = conditions
        self.tell = nn.ModuleList(nn.Linear(conditions, 2 * width) for _ in range(depth + 1))
        for layer in self.tell:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def residual(self, folded: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map ``(B, in_channels, …)`` to ``(B, out_channels, …)``.

        Args:
            folded: The folded slices.
            condition: What is known of them, ``(B, conditions)``; all zeros when not given.
        """
        if condition is None:
            condition = folded.new_zeros(len(folded), self.conditions)
        x = folded
        for convolution, tell in zip((self.head, *self.body), self.tell, strict=True):
            gain, offset = tell(condition)[:, :, None, None, None].chunk(2, dim=1)
            x = functional.relu(torch.addcmul(offset, convolution(x), 1 + gain))
        out: Tensor = self.tail(x)
        return out

    def told(self, condition: Tensor) -> RepPlain3D:
        """Return the plain network for scans of one kind; the parameters are copies.

        Args:
            condition: What is known of the slices, ``(conditions,)``.
        """
        plain = RepPlain3D(
            self.scale,
            self.width,
            len(self.body),
            branches=False,
            fold=self.fold,
            interpolation=self.interpolation,
            head=self.head_options,
        )
        state = self.merged().state_dict()
        own = {name: value for name, value in state.items() if not name.startswith("tell.")}
        plain.load_state_dict(own)
        with torch.no_grad():
            for convolution, tell in zip((plain.head, *plain.body), self.tell, strict=True):
                gain, offset = tell(condition.to(self.tail.weight)).chunk(2)
                convolution.weight.mul_((1 + gain)[:, None, None, None, None])
                convolution.bias.mul_(1 + gain).add_(offset)
        return plain.to(self.tail.weight.device).train(self.training)

    def merged(self) -> KnotPlain3D:
        """Return an equal network whose convolutions are plain; the parameters are copies."""
        plain = KnotPlain3D(
            self.scale,
            self.width,
            len(self.body),
            self.conditions,
            branches=False,
            fold=self.fold,
            interpolation=self.interpolation,
            head=self.head_options,
        )
        return merge_into(plain, self)

    def chain(self) -> tuple[nn.Conv3d, ...] | None:
        """Return None: only what :meth:`told` returns is a plain chain."""
        return None

    def merged_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the plain stack."""
        return plain_options(options)


def knots_from(plain: RepPlain3D, knots: int) -> RepPlain3D:
    """Return a network of ``knots`` for one of a whole factor, along the last axis.

    The knots lie on the lines through the values that the other network gives, those at the ends
    beyond them, so that sampling the knots at its places gives its values, nearly.

    Args:
        plain: Merged network of scale ``(1, 1, factor)`` without a distribution.
        knots: Knots in each voxel, more than ``factor``.
    """
    factor = plain.scale[2]
    given = (torch.arange(factor) + 0.5) / factor
    wanted = (torch.arange(knots) + 0.5) / knots
    low = ((wanted - given[0]) * factor).floor().long().clamp(0, factor - 2)
    share = (wanted - given[low]) * factor
    rows = torch.zeros(knots, factor)
    rows[torch.arange(knots), low] = 1 - share
    rows[torch.arange(knots), low + 1] = share
    grown = RepPlain3D((1, 1, knots), plain.width, len(plain.body), branches=False)
    state = plain.state_dict()
    for name in ("tail.weight", "tail.bias"):
        state[name] = torch.tensordot(rows.to(state[name]), state[name], dims=1)
    grown.load_state_dict(state)
    return grown

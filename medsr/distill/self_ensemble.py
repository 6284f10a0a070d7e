"""Self-ensemble: a network asked about flipped and transposed copies of a scan as well.

A network that is asked about a flipped scan should give the flipped answer; trained ones nearly do.
The mean of the un-flipped answers is a better answer than any single one. As augmentation at test
time it is known by that name, too.

Source: Lim et al. 2017, "Enhanced Deep Residual Networks for Single Image Super-Resolution" (EDSR),
section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

from torch import Tensor

from medsr.types import Triple


@dataclass(frozen=True)
class Transform:
    """A reordering of axes, then flips along some.

    Attributes:
        order: Which axis of the volume stands at X, Y and Z of the copy.
        flips: Axes of the copy that are flipped.
    """

    order: Triple = (0, 1, 2)
    flips: tuple[int, ...] = ()

    def apply(self, volume: Tensor) -> Tensor:
        """Return (B, C, X, Y, Z) reordered and flipped."""
        turned = volume.permute(0, 1, *(axis + 2 for axis in self.order))
        return turned.flip([axis + 2 for axis in self.flips])

    def undo(self, seen: Tensor) -> Tensor:
        """Return what :meth:`apply` turned into ``seen``; the scale of the axes may have grown."""
        back = [0, 0, 0]
        for place, axis in enumerate(self.order):
            back[axis] = place
        straight = seen.flip([axis + 2 for axis in self.flips])
        return straight.permute(0, 1, *(place + 2 for place in back))


def transforms_for(scale: Triple) -> tuple[Transform, ...]:
    """Return all transforms under which a network of this scale keeps its meaning.

    The scan itself comes first, then flips along one axis, two and three, then the same with axes
    of equal scale transposed: 8 for three different factors, 16 where two are equal (as for
    through-plane work), 48 where all are.

    Source: Timofte, Rothe, Van Gool, "Seven ways to improve example-based single image super
        resolution", CVPR 2016, section 3.
    """
    orders = [
        (x, y, z)
        for x, y, z in permutations(range(3))
        if (scale[x], scale[y], scale[z]) == tuple(scale)
    ]
    flips = [axes for count in range(4) for axes in combinations(range(3), count)]
    return tuple(Transform(order, axes) for order in orders for axes in flips)

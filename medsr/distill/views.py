"""Views: the flipped and transposed copies of a scan about which a teacher can be asked as well.

A network that is asked about a flipped scan should give the flipped answer; trained ones nearly do.
The mean of the un-flipped answers is a better answer than any single one (self-ensemble).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations

from torch import Tensor

from medsr.types import Triple


@dataclass(frozen=True)
class View:
    """A way to look at a volume: reorder its axes, then flip some.

    Attributes:
        order: Which axis of the volume stands at X, Y and Z of the view.
        flips: Axes of the view that are flipped.
    """

    order: Triple = (0, 1, 2)
    flips: tuple[int, ...] = ()

    def apply(self, volume: Tensor) -> Tensor:
        """Return (B, C, X, Y, Z) as this view shows it."""
        turned = volume.permute(0, 1, *(axis + 2 for axis in self.order))
        return turned.flip([axis + 2 for axis in self.flips])

    def undo(self, seen: Tensor) -> Tensor:
        """Return what :meth:`apply` turned into ``seen``; the scale of the axes may have grown."""
        back = [0, 0, 0]
        for place, axis in enumerate(self.order):
            back[axis] = place
        straight = seen.flip([axis + 2 for axis in self.flips])
        return straight.permute(0, 1, *(place + 2 for place in back))


def views_for(scale: Triple) -> tuple[View, ...]:
    """Return all views under which a network of this scale keeps its meaning.

    The scan itself comes first, then flips along one axis, two and three, then the same with axes
    of equal scale transposed: 8 views for three different factors, 16 where two are equal (as for
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
    return tuple(View(order, axes) for order in orders for axes in flips)

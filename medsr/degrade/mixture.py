"""Several degradations in one, for a model of more than one kind of scan.

A model is not told whether a scan's slices were excited by a Gaussian or a rectangular pulse, how
thick they are relative to their distance, or whether they are partitions of a 3D acquisition. It
restores wrongly what it has never seen, so it is trained on all of them, each with its share.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from medsr.degrade import DEGRADATIONS
from medsr.degrade.base import Degradation, Operators, Separable, as_triple, uniform
from medsr.types import Triple

__all__ = ["Mixture", "MixtureParams"]


@dataclass(frozen=True)
class MixtureParams:
    """Drawn parameters: which degradation, counted from 0, and ``params`` of its own.

    Examples:
        >>> from medsr.degrade import KSpaceParams, MixtureParams
        >>> MixtureParams(part=1, params=KSpaceParams(sigma=0.02)).sigma
        0.02
    """

    part: int
    params: Any

    @property
    def sigma(self) -> float:
        """Noise level of the degradation that was drawn."""
        return float(getattr(self.params, "sigma", 0.0))


@DEGRADATIONS.register(
    "mixture",
    small={"of": [{"kind": "slice_profile"}, {"kind": "ct_slab"}]},
    recipe="configs/students/mr-z4-broad.yaml",
)
class Mixture:
    """One of several degradations, drawn anew for every patch or scan.

    Args:
        factor: Integer factors along X, Y and Z, those of every part.
        of: The parts, each with ``kind``, its own options, and ``share`` (default 1), the odds of
            being drawn. The first is the nominal one.

    Examples:
        >>> import torch
        >>> from medsr.degrade import Mixture
        >>> slices = Mixture(
        ...     factor=(1, 1, 4),
        ...     of=[
        ...         {"kind": "slice_profile", "thickness": [0.8, 1.0], "share": 3},
        ...         {"kind": "kspace", "window": "hamming"},
        ...     ],
        ... )
        >>> generator = torch.Generator().manual_seed(0)
        >>> drawn = [slices.sample(generator).part for _ in range(1000)]
        >>> 700 < drawn.count(0) < 800  # three of four are slice profiles
        True
    """

    def __init__(self, factor: Triple = (1, 1, 4), of: Sequence[Mapping[str, Any]] = ()):
        from medsr.degrade import build_degradation  # which builds mixtures too

        self.factor = as_triple(factor)
        if not of:
            raise ValueError("a mixture needs parts: of=[{kind: slice_profile}, …]")
        self.shares: list[float] = []
        self.parts: list[Degradation[Any]] = []
        for number, one in enumerate(of):
            options = dict(one)
            kind, share = options.pop("kind", None), options.pop("share", 1.0)
            if not isinstance(kind, str):
                raise ValueError(f"part {number} of the mixture names no kind")
            if not (isinstance(share, int | float) and 0 < share < float("inf")):
                raise ValueError(f"share of {kind} is {share!r}; it must be above 0")
            self.shares.append(float(share))
            self.parts.append(build_degradation(kind, self.factor, **options))

    @property
    def margin(self) -> Triple:
        """The largest of the parts' along each axis."""
        x, y, z = (max(sizes) for sizes in zip(*(p.margin for p in self.parts), strict=True))
        return (x, y, z)

    def for_patches(self) -> Mixture:
        """Return the same mixture of the parts for patches."""
        copy = object.__new__(Mixture)
        copy.factor, copy.shares = self.factor, self.shares
        copy.parts = [part.for_patches() for part in self.parts]
        return copy

    def sample(self, generator: torch.Generator | None = None) -> MixtureParams:
        """Draw a part by the shares, then its parameters."""
        drawn = uniform(0.0, sum(self.shares), generator)
        # The last bound is left out: rounding may draw just it.
        number = bisect(list(accumulate(self.shares))[:-1], drawn)
        return MixtureParams(number, self.parts[number].sample(generator))

    def nominal(self) -> MixtureParams:
        """Return the first part's central parameters."""
        return MixtureParams(0, self.parts[0].nominal())

    def operators(self, fine: Triple, coarse: Triple, params: MixtureParams) -> Operators:
        """Return the drawn part's matrices; see :class:`medsr.degrade.base.Separable`.

        Raises:
            TypeError: The part has none.
        """
        part = self.parts[params.part]
        if not isinstance(part, Separable):
            raise TypeError(f"{type(part).__name__} has no operators")
        return part.operators(fine, coarse, params.params)

    def apply(self, hr: Tensor, params: MixtureParams) -> Tensor:
        """Degrade ``(…, X, Y, Z)`` as the drawn part does."""
        return self.parts[params.part].apply(hr, params.params)

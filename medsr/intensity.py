"""How voxel values reach a network and come back: :class:`Intensity` and :class:`Normaliser`.

What else a model knows of its input is in ``medsr.model``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from medsr.hu import AIR_HU, CT_RANGE_HU
from medsr.types import Float32Array
from medsr.values import ArrayValues, Values
from medsr.volume import Modality

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_CONFIG = ConfigDict(extra="forbid")

COMMON = 0.05
"""Share of voxels at one value that makes it a background or a fill value."""
RARE = 0.005
"""Share of voxels that counts for little."""
STANDS_OUT = 4
"""How many times as frequent as its neighbours a background is."""
RIPPLE = 0.1
"""How far a magnitude swings below zero (interpolation, filters), as a share of its width."""
RAISED, BACKGROUND = 0.5, 0.3
"""How far above zero a scan starts, as a share of its range, that is an offset, where this share
of it is background: within ``RIPPLE`` of the range from its start."""
LOWEST = 0.5
"""Percentile that stands for no signal where nothing tells of it."""
LONE, FEW = 0.1, 1e-4
"""A maximum is an outlier where no larger share than ``FEW`` exceeds ``LONE`` of it."""

Number = TypeVar("Number", "Float32Array", "torch.Tensor")


@dataclass(frozen=True, config=_CONFIG)
class Normaliser:
    """A linear map between native voxel values and the network's range; it never clips.

    Args:
        offset: Native value that becomes 0.
        divisor: Native width that becomes 1; positive and finite.

    Examples:
        >>> import numpy as np
        >>> from medsr.model import Normaliser
        >>> to_network = Normaliser(offset=-1024.0, divisor=2048.0)
        >>> hu = np.array([-1024.0, 0.0, 3072.0], dtype=np.float32)  # air, water, metal
        >>> values = to_network.forward(hu)
        >>> values.tolist()  # nothing is clipped
        [0.0, 0.5, 2.0]
        >>> to_network.inverse(values).tolist()
        [-1024.0, 0.0, 3072.0]
    """

    offset: float
    divisor: float

    @model_validator(mode="after")
    def _check(self) -> Normaliser:
        if not (np.isfinite(self.offset) and np.isfinite(self.divisor) and self.divisor > 0):
            raise ValueError("offset must be finite, divisor finite and positive")
        return self

    def forward(self, values: Number) -> Number:
        """Return native ``values`` (array or tensor of any shape) in the network's range."""
        return (values - self.offset) / self.divisor

    def inverse(self, values: Number) -> Number:
        """Return ``values`` of the network's range in native units."""
        return values * self.divisor + self.offset

    def restore(self, values: Float32Array) -> Float32Array:
        """Do what :meth:`inverse` does within the memory of ``values``, and return ``values``."""
        values *= self.divisor
        values += self.offset
        return values


@dataclass(frozen=True, config=_CONFIG)
class Intensity:
    """How a model normalises its input.

    Args:
        kind: ``"percentile"`` fits the divisor to each scan (MR, arbitrary units); ``"linear"``
            takes ``offset`` and ``divisor`` as they stand (CT, HU).
        offset: Native value that becomes 0.
        divisor: Native width that becomes 1 for ``"linear"``; for ``"percentile"`` the fallback
            of a scan without foreground.
        percentile: Percentile of the foreground voxels that becomes 1, in (0, 100].
        foreground: Voxels above this fraction of the maximum are foreground, in [0, 1).

    Examples:
        >>> import numpy as np
        >>> from medsr.model import Intensity
        >>> Intensity.for_modality("CT").fit(np.zeros((4, 4, 4))).offset  # HU, for every scan
        -1024.0
        >>> mr = np.linspace(0, 1500, 8000, dtype=np.float32).reshape(20, 20, 20)
        >>> fitted = Intensity.for_modality("MR").fit(mr)
        >>> fitted.offset, round(fitted.divisor)  # percentile 99.5 of the foreground becomes 1
        (0.0, 1493)
    """

    kind: Literal["percentile", "linear"]
    offset: float = 0.0
    divisor: float = 1.0
    percentile: float = 99.5
    foreground: float = 0.02

    @model_validator(mode="after")
    def _check(self) -> Intensity:
        if not self.divisor > 0:
            raise ValueError("divisor must be positive")
        if not 0 < self.percentile <= 100:
            raise ValueError("percentile must lie in (0, 100]")
        if not 0 <= self.foreground < 1:
            raise ValueError("foreground must lie in [0, 1)")
        return self

    @classmethod
    def for_modality(cls, modality: Modality) -> Intensity:
        """Return the default: MR by percentile, CT from -1024 HU over a width of 2048 HU."""
        if modality == "CT":
            return cls(kind="linear", offset=AIR_HU, divisor=CT_RANGE_HU)
        return cls(kind="percentile")

    def fit(self, data: NDArray[Any]) -> Normaliser:
        """Fit the map to one low-resolution scan.

        Args:
            data: The scan in native units, any shape, finite.

        Returns:
            The linear map that this scan takes. Nothing is clipped, so values outside the usual
            range pass through and come back.
        """
        if self.kind == "linear":
            return Normaliser(self.offset, self.divisor)
        return self.fit_values(ArrayValues(np.asarray(data)))

    def fit_values(self, values: Values) -> Normaliser:
        """Fit the map to the values of a scan, however they are held; see :meth:`fit`."""
        if self.kind == "linear":
            return Normaliser(self.offset, self.divisor)
        zero = self._zero(values)
        # An empty scan has no scale of its own; any positive divisor restores it exactly.
        return Normaliser(zero, self._width(values, zero) or self.divisor)

    def _zero(self, values: Values) -> float:
        """Value that stands for no signal: ``offset``, unless the scan clearly has another one.

        It has another one where its background is one value that is not ``offset``, or where it
        reaches clearly below ``offset``, as no magnitude does. So scans that differ by a positive
        factor and an offset take maps that differ alike, while a crop from inside tissue, whose
        smallest value is above ``offset`` for another reason, keeps it.
        """
        piles = [self.offset] if self._recurs(values, self.offset, COMMON) else _piles(values)
        for pile in piles:
            if self._is_zero(values, pile):
                near = self.foreground * (self._maximum(values, pile) - pile)
                return self.offset if abs(pile - self.offset) <= near else pile
        if self._is_zero(values, self.offset) and not self._is_raised(values):
            return self.offset
        lowest = values.percentile(LOWEST)
        return self.offset if lowest is None else lowest

    def _is_raised(self, values: Values) -> bool:
        """Whether a scan has a background far above ``offset``, as no crop from inside tissue."""
        if values.low <= self.offset:
            return False
        low, high = (values.percentile(percent) for percent in (LOWEST, 100 - LOWEST))
        if low is None or high is None or low - self.offset < RAISED * (high - low):
            return False
        dark = values.count(-np.inf, low + RIPPLE * (high - low))
        return low < high and dark >= BACKGROUND * values.size

    @staticmethod
    def _recurs(values: Values, value: float, share: float) -> bool:
        return values.count(value, value) >= share * values.size

    def _is_zero(self, values: Values, zero: float) -> bool:
        """Whether a scan has signal above a value and no more than ripples below it."""
        width = self._width(values, zero)
        if width == 0.0:
            return values.low == values.high
        return values.count(-np.inf, zero - RIPPLE * width) < RARE * values.size

    def _width(self, values: Values, zero: float) -> float:
        """Percentile of the foreground, from zero; 0 without foreground."""
        threshold = zero + self.foreground * (self._maximum(values, zero) - zero)
        percentile = values.percentile(self.percentile, threshold)
        return 0.0 if percentile is None else max(percentile - zero, 0.0)

    def _maximum(self, values: Values, zero: float) -> float:
        """The largest value, those left out that lie far above all but a few."""
        high = values.high
        while high > zero:
            bound = zero + LONE * (high - zero)
            if values.count(bound, np.inf) > max(1, FEW * values.size):
                break
            below, _ = values.around(bound)
            if below is None or below <= zero:
                break
            high = below
        return high


def _piles(values: Values) -> list[float]:
    """Values that many voxels have exactly and their neighbours have not: backgrounds, fills."""
    candidates = values.frequent(COMMON)
    at_lowest = values.count(values.low, values.low)
    if at_lowest >= RARE * values.size:
        candidates.append((values.low, at_lowest))
    return [value for value, count in candidates if stands_out(values, value, count)]


def stands_out(values: Values, value: float, count: int) -> bool:
    """Whether a value occurs much more often than the nearest ones to both sides."""
    sides = [side for side in values.around(value) if side is not None]
    return all(count >= STANDS_OUT * values.count(side, side) for side in sides)

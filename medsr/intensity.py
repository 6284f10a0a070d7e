"""How voxel values reach a network and come back: :class:`Intensity` and :class:`Normaliser`.

What else a model knows of its input is in ``medsr.model``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from medsr.volume import Modality

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

_CONFIG = ConfigDict(extra="forbid")

Number = TypeVar("Number", "FloatArray", "torch.Tensor")


@dataclass(frozen=True, config=_CONFIG)
class Normaliser:
    """A linear map between native voxel values and the network's range; it never clips.

    Args:
        offset: Native value that becomes 0.
        divisor: Native width that becomes 1; positive and finite.
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

    def restore(self, values: FloatArray) -> FloatArray:
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
        """Return the convention of this house: MR by percentile, CT from -1024 HU over 2048 HU."""
        if modality == "CT":
            return cls(kind="linear", offset=-1024.0, divisor=2048.0)
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
        values = np.asarray(data)
        foreground = values[values > self.threshold(float(values.max()))]
        if not foreground.size:
            return self.normaliser(None)
        return self.normaliser(float(np.percentile(foreground, self.percentile)))

    def threshold(self, maximum: float) -> float:
        """Native value above which voxels are foreground, in a scan with this ``maximum``."""
        return self.offset + self.foreground * (maximum - self.offset)

    def normaliser(self, percentile: float | None) -> Normaliser:
        """Return the map of a scan whose foreground has this ``percentile``; None of none."""
        width = 0.0 if percentile is None else percentile - self.offset
        # An empty scan has no scale of its own; any positive divisor restores it exactly.
        return Normaliser(self.offset, width if width > 0 else self.divisor)

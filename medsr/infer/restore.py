"""From the network's answer to a volume: the exact grid, native units, the scan's axes.

For volumes in memory; ``medsr.infer.large`` does the same by slabs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medsr.geometry import Geometry
from medsr.infer import prepare
from medsr.infer.axes import AxisOrder
from medsr.infer.background import Faces
from medsr.infer.decide import Decision
from medsr.infer.limits import Limiter, Limits
from medsr.infer.padding import Padding
from medsr.infer.resample import FloatArray, resample
from medsr.model import Normaliser
from medsr.volume import Modality, Volume

if TYPE_CHECKING:
    from medsr.infer.consistency.project import ConsistencyReport, Planned
    from medsr.infer.consistency.projection import Residual


@dataclass(frozen=True)
class Restored:
    """What became of the network's channels.

    Args:
        after: The result, float32, native units, the scan's axes.
        sigma: The standard deviation of its error, where asked for; same grid and units.
        consistency: What the projection onto the scan did, where asked for.
        residual: How far the network's result, degraded again, is from the scan, native units;
            None where the model does not say how its training scans were degraded.
        doubt: A warning, where that is too far.
        limits: What was held to the limits that the scan sets, for the report; None without them.
    """

    after: Volume
    sigma: Volume | None
    consistency: ConsistencyReport | None
    residual: Residual | None
    doubt: str | None
    limits: dict[str, Any] | None

    def told(self) -> dict[str, Any]:
        """What of limits and uncertainty stands in the report."""
        found: dict[str, Any] = {} if self.limits is None else {"limits": self.limits}
        if self.sigma is not None:
            said = self.sigma.data[self.sigma.data > 0]
            median = float(np.median(said)) if said.size else 0.0
            found["uncertainty"] = {"units": self.sigma.units, "median": median}
        return found


def restore(
    answers: list[FloatArray],
    volume: Volume,
    frame: AxisOrder,
    normaliser: Normaliser,
    decision: Decision,
    padding: Padding | None = None,
    consistency: Planned | None = None,
    *,
    limits: bool = True,
) -> Restored:
    """Make volumes of the network's channels: exact grid, native units, the scan's axes.

    The channels are popped, so that what was resampled does not stay in memory. The result is held
    to the limits that its scan sets, then made consistent where that is asked for, both with the
    scan as the network saw it, padding replaced. Where the scan has padding, so has the result in
    the end. Nothing is uncertain in padding and in background.
    """
    from medsr.infer.consistency import check as doubt  # imports torch

    geometry = volume.geometry.resize(frame.array_shape(decision.target.shape))
    sr = _fitted(answers.pop(0), decision.target, order=3)
    sr = normaliser.restore(sr) if decision.uncertain else sr
    lr, modality = frame.canonical_data(volume.data), prepare.modality_of(volume)
    counted = None if padding is None else ~padding.mask(lr)
    lr = lr if padding is None else padding.removed(lr)
    after = volume.replace(data=frame.array_data(sr), geometry=geometry)
    limiter = None
    if limits:
        limiter = _limiter(frame.array_data(lr), after.data, modality, frame)
        limiter.apply(0, after.data)
    report = None
    if consistency is None:
        residual = doubt.measure(sr, lr, decision, modality, counted)
    else:
        hold = None if limiter is None else partial(limiter.apply, 0, after.data, near=False)
        report = consistency.apply(sr, lr, modality=modality, counted=counted, hold=hold)
        residual = report.before
    warning = None
    if residual is not None:
        warning = doubt.words(residual, lr if counted is None else lr[counted], modality)
    if padding is not None:
        padding.give_back(volume.data, after.data, padding.value)
    told = None if limiter is None else limiter.described()
    if not decision.uncertain:
        return Restored(after, None, report, residual, warning, told)
    values = _fitted(answers.pop(0), decision.target, order=1)
    values *= normaliser.divisor
    sigma = frame.array_data(values)
    if limiter is not None:
        limiter.clear(0, sigma)
    if padding is not None:
        padding.give_back(volume.data, sigma, 0.0)
    # Without the source there is no stored type to round to.
    unsure = after.replace(data=sigma, source=None)
    return Restored(after, unsure, report, residual, warning, told)


def _limiter(lr: FloatArray, after: FloatArray, modality: Modality, frame: AxisOrder) -> Limiter:
    """Settle the limits that a scan without padding sets to a result; axes as in the file."""
    background = Faces.of(lr).background()
    limits = Limits.of(float(lr.min()), float(lr.max()), modality, background)
    limiter = Limiter(limits, lr.shape, after.shape, frame)
    limiter.note(0, lr)
    return limiter


def _fitted(data: FloatArray, target: Geometry, *, order: int) -> FloatArray:
    """Bring what the network gave to the exact grid, by splines of an order."""
    if data.shape == target.shape:
        return data
    return resample(data, target.shape, order)

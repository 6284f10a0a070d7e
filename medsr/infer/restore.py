"""From the network's answer to a volume: the exact grid, native units, the scan's axes.

For volumes in memory; ``medsr.infer.large`` does the same by slabs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medsr.geometry import Geometry
from medsr.infer import prepare
from medsr.infer.decide import Decision
from medsr.infer.padding import Padding
from medsr.infer.resample import FloatArray, resample
from medsr.model import Normaliser
from medsr.volume import Volume

if TYPE_CHECKING:
    from medsr.infer.consistency import ConsistencyReport, Planned
    from medsr.infer.projection import Residual


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
    """

    after: Volume
    sigma: Volume | None
    consistency: ConsistencyReport | None
    residual: Residual | None
    doubt: str | None


def restore(
    answers: list[FloatArray],
    volume: Volume,
    frame: prepare.Frame,
    normaliser: Normaliser,
    decision: Decision,
    padding: Padding | None = None,
    consistency: Planned | None = None,
) -> Restored:
    """Make volumes of the network's channels: exact grid, native units, the scan's axes.

    The channels are popped, so that what was resampled does not stay in memory. Where the scan has
    padding, so has the result; nothing is uncertain there. Consistency is with the scan as the
    network saw it, padding replaced, and comes before padding is given back.
    """
    from medsr.infer import doubt  # imports torch

    geometry = volume.geometry.resize(frame.array_shape(decision.target.shape))
    sr = _fitted(answers.pop(0), decision.target, order=3)
    sr = normaliser.restore(sr) if decision.uncertain else sr
    lr, modality = frame.canonical_data(volume.data), prepare.modality_of(volume)
    counted = None if padding is None else ~padding.mask(lr)
    lr = lr if padding is None else padding.removed(lr)
    report = None
    if consistency is None:
        residual = doubt.measure(sr, lr, decision, modality, counted)
    else:
        report = consistency.apply(sr, lr, modality=modality, counted=counted)
        residual = report.before
    warning = None
    if residual is not None:
        warning = doubt.words(residual, lr if counted is None else lr[counted], modality)
    after = volume.replace(data=frame.array_data(sr), geometry=geometry)
    if padding is not None:
        padding.give_back(volume.data, after.data, padding.value)
    if not decision.uncertain:
        return Restored(after, None, report, residual, warning)
    values = _fitted(answers.pop(0), decision.target, order=1)
    values *= normaliser.divisor
    sigma = frame.array_data(values)
    if padding is not None:
        padding.give_back(volume.data, sigma, 0.0)
    # Without the source there is no stored type to round to.
    return Restored(after, after.replace(data=sigma, source=None), report, residual, warning)


def _fitted(data: FloatArray, target: Geometry, *, order: int) -> FloatArray:
    """Bring what the network gave to the exact grid, by splines of an order."""
    if data.shape == target.shape:
        return data
    return resample(data, target.shape, order)

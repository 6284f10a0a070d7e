"""From the network's answer to a volume: the exact grid, native units, the scan's axes.

For volumes in memory; ``medsr.infer.large`` does the same by slabs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medsr.geometry import Geometry
from medsr.infer import prepare
from medsr.infer.decide import Decision
from medsr.infer.padding import Padding
from medsr.infer.resample import FloatArray, resample
from medsr.model import Normaliser
from medsr.volume import Volume

if TYPE_CHECKING:
    from medsr.infer.consistency import ConsistencyReport, Planned, Residual


def restore(
    answers: list[FloatArray],
    volume: Volume,
    frame: prepare.Frame,
    normaliser: Normaliser,
    decision: Decision,
    padding: Padding | None = None,
    consistency: Planned | None = None,
) -> tuple[Volume, Volume | None, ConsistencyReport | None]:
    """Make volumes of the network's channels: exact grid, native units, the scan's axes.

    The channels are popped, so that what was resampled does not stay in memory. Where the scan has
    padding, so has the result; nothing is uncertain there. Consistency is with the scan as the
    network saw it, padding replaced, and comes before padding is given back.
    """
    geometry = volume.geometry.resize(frame.array_shape(decision.target.shape))
    sr = _fitted(answers.pop(0), decision.target, order=3)
    sr = normaliser.restore(sr) if decision.uncertain else sr
    report = None
    if consistency is not None:
        lr = frame.canonical_data(volume.data)
        report = consistency.apply(
            sr,
            lr if padding is None else padding.removed(lr),
            modality=prepare.modality_of(volume),
            counted=None if padding is None else ~padding.mask(lr),
        )
    after = volume.replace(data=frame.array_data(sr), geometry=geometry)
    if padding is not None:
        padding.give_back(volume.data, after.data, padding.value)
    if not decision.uncertain:
        return after, None, report
    values = _fitted(answers.pop(0), decision.target, order=1)
    values *= normaliser.divisor
    sigma = frame.array_data(values)
    if padding is not None:
        padding.give_back(volume.data, sigma, 0.0)
    # Without the source there is no stored type to round to.
    return after, after.replace(data=sigma, source=None), report


def look(
    after: Volume,
    volume: Volume,
    frame: prepare.Frame,
    decision: Decision,
    padding: Padding | None = None,
    made_consistent: ConsistencyReport | None = None,
) -> tuple[Residual | None, str | None]:
    """How far a result, degraded again, is from its scan, and a warning where it is too far."""
    from medsr.infer import doubt

    lr = frame.canonical_data(volume.data)
    seen = lr if padding is None else padding.removed(lr)
    counted = None if padding is None else ~padding.mask(lr)
    modality = prepare.modality_of(volume)
    if made_consistent is None:
        sr = frame.canonical_data(after.data)
        residual = doubt.measure(sr, seen, decision, modality, counted)
    else:
        residual = made_consistent.before
    if residual is None:
        return None, None
    return residual, doubt.words(residual, seen if counted is None else seen[counted], modality)


def _fitted(data: FloatArray, target: Geometry, *, order: int) -> FloatArray:
    """Bring what the network gave to the exact grid, by splines of an order."""
    if data.shape == target.shape:
        return data
    return resample(data, target.shape, order)

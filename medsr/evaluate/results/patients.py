"""Rows into patients: the axes of a scan are averaged first, then the scans of a patient.

Whoever has many scans counts once. Rows without a finite number are left out and counted. What is
inferred from the patients' numbers is in ``intervals`` and ``statistics``.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, Protocol, TypeVar

Better = Literal["higher", "lower", "zero"]
Key = TypeVar("Key", bound=Hashable)
Place = tuple[str, str, str]
"""Patient, scan and axis of a row."""


class Row(Protocol):
    """What is read of a row; :class:`medsr.evaluate.results.CaseResult` has it."""

    @property
    def patient_id(self) -> str:
        """Pseudonym."""
        ...

    @property
    def scan_id(self) -> str:
        """Name of the scan."""
        ...

    @property
    def axis(self) -> str:
        """Degraded axes."""
        ...

    @property
    def method(self) -> str:
        """What restored."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Numbers by name; NaN where undefined."""
        ...


@dataclass(frozen=True)
class Scores:
    """The finite numbers of one method and metric by place, and how many rows had none."""

    by_place: Mapping[Place, float]
    dropped: int


def scores(rows: Iterable[Row], method: str, metric: str) -> Scores:
    """Collect a method's numbers; several of one place (other seeds) are averaged.

    A metric that a row does not name at all was not asked for and is not counted as dropped.
    """
    found: list[tuple[Place, float]] = []
    dropped = 0
    for row in rows:
        if row.method != method or metric not in row.metrics:
            continue
        value = float(row.metrics[metric])
        if math.isfinite(value):
            found.append(((row.patient_id, row.scan_id, row.axis), value))
        else:
            dropped += 1
    return Scores(means(found), dropped)


def means(pairs: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """Average the values of each key (a patient, a scan); keys in order of first appearance.

    Examples:
        >>> from medsr.evaluate.results.patients import means
        >>> means([("p0", 30.0), ("p1", 28.0), ("p0", 32.0)])
        {'p0': 31.0, 'p1': 28.0}
    """
    groups: dict[Key, list[float]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: fmean(values) for key, values in groups.items()}


def over_patients(by_place: Mapping[Place, float]) -> dict[str, float]:
    """Average the places of each scan, then the scans of each patient."""
    scans = means(((patient, scan), value) for (patient, scan, _), value in by_place.items())
    return means((patient, value) for (patient, _), value in scans.items())


def differences(ours: Scores, theirs: Scores, better: Better) -> dict[Place, float]:
    """Ours minus theirs wherever both have a number.

    Of a metric that should be near zero the magnitudes are subtracted, so that errors of opposite
    sign along two axes do not make a method look better than it is.
    """
    size = abs if better == "zero" else float
    return {
        place: size(value) - size(theirs.by_place[place])
        for place, value in ours.by_place.items()
        if place in theirs.by_place
    }


def names(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Methods and metrics in the order of their first appearance."""
    methods = dict.fromkeys(row.method for row in rows)
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    return tuple(methods), tuple(metrics)

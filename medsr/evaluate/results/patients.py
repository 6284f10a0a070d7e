"""The tidy table of an evaluation, and its means: of the axes of a scan, then of a patient's scans.

Whoever has many scans counts once. Values that are not finite are left out and counted. What is
inferred from the patients' numbers is in ``intervals`` and ``statistics``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pandas as pd

Better = Literal["higher", "lower", "zero"]

Key = TypeVar("Key", bound=Hashable)
Place = tuple[str, str, str]
"""Patient, scan and axis of a row."""
PLACE = ("patient_id", "scan_id", "axis")
COLUMNS = (*PLACE, "region", "method", "metric", "value")


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
    def region(self) -> str:
        """Part of the body; empty where unknown."""
        ...

    @property
    def method(self) -> str:
        """What restored."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Numbers by name; NaN where undefined."""
        ...


def tidy(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one line for each number of each row, in their order.

    Columns: ``patient_id``, ``scan_id``, ``axis``, ``region``, ``method``, ``metric``, ``value``.

    Source: Wickham 2014, "Tidy Data", section 2.

    Examples:
        >>> from medsr.evaluate.results import CaseResult
        >>> from medsr.evaluate.results.patients import tidy
        >>> row = CaseResult("p1", "p1_T1w", "z", "mr-z4", {"psnr": 28.4, "ssim": 0.9}, 1.7)
        >>> tidy([row])[["patient_id", "metric", "value"]].values.tolist()
        [['p1', 'psnr', 28.4], ['p1', 'ssim', 0.9]]
    """
    lines = [
        (row.patient_id, row.scan_id, row.axis, row.region, row.method, metric, float(value))
        for row in rows
        for metric, value in row.metrics.items()
    ]
    return pd.DataFrame(lines, columns=[*COLUMNS]).astype({"value": float})


def mean_by(
    table: pd.DataFrame,
    *columns: str,
    value: str = "value",
    mean: Callable[[Sequence[float]], float] = fmean,
) -> dict[Any, float]:
    """Average a column over the lines that agree in others; keys in order of first appearance.

    Args:
        table: Lines without NaN in ``value``.
        *columns: What tells groups apart; of several the keys are tuples.
        value: What is averaged.
        mean: Of a group. The bootstrap of few patients hangs on the last bit of their means, so
            results that were published with one keep it.

    Examples:
        >>> import pandas as pd
        >>> from medsr.evaluate.results.patients import mean_by
        >>> lines = pd.DataFrame({"patient_id": ["p0", "p1", "p0"], "value": [30.0, 28.0, 32.0]})
        >>> mean_by(lines, "patient_id")
        {'p0': 31.0, 'p1': 28.0}
    """
    keys = [table[name].tolist() for name in columns]
    places = keys[0] if len(keys) == 1 else zip(*keys, strict=True)
    return means(zip(places, table[value].tolist(), strict=True), mean)


def means(
    pairs: Iterable[tuple[Key, float]], mean: Callable[[Sequence[float]], float] = fmean
) -> dict[Key, float]:
    """Average the values of each key (a patient, a scan); keys in order of first appearance."""
    groups: dict[Key, list[float]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return {key: mean(values) for key, values in groups.items()}


@dataclass(frozen=True)
class Scores:
    """The finite numbers of one method and metric by place, and how many had none."""

    by_place: Mapping[Place, float]
    dropped: int


def scores(table: pd.DataFrame) -> dict[tuple[str, str], Scores]:
    """Return the numbers of every method and metric; several of one place are averaged.

    A metric that a row does not name at all was not asked for and is not counted as dropped.
    """
    by_method = {}
    for key, lines in table.groupby(["method", "metric"], sort=False):
        finite = lines[np.isfinite(lines["value"])]
        by_method[key] = Scores(mean_by(finite, *PLACE), len(lines) - len(finite))
    return by_method


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

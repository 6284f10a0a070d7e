"""Means of lesions over patients and their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from medsr.evaluate.lesions import summarise


def _row(patient: str, kept: float, **changes: Any) -> dict[str, Any]:
    return {
        "patient_id": patient,
        "method": "linear",
        "tissue": "soft",
        "contrast": "+30 HU",
        "diameter_mm": 5.0,
        "contrast_kept": kept,
        "volume_kept": kept,
        "extent_kept": math.nan,
        "shift_mm": 0.5,
        "false_response": 0.1,
        "plain_contrast": kept,
        **changes,
    }


def test_patients_count_once_and_the_interval_is_scipys() -> None:
    kept = {"a": [0.2, 0.4], "b": [0.5], "c": [0.9, 0.7, 0.8], "d": [0.6]}
    rows = [_row(patient, value) for patient, values in kept.items() for value in values]
    (entry,) = summarise(rows)["linear"]
    means = np.array([np.mean(values) for values in kept.values()])
    assert entry["contrast_kept"]["mean"] == pytest.approx(means.mean())
    expected = stats.bootstrap((means,), np.mean, n_resamples=1999, rng=np.random.default_rng(0))
    assert entry["contrast_kept"]["low"] == pytest.approx(expected.confidence_interval.low)
    assert entry["contrast_kept"]["high"] == pytest.approx(expected.confidence_interval.high)
    assert (entry["lesions"], entry["patients"]) == (7, 4)
    assert entry["extent_kept"] == {"mean": None, "low": None, "high": None}
    assert entry["shift_mm"] == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_two_patients_have_a_mean_and_no_interval() -> None:
    (entry,) = summarise([_row("a", 0.2), _row("b", 0.4)])["linear"]
    assert entry["contrast_kept"] == {"mean": pytest.approx(0.3), "low": None, "high": None}


def test_kinds_stand_in_order_and_methods_apart() -> None:
    rows = [
        _row("a", 0.5, diameter_mm=8.0),
        _row("a", 0.4),
        _row("a", 0.3, contrast="-100 HU"),
        _row("a", 0.9, tissue="lung", contrast="nodule"),
        _row("a", 0.8, method="mr-z4"),
    ]
    found = summarise(rows)
    assert list(found) == ["linear", "mr-z4"]
    kinds = [(e["tissue"], e["contrast"], e["diameter_mm"]) for e in found["linear"]]
    assert kinds == [
        ("lung", "nodule", 5.0),
        ("soft", "-100 HU", 5.0),
        ("soft", "+30 HU", 5.0),
        ("soft", "+30 HU", 8.0),
    ]
    assert summarise([]) == {}

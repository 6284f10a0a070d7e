"""Sentences of the report: right when a model is better, worse, unclear, alone or missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medsr.evaluate.report import headline
from medsr.evaluate.report.reading import Evaluation, decimals, interval, p_value, text

Builder = Callable[..., dict[str, Any]]
MINUS = "\N{MINUS SIGN}"


def _compared(data: dict[str, Any], metric: str = "psnr") -> dict[str, Any]:
    return next(
        entry
        for entry in data["statistics"]["comparisons"]
        if (entry["method"], entry["against"], entry["metric"]) == ("mr-z4", "bspline", metric)
    )


def test_better_for_every_patient(evaluation: Builder) -> None:
    of = Evaluation(evaluation())
    assert headline.title(of) == "mr-z4 is better than cubic B-spline in 7 of 7 patients"
    words = headline.lede(of)
    assert words.startswith("+2.7")
    assert "mm finer slices by Fourier shell correlation" in words
    assert {figure.tone for figure in headline.key_figures(of)} == {"good"}


def test_worse_is_said(evaluation: Builder) -> None:
    of = Evaluation(evaluation(gain=-0.5))
    assert headline.title(of) == "mr-z4 is worse than cubic B-spline in 7 of 7 patients"
    words = headline.lede(of)
    assert words.startswith(MINUS)
    assert "coarser slices" in words
    assert {figure.tone for figure in headline.key_figures(of)} == {"bad"}
    assert headline.answers(of)[0].short == "No"


def test_an_interval_that_holds_zero_is_no_difference(evaluation: Builder) -> None:
    data = evaluation()
    _compared(data).update(difference=0.1, low=-0.4, high=0.6, better=4, worse=3)
    of = Evaluation(data)
    assert headline.title(of) == "No clear difference between mr-z4 and cubic B-spline"
    assert "The interval holds zero; 4 of 7 patients are better, 3 worse." in headline.lede(of)
    assert headline.answers(of)[0].short == "Not for 3"


def test_some_patients_worse(evaluation: Builder) -> None:
    data = evaluation()
    _compared(data).update(better=6, worse=1)
    of = Evaluation(data)
    assert headline.title(of).endswith("in 6 of 7 patients")
    assert headline.lede(of).endswith("1 patient is worse.")


@pytest.mark.parametrize(("gain", "word"), [(1.0, "better"), (-1.0, "worse")])
def test_one_patient(evaluation: Builder, gain: float, word: str) -> None:
    of = Evaluation(evaluation(patients=1, gain=gain))
    assert headline.title(of) == f"mr-z4 is {word} than cubic B-spline in the one patient scored"
    assert "says nothing about others" in headline.lede(of)
    assert "interval 2" not in headline.lede(of)
    assert any("One patient only" in words for words in headline.warnings(of))


def test_without_a_model(evaluation: Builder) -> None:
    of = Evaluation(evaluation(methods=("linear", "bspline", "tv")))
    assert headline.title(of) == "Without a model, total variation scores best"
    assert "No model was given" in headline.lede(of)
    assert headline.key_figures(of) == []


def test_warnings(evaluation: Builder) -> None:
    data = evaluation(patients=4)
    data["failed"] = [{"scan_id": "a"}, {"scan_id": "a"}, {"scan_id": "b"}]
    data["warnings"] = ["model mr-z4 does not say whom it was trained on"]
    found = headline.warnings(Evaluation(data))
    assert found[0] == "model mr-z4 does not say whom it was trained on"
    assert any("Only 4 patients" in words for words in found)
    assert any(words.startswith("2 scans failed") for words in found)
    assert any("simulated" in words for words in found)
    data["task"]["kind"] = "pairs"
    assert not any("simulated" in words for words in headline.warnings(Evaluation(data)))


def test_non_inferiority_and_lesions(evaluation: Builder) -> None:
    data = evaluation()
    answers = {a.question: a for a in headline.answers(Evaluation(data))}
    assert answers["Is mr-z4 non-inferior to mr-z4-teacher?"].short == "Yes"
    data["statistics"]["non_inferiority"][0]["non_inferior"] = False
    answers = {a.question: a for a in headline.answers(Evaluation(data))}
    assert answers["Is mr-z4 non-inferior to mr-z4-teacher?"].short == "Not shown"
    kept = [
        entry["contrast_kept"]["mean"]
        for entry in data["lesions"]["summary"]["mr-z4"]
        if entry["diameter_mm"] == 2.0
    ]
    short = answers["What happens to small lesions?"].short
    assert short == f"{100 * sum(kept) / len(kept):.0f} % kept"


def test_gains_follow_from_patients_without_statistics(evaluation: Builder) -> None:
    data = evaluation()
    given = _compared(data)
    del data["statistics"]
    of = Evaluation(data)
    found = headline.gain(of, of.method("mr-z4"), of.method("bspline"), "psnr")
    assert found is not None
    assert found.difference == pytest.approx(given["difference"])
    assert (found.better, found.worse) == (given["better"], given["worse"])
    assert found.bounds is None


def test_the_best_of_a_column_goes_by_its_direction(evaluation: Builder) -> None:
    data = evaluation()
    means = data["statistics"]["means"]
    of = Evaluation(data)
    assert of.best("psnr") == max(means, key=lambda m: means[m]["psnr"]["mean"])
    assert of.best("mae") == min(means, key=lambda m: means[m]["mae"]["mean"])
    means["linear"]["bias"]["mean"] = 0.001
    means["tv"]["bias"]["mean"] = -40.0
    assert Evaluation(data).best("bias") == "linear"


def test_numbers_as_text() -> None:
    assert text(-0.123, 2) == f"{MINUS}0.12"
    assert text(-0.001, 2, signed=True) == "0.00"
    assert text(2.0, 1, signed=True) == "+2.0"
    assert text(None) == text(float("nan")) == "\N{EN DASH}"
    assert interval((1.0, 2.25), 2) == "1.00 to 2.25"
    assert interval(None) == ""
    assert [decimals([0.0, v]) for v in (280.0, 28.0, 2.8, 0.28, 0.0)] == [0, 1, 2, 3, 2]
    assert [p_value(p) for p in (0.0001, 0.0156, 0.2)] == ["< 0.001", "0.016", "0.20"]

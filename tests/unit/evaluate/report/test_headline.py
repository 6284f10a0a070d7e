"""Sentences of the report: right when a model is better, worse, unclear, alone or missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medsr.evaluate.report import headline, rivals
from medsr.evaluate.report.answers import answers
from medsr.evaluate.report.reading import ReportData, decimals, interval, p_value, text

Builder = Callable[..., dict[str, Any]]
MINUS = "\N{MINUS SIGN}"


def _compared(data: dict[str, Any], against: str = "tv", metric: str = "psnr") -> dict[str, Any]:
    return next(
        entry
        for entry in data["statistics"]["comparisons"]
        if (entry["method"], entry["against"], entry["metric"]) == ("mr-z4", against, metric)
    )


def test_better_for_every_patient(evaluation: Builder) -> None:
    of = ReportData(evaluation())
    assert headline.title(of) == "mr-z4 is better than total variation in 7 of 7 patients"
    words = headline.lede(of)
    assert words.startswith("+2.1")
    assert "mm finer slices by Fourier shell correlation" in words
    assert "Total variation is the best of the 3 other methods by PSNR; against cubic" in words
    figures = headline.key_figures(of)
    assert {figure.tone for figure in figures[:4]} == {"good"}
    assert figures[0].label == "PSNR over total variation"


def test_the_best_rival_is_named_and_not_the_usual_reference(evaluation: Builder) -> None:
    # Ahead of cubic B-spline by a tenth of the usual gain, behind total variation, for everybody.
    of = ReportData(evaluation(gain=0.1))
    given = _compared(of.data, "bspline")  # type: ignore[arg-type]
    assert given["difference"] > 0 < given["better"]
    assert headline.title(of) == "mr-z4 is worse than total variation in 7 of 7 patients"
    assert headline.lede(of).startswith(MINUS)
    assert {figure.tone for figure in headline.key_figures(of)[:4]} == {"bad"}
    assert answers(of)[0].short == "No"
    assert answers(of)[-1].question.endswith("against total variation?")
    assert answers(of)[-1].short.startswith(MINUS)


def test_every_metric_has_the_rival_that_is_best_by_it(evaluation: Builder) -> None:
    data = evaluation()
    data["statistics"]["means"]["linear"]["resolution_z_mm"]["mean"] = 1.0
    of = ReportData(data)
    lead = of.method("mr-z4")
    assert of.rival(lead, "psnr") == of.method("tv")
    assert of.rival(lead, "resolution_z_mm") == of.method("linear")
    assert " than linear, on average" in headline.lede(of)


def test_other_tools_are_rivals_and_kin_is_not(evaluation: Builder) -> None:
    methods = ("bspline", "tv", "mr-z4", "mr-z4-teacher", "peer")
    data = evaluation(methods=methods)
    data["methods"]["peer"]["role"] = "external"
    of = ReportData(data)
    assert headline.title(of).startswith("mr-z4 is better than peer")
    assert {m.name for m in of.rivals(of.method("mr-z4"))} == {"bspline", "tv", "peer"}
    assert {m.name for m in of.rivals(of.method("mr-z4-teacher"))} == {"bspline", "tv", "peer"}
    data["methods"]["peer"] = {"role": "student", "projects": "mr-z4"}
    of = ReportData(data)
    assert {m.name for m in of.rivals(of.method("mr-z4"))} == {"bspline", "tv"}
    assert {m.name for m in of.rivals(of.method("peer"))} == {"bspline", "tv"}


def test_worse_is_said(evaluation: Builder) -> None:
    of = ReportData(evaluation(methods=("linear", "bspline", "mr-z4"), gain=-0.5))
    assert headline.title(of) == "mr-z4 is worse than cubic B-spline in 7 of 7 patients"
    words = headline.lede(of)
    assert words.startswith(MINUS)
    assert "coarser slices" in words
    assert {figure.tone for figure in headline.key_figures(of)[:4]} == {"bad"}
    assert answers(of)[0].short == "No"


def test_an_interval_that_holds_zero_is_no_difference(evaluation: Builder) -> None:
    data = evaluation()
    _compared(data).update(difference=0.1, low=-0.4, high=0.6, better=4, worse=3)
    of = ReportData(data)
    assert headline.title(of) == "No clear difference between mr-z4 and total variation"
    assert "The interval holds zero; 4 of 7 patients are better, 3 worse." in headline.lede(of)


def test_some_patients_worse(evaluation: Builder) -> None:
    data = evaluation()
    _compared(data).update(better=6, worse=1)
    of = ReportData(data)
    assert headline.title(of).endswith("in 6 of 7 patients")
    assert " 1 patient is worse." in headline.lede(of)


def test_whoever_beats_it_counts_for_every_patient(evaluation: Builder) -> None:
    data = evaluation()
    assert answers(ReportData(data))[0].short == "Yes"
    # One patient whom linear interpolation, not the best rival, happens to serve better.
    data["statistics"]["per_patient"]["linear"]["patient-03"]["psnr"] = 90.0
    answer = answers(ReportData(data))[0]
    assert (answer.short, answer.tone) == ("Not for 1", "fair")


@pytest.mark.parametrize(("gain", "word"), [(1.0, "better"), (-1.0, "worse")])
def test_one_patient(evaluation: Builder, gain: float, word: str) -> None:
    of = ReportData(evaluation(patients=1, gain=gain))
    assert headline.title(of) == f"mr-z4 is {word} than total variation in the one patient scored"
    assert "says nothing about others" in headline.lede(of)
    assert "interval 2" not in headline.lede(of)
    assert any("One patient only" in words for words in headline.warnings(of))


def test_without_a_model(evaluation: Builder) -> None:
    of = ReportData(evaluation(methods=("linear", "bspline", "tv")))
    assert headline.title(of) == "Without a model, total variation scores best"
    assert "No model was given" in headline.lede(of)
    assert headline.key_figures(of) == []


def test_warnings(evaluation: Builder) -> None:
    data = evaluation(patients=4)
    data["failed"] = [{"scan_id": "a"}, {"scan_id": "a"}, {"scan_id": "b"}]
    data["warnings"] = ["model mr-z4 does not state its training patients"]
    found = headline.warnings(ReportData(data))
    assert found[0] == "model mr-z4 does not state its training patients"
    assert any("Only 4 patients" in words for words in found)
    assert any(words.startswith("2 scans failed") for words in found)
    assert any("simulated" in words for words in found)
    data["task"]["kind"] = "pairs"
    assert not any("simulated" in words for words in headline.warnings(ReportData(data)))


def test_non_inferiority_and_lesions(evaluation: Builder) -> None:
    data = evaluation()
    found = {a.question: a for a in answers(ReportData(data))}
    assert found["Is mr-z4 non-inferior to mr-z4-teacher?"].short == "Yes"
    data["statistics"]["non_inferiority"][0]["non_inferior"] = False
    found = {a.question: a for a in answers(ReportData(data))}
    assert found["Is mr-z4 non-inferior to mr-z4-teacher?"].short == "Not shown"
    kept = [
        entry["contrast_kept"]["mean"]
        for entry in data["lesions"]["summary"]["mr-z4"]
        if entry["diameter_mm"] == 2.0
    ]
    short = found["What happens to small lesions?"].short
    assert short == f"{100 * sum(kept) / len(kept):.0f} % kept"


def test_gains_follow_from_patients_without_statistics(evaluation: Builder) -> None:
    data = evaluation()
    given = _compared(data)
    del data["statistics"]
    of = ReportData(data)
    found = rivals.gain(of, of.method("mr-z4"), of.method("tv"), "psnr")
    assert found is not None
    assert found.difference == pytest.approx(given["difference"])
    assert (found.better, found.worse) == (given["better"], given["worse"])
    gaps = [v - of.per_patient("tv", "psnr")[p] for p, v in of.per_patient("mr-z4", "psnr").items()]
    assert found.bounds is not None
    assert min(gaps) < found.bounds[0] < found.difference < found.bounds[1] < max(gaps)


def test_the_best_of_a_column_goes_by_its_direction(evaluation: Builder) -> None:
    data = evaluation()
    means = data["statistics"]["means"]
    of = ReportData(data)
    assert of.best("psnr") == max(means, key=lambda m: means[m]["psnr"]["mean"])
    assert of.best("mae") == min(means, key=lambda m: means[m]["mae"]["mean"])
    means["linear"]["bias"]["mean"] = 0.001
    means["tv"]["bias"]["mean"] = -40.0
    assert ReportData(data).best("bias") == "linear"


def test_numbers_as_text() -> None:
    assert text(-0.123, 2) == f"{MINUS}0.12"
    assert text(-0.001, 2, signed=True) == "0.00"
    assert text(2.0, 1, signed=True) == "+2.0"
    assert text(None) == text(float("nan")) == "\N{EN DASH}"
    assert interval((1.0, 2.25), 2) == "1.00 to 2.25"
    assert interval(None) == ""
    assert [decimals([0.0, v]) for v in (280.0, 28.0, 2.8, 0.28, 0.0)] == [0, 1, 2, 3, 2]
    assert [p_value(p) for p in (0.0001, 0.0156, 0.2)] == ["< 0.001", "0.016", "0.20"]


def _lesions(data: dict[str, Any], **kept: float) -> ReportData:
    """Lesions of 3 mm of which each method keeps that much in every one of four patients."""
    data["lesions"] = {
        "summary": {
            name.replace("_", "-"): [
                {"diameter_mm": size, "contrast_kept": {"mean": share}} for size in (3.0, 8.0)
            ]
            for name, share in kept.items()
        },
        "rows": [
            {
                "method": name.replace("_", "-"),
                "patient_id": f"p{patient}",
                "diameter_mm": 3.0,
                "contrast_kept": share + 0.01 * patient * (name == "tv"),
            }
            for name, share in kept.items()
            for patient in range(-1, 3)
        ],
    }
    return ReportData(data)


@pytest.mark.parametrize(
    ("kept", "rival", "tone"),
    [
        (0.51, 0.44, "bad"),  # half lost, though the rival loses more
        (0.60, 0.40, "bad"),
        (0.75, 0.59, "fair"),
        (0.85, 0.84, "good"),  # unbeaten
        (0.85, 0.88, "fair"),
        (0.92, 0.99, "good"),
        (1.08, 0.99, "good"),
        (1.15, 0.99, "fair"),  # too much contrast is none that was there
        (1.45, 1.60, "bad"),
    ],
)
def test_the_colour_of_small_lesions(
    evaluation: Builder, kept: float, rival: float, tone: str
) -> None:
    of = _lesions(evaluation(), mr_z4=kept, tv=rival, mr_z4_teacher=1.0)
    answer = next(a for a in answers(of) if "lesions" in a.question)
    assert answer.tone == tone
    assert headline.key_figures(of)[-1].tone == tone
    assert answer.short == f"{100 * kept:.0f} % kept"
    assert f"Total variation, the best of the others here, keeps {100 * rival:.0f} %" in (
        answer.detail
    )


def test_the_rival_of_small_lesions_has_its_interval(evaluation: Builder) -> None:
    of = _lesions(evaluation(), mr_z4=0.51, tv=0.59, bspline=0.44)
    detail = next(a for a in answers(of) if "lesions" in a.question).detail
    # Gaps of the four patients: -7, -8, -9 and -10 points.
    assert f"{MINUS}8 points" in detail
    low, high = detail.partition("interval ")[2].partition(")")[0].split(" to ")
    assert -10 <= float(low.replace(MINUS, "-")) <= -9
    assert -8 <= float(high.replace(MINUS, "-")) <= -7
    assert "About half of such a lesion is lost." in detail


def test_a_mean_of_mostly_one_region_is_told(evaluation: Builder) -> None:
    data = evaluation()
    data["regions"] = [{"region": "brain", "patients": 4}, {"region": "knee", "patients": 3}]
    words = " ".join(headline.warnings(ReportData(data)))
    assert "4 of 7 patients show the region brain" in words
    data["regions"][0]["patients"] = data["regions"][1]["patients"] = 3
    assert "mostly theirs" not in " ".join(headline.warnings(ReportData(data)))

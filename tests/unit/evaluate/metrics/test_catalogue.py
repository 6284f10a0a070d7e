"""Every name is told in words, and the reference page leaves none out."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsr.evaluate.metrics import describe
from medsr.evaluate.metrics.catalogue import METRICS, REGIONS
from medsr.evaluate.metrics.regions import WORDS

OF_RUNS = {"seconds", "psnr_gain"}


def test_a_metric_in_a_region_is_told_with_both() -> None:
    info = describe("mae@bone", "CT")
    assert (info.name, info.label) == ("mae@bone", "MAE, bone")
    assert (info.unit, info.better) == ("HU", "lower")
    assert describe("mae").unit == "native units"
    assert describe("bias@lung").better == "zero"
    assert describe("dice@bright").label == "Dice, bright tissue"
    assert describe("psnr", "CT").unit == "dB"
    assert describe("resolution_z_mm").unit == "mm"


@pytest.mark.parametrize(
    ("name", "label"),
    [("brightness", "brightness"), ("psnr@left_knee", "PSNR, left_knee"), ("", ""), ("@", "")],
)
def test_unknown_names_stand_for_themselves(name: str, label: str) -> None:
    info = describe(name)
    assert (info.name, info.label) == (name, label)


def test_the_reference_page_names_every_metric_and_region(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    for name in METRICS.keys() - OF_RUNS:
        assert f"`{name}`" in page or f"`{name}@" in page, name
    for name in WORDS:
        assert f"`{name}`" in page, name
    assert WORDS.keys() < REGIONS.keys()

"""Words for parts of the body: understood, compared, and never repeated."""

from __future__ import annotations

import pytest

from medsr.regions import UNKNOWN, is_elsewhere, region_of


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("BRAIN", "brain"),
        ("C SPINE", "spine"),
        ("LUMBAR_SPINE", "spine"),
        ("THORAX", "chest"),
        ("knee", "knee"),
        ("", UNKNOWN),
        (None, UNKNOWN),
        (7, UNKNOWN),
        ("Doe^Jane", UNKNOWN),
        ("WHOLEBODY", UNKNOWN),
    ],
)
def test_words_of_the_standard_are_understood(text: object, region: str) -> None:
    assert region_of(text) == region


@pytest.mark.parametrize(
    ("text", "regions", "elsewhere"),
    [
        ("KNEE", ("brain",), True),
        ("KNEE", ("brain", "knee"), False),
        ("HEAD", ("brain",), False),
        ("HEART", ("chest",), False),
        ("LUNG", ("chest",), False),
        ("ABDOMEN", ("chest",), True),
        ("CHESTABDPELVIS", ("chest",), False),
        ("PROSTATE", ("pelvis",), False),
        ("KNEE", (), False),
        ("", ("brain",), False),
        ("something", ("brain",), False),
        ("KNEE", ("brain", "a word of their own"), False),
    ],
)
def test_only_what_is_certain_counts(text: str, regions: tuple[str, ...], elsewhere: bool) -> None:
    assert is_elsewhere(text, regions) == elsewhere

"""Splits by patient: fixed, stratified, and stable as a cohort grows."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsr.data.manifest import ScanRecord
from medsr.data.split import FRACTIONS, apply_split, parse_fractions, split_patients, strata
from medsr.errors import UsageError


def scan(patient: str, contrast: str = "T1w", site: str = "", number: int = 0) -> ScanRecord:
    path = Path(f"{patient}_{contrast}_{number}.nii")
    return ScanRecord(path, "all", patient, "MR", contrast, site=site)


def people(count: int, contrast: str = "T1w", site: str = "") -> list[ScanRecord]:
    return [scan(f"{contrast}{site}-{n}", contrast, site) for n in range(count)]


def test_every_stratum_gets_its_share() -> None:
    cohort = people(100) + people(40, "T2w", "A") + people(40, "T2w", "B")
    assigned = split_patients(cohort, FRACTIONS)
    by_stratum = Counter((p.split("-")[0], s) for p, s in assigned.items())
    assert {s: by_stratum["T1w", s] for s in FRACTIONS} == {"train": 70, "dev": 15, "test": 15}
    for site in "AB":
        for split, share in FRACTIONS.items():
            assert abs(by_stratum[f"T2w{site}", split] - 40 * share) <= 1.5


def test_many_tiny_strata_still_fill_every_split() -> None:
    cohort = [scan(f"p{n}", site=f"site{n}") for n in range(40)]
    counts = Counter(split_patients(cohort, FRACTIONS).values())
    assert counts == {"train": 28, "dev": 6, "test": 6}


def test_a_patient_is_in_one_split_and_one_stratum() -> None:
    cohort = [
        scan("a", "T1w", "X"),
        scan("a", "T2w", "X"),
        scan("b", "T1w"),
        scan("a", "T1w", "X", 1),
    ]
    assert strata(cohort) == {"a": "MR/T1w/X + MR/T2w/X", "b": "MR/T1w"}
    split = apply_split(cohort, split_patients(cohort, FRACTIONS))
    assert len({record.split for record in split if record.patient_id == "a"}) == 1


@given(st.permutations(range(12)), st.integers(0, 3))
def test_the_order_of_the_cohort_does_not_matter(order: list[int], seed: int) -> None:
    cohort = people(12)
    shuffled = [cohort[n] for n in order]
    assert split_patients(shuffled, FRACTIONS, seed=seed) == split_patients(
        cohort, FRACTIONS, seed=seed
    )


def test_another_process_gives_the_same_split() -> None:
    code = (
        "from pathlib import Path\n"
        "from medsr.data.manifest import ScanRecord\n"
        "from medsr.data.split import FRACTIONS, split_patients\n"
        "people = [ScanRecord(Path(f'{n}'), 'all', f'T1w-{n}', 'MR', 'T1w') for n in range(20)]\n"
        "print(','.join(split_patients(people, FRACTIONS).values()))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert found.stdout.strip().split(",") == [*split_patients(people(20), FRACTIONS).values()]


def test_the_seed_changes_who_goes_where() -> None:
    one, other = (split_patients(people(30), FRACTIONS, seed=seed) for seed in (0, 1))
    assert one != other
    assert Counter(one.values()) == Counter(other.values())


@given(st.integers(1, 25), st.integers(0, 25))
def test_known_patients_stay_where_they_are(before: int, added: int) -> None:
    known = split_patients(people(before), FRACTIONS)
    grown = split_patients(people(before + added), FRACTIONS, known=known)
    assert {p: grown[p] for p in known} == known
    if before + added >= 20:
        assert abs(Counter(grown.values())["train"] - 0.7 * (before + added)) <= 2


@pytest.mark.parametrize(
    "text",
    ["", "train", "train=x", "train=0.5,train=0.5", "train=0.5", "train=1.2", "=1", "a=-1,b=2"],
)
def test_wrong_fractions_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_fractions(text)


def test_fractions_are_read() -> None:
    assert parse_fractions("train=0.7,dev=0.15,test=0.15") == FRACTIONS

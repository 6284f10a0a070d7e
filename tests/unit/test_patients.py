"""Whom a model learnt from: hashes that recognise people and name none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from medsr.patients import HashedPatients, TrainingPatients, spelling

CHEAP = 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sub-01", "01"),
        ("sub-01", "SUB01"),
        ("sub-01", "Sub_1"),
        ("LIDC-IDRI-0001", "lidc idri 0001"),
        ("p１", "P1"),  # full-width digit
        ("Patient 7", "7"),
    ],
)
def test_near_spellings_are_one(one: str, other: str) -> None:
    assert spelling(one) == spelling(other)


@pytest.mark.parametrize(
    ("one", "other"), [("1-11", "11-1"), ("p1", "p10"), ("a-1", "b-1"), ("sub-01", "sub-001b")]
)
def test_different_people_stay_apart(one: str, other: str) -> None:
    assert spelling(one) != spelling(other)


@given(st.text(max_size=12))
def test_spelling_settles(text: str) -> None:
    assert spelling(spelling(text)) == spelling(text)


def test_overlap_finds_patients_in_any_spelling_and_nobody_else() -> None:
    told = HashedPatients.of(["sub-01", "sub-02", "sub-02"], cost=CHEAP)
    assert len(told.hashes) == 2
    assert told.overlap(["01", "SUB_2", "sub-03"]) == {"01", "SUB_2"}
    assert told.overlap([]) == frozenset()


def test_the_hash_is_scrypt_and_names_nobody() -> None:
    told = HashedPatients.of(["Jane-0042"], cost=CHEAP)
    expected = hashlib.scrypt(
        b"jane.42", salt=bytes.fromhex(told.salt), n=CHEAP, r=8, p=1, dklen=16
    ).hex()
    assert told.hashes == (expected,)
    text = json.dumps(asdict(told)).lower()
    assert "jane" not in text
    assert "0042" not in text


def test_every_list_has_a_salt_of_its_own() -> None:
    one, other = (HashedPatients.of(["a"], cost=CHEAP) for _ in range(2))
    assert one.salt != other.salt
    assert one.hashes != other.hashes


def test_the_default_cost_is_what_makes_guessing_dear() -> None:
    told = HashedPatients.of(["a"])
    # RFC 7914: memory of 128 * N * r bytes for each guess.
    assert 128 * told.cost * told.block >= 16 << 20


def test_a_model_carries_whom_its_teachers_learnt_from() -> None:
    teacher = TrainingPatients.gather(["a", "b"], cost=CHEAP)
    start = TrainingPatients.gather(["c"], [("elder", None)], cost=CHEAP)
    student = TrainingPatients.gather(["b", "d"], [("t", teacher), ("s", start)], cost=CHEAP)
    assert student.overlap("abcde") == set("abcd")
    assert student.unstated == ("elder",)
    assert not student.is_complete
    # Whom the teacher has hashed already is not hashed again.
    assert [len(part.hashes) for part in student.lists] == [2, 1, 1]
    again = TrainingPatients.gather(["a"], [("t", teacher), ("s", student)], cost=CHEAP)
    assert len(again.lists) == 3


def test_a_model_without_patients_overlaps_with_nobody() -> None:
    nobody = TrainingPatients.gather([])
    assert nobody.is_complete
    assert nobody.overlap(["a"]) == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        {"cost": 3},
        {"cost": 1 << 30},
        {"block": 64},
        {"parallel": 0},
        {"salt": "zz" * 16},
        {"salt": ""},
        {"hashes": ["ab"]},
        {"algorithm": "md5"},
        {"name": "x"},
    ],
)
def test_a_spec_cannot_ask_for_more_than_is_sane(change: dict[str, object]) -> None:
    told = json.loads(TypeAdapter(HashedPatients).dump_json(HashedPatients.of(["a"], cost=CHEAP)))
    TypeAdapter(HashedPatients).validate_python(told)
    with pytest.raises(ValidationError):
        TypeAdapter(HashedPatients).validate_python(told | change)

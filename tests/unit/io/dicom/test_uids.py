"""Identifiers of a derived series: new ones as a rule, and the same ones for the same request."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from medsr.errors import UsageError
from medsr.io import load, save
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.uids import DerivedUids
from medsr.io.dicom.write import deidentify as dicom_deidentify
from medsr.io.dicom.write.deidentify import KEY_VARIABLE, result_uids
from medsr.volume import Derivation

Make = Callable[..., Path]
DERIVATION = Derivation("mr-z4", "1.2.3", "ab" * 32, "Super-resolution", (1.0, 1.0, 4.0))


@given(st.text(), st.integers(0, 99999))
def test_identifiers_are_those_of_a_uuid_and_repeat(request: str, number: int) -> None:
    first, second = DerivedUids.of(request), DerivedUids.of(request)
    for uid in (first.series, first.instance(number)):
        assert uid.is_valid
        assert len(uid) <= 64
        assert uuid.UUID(int=int(UID(uid).removeprefix("2.25."))).version == 5
    assert (first.series, first.instance(number)) == (second.series, second.instance(number))


def test_identifiers_differ_within_a_series_and_between_requests() -> None:
    made = [DerivedUids.of(request) for request in ("a", "b", None, None)]
    uids = [uid for one in made for uid in (one.series, *map(one.instance, range(1, 50)))]
    assert len(set(uids)) == len(uids)


def test_the_writer_takes_them_from_the_request(tmp_path: Path, make_series: Make) -> None:
    volume = load(make_series(tmp_path / "source"))

    def uids(name: str, request: str | None) -> list[tuple[str, str, str]]:
        derivation = dataclasses.replace(DERIVATION, request=request)
        save(volume, tmp_path / name, derivation=derivation)
        images = [pydicom.dcmread(file) for file in sorted((tmp_path / name).iterdir())]
        return [(i.SeriesInstanceUID, i.SOPInstanceUID, i.file_meta[2, 3].value) for i in images]

    wanted = DerivedUids.of("one")
    assert uids("first", "one") == uids("second", "one")
    assert uids("third", "one") == [
        (wanted.series, wanted.instance(n), wanted.instance(n)) for n in range(1, 7)
    ]
    assert uids("fourth", "other")[0][0] != wanted.series
    assert uids("fifth", None)[0][0] != uids("sixth", None)[0][0]


@pytest.mark.parametrize("layout", ["classic", "enhanced"])
def test_a_key_makes_anonymous_results_repeat(
    layout: str, tmp_path: Path, make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same request has the same anonymous answer in every process that has the key."""
    volume = load(make_series(tmp_path / "source"))
    options = DicomOptions.of(layout, deidentify=True)
    derivation = dataclasses.replace(DERIVATION, request="one")
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID")

    def identity(name: str, key: str) -> list[str]:
        dicom_deidentify._passing_secret.cache_clear()  # as in another process
        monkeypatch.setenv(KEY_VARIABLE, key)
        save(volume, tmp_path / name, derivation=derivation, dicom=options)
        images = [pydicom.dcmread(file) for file in sorted((tmp_path / name).iterdir())]
        made = result_uids("one", options)
        assert [i.SOPInstanceUID for i in images] == [
            made.instance(n) for n in range(1, len(images) + 1)
        ]
        return [str(image[name].value) for image in images for name in names]

    first = identity("a", "a key of sixteen characters or more")
    assert identity("b", "a key of sixteen characters or more") == first
    for other in (identity("c", "a key of sixteen characters or less"), identity("d", "")):
        assert not set(other) & set(first)
    # Nobody finds the result by its request without the key, nor the source by the result.
    plain = DerivedUids.of("one")
    assert plain.series not in first
    assert "1.2.826.0.1.1" not in first
    with pytest.raises(UsageError, match="at least 16"):
        identity("e", "guess me")

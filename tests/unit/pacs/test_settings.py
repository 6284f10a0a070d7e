"""Addresses, titles, UIDs and credentials: what is taken, and what is refused unquoted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsr.errors import UsageError
from medsr.pacs.settings import (
    Credentials,
    NodeAddress,
    Settings,
    WebAddress,
    check_uid,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dicom://PACS@host:11112", NodeAddress("PACS", "host", 11112)),
        ("dicom://PACS@10.0.0.7", NodeAddress("PACS", "10.0.0.7", 104)),
        ("dicoms://PACS@host", NodeAddress("PACS", "host", 2762, tls=True)),
        ("dicom://PACS@[::1]:4242", NodeAddress("PACS", "::1", 4242)),
        ("https://host/dicom-web/", WebAddress("https://host/dicom-web")),
        ("http://host:8042/dicom-web", WebAddress("http://host:8042/dicom-web")),
    ],
)
def test_addresses_are_read(text: str, address: Any) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PACS@host:104",
        "dicom://host:104",
        "dicom://PACS@host:104/path",
        "dicom://PACS@host:notaport",
        "dicom://PACS@host:99999",
        "dicom://A-TITLE-THAT-IS-TOO-LONG@host:104",
        "ftp://PACS@host",
        "https://",
        "https://host/dicom-web?token=x",
    ],
)
def test_other_words_are_no_addresses(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


@pytest.mark.parametrize("text", ["https://me:hush@host/dw", "dicom://PACS:hush@host:104"])
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="environment") as caught:
        parse_address(text)
    assert "hush" not in str(caught.value)


@given(st.text(max_size=70))
def test_only_digits_and_dots_make_a_uid(text: str) -> None:
    good = 0 < len(text) <= 64 and all(
        part and part.isascii() and part.isdigit() for part in text.split(".")
    )
    if good:
        assert check_uid(text, "--study") == text
    else:
        with pytest.raises(UsageError, match="--study"):
            check_uid(text, "--study")


@pytest.mark.parametrize(
    "uid", ["1.2/../3", "1.2?x=1", "1.2*", "1.2\\1.3", "1..2", "1." + 64 * "1", "1.2\n"]
)
def test_what_would_widen_a_query_is_no_uid(uid: str) -> None:
    with pytest.raises(UsageError):
        check_uid(uid, "--series")


def test_credentials_are_never_shown() -> None:
    environment = {
        "MEDSR_FROM_TOKEN": "hush",
        "MEDSR_TO_USER": "me",
        "MEDSR_TO_PASSWORD": "quiet",
    }
    source, target = Credentials.of("from", environment), Credentials.of("to", environment)
    assert (source.token, source.user) == ("hush", None)
    assert (target.token, target.user, target.password) == (None, "me", "quiet")
    assert not [word for word in ("hush", "me,", "quiet") if word in f"{source} {target!r}"]
    assert not Credentials.of("from", {})


@pytest.mark.parametrize(
    "names", [("USER",), ("PASSWORD",), ("TOKEN", "USER", "PASSWORD"), ("TOKEN", "USER")]
)
def test_half_credentials_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="MEDSR_FROM_USER") as caught:
        Credentials.of("from", {f"MEDSR_FROM_{name}": "hush" for name in names})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": ""},
        {"title": "BACK\\SLASH"},
        {"title": "A-TITLE-THAT-IS-TOO-LONG"},
        {"port": 0},
        {"retrieve": "pull"},
        {"retrieve": "move"},
        {"timeout_seconds": 0.0},
        {"timeout_seconds": float("nan")},
        {"retries": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)

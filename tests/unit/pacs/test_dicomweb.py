"""DICOMweb servers that ask for patience, refuse, or answer nonsense."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset

from medsr import errors
from medsr.pacs.archive import Archive, NotOfferedError, StoredFile, Transfer
from medsr.pacs.connect import connect
from medsr.pacs.settings import Settings, parse_address

Serve = Callable[..., str]
JSON = {"Content-Type": "application/dicom+json"}


def client(address: str, **settings: Any) -> Archive:
    wanted = Settings(**{"timeout_seconds": 5.0, "retries": 2, **settings})
    return connect(parse_address(address), "from", wanted)


def listing(*uids: str) -> bytes:
    entries = []
    for uid in uids:
        entry = Dataset()
        entry.SeriesInstanceUID = entry.SOPInstanceUID = uid
        entry.Modality, entry.NumberOfSeriesRelatedInstances = "MR", 7
        entries.append(entry.to_json_dict())
    return json.dumps(entries).encode()


def test_series_are_listed_to_the_last_page(serve_http: Serve) -> None:
    seen: list[Any] = []
    pages = [(200, JSON, listing("1.2", "1.3")), (200, JSON, listing("1.4")), (200, JSON, b"[]")]
    found = client(serve_http(pages, seen)).series("1.1")
    assert [(entry.uid, entry.modality, entry.instances) for entry in found] == [
        (uid, "MR", 7) for uid in ("1.2", "1.3", "1.4")
    ]
    assert [path.partition("offset=")[2].partition("&")[0] for _, path, _ in seen] == list("023")


def test_a_server_without_pages_ends_too(serve_http: Serve) -> None:
    found = client(serve_http([(200, JSON, listing("1.2"))], [])).instances("1.1", "1.2")
    assert found == {"1.2"}


@pytest.mark.parametrize("code", [429, 500, 502, 503])
def test_a_busy_server_is_waited_for(code: int, serve_http: Serve, pauses: list[float]) -> None:
    answers = [(code, {"Retry-After": "17"}, b""), (200, JSON, listing("1.2")), (200, JSON, b"[]")]
    assert client(serve_http(answers, [])).instances("1.1", "1.2") == {"1.2"}
    assert pauses == [17.0]


def test_a_server_that_stays_busy_is_given_up(serve_http: Serve, pauses: list[float]) -> None:
    seen: list[Any] = []
    with pytest.raises(errors.PacsUnreachableError, match="HTTP 503"):
        client(serve_http([(503, {"Retry-After": "86400"}, b"")], seen)).series("1.1")
    assert len(seen) == 3
    assert max(pauses) <= 60.0


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (401, errors.PacsRefusedError, "MEDSR_FROM_TOKEN"),
        (403, errors.PacsRefusedError, "MEDSR_FROM_USER"),
        (400, errors.PacsRefusedError, "HTTP 400"),
        (405, NotOfferedError, "does not offer QIDO-RS"),
    ],
)
def test_a_refusal_is_final(
    code: int, error: type[Exception], words: str, serve_http: Serve, pauses: list[float]
) -> None:
    with pytest.raises(error, match=words):
        client(serve_http([(code, {}, b"")], [])).series("1.1")
    assert pauses == []


@pytest.mark.parametrize("body", [b"<html>Doe^Jane</html>", b'{"a": 1}', b'[{"00080018": 3}]'])
def test_nonsense_is_named_and_not_quoted(body: bytes, serve_http: Serve) -> None:
    with pytest.raises(errors.PacsError, match="is not what DICOMweb has") as caught:
        client(serve_http([(200, JSON, body)], [])).instances("1.1", "1.2")
    assert "Doe" not in str(caught.value)


def test_credentials_come_from_the_environment_of_their_role(
    serve_http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    address = serve_http([(200, JSON, b"[]")], seen)
    monkeypatch.setenv("MEDSR_TO_TOKEN", "of-the-target")
    client(address).series("1.1")
    monkeypatch.setenv("MEDSR_FROM_TOKEN", "of-the-source")
    client(address).series("1.1")
    monkeypatch.delenv("MEDSR_FROM_TOKEN")
    monkeypatch.setenv("MEDSR_FROM_USER", "robot")
    monkeypatch.setenv("MEDSR_FROM_PASSWORD", "secret")
    client(address).series("1.1")
    basic = base64.b64encode(b"robot:secret").decode()
    assert [headers.get("Authorization") for _, _, headers in seen] == [
        None,
        "Bearer of-the-source",
        f"Basic {basic}",
    ]


def test_the_environment_does_not_loosen_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medsr.pacs.dicomweb import _Session

    ours = tmp_path / "ours.pem"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "theirs.pem")
    session = _Session()
    session.verify = str(ours)
    merged = session.merge_environment_settings("https://pacs.example", {}, None, None, None)
    assert merged["verify"] == str(ours)
    plain = requests.Session()
    plain.verify = str(ours)
    theirs = plain.merge_environment_settings("https://pacs.example", {}, None, None, None)
    assert theirs["verify"] == "theirs.pem"


def stow_answer(stored: dict[str, int | None], failed: dict[str, int | None]) -> bytes:
    answer = Dataset()
    answer.ReferencedSOPSequence, answer.FailedSOPSequence = [], []
    for uid, reason in stored.items():
        item = Dataset()
        item.ReferencedSOPInstanceUID = uid
        if reason is not None:
            item.WarningReason = reason
        answer.ReferencedSOPSequence.append(item)
    for uid, reason in failed.items():
        item = Dataset()
        item.ReferencedSOPInstanceUID = uid
        if reason is not None:
            item.FailureReason = reason
        answer.FailedSOPSequence.append(item)
    return answer.to_json().encode()


def test_what_a_server_says_of_each_instance_is_kept(
    serve_http: Serve, files: list[StoredFile], pauses: list[float]
) -> None:
    uids = [file.uid for file in files]
    body = stow_answer({uids[0]: None, uids[1]: 0xB000}, {uids[2]: 0xC000, uids[3]: None})
    transfer = Transfer(expected=4)
    client(serve_http([(202, JSON, body)], [])).store(files, transfer)
    assert transfer.done == {uids[0], uids[1]}
    assert transfer.failures == {uids[2]: "C000", uids[3]: "0110"}
    assert transfer.as_dict()["warnings"] == 1
    assert pauses == []


def test_a_request_of_which_nothing_was_stored_is_no_breakdown(
    serve_http: Serve, files: list[StoredFile]
) -> None:
    body = stow_answer({}, {file.uid: 0xA900 for file in files})
    for answer in (body, b"no JSON at all"):
        transfer = Transfer(expected=4)
        client(serve_http([(409, JSON, answer)], [])).store(files, transfer)
        assert transfer.done == set()
        assert transfer.failures.keys() == {file.uid for file in files}


def test_a_full_server_is_sent_the_rest_again(
    serve_http: Serve, files: list[StoredFile], pauses: list[float]
) -> None:
    uids = [file.uid for file in files]
    first = stow_answer({uids[0]: None}, {uid: 0xA700 for uid in uids[1:]})
    second = stow_answer({uid: None for uid in uids[1:]}, {})
    seen: list[Any] = []
    transfer = Transfer(expected=4)
    client(serve_http([(202, JSON, first), (200, JSON, second)], seen)).store(files, transfer)
    assert transfer.done == set(uids)
    assert transfer.failures == {}
    assert len(seen) == 2
    assert len(pauses) == 1

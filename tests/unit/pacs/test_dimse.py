"""DICOM nodes that reject, break off, run out of resources or offer only a part."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from medsr import errors
from medsr.pacs.archive import Archive, NotOfferedError, StoredFile, Transfer
from medsr.pacs.connect import connect
from medsr.pacs.logs import suppress_network_logging
from medsr.pacs.settings import Settings, parse_address

Serve = Callable[..., str]


def client(address: str, **settings: Any) -> Archive:
    wanted = Settings(**{"timeout_seconds": 5.0, "retries": 2, **settings})
    return connect(parse_address(address), "from", wanted)


def test_a_series_arrives_as_it_was(
    serve: Serve, keeper: list[Any], make_instance: Any, tmp_path: Path
) -> None:
    archive = client(serve(keeper))
    transfer = Transfer()
    archive.fetch("1.2.1", "1.2.2", tmp_path, transfer)
    assert archive.instances("1.2.1", "1.2.2") == transfer.done
    assert transfer.as_dict()["statuses"] == {"0000": 4}
    for number, file in enumerate(sorted(tmp_path.iterdir())):
        assert pydicom.dcmread(file).to_json() == make_instance(number).to_json()
        assert file.name == f"{number + 1:06d}.dcm"


def test_a_closed_port_is_tried_again_and_then_said(pauses: list[float]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"dicom://NODE@127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(errors.PacsUnreachableError, match="no connection"):
            client(address, retries=3).series("1.2")
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


def test_a_rejected_caller_is_told_at_once(serve: Serve, pauses: list[float]) -> None:
    address = serve([], refuse="SOMEBODY")
    with pytest.raises(errors.PacsRefusedError, match="MEDSR: calling ae title not recogni"):
        client(address).series("1.2")
    with pytest.raises(errors.PacsRefusedError, match="called ae title not recogni"):
        client(address.replace("NODE", "OTHER")).series("1.2")
    assert pauses == []


def test_a_busy_node_is_tried_again(serve: Serve, keeper: list[Any], pauses: list[float]) -> None:
    calls: Counter[str] = Counter()

    def busy_at_first(event: evt.Event) -> None:
        calls["associations"] += 1
        if calls["associations"] <= 2:
            # Rejected transient, by the presentation layer: temporary congestion.
            event.assoc.acse.send_reject(0x02, 0x03, 0x01)
            event.assoc.kill()

    archive = client(serve([*keeper, (evt.EVT_REQUESTED, busy_at_first)]))
    assert len(archive.instances("1.2.1", "1.2.2")) == 4
    assert calls["associations"] == 3
    assert len(pauses) == 2


def test_what_was_stored_before_a_break_is_not_sent_again(
    serve: Serve, files: list[StoredFile], pauses: list[float]
) -> None:
    received: list[str] = []

    def store(event: evt.Event) -> int:
        received.append(event.request.AffectedSOPInstanceUID)
        if len(received) == 2:
            event.assoc.abort()
        return 0x0000

    transfer = Transfer(expected=4)
    client(serve([(evt.EVT_C_STORE, store)])).store(files, transfer)
    uids = [file.uid for file in files]
    assert transfer.done == set(uids)
    assert received == [uids[0], uids[1], uids[1], uids[2], uids[3]]
    assert transfer.as_dict()["attempts"] == 2
    assert len(pauses) == 1


def test_statuses_of_stored_instances_are_counted(
    serve: Serve, files: list[StoredFile], pauses: list[float]
) -> None:
    codes = iter([0x0000, 0xB000, 0xC000, 0x0111])
    transfer = Transfer(expected=4)
    client(serve([(evt.EVT_C_STORE, lambda event: next(codes))])).store(files, transfer)
    told = transfer.as_dict()
    assert told["statuses"] == {"0000": 1, "0111": 1, "B000": 1, "C000": 1}
    assert told["instances"] == 3
    assert told["warnings"] == 2
    assert told["failures"] == {files[2].uid: "C000"}
    assert pauses == []


def test_a_full_archive_is_waited_for(
    serve: Serve, files: list[StoredFile], pauses: list[float]
) -> None:
    codes = iter([0x0000, 0xA700, 0xA700, 0x0000, 0x0000, 0x0000])
    transfer = Transfer(expected=4)
    client(serve([(evt.EVT_C_STORE, lambda event: next(codes))])).store(files, transfer)
    assert len(transfer.done) == 4
    assert transfer.failures == {}
    assert len(pauses) == 1


def test_an_archive_that_stays_full_is_given_up(serve: Serve, files: list[StoredFile]) -> None:
    transfer = Transfer(expected=4)
    archive = client(serve([(evt.EVT_C_STORE, lambda event: 0xA700)]))
    with pytest.raises(errors.PacsUnreachableError, match="out of resources"):
        archive.store(files, transfer)
    assert transfer.attempts == 3


def test_a_node_that_only_stores_says_so(serve: Serve) -> None:
    archive = client(serve([], classes=(MRImageStorage,)))
    with pytest.raises(NotOfferedError, match="does not offer C-FIND"):
        archive.instances("1.2", "1.3")


def test_without_c_get_a_port_is_asked_for(serve: Serve, keeper: list[Any], tmp_path: Path) -> None:
    address = serve(keeper, classes=(Find, Move))
    with pytest.raises(NotOfferedError, match="--port"):
        client(address).fetch("1.2.1", "1.2.2", tmp_path, Transfer())
    with pytest.raises(NotOfferedError, match="does not offer C-GET"):
        client(address, retrieve="get").fetch("1.2.1", "1.2.2", tmp_path, Transfer())


def test_c_move_takes_the_place_of_c_get_and_takes_what_was_asked_for_only(
    serve: Serve, keeper: list[Any], make_instance: Any, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stray = make_instance(99)

    def move(event: evt.Event) -> Any:
        assert event.move_destination == "MEDSR"
        yield "127.0.0.1", port
        yield 5
        for image in [stray, *(make_instance(number) for number in range(4))]:
            yield 0xFF00, image

    handlers = [keeper[0], (evt.EVT_C_MOVE, move)]
    archive = client(serve(handlers, classes=(Find, Move)), port=port)
    transfer = Transfer()
    archive.fetch("1.2.1", "1.2.2", tmp_path, transfer)
    assert transfer.done == {make_instance(number).SOPInstanceUID for number in range(4)}
    assert len(list(tmp_path.iterdir())) == 4
    assert stray.SOPInstanceUID not in transfer.done


def test_instances_that_a_node_cannot_send_are_named(
    serve: Serve, keeper: list[Any], make_instance: Any, tmp_path: Path
) -> None:
    def get(event: evt.Event) -> Any:
        yield 2
        yield 0xFF00, make_instance(0)
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = ["1.2.3.1"]
        yield 0xB000, failed

    transfer = Transfer()
    client(serve([keeper[0], (evt.EVT_C_GET, get)])).fetch("1.2.1", "1.2.2", tmp_path, transfer)
    assert transfer.done == {"1.2.3.0"}
    assert transfer.failures == {"1.2.3.1": "B000"}


def test_what_passes_is_not_logged(
    serve: Serve, keeper: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "pynetdicom")
    archive = client(serve(keeper))
    with suppress_network_logging:
        archive.fetch("1.2.1", "1.2.2", tmp_path, Transfer())
        archive.instances("1.2.1", "1.2.2")
    assert "Doe" not in caplog.text
    assert "1.2.2" not in caplog.text
    assert logging.getLogger("pynetdicom").level == logging.DEBUG

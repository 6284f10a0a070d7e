"""Archives that misbehave on purpose: DICOM nodes of pynetdicom, HTTP servers of the library."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from medsr.pacs import persistent
from medsr.pacs.archive import StoredFile


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pause takes time; how long each would be is kept."""
    made: list[float] = []
    monkeypatch.setattr(persistent, "_sleep", made.append)
    return made


def instance(number: int, *, study: str = "1.2.1", series: str = "1.2.2") -> Dataset:
    """A small MR image."""
    image = Dataset()
    image.SOPClassUID = MRImageStorage
    image.SOPInstanceUID = f"1.2.3.{number}"
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.PatientName, image.InstanceNumber, image.Modality = "Doe^Jane", number, "MR"
    image.Rows, image.Columns, image.BitsAllocated = 2, 2, 16
    image.add_new("PixelData", "OW", bytes(range(8)))
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


@pytest.fixture
def make_instance() -> Callable[..., Dataset]:
    """Make a small MR image with a number."""
    return instance


@pytest.fixture
def files(tmp_path: Path) -> list[StoredFile]:
    """Four files to send."""
    made = []
    for number in range(4):
        image, path = instance(number), tmp_path / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        made.append(StoredFile(path, image.SOPClassUID, image.SOPInstanceUID))
    return made


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a DICOM node with handlers; returns its address. It stops with the test."""
    entities: list[AE] = []

    def start(
        handlers: list[Any],
        *,
        classes: tuple[str, ...] = (),
        refuse: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> str:
        entity = AE(ae_title="NODE")
        entity.require_called_aet = True
        for uid in classes or (Find, Get, Move, MRImageStorage):
            entity.add_supported_context(uid, scu_role=True, scp_role=True)
        entity.add_requested_context(MRImageStorage)
        if refuse is not None:
            entity.require_calling_aet = [refuse]
        server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls
        )
        entities.append(entity)
        return f"dicom://NODE@127.0.0.1:{server.server_address[1]}"

    yield start
    for entity in entities:
        entity.shutdown()


@pytest.fixture
def keeper() -> list[tuple[Any, Any]]:
    """Handlers of a node that has four images of one series, and sends them."""
    images = [instance(number) for number in range(4)]

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        for image in images:
            answer = Dataset()
            answer.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
            answer.StudyInstanceUID, answer.SeriesInstanceUID = "1.2.1", "1.2.2"
            answer.SOPInstanceUID, answer.PatientName = image.SOPInstanceUID, "Doe^Jane"
            yield 0xFF00, answer

    def get(event: evt.Event) -> Iterator[Any]:
        yield len(images)
        for image in images:
            yield 0xFF00, image

    return [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]


@pytest.fixture
def serve_http() -> Iterator[Callable[..., str]]:
    """Start an HTTP server that gives prepared answers in turn; returns its address.

    An answer is (code, headers, body); the last one is repeated.
    """
    servers: list[ThreadingHTTPServer] = []

    def start(
        answers: list[tuple[int, dict[str, str], bytes]],
        seen: list[Any],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> str:
        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                seen.append((self.command, self.path, dict(self.headers)))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        self.rfile.read(size + 2)
                    self.rfile.readline()
                else:
                    self.rfile.read(int(self.headers.get("Content-Length", 0)))
                code, headers, body = answers[min(len(seen), len(answers)) - 1]
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/dicom-web"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def new_uid() -> str:
    """A UID that nobody has."""
    return str(generate_uid(prefix=None))

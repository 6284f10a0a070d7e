"""Certificates: one that nobody vouches for is refused, one of a named authority is taken."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medsr import errors
from medsr.pacs.archive import Archive
from medsr.pacs.connect import connect
from medsr.pacs.settings import Settings, parse_address

Serve = Callable[..., str]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, with its key in the same file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"


@pytest.fixture
def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


def client(address: str, **settings: Any) -> Archive:
    wanted = Settings(timeout_seconds=5.0, retries=1, **settings)
    return connect(parse_address(address), "from", wanted)


@pytest.mark.parametrize("kind", ["dimse", "dicomweb"])
def test_certificates_are_checked(
    kind: str,
    serve: Serve,
    serve_http: Serve,
    keeper: list[Any],
    certificate: Path,
    server_side: ssl.SSLContext,
    pauses: list[float],
) -> None:
    if kind == "dimse":
        address = serve(keeper, tls=server_side).replace("dicom://", "dicoms://")
    else:
        answer = (200, {"Content-Type": "application/dicom+json"}, b"[]")
        address = serve_http([answer], [], tls=server_side).replace("http://", "https://")
    with pytest.raises(errors.PacsRefusedError, match=r"certificate is not trusted.*--ca"):
        client(address).instances("1.2.1", "1.2.2")
    assert pauses == []
    expected = 4 if kind == "dimse" else 0
    for trusting in ({"ca_file": certificate}, {"verify": False}):
        assert len(client(address, **trusting).instances("1.2.1", "1.2.2")) == expected


def test_a_plain_port_is_no_tls_port(serve: Serve, keeper: list[Any]) -> None:
    address = serve(keeper).replace("dicom://", "dicoms://")
    with pytest.raises(errors.PacsUnreachableError, match="no connection"):
        client(address).instances("1.2.1", "1.2.2")

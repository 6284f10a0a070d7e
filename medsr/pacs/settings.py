"""What the user says about archives: addresses, ways of speaking, credentials.

Nothing here touches the network. Credentials come from environment variables alone: a command line
is seen by everybody on the machine and kept in histories.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import SplitResult, urlsplit

from medsr.errors import UsageError

Retrieve = Literal["auto", "get", "move"]
Role = Literal["from", "to"]

DICOM_PORT = 104
DICOM_TLS_PORT = 2762
_TITLE = re.compile(r"[ !-\[\]-~]{1,16}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_SHAPES = "dicom://AET@host:port, dicoms://AET@host:port (TLS) or https://host/dicom-web"


@dataclass(frozen=True)
class NodeAddress:
    """A DICOM node.

    Args:
        title: Its application entity title.
        host: Name or IP address.
        port: TCP port.
        tls: Whether the connection is encrypted.
    """

    title: str
    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"dicom{'s' if self.tls else ''}://{self.title}@{host}:{self.port}"


@dataclass(frozen=True)
class WebAddress:
    """A DICOMweb server.

    Args:
        url: Base of its services, without a slash at the end.
    """

    url: str

    def __str__(self) -> str:
        return self.url


Address: TypeAlias = NodeAddress | WebAddress


@dataclass(frozen=True)
class Credentials:
    """What a DICOMweb server is shown; never part of a message or of ``repr``.

    Args:
        token: Bearer token.
        user: Name for basic authentication.
        password: Its password.
    """

    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, role: Role, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Read ``MEDSR_FROM_TOKEN`` or ``MEDSR_FROM_USER`` and ``MEDSR_FROM_PASSWORD`` (or ``TO``).

        Raises:
            UsageError: A user without a password, or the other way round, or both ways at once.
        """
        prefix = f"MEDSR_{role.upper()}_"
        token, user, password = (
            environment.get(prefix + name) or None for name in ("TOKEN", "USER", "PASSWORD")
        )
        if (user is None) != (password is None):
            raise UsageError(f"set both {prefix}USER and {prefix}PASSWORD, or neither")
        if token is not None and user is not None:
            raise UsageError(f"set {prefix}TOKEN or {prefix}USER, not both")
        return cls(token, user, password)

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return self.token is not None or self.user is not None


@dataclass(frozen=True)
class Settings:
    """How archives are spoken to.

    Args:
        title: Our own application entity title.
        port: TCP port on which we receive what C-MOVE sends; the archive must know it together
            with our title. None: nothing is ever listened to.
        retrieve: ``"get"`` (C-GET), ``"move"`` (C-MOVE), or ``"auto"``: C-GET, and C-MOVE where
            the node does not offer it and there is a port.
        timeout_seconds: How long to wait for a connection and for every answer.
        retries: How often a step that failed for a passing reason is tried again.
        ca_file: PEM file with the authorities to trust, in place of the system's.
        verify: Whether TLS certificates are checked.

    Raises:
        UsageError: A value is outside its range.

    Examples:
        >>> from medsr.pacs import Settings
        >>> Settings(title="RESEARCH", port=11112, retrieve="move", timeout_seconds=60.0).retries
        3
    """

    title: str = "MEDSR"
    port: int | None = None
    retrieve: Retrieve = "auto"
    timeout_seconds: float = 30.0
    retries: int = 3
    ca_file: Path | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_title(self.title)
        if self.port is not None and not 0 < self.port < 65536:
            raise UsageError(f"port {self.port} is not between 1 and 65535")
        if self.retrieve not in get_args(Retrieve):
            raise UsageError(f"retrieve {self.retrieve!r} is unknown; use auto, get or move")
        if self.retrieve == "move" and self.port is None:
            raise UsageError("C-MOVE needs a port to receive on; give it with --port")
        if not self.timeout_seconds > 0:
            raise UsageError(f"a timeout of {self.timeout_seconds:g} seconds; give more than 0")
        if self.retries < 0:
            raise UsageError(f"{self.retries} retries; give 0 or more")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise UsageError(f"{self.ca_file}: there is no such file of trusted authorities")


def parse_address(text: str) -> Address:
    """Read the address of an archive.

    Examples:
        >>> from medsr.pacs.settings import parse_address
        >>> parse_address("dicom://ARCHIVE@pacs.example:11112")
        NodeAddress(title='ARCHIVE', host='pacs.example', port=11112, tls=False)
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError(f"the address of an archive is malformed; write {_SHAPES}") from None
    if parts.password is not None or (parts.scheme in ("http", "https") and parts.username):
        raise UsageError(
            "the address of an archive holds a user or a password, which a command line must not; "
            "set MEDSR_FROM_USER and MEDSR_FROM_PASSWORD, or MEDSR_FROM_TOKEN (MEDSR_TO_… for the "
            "target) in the environment"
        )
    if parts.scheme in ("http", "https") and parts.hostname:
        if parts.query or parts.fragment:
            raise UsageError(f"the address of a server ends with its path; write {_SHAPES}")
        return WebAddress(text.rstrip("/"))
    if parts.scheme in ("dicom", "dicoms") and parts.hostname and parts.username:
        return _node(parts, port)
    raise UsageError(f"{text!r} is no address of an archive; write {_SHAPES}")


def _node(parts: SplitResult, port: int | None) -> NodeAddress:
    tls = parts.scheme == "dicoms"
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError(f"the address of a DICOM node ends with its port; write {_SHAPES}")
    title = check_title(parts.username or "")
    default = DICOM_TLS_PORT if tls else DICOM_PORT
    return NodeAddress(title, parts.hostname or "", port or default, tls)


def check_title(title: str) -> str:
    """Return an application entity title as it is.

    Raises:
        UsageError: It is none. Source: DICOM PS3.5 6.2 (value representation AE).
    """
    if not _TITLE.fullmatch(title) or not title.strip():
        raise UsageError(
            f"AE title {title!r}: give 1 to 16 ASCII characters other than the backslash"
        )
    return title


def check_uid(uid: str, name: str) -> str:
    """Return a UID as it is; it will be part of a query or of a URL.

    Raises:
        UsageError: It is none. Leading zeros, which some scanners write, pass.
    """
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise UsageError(f"{name} is no UID: give digits and dots, at most 64 of them")
    return uid

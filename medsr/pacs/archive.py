"""What an archive can be asked, whichever protocol it speaks, and the account of a transfer.

The protocols are in ``dimse`` and ``dicomweb``; trying again is in ``persistent``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medsr.errors import PacsRefusedError
from medsr.pacs.settings import Address

SUCCESS = "0000"
DUPLICATE = "0111"


class NotOfferedError(PacsRefusedError):
    """The archive lacks an operation, so that another way may be taken."""


@dataclass(frozen=True)
class SeriesEntry:
    """A series as an archive lists it.

    Args:
        uid: SeriesInstanceUID.
        modality: Such as ``"CT"``; empty where the archive does not say it.
        instances: Number of its instances, where the archive says it.

    Examples:
        >>> from medsr.pacs import SeriesEntry
        >>> print(SeriesEntry("1.2.840.99.7", modality="CT", instances=120))
        1.2.840.99.7: CT, 120 instances
    """

    uid: str
    modality: str
    instances: int | None

    def __str__(self) -> str:
        count = "" if self.instances is None else f", {self.instances} instances"
        return f"{self.uid}: {self.modality or 'modality not said'}{count}"


@dataclass(frozen=True)
class StoredFile:
    """A DICOM file and what it is to the network.

    Args:
        path: Where it lies.
        sop_class: SOPClassUID.
        uid: SOPInstanceUID.
    """

    path: Path
    sop_class: str
    uid: str


@dataclass
class Transfer:
    """The account of instances going one way; a step that is tried again goes on with it.

    Args:
        expected: How many there should be, where that is known.
        done: SOPInstanceUIDs of those that arrived.
        statuses: How often each DICOM status (four hexadecimal digits) was met.
        failures: SOPInstanceUID and status of those that did not arrive.
        attempts: How many associations or requests were begun.
        progress: Called with (done, expected) after each.
    """

    expected: int | None = None
    done: set[str] = field(default_factory=set)
    statuses: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    progress: Callable[[int, int], None] | None = field(default=None, repr=False)

    def arrived(self, uid: str, status: str = SUCCESS) -> None:
        """Take note of an instance that arrived, perhaps with a warning."""
        self.done.add(uid)
        self.failures.pop(uid, None)
        self.statuses[status] += 1
        if self.progress is not None:
            self.progress(len(self.done), self.expected or len(self.done))

    def failed(self, uid: str, status: str) -> None:
        """Take note of an instance that did not arrive."""
        self.failures[uid] = status
        self.statuses[status] += 1

    def as_dict(self) -> dict[str, Any]:
        """The account as plain values, for the report."""
        return {
            "instances": len(self.done),
            "expected": self.expected,
            "statuses": dict(sorted(self.statuses.items())),
            "warnings": sum(count for status, count in self.statuses.items() if is_warning(status)),
            "failures": dict(sorted(self.failures.items())),
            "attempts": self.attempts,
        }


class Archive(Protocol):
    """A DICOM node or DICOMweb server.

    Every method raises ``PacsUnreachableError`` for what may pass, ``PacsRefusedError`` for what
    will not, and ``NotOfferedError`` where the archive lacks the operation.
    """

    @property
    def address(self) -> Address:
        """Where it is."""
        ...

    def series(self, study: str) -> list[SeriesEntry]:
        """List the series of a study; none where there is no such study."""
        ...

    def instances(self, study: str, series: str) -> set[str]:
        """List the SOPInstanceUIDs of a series; none where there is no such series."""
        ...

    def fetch(
        self,
        study: str,
        series: str,
        folder: Path,
        transfer: Transfer,
        *,
        only: str | None = None,
    ) -> None:
        """Write the instances of a series, one file each, byte for byte as sent where possible.

        Args:
            study: StudyInstanceUID.
            series: SeriesInstanceUID.
            folder: An empty folder, or the one of an attempt before.
            transfer: The account; what it has as done is there already.
            only: SOPInstanceUID of the only one that is wanted.
        """
        ...

    def store(self, files: Sequence[StoredFile], transfer: Transfer) -> None:
        """Send files; those that ``transfer`` has as done are left out."""
        ...


class Inbox:
    """Files what arrives: a number for a name, one file for each instance however often it comes.

    Args:
        folder: Where to.
        transfer: The account.
    """

    def __init__(self, folder: Path, transfer: Transfer) -> None:
        self._folder, self._transfer = folder, transfer

    def put(self, uid: str, content: bytes) -> None:
        """File one instance.

        Raises:
            OSError: The disk is full.
        """
        if uid in self._transfer.done:
            return
        path = self._folder / f"{len(self._transfer.done) + 1:06d}.dcm"
        path.write_bytes(content)
        self._transfer.arrived(uid)


def is_warning(status: str) -> bool:
    """Whether an instance with this status was stored, but not as it was sent.

    Source: DICOM PS3.4 B.2.3, PS3.7 C (0111, the same instance was there already).
    """
    return status.startswith("B") or status in ("0001", "0107", "0116", DUPLICATE)


def is_stored(status: str) -> bool:
    """Whether an instance with this status lies in the archive."""
    return status == SUCCESS or is_warning(status)


def is_passing(status: str) -> bool:
    """Whether trying again may help: the archive is out of resources.

    Source: DICOM PS3.4 B.2.3 and C.4 (A7xx).
    """
    return status.startswith("A7")


def raise_if_passing(transfer: Transfer, uids: Iterable[str], where: Address) -> None:
    """Ask for another attempt where an instance failed for want of resources.

    Raises:
        PacsUnreachableError: One did.
    """
    from medsr.errors import PacsUnreachableError

    failed = [transfer.failures[uid] for uid in uids if uid in transfer.failures]
    passing = [status for status in failed if is_passing(status)]
    if passing:
        raise PacsUnreachableError(
            f"{where} is out of resources (status {passing[0]}) for {len(passing)} instances"
        )

"""A DICOM node: C-FIND to list, C-GET or C-MOVE to fetch, C-STORE to send.

Associations are made in ``association``, the receiver of what C-MOVE sends is in ``receiver``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from medsr.errors import PacsRefusedError, PacsUnreachableError
from medsr.pacs.archive import (
    SUCCESS,
    Inbox,
    NotOfferedError,
    SeriesEntry,
    StoredFile,
    Transfer,
    is_passing,
    is_stored,
    raise_if_passing,
)
from medsr.pacs.association import Caller, describe_status
from medsr.pacs.receiver import STORAGE_CLASSES, TRANSFER_SYNTAXES, file_away, receiving
from medsr.pacs.settings import NodeAddress, Settings

logger = logging.getLogger(__name__)

_PENDING = ("FF00", "FF01")
_SOME_FAILED = "B000"


class DicomNode:
    """An archive behind a DICOM node; see :class:`medsr.pacs.archive.Archive`.

    Args:
        address: Where it is.
        settings: How it is spoken to.
    """

    def __init__(self, address: NodeAddress, settings: Settings) -> None:
        self.address = address
        self._settings = settings
        self._caller = Caller(address, settings)

    def series(self, study: str) -> list[SeriesEntry]:
        """See :class:`medsr.pacs.archive.Archive`."""
        answers = self._find(
            "SERIES",
            StudyInstanceUID=study,
            SeriesInstanceUID="",
            Modality="",
            NumberOfSeriesRelatedInstances="",
        )
        return [
            SeriesEntry(
                str(answer.SeriesInstanceUID),
                str(answer.get("Modality") or ""),
                _number(answer.get("NumberOfSeriesRelatedInstances")),
            )
            for answer in answers
            if answer.get("SeriesInstanceUID")
        ]

    def instances(self, study: str, series: str) -> set[str]:
        """See :class:`medsr.pacs.archive.Archive`."""
        answers = self._find(
            "IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=""
        )
        return {str(answer.SOPInstanceUID) for answer in answers if answer.get("SOPInstanceUID")}

    def fetch(
        self, study: str, series: str, folder: Path, transfer: Transfer, *, only: str | None = None
    ) -> None:
        """See :class:`medsr.pacs.archive.Archive`. By C-GET, or C-MOVE as the settings say."""
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES" if only is None else "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID = study, series
        if only is not None:
            query.SOPInstanceUID = only
        inbox = Inbox(folder, transfer)
        if self._settings.retrieve != "move":
            try:
                self._get(query, inbox, transfer)
                return
            except NotOfferedError:
                if self._settings.retrieve == "get":
                    raise
        if self._settings.port is None:
            raise NotOfferedError(
                f"{self.address} does not offer C-GET; enter this machine, the AE title "
                f"{self._settings.title} and a port at the archive, and give the port with --port "
                "to fetch by C-MOVE"
            )
        expected = {only} if only is not None else self.instances(study, series)
        self._move(query, inbox, transfer, expected, self._settings.port)

    def store(self, files: Sequence[StoredFile], transfer: Transfer) -> None:
        """See :class:`medsr.pacs.archive.Archive`. One association for each SOP class."""
        for _, group in groupby(files, key=lambda file: file.sop_class):
            waiting = [file for file in group if file.uid not in transfer.done]
            if waiting:
                self._store(waiting, transfer)
                raise_if_passing(transfer, (file.uid for file in waiting), self.address)

    def _store(self, files: list[StoredFile], transfer: Transfer) -> None:
        context = build_context(
            files[0].sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
        )
        transfer.attempts += 1
        with self._caller.association([context], "C-STORE") as association:
            for file in files:
                try:
                    answer = association.send_c_store(file.path)
                except RuntimeError:  # the association went between two of them
                    raise self._broke_off("C-STORE") from None
                status = self._status(answer, "C-STORE")
                if is_stored(status):
                    transfer.arrived(file.uid, status)
                else:
                    transfer.failed(file.uid, status)

    def _find(self, level: str, **keys: str) -> list[Dataset]:
        query = Dataset()
        query.QueryRetrieveLevel = level
        for name, value in keys.items():
            setattr(query, name, value)
        responses: list[Dataset] = []
        with self._caller.association([build_context(Find)], "C-FIND") as association:
            for answer, identifier in association.send_c_find(query, Find):
                status = self._status(answer, "C-FIND")
                if status in _PENDING:
                    responses.extend([] if identifier is None else [identifier])
                elif status != SUCCESS:
                    raise self._refusal("C-FIND", status)
        return responses

    def _get(self, query: Dataset, inbox: Inbox, transfer: Transfer) -> None:
        transfer.attempts += 1
        roles = [build_role(uid, scp_role=True) for uid in STORAGE_CLASSES]
        handlers = [(evt.EVT_C_STORE, file_away, [inbox, None])]
        with self._caller.association(
            [build_context(Get), *_storage_contexts()], "C-GET", roles=roles, handlers=handlers
        ) as association:
            self._follow("C-GET", association.send_c_get(query, Get), transfer)

    def _move(
        self, query: Dataset, inbox: Inbox, transfer: Transfer, expected: set[str], port: int
    ) -> None:
        transfer.attempts += 1
        title = self._settings.title
        with (
            receiving(title, port, inbox, expected, self._settings.timeout_seconds),
            self._caller.association([build_context(Move)], "C-MOVE") as association,
        ):
            answers = association.send_c_move(query, title, Move)
            self._follow("C-MOVE", answers, transfer)

    def _follow(
        self, operation: str, answers: Iterator[tuple[Dataset, Dataset | None]], transfer: Transfer
    ) -> None:
        """Go along with a retrieval to its end, and note what the node could not send."""
        for answer, identifier in answers:
            status = self._status(answer, operation)
            if status in (*_PENDING, SUCCESS):
                continue
            lost = None if identifier is None else identifier.get("FailedSOPInstanceUIDList")
            for uid in [lost] if isinstance(lost, str) else lost or []:
                if uid and str(uid) not in transfer.done:
                    transfer.failed(str(uid), status)
            if status == "A801":
                raise PacsRefusedError(
                    f"{self.address} does not know the AE title {self._settings.title} as a "
                    "destination of C-MOVE; enter this machine and its port at the archive"
                )
            if status != _SOME_FAILED and not transfer.failures:
                raise self._refusal(operation, status)
            raise_if_passing(transfer, transfer.failures, self.address)

    def _status(self, answer: Dataset, operation: str) -> str:
        if "Status" not in answer:
            raise self._broke_off(operation)
        return f"{int(answer.Status):04X}"

    def _broke_off(self, operation: str) -> PacsUnreachableError:
        return PacsUnreachableError(f"{self.address} broke off or fell silent during {operation}")

    def _refusal(self, operation: str, status: str) -> PacsRefusedError | PacsUnreachableError:
        message = f"{self.address} answers {operation} with {describe_status(status, operation)}"
        return PacsUnreachableError(message) if is_passing(status) else PacsRefusedError(message)


def _storage_contexts() -> list[PresentationContext]:
    """One for each pair of class and transfer syntax.

    A node takes one syntax of a context. Were they all in one, it would have to convert whatever
    it holds in another.
    """
    return [build_context(uid, [syntax]) for uid in STORAGE_CLASSES for syntax in TRANSFER_SYNTAXES]


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None

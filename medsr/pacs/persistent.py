"""Trying again: an archive whose passing faults are waited out, with growing pauses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from medsr.errors import PacsUnreachableError
from medsr.pacs.archive import Archive, SeriesEntry, StoredFile, Transfer
from medsr.pacs.settings import Address

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
_growing = wait_exponential_jitter(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, jitter=0.5)


class Persistent:
    """An archive that is asked again after a fault that may pass.

    Pauses double from one second up to a minute; a server that says how long to wait is obeyed up
    to that minute. What has arrived by then is not sent again: the account of the transfer says
    so, and an instance keeps its UID, so that one that arrives twice is still one.

    Args:
        archive: Who is asked.
        retries: How often again.
    """

    def __init__(self, archive: Archive, retries: int) -> None:
        self._archive, self._retries = archive, retries

    @property
    def address(self) -> Address:
        """See :class:`medsr.pacs.archive.Archive`."""
        return self._archive.address

    def series(self, study: str) -> list[SeriesEntry]:
        """See :class:`medsr.pacs.archive.Archive`."""
        return self._call(lambda: self._archive.series(study))

    def instances(self, study: str, series: str) -> set[str]:
        """See :class:`medsr.pacs.archive.Archive`."""
        return self._call(lambda: self._archive.instances(study, series))

    def fetch(
        self, study: str, series: str, folder: Path, transfer: Transfer, *, only: str | None = None
    ) -> None:
        """See :class:`medsr.pacs.archive.Archive`."""
        self._call(lambda: self._archive.fetch(study, series, folder, transfer, only=only))

    def store(self, files: Sequence[StoredFile], transfer: Transfer) -> None:
        """See :class:`medsr.pacs.archive.Archive`."""
        self._call(lambda: self._archive.store(files, transfer))

    def _call(self, step: Callable[[], T]) -> T:
        attempts = Retrying(
            retry=retry_if_exception_type(PacsUnreachableError),
            stop=stop_after_attempt(self._retries + 1),
            wait=_pause,
            before_sleep=_announce,
            sleep=_sleep,
            reraise=True,
        )
        return attempts(step)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt."""
    error = None if state.outcome is None else state.outcome.exception()
    asked = error.wait_seconds if isinstance(error, PacsUnreachableError) else None
    return min(max(_growing(state), asked or 0.0), LONGEST_PAUSE_SECONDS)


def _announce(state: RetryCallState) -> None:
    error = None if state.outcome is None else state.outcome.exception()
    seconds = 0.0 if state.next_action is None else state.next_action.sleep
    logger.warning("%s; trying again in %.0f s", error, seconds)

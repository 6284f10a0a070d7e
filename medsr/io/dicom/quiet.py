"""Keeps pydicom from telling attribute values, which may name a patient, to logs and warnings.

Nothing else lives here. pydicom quotes the offending value whenever an attribute is malformed.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_pydicom_logger = logging.getLogger("pydicom")


class _Hush:
    """Counts the calls under way in all threads: the first silences, the last restores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_disabled = False
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._was_disabled = _pydicom_logger.disabled
                _pydicom_logger.disabled = True
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._warnings.__exit__(None, None, None)
                _pydicom_logger.disabled = self._was_disabled


_hush = _Hush()


def quiet(function: Callable[P, R]) -> Callable[P, R]:
    """Silence pydicom's logger and warnings while ``function`` runs; threads may overlap."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with _hush:
            return function(*args, **kwargs)

    return inner

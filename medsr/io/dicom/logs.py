"""Keeps libraries from telling what passes through them, patients included, to logs and warnings.

pydicom quotes the offending value whenever an attribute is malformed.
"""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import ContextDecorator, ExitStack

_NEVER = logging.CRITICAL + 1


class LogSuppressor(ContextDecorator):
    """Lets libraries log nothing while a block or a decorated function runs.

    Blocks may overlap in several threads: the first suppresses, the last restores.

    Args:
        names: Loggers of the libraries; those below them inherit their level.
        with_warnings: Whether Python's warnings are suppressed too.
    """

    def __init__(self, *names: str, with_warnings: bool = False) -> None:
        self._loggers = [logging.getLogger(name) for name in names]
        self._with_warnings = with_warnings
        self._lock = threading.Lock()
        self._depth = 0
        self._restoring = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._suppress()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._restoring.close()

    def _suppress(self) -> None:
        for logger in self._loggers:
            self._restoring.callback(setattr, logger, "disabled", logger.disabled)
            self._restoring.callback(logger.setLevel, logger.level)
            logger.disabled = True
            logger.setLevel(_NEVER)
        if self._with_warnings:
            self._restoring.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")


suppress_logging = LogSuppressor("pydicom", with_warnings=True)
"""Decorates what reads or writes DICOM; ``with suppress_logging:`` does the same for a block."""

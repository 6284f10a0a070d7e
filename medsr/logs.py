"""Keeps libraries from logging what no user can act on, or what may name a patient."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import ContextDecorator, ExitStack

_NEVER = logging.CRITICAL + 1


class LogSuppressor(ContextDecorator):
    """Lets libraries log nothing, or errors alone, while a block or a decorated function runs.

    Blocks may overlap in several threads: the first suppresses, the last restores.

    Args:
        names: Loggers of the libraries; those below them inherit their level.
        level: What is logged all the same: records of this level and above it.
        with_warnings: Whether Python's warnings are suppressed too.

    Examples:
        >>> import logging
        >>> from medsr.logs import LogSuppressor
        >>> with LogSuppressor("chatty", level=logging.ERROR):
        ...     logging.getLogger("chatty.part").isEnabledFor(logging.WARNING)
        False
    """

    def __init__(self, *names: str, level: int = _NEVER, with_warnings: bool = False) -> None:
        self._loggers = [logging.getLogger(name) for name in names]
        self._level = level
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
            logger.disabled = logger.disabled or self._level == _NEVER
            logger.setLevel(self._level)
        if self._with_warnings:
            self._restoring.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")

"""Keeps the network libraries from telling what passes through them, patients included, to logs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TALKATIVE = ("pynetdicom", "dicomweb_client", "urllib3", "requests")
_NEVER = logging.CRITICAL + 1
_lock = threading.Lock()
_depth = 0
_levels: dict[str, int] = {}


@contextmanager
def silence() -> Iterator[None]:
    """Let those libraries log nothing while the block runs, whatever the program has set up.

    pynetdicom writes identifiers at the level INFO and whole queries at DEBUG. Blocks may overlap
    in several threads: the first silences, the last restores.
    """
    global _depth
    with _lock:
        if _depth == 0:
            for name in _TALKATIVE:
                library = logging.getLogger(name)
                _levels[name] = library.level
                library.setLevel(_NEVER)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                for name, level in _levels.items():
                    logging.getLogger(name).setLevel(level)

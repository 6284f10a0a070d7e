"""Memory that was freed goes back to the system, so that a process stays within its limit."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def malloc_trim() -> None:
    """Ask the C library to return what it holds of freed memory; does nothing without glibc.

    Blocks of changing sizes, allocated and freed in turn, leave holes that it keeps otherwise.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """The C library's ``malloc_trim``, where it has one."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)

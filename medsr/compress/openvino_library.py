"""OpenVINO and NNCF as a guest: they report nothing, print nothing and leave signals alone.

Both are imported when they are used. Both report their use to their maker unless they run in
continuous integration; medsr handles patient data and tells them that they do.

Every core of OpenVINO's CPU plugin gives the thread that makes it an alternate signal stack of its
own (Linux; for processors with AMX) and frees it with the core. Where a later core outlives an
earlier one, it then puts the freed stack back, and the next signal, Ctrl-C for example, ends the
process with a segmentation fault. So medsr makes one core for the whole process, and puts the
thread's signal stack back as soon as a core has been made, its own or one of NNCF's.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from medsr.errors import MissingExtraError
from medsr.logs import LogSuppressor

_converting = LogSuppressor("nncf", level=logging.ERROR)


def import_openvino() -> Any:
    """Return the module ``openvino``, which is enough to run a model.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        with undisturbed():
            import openvino
    except ImportError as error:
        raise MissingExtraError(
            "openvino is not installed, and this model or backend needs it; "
            "pip install 'medsr[openvino]'"
        ) from error
    return openvino


def openvino_core() -> Any:
    """Return the one ``openvino.Core`` of this process.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    return _core_of(import_openvino())


@cache
def _core_of(openvino: Any) -> Any:
    with _own_signal_stack():
        core = openvino.Core()
        # The plugin is loaded when it is first asked for something.
        core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the libraries from reporting and printing, and off signals and other people's logging.

    OpenVINO's converter changes the root logger, and leaves it so where it fails.
    """
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        with contextlib.redirect_stdout(io.StringIO()), _own_signal_stack(), _converting:
            yield
    finally:
        root.setLevel(level)
        root.filters, root.handlers = filters, handlers
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (
        ("ss_sp", ctypes.c_void_p),
        ("ss_flags", ctypes.c_int),
        ("ss_size", ctypes.c_size_t),
    )


@contextlib.contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Put this thread's alternate signal stack back, whatever is done to it meanwhile."""
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    before = _SignalStack()
    is_saved = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if is_saved:
            libc.sigaltstack(ctypes.byref(before), None)

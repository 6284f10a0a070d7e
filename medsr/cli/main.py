"""The entry point: runs a command and turns whatever happens into one line and an exit code.

Codes of conditions that the user can mend are in ``medsr.errors``; everything unforeseen leaves
with 70 (``EX_SOFTWARE`` of sysexits.h). Tracebacks are shown only with ``--debug`` or where
``MEDSR_DEBUG`` is set. What the commands do is in the files beside this one.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

import typer

from medsr.cli.commands import build_app
from medsr.errors import Interrupted, MedsrError

UNEXPECTED = 70
BROKEN_PIPE = 141
"""128 + SIGPIPE, what a shell reports for a program whose reader has gone."""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``medsr`` with ``arguments`` (default: those of the process).

    Returns:
        The exit code: 0, a code of ``medsr.errors``, 2 for a wrong command line, 130 after an
        interruption, 141 where the reader of a pipe has gone, 70 for a fault of medsr itself.
    """
    if arguments is None:
        # A batch system's polite kill cleans up like Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Python's last search for garbage takes longer than many a command, and finds what the
        # end of the process frees anyway.
        atexit.register(gc.freeze)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or _is_set("MEDSR_DEBUG")
    try:
        result = build_app(given)(args=given, prog_name="medsr", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as stop:
        # typer turns a broken pipe into exit code 1, which means something else here.
        if isinstance(stop.__context__, BrokenPipeError):
            return _reader_gone()
        raise
    except BaseException as error:
        return _report(error, debug=debug)
    code = result if isinstance(result, int) else 0
    if code == Interrupted.exit_code:
        _say("stopped")
    return code


def _reader_gone() -> int:
    """Give Python somewhere to flush to at its end; return the exit code."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.close(sink)
    return BROKEN_PIPE


def _report(error: BaseException, *, debug: bool) -> int:
    """Say what happened in one line on standard error; return the exit code."""
    if debug:
        logger.debug("traceback", exc_info=error)
    if isinstance(error, MedsrError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _say("stopped")
        return Interrupted.exit_code
    # typer raises click's exceptions, or those of a copy of click that it carries itself.
    message, code = getattr(error, "format_message", None), getattr(error, "exit_code", None)
    if callable(message) and isinstance(code, int):
        _say(f"{message()} (see medsr --help)")
        return code
    hint = "" if debug else "; run again with medsr --debug … for the traceback"
    _say(f"unexpected {type(error).__name__}: {error}{hint}")
    return UNEXPECTED


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in {"", "0", "false", "f", "no", "n", "off"}


def _say(message: str) -> None:
    sys.stderr.write("medsr: " + " ".join(message.split("\n")) + "\n")


if __name__ == "__main__":
    sys.exit(main())

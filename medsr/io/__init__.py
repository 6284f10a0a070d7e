"""Reading and writing scans of any format.

How a format is read and written is its module's part; see ``medsr.io.formats``. Names are imported
when they are first used, so that what a command says of formats costs no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medsr.io.atomic import check_output
    from medsr.io.inspection import Inspection, ListedVolume
    from medsr.io.reading import inspect, list_volumes, load
    from medsr.io.writing import (
        check_writable,
        creating,
        name_output,
        output_format,
        parse_format,
        save,
    )

__all__ = [
    "Inspection",
    "ListedVolume",
    "check_output",
    "check_writable",
    "creating",
    "inspect",
    "list_volumes",
    "load",
    "name_output",
    "output_format",
    "parse_format",
    "save",
]

_MODULES = {
    "Inspection": "inspection",
    "ListedVolume": "inspection",
    "check_output": "atomic",
    "check_writable": "writing",
    "creating": "writing",
    "inspect": "reading",
    "list_volumes": "reading",
    "load": "reading",
    "name_output": "writing",
    "output_format": "writing",
    "parse_format": "writing",
    "save": "writing",
    "saving": "writing",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})

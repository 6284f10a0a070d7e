"""Reading and writing scans of any format.

How a format is read and written is its module's part; see ``medsr.io.formats``.
"""

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

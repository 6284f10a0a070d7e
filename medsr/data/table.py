"""A table as spreadsheets save it: which text and which separator, and rows by column.

A German or French spreadsheet separates by semicolons what it calls CSV, "Unicode text" is UTF-16
with tabs, and the first line may say ``sep=;``. The header line tells which it is. What the cells
mean is decided in ``manifest``.

Source: RFC 4180, "Common Format and MIME Type for CSV Files": as many cells in every row.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Reader

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TableError(Exception):
    """Why a table cannot be read, and what to do; the text is a clause of one line."""


def decode(content: bytes) -> str:
    """Return the text of a table: UTF-8 with or without a mark, or UTF-16 with one.

    Raises:
        TableError: It is neither.
    """
    wide = content.startswith(_WIDE)
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if not wide and b"\0" not in content:
            line = content.count(b"\n", 0, error.start) + 1
            raise TableError(
                f"line {line} is not UTF-8, as with names saved in the Latin-1 (ANSI) of an old "
                'spreadsheet; save it as "CSV UTF-8"'
            ) from error
        text = "\0"
    if "\0" in text:
        raise TableError("it is no text; save the spreadsheet as CSV UTF-8")
    return text


def separator_of(header: str, required: Sequence[str]) -> str:
    """Return what separates the cells of a header line: that which gives most of the columns.

    Args:
        header: The line.
        required: Names of columns that should be there.
    """

    def told(separator: str) -> int:
        try:
            cells = next(_reader([header], separator), [])
        except csv.Error:
            return 0
        return len(set(required) & {cell.strip() for cell in cells})

    return max(SEPARATORS, key=told)


def read_rows(content: bytes, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read the rows that are not empty.

    Args:
        content: The file's bytes.
        required: Names of columns that must be there.

    Returns:
        Of each row the line that it ends in, and its texts by column, stripped.

    Raises:
        TableError: It is no table, a column is missing or there twice, or a row has more cells
            than there are columns.
    """
    lines = list(io.StringIO(decode(content), newline=""))
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    told = lines[first].strip().lower() if lines else ""
    first += told.startswith("sep=")
    separator = told[4:5] or "\t" if told.startswith("sep=") else ""
    if separator not in SEPARATORS:
        separator = separator_of("".join(lines[first : first + 1]), required)
    reader = _reader(lines[first:], separator)
    try:
        columns = [name.strip() for name in next(reader, [])]
        _check_columns(columns, required)
        _check_quotes(lines[first:], separator)
        return [(first + line, row) for line, row in _rows(reader, columns, separator, first)]
    except csv.Error as error:
        raise TableError(f"line {first + reader.line_num} is no row of a CSV ({error})") from error


def _rows(
    reader: Reader, columns: Sequence[str], separator: str, first: int
) -> Iterator[tuple[int, dict[str, str]]]:
    empty = dict.fromkeys(filter(None, columns), "")
    for cells in reader:
        texts = [cell.strip() for cell in cells]
        if any(texts[len(columns) :]):
            raise TableError(
                f"line {first + reader.line_num} has more cells than the header; put a cell that "
                f"holds {SEPARATORS[separator]} into quotes"
            )
        row = {name: text for name, text in zip(columns, texts, strict=False) if name}
        if any(row.values()):
            yield reader.line_num, empty | row


def _check_columns(columns: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise TableError(
            f"no column {', '.join(missing)}; a manifest needs {', '.join(required)}, separated by "
            "commas, semicolons or tabs"
        )
    twice = [name for name in required if columns.count(name) > 1]
    if twice:
        raise TableError(f"column {twice[0]} is there twice; keep one of them")


def _check_quotes(lines: Sequence[str], separator: str) -> None:
    """Refuse a quote that is never closed: all rows after it would be one cell."""
    try:
        for _ in _reader(lines, separator, strict=True):
            pass
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise TableError("a quote is opened and never closed; close it") from error


def _reader(lines: Sequence[str], separator: str, *, strict: bool = False) -> Reader:
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=strict)

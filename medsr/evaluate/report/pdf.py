"""The report on paper: the same page without scripts and viewer, set by WeasyPrint.

WeasyPrint is the extra ``pdf``; it needs the system library Pango, which its installation does not
bring on every system.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsr.errors import MissingExtraError
from medsr.evaluate.report.cases import Case
from medsr.evaluate.report.page import render
from medsr.io.atomic import atomic_file, check_output

logger = logging.getLogger(__name__)


def check_pdf() -> None:
    """Refuse to write PDF before any work is spent, where packages are missing.

    Raises:
        MissingExtraError: The extra ``pdf`` or the library Pango is not installed.
    """
    try:
        import weasyprint  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "PDF needs WeasyPrint, which is not installed; pip install 'medsr[pdf]'"
        ) from error
    except OSError as error:
        raise MissingExtraError(
            "PDF needs the system library Pango, which WeasyPrint (extra pdf) did not find; "
            "on Debian: apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
        ) from error


def write_pdf(
    data: Mapping[str, Any], cases: Sequence[Case], path: Path, *, overwrite: bool = False
) -> Path:
    """Write the report of an evaluation as PDF, with pictures in place of the viewer.

    Args:
        data: Content of ``results.json``.
        cases: Scans to show.
        path: The PDF file.
        overwrite: Whether an existing file may be replaced.

    Returns:
        ``path``.

    Raises:
        MissingExtraError: The extra ``report`` or ``pdf``, or the library Pango, is missing.
        OutputError: The file cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.errors import OutputNotWritableError
        >>> from medsr.evaluate.report import write_pdf
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         write_pdf({}, [], Path(folder, "missing", "report.pdf"))
        ...     except OutputNotWritableError:
        ...         print("refused before any work is spent")
        refused before any work is spent
    """
    check_output(path, overwrite=overwrite)
    check_pdf()
    from weasyprint import HTML
    from weasyprint.urls import URLFetcher

    # What is not in the page itself is not fetched.
    fetcher = URLFetcher(allowed_protocols=("data",))
    page = HTML(string=render(data, cases, static=True), url_fetcher=fetcher)
    with atomic_file(path, overwrite=overwrite) as temporary:
        page.write_pdf(temporary)
    return path

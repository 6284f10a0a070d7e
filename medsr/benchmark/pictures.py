"""Pictures of results: matplotlib where it is installed, and files that are whole or not there.

The reports decide what is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsr.errors import MissingExtraError
from medsr.io.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """Return an empty figure that needs no display.

    Args:
        **options: Arguments of ``matplotlib.figure.Figure``.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "pictures need matplotlib, which is not installed; pip install 'medsr[report]'"
        ) from error
    return Figure(**options)


def logarithmic(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with few labels in plain numbers (20k, 0.5)."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def save_figure(figure: Figure, path: Path, *, overwrite: bool) -> Path:
    """Write a figure in the format that the file's name says, PNG where it says none.

    Raises:
        OutputError: The file cannot be written.
    """
    ending = path.suffix.lstrip(".").lower() or "png"
    with atomic_file(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format=ending, dpi=150)
    return path

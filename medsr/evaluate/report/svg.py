"""Plots as pieces of HTML: a matplotlib figure becomes inline SVG that follows the page's theme.

Text stays text (it is found, copied and read aloud), marks carry tooltips, names inside a plot are
unique in the page. What is plotted is in ``figures`` and its neighbours.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from medsr.errors import MissingExtraError
from medsr.evaluate.report.palette import follow_theme, placeholder
from medsr.evaluate.report.reading import Method

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 345
"""Width of a plot in CSS pixels; it grows and shrinks with its column."""

_IDS = re.compile(r'(\bid="|xlink:href="#|url\(#)')
# Rules for the whole page, fonts that the page sets, and blanks.
_TIDY = (
    (re.compile(r"<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL), ""),
    (re.compile(r"font-family: [^;]*; ?"), ""),
    (re.compile(r"(?<=[>\n])\s+"), ""),
    (re.compile(r" \n(?=[LCQMz])"), " "),
)
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 11.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "medsr",
    "text.parse_math": False,
    "axes.edgecolor": placeholder("rule"),
    "axes.labelcolor": placeholder("soft"),
    "axes.labelsize": 11,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": placeholder("soft"),
    "ytick.color": placeholder("ink"),
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 11.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 6,
    "text.color": placeholder("ink"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": placeholder("grid"),
    "grid.linewidth": 1.0,
    "lines.solid_capstyle": "round",
}


@dataclass
class Canvas:
    """A figure being drawn, and the tooltips of its marks."""

    figure: Figure
    axes: Axes
    tips: dict[str, str] = field(default_factory=dict)

    def tip(self, words: str) -> str:
        """Return the group name of a mark that shall show ``words`` when pointed at."""
        name = f"tip{len(self.tips)}"
        self.tips[name] = words
        return name


@dataclass(frozen=True)
class Plot:
    """A plot in the page.

    Args:
        svg: Inline SVG.
        title: Headline above it.
        note: Sentence below it.
    """

    svg: Markup
    title: str
    note: str = ""


def require_matplotlib() -> None:
    """Refuse to draw without matplotlib.

    Raises:
        MissingExtraError: The extra ``report`` is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "the report needs matplotlib, which is not installed; pip install 'medsr[report]'"
        ) from error


@contextmanager
def canvas(height: float, *, width: float = WIDTH) -> Iterator[Canvas]:
    """Give an empty plot in the report's style.

    Args:
        height: Of the whole plot, CSS pixels.
        width: The same, across.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The names of the style are checked when they are set; its type is a closed list of them.
    style: Any = _STYLE
    with rc_context(style):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
        figure = Figure(figsize=(width / 72, height / 72), layout=layout)
        yield Canvas(figure, figure.add_subplot())


def inline(
    drawn: Canvas, title: str, alt: str, methods: Sequence[Method], *, fixed: bool
) -> Markup:
    """Write a plot as inline SVG.

    Args:
        drawn: The plot; call this inside the block of :func:`canvas`.
        title: Its name, from which the names inside the plot are made.
        alt: What it shows, for those who do not see it.
        methods: All methods of the report, for their colours.
        fixed: Colours of the light theme and not of the reader's.
    """
    buffer = io.StringIO()
    drawn.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    written = buffer.getvalue()
    written = written[written.index("<svg") :]
    unique = re.sub(r"\W+", "-", title.lower())
    written = _IDS.sub(rf"\g<1>{unique}-", written)
    for name, words in drawn.tips.items():
        written = written.replace(
            f'<g id="{unique}-{name}">',
            f'<g class="tip"><title>{html.escape(words)}</title>',
            1,
        )
    for pattern, plain in _TIDY:
        written = pattern.sub(plain, written)
    width, height = (round(72 * inches) for inches in drawn.figure.get_size_inches())
    head = (
        f'<svg class="plot" role="img" aria-label="{html.escape(alt)}" '
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg">'
    )
    written = head + written[written.index(">") + 1 :]
    return Markup(follow_theme(written, methods, fixed=fixed))

"""Colours and markers: one per method, the same in every plot, table and viewer, light and dark.

Plots are drawn with placeholder colours that no palette holds; in the page they become CSS
variables, so that a plot follows the reader's theme, and for print they become the light theme's
colours.
"""

from __future__ import annotations

from collections.abc import Sequence

from medsr.evaluate.report.reading import Method

LIGHT = {
    "paper": "#fbfaf7",
    "card": "#ffffff",
    "ink": "#1d2226",
    "soft": "#5a636b",
    "faint": "#8d959c",
    "rule": "#dcd9d1",
    "grid": "#e9e6df",
    "band": "#f2efe8",
    "good": "#1a7f5a",
    "fair": "#8a6100",
    "bad": "#b3372f",
    "link": "#14568f",
}
DARK = {
    "paper": "#15181b",
    "card": "#1c2024",
    "ink": "#e9e7e2",
    "soft": "#a9b0b6",
    "faint": "#7d858c",
    "rule": "#363c42",
    "grid": "#2a2f34",
    "band": "#23282c",
    "good": "#5fc79b",
    "fair": "#e3b341",
    "bad": "#ee8a7f",
    "link": "#86bdee",
}

# Light and dark shade of each accent; grey and earth for baselines, colour for what is judged.
_BASELINES = (
    ("#a3a9ae", "#6f777e"),
    ("#5f6a73", "#b4bdc5"),
    ("#a68a5b", "#c5a976"),
    ("#7d7a4f", "#aeab78"),
)
_JUDGED = (
    ("#0b7285", "#3bc3d6"),
    ("#d9480f", "#ff9157"),
    ("#7048b6", "#b69cf0"),
    ("#b8256e", "#f083b6"),
    ("#3f7d20", "#93cf6f"),
    ("#8a5a00", "#e8b04a"),
)
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")

_NAMES = tuple(LIGHT)


def placeholder(name: str) -> str:
    """The colour that stands for a theme colour, or for ``m0``, ``m1``, … of a method."""
    if name in _NAMES:
        return f"#fe00{_NAMES.index(name):02x}"
    return f"#fe01{int(name.removeprefix('m')):02x}"


def colour(method: Method) -> str:
    """The placeholder of a method's accent."""
    return placeholder(f"m{method.number}")


def marker(method: Method) -> str:
    """The method's matplotlib marker: colour is never the only sign."""
    return _MARKERS[method.number % len(_MARKERS)]


def variables(methods: Sequence[Method]) -> tuple[dict[str, str], dict[str, str]]:
    """Theme colours and accents by name, light and dark."""
    light, dark = dict(LIGHT), dict(DARK)
    baselines = [method for method in methods if not method.learned]
    for method in methods:
        shades = _JUDGED if method.learned else _BASELINES
        place = method.number - (len(baselines) if method.learned else 0)
        light[f"m{method.number}"], dark[f"m{method.number}"] = shades[place % len(shades)]
    return light, dark


def stylesheet(methods: Sequence[Method]) -> str:
    """CSS that sets the variables for both themes and for paper."""
    light, dark = (_declare(theme) for theme in variables(methods))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        f"@media print{{:root,:root[data-theme]{{color-scheme:light;{light}}}}}\n"
    )


def follow_theme(svg: str, methods: Sequence[Method], *, fixed: bool = False) -> str:
    """Replace the placeholders of a plot.

    Args:
        svg: A plot as matplotlib wrote it.
        methods: All methods of the report.
        fixed: Put in the light theme's colours and not variables, for print.
    """
    for name, value in variables(methods)[0].items():
        svg = svg.replace(placeholder(name), value if fixed else f"var(--{name})")
    return svg


def _declare(theme: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in theme.items())

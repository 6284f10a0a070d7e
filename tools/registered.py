"""mkdocs hook: pages of the API show every class that a registry knows, where they say so.

A page says ``<!-- registered in medsr.networks.NETWORKS -->``.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

_MARK = re.compile(r"^<!-- registered in ([\w.]+)\.(\w+) -->$", re.MULTILINE)
_OPTIONS = "    options: { heading_level: 3, show_root_full_path: false }\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the directives of a registry's public classes where a page asks for them."""
    return _MARK.sub(lambda mark: _directives(mark[1], mark[2]), markdown)


def _directives(package: str, registry: str) -> str:
    public = getattr(import_module(package), registry).public()
    places = (f"{each.__module__}.{name}" for name, each in sorted(public.items()))
    return "\n".join(f"::: {place}\n{_OPTIONS}" for place in places)

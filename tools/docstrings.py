"""Docstrings as Markdown for the API reference: roles, and where a method comes from.

The docstrings name objects by Sphinx roles and end with a section ``Source:``, neither of which
mkdocstrings knows. This griffe extension, named in ``mkdocs.yml``, rewrites them before a page is
made; the code itself is only parsed, never imported.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`~?([^`]+)`")
_SOURCE = re.compile(r"^Source: (.*(?:\n[ \t]+.*)*)", re.MULTILINE)


class MarkdownDocstrings(Extension):
    """Rewrites the docstring of every object that is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    r"""The docstring with roles as code and the source as a paragraph.

    Examples:
        >>> as_markdown("See :func:`medsr.load`.")
        'See `medsr.load`.'
        >>> as_markdown("Source: Lai et al.,\n    CVPR 2017.")
        '**Source:** Lai et al., CVPR 2017.'
    """
    text = _ROLE.sub(r"`\1`", text)
    return _SOURCE.sub(lambda match: "**Source:** " + " ".join(match[1].split()), text)

"""Putting off the import of a package that another package imports without needing it yet.

nibabel imports pydicom for one rare kind of NIfTI extension, and pydicom takes longer to import
than the rest of a small command together. Nothing here knows either of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _StandIn(ModuleType):
    """Stands for a module, which is imported when one of its attributes is asked for."""

    def __init__(self, name: str, meanwhile: dict[str, Any]) -> None:
        super().__init__(name)
        self._meanwhile = meanwhile

    def __getattr__(self, attribute: str) -> Any:
        meanwhile = self.__dict__["_meanwhile"]
        if attribute in meanwhile:
            return meanwhile[attribute]
        self._step_aside()
        return getattr(import_module(self.__name__), attribute)

    def _step_aside(self) -> None:
        """Let the next import find the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


@contextmanager
def deferred(name: str, **meanwhile: Any) -> Iterator[None]:
    """Let imports in the block take a package that is loaded at its first use after the block.

    Whoever imported it in the block goes on to hold a stand-in that behaves like it. A package
    that is imported already, or not installed, is left alone.

    Args:
        name: a package, such as ``"pydicom"``.
        **meanwhile: what its attributes are while the block runs, so that asking for them does
            not load it; for type annotations.
    """
    if name in sys.modules or find_spec(name) is None:
        yield
        return
    stand_in = _StandIn(name, meanwhile)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        meanwhile.clear()
        stand_in._step_aside()

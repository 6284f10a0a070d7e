"""Old places of what has moved: each works for one version more, with a ``DeprecationWarning``.

Old modules are found by :class:`MovedModules`, which ``import medsr`` installs; old names in a
module that is still there by its ``__getattr__``, which :func:`moved_names` makes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "medsr.evaluate.statistics": "medsr.evaluate.results.statistics",
    "medsr.infer.backends": "medsr.infer.engine.backends",
    "medsr.infer.plan": "medsr.infer.engine.tiles",
    "medsr.io.dicom_options": "medsr.io.dicom.options",
}
"""Where a module, and those below it, is now."""

NAMES = {
    "medsr.evaluate.metrics": {
        "CT_BODY_HU": "medsr.hu.BODY_HU",
        "CT_RANGE_HU": "medsr.hu.CT_RANGE_HU",
    },
    "medsr.infer.consistency": {
        "ConsistencyReport": "medsr.infer.consistency.project.ConsistencyReport",
        "default_tolerance": "medsr.infer.consistency.project.default_tolerance",
        "make_consistent": "medsr.infer.consistency.project.make_consistent",
    },
    "medsr.infer.engine": {"Engine": "medsr.infer.engine.engine.Engine"},
}
"""Where a name that was in a module is now."""


class MovedModules(MetaPathFinder, Loader):
    """Imports a module of :data:`MODULES` from where it is now."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Take the import of a module that has moved; None for any other."""
        return None if _now(name) is None else ModuleSpec(name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Let the module at its new place stand for the old one."""
        now = _now(module.__name__) or module.__name__
        _warn(module.__name__, now)
        sys.modules[module.__name__] = import_module(now)


def install() -> None:
    """Find old modules from now on, before they are looked for in files of new packages."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())


def moved_names(module: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module some of whose names have moved."""

    def find(name: str) -> Any:
        now = NAMES[module].get(name)
        if now is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", now)
        place, _, attribute = now.rpartition(".")
        return getattr(import_module(place), attribute)

    return find


def _now(name: str) -> str | None:
    for old, new in MODULES.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return None


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated; use {new}", DeprecationWarning, stacklevel=3)

"""Backends: the libraries that can run a network on tiles, torch first; one file each.

The table of names lives here; it loads none of the libraries. Adding one takes a file with a
:class:`~medsr.infer.backends.base.Backend` and a line in the table. Which one is fastest is
measured in ``choose``; volumes and tiles are the engine's business.
"""

from __future__ import annotations

from medsr.errors import UsageError
from medsr.infer.backends.base import (
    Backend,
    Runner,
    missing_packages,
    precision_for,
    require,
    why_not,
)
from medsr.infer.backends.onnxruntime import OnnxRuntimeBackend
from medsr.infer.backends.openvino import OpenVinoBackend
from medsr.infer.backends.torch import TorchBackend

BACKENDS: dict[str, Backend] = {
    "onnxruntime": OnnxRuntimeBackend(),
    "openvino": OpenVinoBackend(),
    "torch": TorchBackend(),
}
DEFAULT_BACKEND = "torch"
"""The reference: all others are held to its numbers."""

__all__ = [
    "BACKENDS",
    "Backend",
    "DEFAULT_BACKEND",
    "Runner",
    "find_backend",
    "missing_packages",
    "precision_for",
    "require",
    "resolve_backend",
    "why_not",
]


def find_backend(name: str) -> Backend:
    """Return a backend by name, whether its packages are installed or not.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r} is unknown; use auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def resolve_backend(name: str) -> Backend:
    """Return a backend by name, ready to be used.

    Args:
        name: A key of :data:`BACKENDS`. ``auto`` is none: it needs a network, see
            :func:`medsr.infer.backends.choose.fastest`.

    Raises:
        MissingExtraError: Its packages are not installed.
        UsageError: There is none of that name.
    """
    backend = find_backend(name)
    require(backend)
    return backend

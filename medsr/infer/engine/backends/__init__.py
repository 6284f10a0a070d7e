"""Backends: the libraries that can run a network on tiles, torch first; one file each.

The table of names loads none of the libraries. Adding one takes a file with a
:class:`~medsr.infer.engine.backends.base.Backend` and a line in the table. Which one is fastest is
measured in ``choose``; the engine handles volumes and tiles.
"""

from __future__ import annotations

import torch

from medsr.errors import UsageError
from medsr.infer.engine.backends.base import (
    CPU,
    Backend,
    Runner,
    missing_packages,
    require,
    why_not,
)
from medsr.infer.engine.backends.onnxruntime import OnnxRuntimeBackend
from medsr.infer.engine.backends.openvino import OpenVinoBackend
from medsr.infer.engine.backends.torch import TorchBackend
from medsr.infer.engine.device import Precision, resolve_precision

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
    "missing_packages",
    "precision_for",
    "require",
    "resolve_backend",
    "why_not",
]


def resolve_backend(
    name: str, precision: Precision = "fp32", device: torch.device = CPU
) -> Backend:
    """Return a backend by name, ready to be used.

    Args:
        name: A key of :data:`BACKENDS`. ``auto`` is none: it needs a network, see
            :func:`medsr.infer.engine.backends.choose.choose_backend`.
        precision: What it must be able to compute in.
        device: Where.

    Raises:
        BackendError: It lacks the precision or the device.
        MissingExtraError: Its packages are not installed.
        UsageError: There is none of that name.

    Examples:
        >>> from medsr.infer.engine.backends import resolve_backend
        >>> resolve_backend("torch").name
        'torch'
    """
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r} is unknown; use auto, {', '.join(BACKENDS)}")
    require(BACKENDS[name], precision, device)
    return BACKENDS[name]


def precision_for(name: str, precision: str, device: torch.device = CPU) -> Precision:
    """Turn the precision ``auto`` into the fastest that machine and backend both have.

    Args:
        name: A key of :data:`BACKENDS`, or ``auto``, which takes one that suits the machine.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``; what is named stays, whether the backend
            has it or not, since nobody should get another precision than the one asked for.
        device: Where.

    Raises:
        UsageError: The precision is none of the three.

    Examples:
        >>> from medsr.infer.engine.backends import precision_for
        >>> precision_for("onnxruntime", "auto"), precision_for("torch", "fp32")
        ('fp32', 'fp32')
    """
    resolved = resolve_precision(precision, device)
    if precision != "auto" or name not in BACKENDS:
        return resolved
    return resolved if why_not(BACKENDS[name], resolved, device) is None else "fp32"

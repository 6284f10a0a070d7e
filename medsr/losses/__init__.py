"""Losses between a restored and a true volume, which register themselves.

Each is an ``nn.Module`` called as ``loss(sr, hr)`` that returns a float32 scalar. Losses that need
a teacher live in :mod:`medsr.distill`; figures of merit for reports in ``medsr.evaluate``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from medsr.errors import UsageError
from medsr.plugins import Registry, check_options

__all__ = ["LOSSES", "build_loss"]

LOSSES: Registry[type[nn.Module]] = Registry("loss", __name__, UsageError)
"""Every loss by the name that recipes use."""


def __getattr__(name: str) -> Any:
    return LOSSES.attribute(name)


def build_loss(name: str, **options: Any) -> nn.Module:
    """Build a loss by its name in :data:`LOSSES`.

    Args:
        name: A key of :data:`LOSSES`.
        **options: Arguments of the loss's class.

    Returns:
        A module called as ``loss(sr, hr)``.

    Raises:
        UsageError: If no loss has this name, or it does not take these options.

    Examples:
        >>> from medsr.losses import LOSSES, build_loss
        >>> sorted(LOSSES)
        ['charbonnier', 'frequency', 'gradient', 'l1', 'l2', 'ssim', 'wavelet']
        >>> build_loss("charbonnier", epsilon=1e-2).epsilon
        0.01
    """
    if name not in LOSSES:
        raise UsageError(f"loss {name!r} is unknown; choose one of {', '.join(sorted(LOSSES))}")
    try:
        check_options(LOSSES[name], options)
        return LOSSES[name](**options)
    except TypeError as error:
        raise UsageError(f"loss {name!r} does not take these options: {error}") from error

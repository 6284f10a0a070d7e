"""Compression of trained networks: pruned channels and int8 arithmetic, alone or after one another.

``prune`` gives an ordinary, narrower model that a recipe can go on training; ``quantise`` gives a
model that computes in int8. Distillation is the third way to a small network and lives in
``medsr.distill``; all three are set side by side by ``medsr.benchmark.compression``.

``calibration_patches`` is imported when it is first used: it brings the libraries of training,
which an int8 model that is only run does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medsr.compress.prune import prune
from medsr.compress.quantise import QuantisedModel, quantise

if TYPE_CHECKING:
    from medsr.compress.calibrate import calibration_patches

__all__ = ["QuantisedModel", "calibration_patches", "prune", "quantise"]


def __getattr__(name: str) -> Any:
    """Import ``calibration_patches`` on first use."""
    if name != "calibration_patches":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from medsr.compress.calibrate import calibration_patches

    return calibration_patches

"""Compression of trained networks: pruned channels and int8 arithmetic, alone or after one another.

``prune`` gives an ordinary, narrower model that a recipe can go on training; ``quantise`` gives a
model that computes in int8. Distillation is the third way to a small network and lives in
``medsr.distill``; all three are set side by side by ``medsr.benchmark.compression``.
"""

from __future__ import annotations

from medsr.compress.calibrate import calibration_patches
from medsr.compress.prune import prune
from medsr.compress.quantise import QuantisedModel, quantise

__all__ = ["QuantisedModel", "calibration_patches", "prune", "quantise"]

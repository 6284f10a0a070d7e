"""Distillation: a small student learns from a large frozen teacher.

:class:`Distiller` runs a step, :mod:`medsr.distill.taps` fetches features, and
:mod:`medsr.distill.terms` holds one file per method. The training loop is ``medsr.train``.
"""

from __future__ import annotations

from typing import Any

from medsr.distill.distiller import Distilled, Distiller
from medsr.distill.taps import Activations, FeatureTaps, Tap
from medsr.distill.term import Term
from medsr.distill.terms import TERMS, build_term

__all__ = [
    "TERMS",
    "Activations",
    "Distilled",
    "Distiller",
    "FeatureTaps",
    "Tap",
    "Term",
    "build_term",
]

DistillTerm = Term  # its name until 0.1


def __getattr__(name: str) -> Any:
    return TERMS.attribute(name)

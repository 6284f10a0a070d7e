"""Distillation: a small student learns from a large frozen teacher.

:class:`Distiller` runs a step, :mod:`medsr.distill.taps` fetches features, and
:mod:`medsr.distill.terms` holds one file per method. The training loop is ``medsr.train``.
"""

from __future__ import annotations

from medsr.distill.distiller import Distilled, Distiller
from medsr.distill.taps import Activations, DistillTerm, FeatureTaps, Tap
from medsr.distill.terms import TERMS, FeatureTerm, OutputTerm, build_term

__all__ = [
    "TERMS",
    "Activations",
    "DistillTerm",
    "Distilled",
    "Distiller",
    "FeatureTaps",
    "FeatureTerm",
    "OutputTerm",
    "Tap",
    "build_term",
]

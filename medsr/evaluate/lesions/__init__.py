"""Synthetic lesions: how much of a small structure survives a method.

Spheres of known size and contrast are put into a sharp scan before it is degraded. What a method
makes of them is the difference between its results with and without. Where spheres lie is decided
in ``place``, how they meet voxels in ``spheres``, what is measured in ``measure``, and means over
patients are in ``summary``.
"""

from medsr.evaluate.lesions.measure import LesionResult, measure
from medsr.evaluate.lesions.place import Lesion, plan_lesions, settings
from medsr.evaluate.lesions.spheres import insert
from medsr.evaluate.lesions.summary import summarise

__all__ = [
    "Lesion",
    "LesionResult",
    "insert",
    "measure",
    "plan_lesions",
    "settings",
    "summarise",
]

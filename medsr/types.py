"""Names of types that many modules share, so that each has one meaning; only numpy is needed.

Arrays are named by the numbers they hold. Callbacks are named by what they are called with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Of any type."""
BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]

Triple = tuple[int, int, int]
"""A whole number for each axis, (X, Y, Z)."""
Shape = Triple
"""Voxels along each axis."""
Scale = Triple
"""Whole factors of resolution along each axis."""
FloatTriple = tuple[float, float, float]
"""A number for each axis, such as a spacing in mm."""

Progress = Callable[[int, int, str], None]
"""Called with steps that are done, steps in all, and what is done next."""
CountProgress = Callable[[int, int], None]
"""Called with steps that are done and steps in all."""
StageProgress = Callable[[str, int, int], None]
"""Called with the name of a stage, and its steps that are done and in all."""


def no_progress(*_: object) -> None:
    """Take any progress and report it to nobody."""

"""The consistency check: does a result, degraded again, give its scan?

A model undoes the degradation that it was trained on. Where a scan was made in another way, for
example as a 3D acquisition with thick partitions, the network still gives an image, and a wrong
one. The scan itself tells: degraded again, the result does not give it back. That is measured for
every result, plane by plane as it is computed, so that results larger than memory are checked too.
Nothing is changed; that is :mod:`medsr.infer.consistency.project`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.errors import UsageError
from medsr.infer.axes import AxisOrder
from medsr.infer.consistency.project import projections
from medsr.infer.consistency.projection import Projection, Residual
from medsr.infer.resample import RollingRows, apply_rows
from medsr.model import ModelSpec
from medsr.types import BoolArray, Float32Array, Shape
from medsr.volume import Modality

MR_LIMIT = 0.03
"""Root mean square difference that raises a warning, as a share of the scan's range. On held-out
scans restored by a model that knows their kind it was at most 0.015, with 3 % of noise, which a
model takes away, 0.021; with a kind that a model had never seen (k-space partitions) 0.034 and
more."""

CT_LIMIT_HU = 20.0
"""The same for CT, HU; with the right model it was 0.3."""

NO_COMPARISON = "the model or the grid allows no comparison"
"""Why there is no check where a model does not say how its training scans were degraded, or the
grid asked for is coarser than the scan's."""

SPREADS = (
    "the result was computed in chunks, and a degradation of the model's training (k-space) "
    "spreads each slice over the whole scan, which takes more memory than there is"
)
"""Why there is none where a degradation is no narrow band along the slices."""

SHARE = 0.1
"""Of the memory limit, a check may hold this much."""

WORKING_BYTES = 3 * 2**24
"""What one step of a check takes besides what it holds."""

_BLOCK = 2**22  # voxels of the result that are degraded at once


class ConsistencyCheck:
    """Compares a scan with its degraded result while both come in planes along the last axis.

    A model may have been trained on several degradations, and nobody says how a scan's slices were
    made. So the one that fits best counts: there is a warning where none fits.

    Args:
        candidates: The degradations, at least one; axes in canonical order.
        order: Of the scan's axes.
    """

    def __init__(self, candidates: Sequence[Projection], order: AxisOrder) -> None:
        self._candidates = candidates
        self._differences = [_difference(candidate, order) for candidate in candidates]
        self._coarse = order.array_shape(candidates[0].coarse)

    @classmethod
    def of(
        cls, spec: ModelSpec, modality: Modality, fine: Shape, coarse: Shape, order: AxisOrder
    ) -> ConsistencyCheck | None:
        """Set up the check of a model's result; None where there can be none.

        Args:
            spec: Of the model.
            modality: Of the scan.
            fine: Voxels of the result, in canonical order.
            coarse: Voxels of the scan.
            order: Of the scan's axes.
        """
        try:
            return cls(projections(spec, modality, fine, coarse), order)
        except UsageError:
            return None

    @property
    def held_bytes(self) -> int:
        """What it holds at most of a scan and a result that come in chunks."""
        plane = self._coarse[0] * self._coarse[1]
        planes = sum(difference.held_planes for difference in self._differences)
        waiting = max(difference.waiting_planes for difference in self._differences)
        return plane * (4 * planes + 5 * waiting)

    def note(self, start: int, planes: npt.NDArray[Any], counted: BoolArray | None = None) -> None:
        """Take note of planes of the scan.

        Args:
            start: Place of the first.
            planes: ``(X, Y, planes)``, native units, as the network saw them.
            counted: Voxels that hold data; all where None.
        """
        for difference in self._differences:
            difference.note(start, planes, counted)

    def push(self, planes: Float32Array) -> None:
        """Take the next planes ``(X, Y, planes)`` of the result, native units."""
        step = max(1, _BLOCK // (planes.shape[0] * planes.shape[1]))
        for first in range(0, planes.shape[2], step):
            part = planes[:, :, first : first + step]
            for difference in self._differences:
                difference.push(part)

    def nearest(self) -> tuple[Projection, Residual]:
        """The degradation that fits best and how far the degraded result is from the scan.

        All planes of both must have come.
        """
        residuals = [difference.residual() for difference in self._differences]
        best = min(range(len(residuals)), key=lambda k: residuals[k].rms)
        return self._candidates[best], residuals[best]


def format_warning(residual: Residual, modality: Modality, intensity_range: float) -> str | None:
    """A warning, where a residual gives reason for one.

    Args:
        residual: What the check found.
        modality: What the scan is.
        intensity_range: Of MR, the 99.5th percentile of the foreground, native units; unused for
            CT.
    """
    if modality == "CT":
        excess, shown = residual.rms / CT_LIMIT_HU, f"{residual.rms:.3g} HU"
    else:
        share = residual.rms / intensity_range
        excess, shown = share / MR_LIMIT, f"{share:.1%} of its range"
    if excess <= 1:
        return None
    return (
        f"the result does not fit the scan: degraded again, it differs by {shown} (root mean "
        "square). The scan was made in another way than those the model learnt from (a 3D "
        "acquisition with thick partitions, for example); do not trust this result"
    )


@dataclass
class _Sum:
    """Of squares and the largest of differences."""

    squares: float = 0.0
    count: int = 0
    largest: float = 0.0

    def add(self, difference: npt.NDArray[Any], counted: BoolArray | None) -> None:
        chosen = difference if counted is None else difference[counted]
        if chosen.size:
            self.squares += float(np.square(chosen, dtype=np.float64).sum())
            self.count += chosen.size
            self.largest = max(self.largest, float(np.abs(chosen).max()))

    def residual(self) -> Residual:
        return Residual(math.sqrt(self.squares / max(self.count, 1)), self.largest)


class _Banded:
    """One degradation whose planes depend on a few planes of the result each."""

    def __init__(self, rows: Sequence[Float32Array | None]) -> None:
        self._in_plane = [rows[0], rows[1], None]
        self._rolling = RollingRows(rows[2])
        self._waiting: dict[int, tuple[npt.NDArray[Any], BoolArray | None]] = {}
        self._next = 0
        self._sum = _Sum()
        self.held_planes = self._rolling.reach
        self.waiting_planes = self._rolling.reach + 2

    def note(self, start: int, planes: npt.NDArray[Any], counted: BoolArray | None) -> None:
        for k in range(planes.shape[2]):
            seen = None if counted is None else counted[:, :, k]
            self._waiting[start + k] = planes[:, :, k], seen

    def push(self, planes: Float32Array) -> None:
        ready = self._rolling.push(_in_plane(planes, self._in_plane))
        if ready is None:
            return
        for k in range(ready.shape[2]):
            scan, counted = self._waiting.pop(self._next)
            self._sum.add(scan.astype(np.float32, copy=False) - ready[:, :, k], counted)
            self._next += 1

    def residual(self) -> Residual:
        return self._sum.residual()


class _Spread:
    """One degradation whose planes each depend on all planes of the result, such as k-space."""

    def __init__(
        self, in_plane: Sequence[Float32Array | None], along: Float32Array, shape: Shape
    ) -> None:
        self._in_plane, self._along = [*in_plane, None], along
        self._total = np.zeros(shape, dtype=np.float32, order="F")
        self._scan: list[tuple[int, npt.NDArray[Any], BoolArray | None]] = []
        self._next = 0
        self.held_planes = self.waiting_planes = shape[2]

    def note(self, start: int, planes: npt.NDArray[Any], counted: BoolArray | None) -> None:
        self._scan.append((start, planes, counted))

    def push(self, planes: Float32Array) -> None:
        end = self._next + planes.shape[2]
        columns = self._along[:, self._next : end]
        self._total += apply_rows(_in_plane(planes, self._in_plane), [None, None, columns])
        self._next = end

    def residual(self) -> Residual:
        total = _Sum()
        for start, planes, counted in self._scan:
            expected = self._total[:, :, start : start + planes.shape[2]]
            total.add(planes.astype(np.float32, copy=False) - expected, counted)
        return total.residual()


def _difference(candidate: Projection, order: AxisOrder) -> _Banded | _Spread:
    """What compares by one degradation, its matrices turned into the axes of the file."""
    rows: list[Float32Array | None] = [None, None, None]
    for axis, matrix in enumerate(candidate.matrices):
        flip = -1 if axis in order.flips else 1
        rows[order.axes[axis]] = None if matrix is None else matrix[::flip, ::flip]
    banded = _Banded(rows)
    along = rows[2]
    if along is None or 2 * banded.held_planes <= along.shape[1]:
        return banded
    return _Spread(rows[:2], along, order.array_shape(candidate.coarse))


def _in_plane(planes: Float32Array, rows: Sequence[Float32Array | None]) -> Float32Array:
    return planes if rows[0] is None and rows[1] is None else apply_rows(planes, rows)

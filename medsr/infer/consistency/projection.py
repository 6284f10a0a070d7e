"""The projection of an image onto those that degrade to a scan, and how far it is from them.

Built-in degradations are linear and one matrix along each axis (:class:`medsr.degrade.Separable`),
so the projection is exact, needs no iteration, and is a few small matrix products.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.degrade import DEGRADATIONS, Degradation, Separable
from medsr.errors import UsageError
from medsr.infer.resample import apply_rows
from medsr.types import BoolArray, Float32Array, Shape

GAIN_LIMIT = 10.0
"""Nothing of a residual comes back magnified more than this, relative to a constant.

Where a degradation all but erases a pattern (a soft in-plane kernel, widely overlapping slices, a
window over k-space), meeting the scan there would blow up its noise.
"""

_AIM = 0.99  # of the tolerance, so that rounding does not overstep it
_PASSES = 3  # the first is exact but for float32 rounding and what GAIN_LIMIT holds back
_CHUNK = 1 << 24  # fine voxels that are worked on at once


@dataclass(frozen=True)
class Residual:
    """How far a result, degraded again, is from its scan, over the voxels that hold data.

    Attributes:
        rms: Root mean square, native units.
        largest: Largest absolute difference, native units.
    """

    rms: float
    largest: float


@dataclass(frozen=True)
class _Factors:
    """What a projection multiplies by; see :meth:`Projection._factors`."""

    turn: list[Float32Array | None]
    up: list[Float32Array | None]
    weight: Float32Array
    out_of_reach: float


class Projection:
    """The projection between two grids of the same extent.

    Args:
        degradation: What made the coarse grid of the fine one; noise is left out.
        fine: Voxels of the result.
        coarse: Voxels of the scan, axes alike.
        params: Of the degradation; nominal when not given.

    Raises:
        UsageError: The grids or the degradation do not allow it.
    """

    def __init__(
        self, degradation: Degradation[Any], fine: Shape, coarse: Shape, params: Any = None
    ) -> None:
        if any(n < m for n, m in zip(fine, coarse, strict=True)):
            raise UsageError(
                f"a grid of {fine} voxels is along some axis coarser than the scan's {coarse}; "
                "consistency needs one that is nowhere coarser"
            )
        params = degradation.nominal() if params is None else params
        is_params = is_dataclass(params) and not isinstance(params, type)
        kind = _kind(degradation)
        if not isinstance(degradation, Separable):
            raise UsageError(
                f"degradation {kind} is not known as one matrix along each axis (it has no "
                "method operators), which consistency needs; do without it"
            )
        self.fine, self.coarse = fine, coarse
        self.described: dict[str, Any] = {
            "kind": kind,
            "factor": [round(n / m, 6) for n, m in zip(fine, coarse, strict=True)],
            "parameters": asdict(params) if is_params else {},
        }
        by_axis = degradation.operators(fine, coarse, params)
        matrices = [None if d is None else np.asarray(d.numpy(), np.float64) for d in by_axis]
        self._matrices = matrices
        self._down = [None if d is None else d.astype(np.float32) for d in matrices]

    @cached_property
    def _factors(self) -> _Factors:
        """Split D = U S Wᵀ along each axis; D Dᵀ has the eigenvectors U and eigenvalues S²."""
        turn: list[Float32Array | None] = []
        up: list[Float32Array | None] = []
        powers: list[NDArray[np.float64]] = []
        for matrix, size in zip(self._matrices, self.coarse, strict=True):
            if matrix is None:
                turn.append(None)
                up.append(None)
                powers.append(np.ones(size))
                continue
            left, strengths, right = np.linalg.svd(matrix, full_matrices=False)
            turn.append(np.ascontiguousarray(left.T, dtype=np.float32))
            up.append(np.ascontiguousarray(right.T * strengths, dtype=np.float32))
            powers.append(np.square(strengths))
        power = reduce(np.multiply.outer, powers)
        # A constant keeps its amplitude, so in these norms its eigenvalue is the ratio of voxels.
        floor = np.prod(self.coarse) / np.prod(self.fine) / GAIN_LIMIT**2
        reached = power >= floor
        weight = np.where(reached, 1.0 / np.maximum(power, floor), power / floor**2)
        return _Factors(turn, up, weight.astype(np.float32), 1.0 - float(reached.mean()))

    @property
    def matrices(self) -> list[Float32Array | None]:
        """What degrades each axis, ``(scan, result)`` voxels; None leaves it as it is."""
        return self._down

    @property
    def out_of_reach(self) -> float:
        """Share of the scan's components that the degradation all but erases."""
        return self._factors.out_of_reach

    def degrade(self, sr: NDArray[Any]) -> Float32Array:
        """Bring a fine image to the coarse grid, without noise.

        Args:
            sr: ``(X, Y, Z)`` on the fine grid, native units.

        Returns:
            Float32 array on the coarse grid.
        """
        along_x, *rest = self._down
        lr = np.zeros(self.coarse, dtype=np.float32)
        for part in self._parts():
            rows = apply_rows(sr[part], [None, *rest])
            if along_x is None:
                lr[part] = rows
            else:
                lr += np.tensordot(along_x[:, part], rows, axes=1)
        return lr

    def project(
        self, sr: Float32Array, lr: NDArray[Any], tolerance: float, counted: BoolArray | None = None
    ) -> tuple[Residual, Residual]:
        """Change an image, in place, so that degrading it gives the scan to a tolerance.

        Differences below the tolerance stay; larger ones are reduced to it. Where the degradation
        erases nothing, the change is the smallest (in sum of squares) that leaves just those
        differences: x + Dᵀ (D Dᵀ)⁻¹ r, r being what a difference exceeds the tolerance by.

        Args:
            sr: ``(X, Y, Z)`` on the fine grid, native units; changed.
            lr: The scan, native units.
            tolerance: Largest absolute difference allowed, native units, above zero.
            counted: Voxels of the scan that hold data, for the residuals.

        Returns:
            The residuals before and after.
        """
        scan = np.asarray(lr, dtype=np.float32)
        aim = np.float32(_AIM * tolerance)
        difference = scan - self.degrade(sr)
        before = residual_of(difference, counted)
        for _ in range(_PASSES):
            if np.abs(difference).max() <= tolerance:
                break
            self._add(sr, difference - np.clip(difference, -aim, aim))
            difference = scan - self.degrade(sr)
        return before, residual_of(difference, counted)

    def _add(self, sr: Float32Array, residual: Float32Array) -> None:
        """Add to the image what a residual on the coarse grid asks for."""
        change = apply_rows(residual, self._factors.turn)
        change *= self._factors.weight
        along_x, *rest = self._factors.up
        for part in self._parts():
            rows = change[part] if along_x is None else np.tensordot(along_x[part], change, axes=1)
            sr[part] += apply_rows(rows, [None, *rest])

    def _parts(self) -> list[slice]:
        """Slices along X that bound the memory in use."""
        step = max(1, _CHUNK // (self.fine[1] * self.fine[2]))
        return [slice(k, min(k + step, self.fine[0])) for k in range(0, self.fine[0], step)]


def residual_of(difference: NDArray[Any], counted: BoolArray | None) -> Residual:
    """How large differences are where they count."""
    chosen = difference if counted is None else difference[counted]
    if not chosen.size:
        return Residual(0.0, 0.0)
    rms = float(np.sqrt(np.square(chosen, dtype=np.float64).mean()))
    return Residual(rms, float(np.abs(chosen).max()))


def _kind(degradation: Degradation[Any]) -> str:
    names = {cls: name for name, cls in DEGRADATIONS.items()}
    return names.get(type(degradation), type(degradation).__name__)

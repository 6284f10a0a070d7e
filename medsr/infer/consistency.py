"""Data consistency: a result that, degraded again, is the scan it came from.

Here is the projection: of all images that degrade to the scan (to a tolerance), the one nearest to
the network's result. Built-in degradations are linear and one matrix along each axis
(:class:`medsr.degrade.Separable`), so it is exact, needs no iteration, and is a few small matrix
products. How far any result is from its scan is measured in ``medsr.evaluate.consistency``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.degrade import DEGRADATIONS, Degradation, Separable, build_degradation
from medsr.errors import MemoryLimitError, UsageError
from medsr.infer.decide import Decision
from medsr.infer.prepare import parse_tolerance
from medsr.infer.resample import FloatArray, apply_rows
from medsr.intensity import Intensity
from medsr.model import ModelSpec
from medsr.volume import Modality, Volume

Shape = tuple[int, int, int]
BoolArray = NDArray[np.bool_]

CT_TOLERANCE_HU = 1.0
"""Default tolerance for CT: the step in which scanners store HU."""

MR_TOLERANCE = 1e-3
"""Default tolerance for MR, of the scan's 99.5th percentile of the foreground."""

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
class ConsistencyReport:
    """What a projection did.

    Attributes:
        degradation: Kind, factors along the array's axes, and parameters.
        tolerance: Largest absolute difference that was allowed, native units.
        units: ``"HU"`` or ``"arbitrary"``.
        before: Residual of the result as it was.
        after: Residual of the projected result, before it is rounded to a file's type.
        met: Whether ``after.largest`` is within the tolerance.
        out_of_reach: Share of the scan's components that the degradation all but erases, so that
            they are corrected only as far as :data:`GAIN_LIMIT` allows; mostly 0.
        seconds: What it took.
    """

    degradation: dict[str, Any]
    tolerance: float
    units: str
    before: Residual
    after: Residual
    met: bool
    out_of_reach: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def words(self) -> str:
        """A few words for headers."""
        if not self.met:
            return "projected towards the source"
        unit = " HU" if self.units == "HU" else ""
        return f"consistent with the source to {self.tolerance:.4g}{unit}"

    def warning(self) -> str:
        """A sentence for the user where the tolerance was not met."""
        unit = " HU" if self.units == "HU" else ""
        return (
            f"the result, degraded again, differs from the scan by up to "
            f"{self.after.largest:.3g}{unit}, more than the tolerance of {self.tolerance:.3g}{unit}"
            f" ({self.before.largest:.3g}{unit} before): the scan holds detail or noise that this "
            "degradation cannot give"
        )


def default_tolerance(lr: NDArray[Any], modality: Modality | None) -> float:
    """Largest difference allowed where none is stated, native units.

    Args:
        lr: Voxels of the scan that hold data, any shape.
        modality: 1 HU for CT; else 0.1 % of the 99.5th percentile of the foreground, the width
            that normalisation and PSNR take for the full range.
    """
    if modality == "CT":
        return CT_TOLERANCE_HU
    return MR_TOLERANCE * Intensity.for_modality("MR").fit(lr).divisor


def nominal_degradation(spec: ModelSpec, modality: Modality) -> Degradation[Any]:
    """Return the degradation that a model was trained on, for scans of a modality.

    Raises:
        UsageError: The spec does not name it, or what it names is not installed.
    """
    options = dict(spec.trained_degradation)
    options = dict(options.pop("by_modality", {}).get(modality) or options)
    kind = options.pop("kind", None)
    options.pop("factor", None)
    if kind is None:
        raise UsageError(
            f"model {spec.name} does not say how its training scans were degraded, which "
            "consistency needs; do without it"
        )
    return build_degradation(str(kind), spec.scale, **options)


@dataclass(frozen=True)
class _Factors:
    """What a projection multiplies by; see :meth:`Projection._factors`."""

    turn: list[FloatArray | None]
    up: list[FloatArray | None]
    weight: FloatArray
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
        known = is_dataclass(params) and not isinstance(params, type)
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
            "parameters": asdict(params) if known else {},
        }
        found = degradation.operators(fine, coarse, params)
        matrices = [None if d is None else np.asarray(d.numpy(), np.float64) for d in found]
        self._matrices = matrices
        self._down = [None if d is None else d.astype(np.float32) for d in matrices]

    @cached_property
    def _factors(self) -> _Factors:
        """Split D = U S Wᵀ along each axis; D Dᵀ has the eigenvectors U and eigenvalues S²."""
        turn: list[FloatArray | None] = []
        up: list[FloatArray | None] = []
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
    def out_of_reach(self) -> float:
        """Share of the scan's components that the degradation all but erases."""
        return self._factors.out_of_reach

    def degrade(self, sr: NDArray[Any]) -> FloatArray:
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
        self, sr: FloatArray, lr: NDArray[Any], tolerance: float, counted: BoolArray | None = None
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

    def _add(self, sr: FloatArray, residual: FloatArray) -> None:
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


def make_consistent(
    sr: Volume,
    lr: Volume,
    degradation: Degradation[Any],
    params: Any = None,
    *,
    tolerance: float | None = None,
) -> tuple[Volume, ConsistencyReport]:
    """Project a result so that degrading it gives the scan that it came from.

    Args:
        sr: The result, native units.
        lr: The scan, over the same extent, axes as in ``sr``.
        degradation: What makes ``lr`` of the truth; factors along the array's axes.
        params: Its parameters; noise in them is left out. Nominal when not given.
        tolerance: Largest absolute difference allowed, native units; see
            :func:`default_tolerance`.

    Returns:
        The projected result, float32, and what was done.

    Raises:
        UsageError: The grids do not share their extent, the degradation does not allow it, or the
            tolerance is not above zero.
    """
    if not lr.geometry.resize(sr.shape).same_grid(sr.geometry, tol_mm=1e-2):
        raise UsageError("the result does not cover the same space as the scan; nothing was done")
    projection = Projection(degradation, sr.shape, lr.shape, params)
    planned = Planned(projection, None if tolerance is None else parse_tolerance(tolerance))
    data = np.array(sr.data, dtype=np.float32, order="C")
    report = planned.apply(data, lr.data, modality=lr.modality)
    return sr.replace(data=data), report


@dataclass(frozen=True)
class Planned:
    """A projection that was found possible, with its tolerance; None for the default one."""

    projection: Projection
    tolerance: float | None

    def apply(
        self,
        sr: FloatArray,
        lr: NDArray[Any],
        *,
        modality: Modality | None,
        counted: BoolArray | None = None,
    ) -> ConsistencyReport:
        """Project an image in place; arguments as for :meth:`Projection.project`."""
        started = time.perf_counter()
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = default_tolerance(lr if counted is None else lr[counted], modality)
        before, after = self.projection.project(sr, lr, tolerance, counted)
        return ConsistencyReport(
            degradation=self.projection.described,
            tolerance=tolerance,
            units="HU" if modality == "CT" else "arbitrary",
            before=before,
            after=after,
            met=after.largest <= tolerance,
            out_of_reach=round(self.projection.out_of_reach, 6),
            seconds=round(time.perf_counter() - started, 3),
        )


def plan(wanted: bool | float, decision: Decision, modality: Modality) -> Planned | None:
    """Settle a projection before a network runs, so that what cannot be is refused at once.

    Args:
        wanted: True, or the tolerance in native units; False for none.
        decision: Model and grids. The degradation is that of the model's training at its central
            parameters.
        modality: What the scan is.

    Raises:
        UsageError: The grid, the model or the tolerance does not allow it.
    """
    if wanted is False:
        return None
    degradation = nominal_degradation(decision.model.spec, modality)
    projection = Projection(degradation, decision.target.shape, decision.grid.shape)
    return Planned(projection, parse_tolerance(wanted))


def check_whole(planned: Planned | None) -> None:
    """Refuse a projection of what is computed slab by slab.

    Raises:
        MemoryLimitError: There is one.
    """
    if planned is not None:
        raise MemoryLimitError(
            "the result is larger than memory and would be written by slabs, and consistency needs "
            "it whole; raise the limit, ask for a coarser grid, or do without consistency"
        )


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

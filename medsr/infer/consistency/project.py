"""Data consistency: a result that, degraded again, is the scan it came from.

Of all images that degrade to the scan (to a tolerance) the one nearest to the network's result is
taken, by :mod:`medsr.infer.consistency.projection`. How far any result is from its scan is measured
in ``medsr.evaluate.consistency``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsr.degrade import Degradation, build_degradation
from medsr.degrade.mixture import Mixture
from medsr.errors import MemoryLimitError, UsageError
from medsr.infer.consistency.projection import Projection, Residual, residual_of
from medsr.infer.decide import Decision
from medsr.infer.prepare import parse_tolerance
from medsr.intensity import Intensity
from medsr.model import ModelSpec
from medsr.types import BoolArray, Float32Array, Shape
from medsr.volume import Modality, Volume

__all__ = ["ConsistencyReport", "make_consistent"]

CT_TOLERANCE_HU = 1.0
"""Default tolerance for CT: the step in which scanners store HU."""

MR_TOLERANCE = 1e-3
"""Default tolerance for MR, of the scan's 99.5th percentile of the foreground."""


@dataclass(frozen=True)
class ConsistencyReport:
    """What a projection did.

    Attributes:
        degradation: Kind, factors along the array's axes, and parameters.
        tolerance: Largest absolute difference that was allowed, native units.
        units: ``"HU"`` or ``"arbitrary"``.
        before: Residual of the result as it was.
        after: Residual of the projected result, held to the scan's limits again, before it is
            rounded to a file's type.
        met: Whether ``after.largest`` is within the tolerance.
        out_of_reach: Share of the scan's components that the degradation all but erases, so that
            they are corrected only as far as ``projection.GAIN_LIMIT`` allows; mostly 0.
        seconds: What it took.
        held: Whether the tolerance is missed only because the scan's background and least value
            were kept.

    Examples:
        >>> import numpy as np
        >>> import medsr
        >>> x, y, z = np.mgrid[-1:1:24j, -1:1:24j, -1:1:6j]
        >>> ball = (800 * np.exp(-2 * (x**2 + y**2 + z**2))).astype(np.float32)
        >>> grid = medsr.Geometry(ball.shape, np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> thick = medsr.Volume(ball, grid, "MR")
        >>> report = medsr.upscale(thick, consistency=1.0, limits=False).report["consistency"]
        >>> report["met"], report["after"]["largest"] <= 1.0
        (True, True)
    """

    degradation: dict[str, Any]
    tolerance: float
    units: str
    before: Residual
    after: Residual
    met: bool
    out_of_reach: float
    seconds: float
    held: bool = False

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
        why = "the scan holds detail or noise that this degradation cannot give"
        if self.held:
            why = (
                "the scan's background and least value are kept, and at their edge this "
                "degradation contradicts them; without limits it meets the tolerance"
            )
        return (
            f"the result, degraded again, differs from the scan by up to "
            f"{self.after.largest:.3g}{unit}, more than the tolerance of {self.tolerance:.3g}{unit}"
            f" ({self.before.largest:.3g}{unit} before): {why}"
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


def projections(
    spec: ModelSpec, modality: Modality, fine: Shape, coarse: Shape
) -> tuple[Projection, ...]:
    """Return the projection for each degradation that a model was trained on, nominal first.

    Args:
        spec: Of the model.
        modality: Of the scan.
        fine: Voxels of the result.
        coarse: Voxels of the scan, axes alike.

    Raises:
        UsageError: The spec names no degradation, or the grids or the degradation do not allow it.
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
    whole = build_degradation(str(kind), spec.scale, **options)
    parts = whole.parts if isinstance(whole, Mixture) else [whole]
    candidates: list[Projection] = []
    for part in parts:
        projection = Projection(part, fine, coarse)
        if all(projection.described != known.described for known in candidates):
            candidates.append(projection)
    return tuple(candidates)


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

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.degrade import CTSlab
        >>> from medsr.infer.consistency.project import make_consistent
        >>> thick = Geometry((16, 16, 6), np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> hu = np.random.default_rng(0).uniform(0, 100, thick.shape).astype(np.float32)
        >>> scan = Volume(hu, thick, "CT", "HU")
        >>> flat = np.full((16, 16, 24), 50, dtype=np.float32)
        >>> guess = Volume(flat, thick.refine((1, 1, 4)), "CT", "HU")
        >>> result, report = make_consistent(guess, scan, CTSlab(factor=(1, 1, 4)), tolerance=0.5)
        >>> report.before.largest > 40, report.after.largest <= 0.5, report.met  # HU
        (True, True, True)
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
        sr: Float32Array,
        lr: NDArray[Any],
        *,
        modality: Modality | None,
        counted: BoolArray | None = None,
        hold: Callable[[], None] | None = None,
    ) -> ConsistencyReport:
        """Project an image in place; arguments as for :meth:`Projection.project`.

        Args:
            sr: The image.
            lr: The scan.
            modality: What the scan is.
            counted: Voxels of the scan that hold data, for the residuals.
            hold: Called after the projection, to hold ``sr`` to what comes before consistency;
                the residual reported is that of the image then.
        """
        started = time.perf_counter()
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = default_tolerance(lr if counted is None else lr[counted], modality)
        before, after = self.projection.project(sr, lr, tolerance, counted)
        reached = after.largest <= tolerance
        if hold is not None:
            hold()
            after = residual_of(lr - self.projection.degrade(sr), counted)
        return ConsistencyReport(
            degradation=self.projection.described,
            tolerance=tolerance,
            units="HU" if modality == "CT" else "arbitrary",
            before=before,
            after=after,
            met=after.largest <= tolerance,
            out_of_reach=round(self.projection.out_of_reach, 6),
            seconds=round(time.perf_counter() - started, 3),
            held=reached and after.largest > tolerance,
        )


def plan(wanted: bool | float, decision: Decision, modality: Modality) -> Planned | None:
    """Settle a projection before a network runs, so that what cannot be is refused at once.

    Args:
        wanted: True, or the tolerance in native units; False for none.
        decision: Model and grids. The degradation is that of the model's training at its central
            parameters; where it learnt from several, the first.
        modality: What the scan is.

    Raises:
        UsageError: The grid, the model or the tolerance does not allow it.
    """
    if wanted is False:
        return None
    nominal, *_ = projections(
        decision.model.spec, modality, decision.target.shape, decision.grid.shape
    )
    return Planned(nominal, parse_tolerance(wanted))


def check_whole(planned: Planned | None) -> None:
    """Refuse a projection of what is computed chunk by chunk.

    Raises:
        MemoryLimitError: There is one.
    """
    if planned is not None:
        raise MemoryLimitError(
            "the result is larger than memory and would be written by chunks, and consistency "
            "needs it whole; raise the limit, ask for a coarser grid, or do without consistency"
        )

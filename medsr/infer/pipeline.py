"""The one way of a scan: chunks, network, exact grid, native units, checks, planes of the result.

A scan that fits into memory is one chunk. Of a larger one only a chunk is in memory; the network's
halo around each makes the result that of the whole. Chunks lie along the last array axis, which
files store slowest, so reading and writing only ever move forward. Which chunks there are is
settled in ``medsr.infer.chunks``; where the planes go is the caller's choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsr.infer.chunks import Chunk, Chunks
from medsr.infer.consistency.check import NO_COMPARISON, ConsistencyCheck, format_warning
from medsr.infer.consistency.project import ConsistencyReport, Planned
from medsr.infer.decide import Decision
from medsr.infer.engine.engine import Engine, Plan
from medsr.infer.engine.malloc_trim import malloc_trim
from medsr.infer.limits import Limiter
from medsr.infer.padding import PaddingMemory
from medsr.infer.resample import RollingRows, apply_rows, operator
from medsr.infer.result import Findings, OutputChunk, Planes
from medsr.infer.scan import LoadedScan
from medsr.intensity import Intensity
from medsr.model import Normaliser
from medsr.types import BoolArray, Float32Array, StageProgress

_MEDIAN_BITS = 20


class Pipeline:
    """Computes a scan chunk by chunk.

    Args:
        scan: The scan.
        decision: Model and grid.
        engine: Of the decision's network, its memory limit set by
            :func:`medsr.infer.chunks.choose_chunks`.
        chunks: What is computed at a time.
        limits: Whether the result is held to the limits that the scan sets.
        check: The consistency check; None where there can be none.
        unchecked: Why, then.
        projection: What makes the result consistent with the scan; needs one chunk.
        progress: Called with (stage, done, total).
    """

    def __init__(
        self,
        scan: LoadedScan,
        decision: Decision,
        engine: Engine,
        chunks: Chunks,
        *,
        limits: bool = True,
        check: ConsistencyCheck | None = None,
        unchecked: str = NO_COMPARISON,
        projection: Planned | None = None,
        progress: StageProgress | None = None,
    ) -> None:
        self._scan, self._decision, self._engine, self._chunks = scan, decision, engine, chunks
        self._unchecked, self._progress = unchecked, progress
        with scan.watch.stage("prepare"):
            intensity = decision.model.spec.intensity_for(scan.modality)
            self._normaliser = scan.fit(intensity)
            self._range = partial(_range_of, scan, intensity, self._normaliser)
        # What is projected is measured before that.
        self._guard = _Guard(scan, decision, limits, None if projection else check, projection)
        self._whole = whole = scan.in_memory and chunks.is_one
        self._channels = [_Channel(decision, self._normaliser, 3, whole=whole)]
        if decision.uncertain:
            self._channels.append(_Channel(decision, self._normaliser, 1, whole=whole))
        self._tiles: list[Plan] = []
        self._held: Planes | None = None

    def run(self) -> Iterator[OutputChunk]:
        """Compute; each chunk must be done with before the next is asked for.

        Raises:
            InputError: Voxels cannot be read.
            MemoryLimitError: The memory does not suffice after all.
        """
        watch, axis = self._scan.watch, self._chunks.axis
        factor = self._engine.scale[axis]
        done = 0
        for chunk in self._chunks.chunks:
            if not self._whole:
                self._follow(done, chunk.planes)
            with watch.stage("load"):
                fresh, lr = self._read(chunk)
            with watch.stage("network"):
                answer = self._answer(lr)
            del lr
            low = chunk.crop * factor
            core = slice(low, low + chunk.planes * factor)
            with watch.stage("restore"):
                # The channels are popped, so that what was resampled does not stay in memory.
                answers = list(answer[(slice(None),) * (1 + axis) + (core,)])
                del answer
                result = self._channels[0].push(answers.pop(0))
                if result is not None:
                    self._guard.finish(result)
                sigma = self._channels[1].push(answers.pop(0)) if answers else None
                if sigma is not None:
                    self._guard.clear(sigma)
                    self._channels[1].count(sigma.data)
            yield OutputChunk(fresh, result, sigma)
            del fresh, result, sigma
            self._guard.forget(min(channel.given for channel in self._channels))
            if not self._whole:
                malloc_trim()
            done += chunk.planes

    def findings(self) -> Findings:
        """What is known of the result, once :meth:`run` has come to its end."""
        made, check = self._guard.made, self._guard.check
        residual = made.before if made else check.nearest()[1] if check else None
        warning = None
        if residual is not None:
            warning = format_warning(residual, self._scan.modality, self._range())
        limiter = self._guard.limiter
        return Findings(
            tiles=self._summary(),
            limits=None if limiter is None else limiter.described(),
            median_sigma=self._channels[1].median() if self._decision.uncertain else None,
            residual=residual,
            residual_missing=None if residual is not None else self._unchecked,
            warning=warning,
            consistency=made,
        )

    def _summary(self) -> dict[str, Any]:
        if self._whole:
            return {**self._tiles[0].as_dict(), "chunks": 1}
        background = sum(plan.background_voxels for plan in self._tiles)
        return {
            **self._tiles[0].as_dict(),
            "count": sum(len(plan.tiles) for plan in self._tiles),
            "air_share": round(min(background / int(np.prod(self._scan.volume.shape)), 1.0), 4),
            "chunks": len(self._tiles),
            "slabs": len(self._tiles),  # deprecated
        }

    def _read(self, chunk: Chunk) -> tuple[Planes | None, torch.Tensor]:
        """A chunk in canonical order; planes that the last one had too are not read again."""
        held = self._held
        end = chunk.start if held is None else held.start + held.data.shape[2]
        parts = [] if held is None else [held.data[:, :, chunk.start - held.start :]]
        fresh = None
        if chunk.stop > end:
            fresh = Planes(end, self._scan.source.read(end, chunk.stop))
            parts.append(self._guard.note(fresh))
        data = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        if not self._whole:
            self._held = Planes(chunk.start, data)
        canonical = self._decision.order.canonical_data(data)
        return fresh, torch.from_numpy(np.array(canonical, dtype=np.float32, order="C"))

    def _answer(self, lr: torch.Tensor) -> Float32Array:
        """The network's channels: native where there is one, else in the network's units."""
        offset, divisor = self._normaliser.offset, self._normaliser.divisor
        if self._decision.uncertain:
            # A map of uncertainty has no offset, so both channels stay in the network's units.
            lr, offset, divisor = self._normaliser.forward(lr), 0.0, 1.0
        plan = self._engine.plan_for(lr, offset=offset, divisor=divisor)
        self._tiles.append(plan)
        return np.asarray(self._engine.run(lr, offset=offset, divisor=divisor, plan=plan).numpy())

    def _follow(self, done: int, planes: int) -> None:
        """Let the engine's progress through one chunk count as planes of the scan."""
        progress, total = self._progress, self._scan.volume.shape[2]
        if progress is None:
            return

        def report(steps: int, steps_in_all: int) -> None:
            progress("network", done + planes * steps // max(steps_in_all, 1), total)

        self._engine.progress = report


class _Guard:
    """Holds planes of a result to what the planes of its scan say.

    In this order: limits, consistency check or projection, padding. All but the last see the scan
    as the network saw it, padding replaced.

    Args:
        scan: The scan.
        decision: Model and grid.
        limits: Whether the result is held to the limits that the scan sets.
        check: Is told of both, where there is one.
        projection: Changes the result to fit the scan, where asked for.
    """

    def __init__(
        self,
        scan: LoadedScan,
        decision: Decision,
        limits: bool,
        check: ConsistencyCheck | None,
        projection: Planned | None,
    ) -> None:
        shapes = scan.volume.shape, decision.result.shape
        self.limiter = Limiter(scan.limits, *shapes, decision.order) if limits else None
        self.check, self._projection = check, projection
        self.made: ConsistencyReport | None = None
        self._padding = None if scan.padding is None else PaddingMemory(scan.padding, *shapes)
        self._canonical = decision.order.canonical_data
        self._modality = scan.modality
        self._whole: tuple[NDArray[Any], BoolArray | None] | None = None

    def note(self, fresh: Planes) -> NDArray[Any]:
        """Take note of planes of the scan; return them without padding."""
        planes, counted = fresh.data, None
        if self._padding is not None:
            planes, counted = self._padding.note(fresh.start, planes)
        if self.limiter is not None:
            self.limiter.note(fresh.start, planes)
        if self.check is not None:
            self.check.note(fresh.start, planes, counted)
        if self._projection is not None:
            self._whole = planes, counted
        return planes

    def finish(self, result: Planes) -> None:
        """Hold planes of the result to the limits, check them, give padding back; in place."""
        if self.limiter is not None:
            self.limiter.apply(result.start, result.data)
        if self.check is not None:
            self.check.push(result.data)
        if self._projection is not None and self._whole is not None:
            self.made = self._project(self._projection, result.data, *self._whole)
        if self._padding is not None:
            self._padding.give_back(result.start, result.data, self._padding.padding.value)

    def clear(self, sigma: Planes) -> None:
        """Let a map of uncertainty be zero in background and in padding, in place."""
        if self.limiter is not None:
            self.limiter.clear(sigma.start, sigma.data)
        if self._padding is not None:
            self._padding.give_back(sigma.start, sigma.data, 0.0)

    def forget(self, written: int) -> None:
        """Let go of what no plane of the result from ``written`` on needs."""
        for memory in (self.limiter, self._padding):
            if memory is not None:
                memory.forget(written)

    def _project(
        self,
        projection: Planned,
        result: Float32Array,
        scan: NDArray[Any],
        counted: BoolArray | None,
    ) -> ConsistencyReport:
        limiter = self.limiter
        return projection.apply(
            self._canonical(result),
            self._canonical(scan),
            modality=self._modality,
            counted=None if counted is None else self._canonical(counted),
            hold=None if limiter is None else partial(limiter.apply, 0, result, near=False),
        )


class _Channel:
    """Brings one of the network's channels to the exact grid, native units and the scan's axes.

    Args:
        decision: Model and grid.
        normaliser: Between native and the network's units.
        order: Of the splines: 3 for values, 1 for a map of uncertainty.
        whole: Whether all planes come at once.
    """

    def __init__(
        self, decision: Decision, normaliser: Normaliser, order: int, *, whole: bool
    ) -> None:
        self._axes, self._order, self._normaliser = decision.order, order, normaliser
        self._restores = decision.uncertain and order == 3
        axis = decision.order.axes.index(2)
        scale = decision.model.spec.scale
        big = [n * s for n, s in zip(decision.grid.shape, scale, strict=True)]
        new = decision.target.shape
        self._rows = [
            None
            if big[k] == new[k] or (k == axis and not whole)
            else operator(big[k], new[k], order)
            for k in range(3)
        ]
        flipped = axis in decision.order.flips
        along = (1, 1) if whole else (big[axis], new[axis])
        self._rolling = RollingRows.resampling(*along, order, flipped=flipped)
        self.given = 0
        self._whole, self._median = whole, 0.0
        self._counts = np.zeros(1 << _MEDIAN_BITS, dtype=np.int64)

    def push(self, values: Float32Array) -> Planes | None:
        """Take planes in canonical order; return those that are ready in the scan's axes."""
        if any(rows is not None for rows in self._rows):
            values = apply_rows(values, self._rows)
        ready = self._rolling.push(self._axes.array_data(values))
        if ready is None:
            return None
        if self._restores:
            ready = self._normaliser.restore(ready)
        elif self._order == 1:
            ready *= np.float32(self._normaliser.divisor)
        self.given += ready.shape[2]
        return Planes(self.given - ready.shape[2], ready)

    def count(self, values: Float32Array) -> None:
        """Let values above zero count for :meth:`median`."""
        above = values[values > 0]
        if self._whole:
            self._median = float(np.median(above)) if above.size else 0.0
            return
        keys = _coarse_keys(above)
        self._counts += np.bincount(keys, minlength=self._counts.size)

    def median(self) -> float:
        """Median of the values above zero; to four digits where they came in chunks."""
        if self._whole:
            return self._median
        cumulated = np.cumsum(self._counts)
        key = int(np.searchsorted(cumulated, cumulated[-1] / 2))
        bits = np.array([key << (31 - _MEDIAN_BITS)], dtype=np.uint32)
        return float(f"{bits.view(np.float32)[0]:.4g}")


def _coarse_keys(values: Float32Array) -> NDArray[np.uint32]:
    """The leading bits of numbers from zero up, which are in the order of the numbers."""
    bits = np.maximum(values, 0.0).view(np.uint32).ravel(order="K")
    return bits >> np.uint32(31 - _MEDIAN_BITS)


def _range_of(scan: LoadedScan, intensity: Intensity, fitted: Normaliser) -> float:
    """What the consistency check of an MR scan relates its residual to, native units."""
    usual = Intensity.for_modality("MR")
    return (fitted if intensity == usual else scan.fit(usual)).divisor

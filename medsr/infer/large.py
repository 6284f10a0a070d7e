"""Volumes larger than memory: read, computed and written a slab at a time.

The network's halo around each slab makes the result the same as that of the whole volume. Slabs lie
along the last array axis, which files store slowest, so reading and writing only ever move forward.
Reading and writing by slab are ``medsr.io.planes`` and ``slabs_write``; how thick slabs are is
settled in ``slab_plan``. A volume that fits goes through ``medsr.infer.upscaler`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsr.geometry import Geometry
from medsr.infer import prepare
from medsr.infer.axes import AxisOrder
from medsr.infer.decide import Decision
from medsr.infer.engine.engine import Engine, Plan
from medsr.infer.engine.malloc_trim import return_freed
from medsr.infer.large_scan import LargeScan
from medsr.infer.limits import Limiter
from medsr.infer.outputs import Outputs, describe_error
from medsr.infer.padding import PaddingMemory
from medsr.infer.preview import Preview, choose_view
from medsr.infer.report import Stopwatch
from medsr.infer.resample import FloatArray, RollingRows, apply_rows, operator
from medsr.infer.slab_plan import Cut, Piece, cut
from medsr.io.planes import header_of
from medsr.io.sinks import PlaneSink, saving_planes
from medsr.io.survey import fit_intensity
from medsr.model import Normaliser
from medsr.volume import Derivation

Progress = Callable[[str, int, int], None]

_MEDIAN_BITS = 20


@dataclass(frozen=True)
class LargeResult:
    """What was computed and written.

    Args:
        geometry: Grid of the result, axes as in the scan.
        plan: How it was run, for the report.
        median_sigma: Median of the uncertainty map, to four digits; None without one.
        limits: What was held to the limits that the scan sets; None without them.
    """

    geometry: Geometry
    plan: dict[str, Any]
    median_sigma: float | None
    limits: dict[str, Any] | None


def run(
    scan: LargeScan,
    decision: Decision,
    engine: Engine,
    outputs: Outputs,
    appearing: ExitStack,
    *,
    derivation: Derivation,
    limit_bytes: int,
    watch: Stopwatch,
    limits: bool = True,
    progress: Progress | None = None,
) -> LargeResult:
    """Compute a scan slab by slab and write its images.

    Args:
        scan: What :func:`open_large` gave.
        decision: Model and grid.
        engine: Of the decision's network; its memory limit is set here.
        outputs: Where the result goes; the report is not written here.
        appearing: The files appear under their names when this is closed.
        derivation: How the result is computed, for formats that record it.
        limit_bytes: What the process should stay below.
        watch: Told of the seconds of each stage.
        limits: Whether the result is held to the limits that the scan sets.
        progress: Called with (stage, planes done, planes in all).

    Raises:
        MemoryLimitError: Not even the thinnest slab fits.
        InputError: Voxels cannot be read.
        OutputError: The result cannot be written.
    """
    frame = AxisOrder.of(scan.volume.geometry)
    geometry = scan.volume.geometry.resize(frame.array_shape(decision.target.shape))
    spec = decision.model.spec
    with watch.stage("prepare"):
        plan = cut(decision, frame, scan.volume, engine, limit_bytes)
        intensity = spec.intensity_for(prepare.modality_of(scan.volume))
        memory = _Memory(scan, geometry, frame, limits=limits)
        without = None if scan.padding is None else scan.padding.value
        normaliser = fit_intensity(intensity, scan.slabs, scan.found, without)
        tracks, preview = _open(scan, decision, frame, geometry, outputs, appearing, derivation)
    blocks = _Blocks(scan, frame, normaliser, decision, engine, plan, watch, progress, memory)
    for channels in blocks.run(preview):
        for track, values in zip(tracks, channels, strict=True):
            with watch.stage("restore"):
                ready = track.push(values, normaliser, memory)
            with watch.stage("save"):
                track.write(ready)
        memory.forget(min(track.given for track in tracks))
    with watch.stage("save"):
        for track in tracks:
            track.finish()
        if preview is not None:
            outputs.write_picture(preview.draw(method=f"medsr {spec.name}"), appearing)
    median = tracks[1].median() if decision.uncertain else None
    told = None if memory.limiter is None else memory.limiter.described()
    return LargeResult(geometry, blocks.summary(), median, told)


class _Memory:
    """What the planes of a scan that were read say of the result's planes.

    Args:
        scan: The scan.
        after: Grid of the result, axes as in the scan.
        frame: Of the scan.
        limits: Whether the result is held to the limits that the scan sets.
    """

    def __init__(self, scan: LargeScan, after: Geometry, frame: AxisOrder, *, limits: bool) -> None:
        shapes = scan.volume.shape, after.shape
        self.limiter = Limiter(scan.limits, *shapes, frame) if limits else None
        self._padding = None if scan.padding is None else PaddingMemory(scan.padding, *shapes)

    def note(self, start: int, planes: NDArray[Any]) -> NDArray[Any]:
        """Take note of planes that were read; return them without padding."""
        if self._padding is not None:
            planes = self._padding.note(start, planes)
        if self.limiter is not None:
            self.limiter.note(start, planes)
        return planes

    def hold(self, start: int, planes: FloatArray) -> FloatArray:
        """Hold planes of the result, from plane ``start`` on, to the limits; give padding back."""
        if self.limiter is not None:
            self.limiter.apply(start, planes)
        if self._padding is None:
            return planes
        return self._padding.give_back(start, planes, self._padding.padding.value)

    def clear(self, start: int, planes: FloatArray) -> FloatArray:
        """Let a map of uncertainty be zero in background and in padding."""
        if self.limiter is not None:
            self.limiter.clear(start, planes)
        return planes if self._padding is None else self._padding.give_back(start, planes, 0.0)

    def forget(self, written: int) -> None:
        """Let go of what no plane of the result from ``written`` on needs."""
        for memory in (self.limiter, self._padding):
            if memory is not None:
                memory.forget(written)


def _open(
    scan: LargeScan,
    decision: Decision,
    frame: AxisOrder,
    geometry: Geometry,
    outputs: Outputs,
    appearing: ExitStack,
    derivation: Derivation,
) -> tuple[list[_Track], Preview | None]:
    """Open what will be written: a track for each of the network's channels, and the picture."""
    volume, overwrite = scan.volume, outputs.overwrite
    after = header_of(geometry, np.float32, modality=volume.modality, source=volume.source)
    preview = None
    if outputs.preview is not None:
        view = choose_view(scan.found.sample, volume.modality)
        preview = Preview(volume.geometry, geometry, view)
    writer = None
    if outputs.scan is not None:
        saving = saving_planes(
            after,
            outputs.scan,
            overwrite=overwrite,
            format=outputs.format,
            derivation=derivation,
            dicom=outputs.dicom,
        )
        writer = appearing.enter_context(saving)
    look = None if preview is None else preview.add_after
    tracks = [_Track(decision, frame, 3, writer, look)]
    if decision.uncertain:
        sigma = None
        if outputs.uncertainty is not None:
            # Without the source there is no stored type to round to.
            saving = saving_planes(
                after.replace(source=None),
                outputs.uncertainty,
                overwrite=overwrite,
                derivation=describe_error(derivation),
            )
            sigma = appearing.enter_context(saving)
        tracks.append(_Track(decision, frame, 1, sigma, None))
    return tracks, preview


class _Blocks:
    """Goes through a scan: reads each slab with its halo and lets the engine run it."""

    def __init__(
        self,
        scan: LargeScan,
        frame: AxisOrder,
        normaliser: Normaliser,
        decision: Decision,
        engine: Engine,
        plan: Cut,
        watch: Stopwatch,
        progress: Progress | None,
        memory: _Memory,
    ) -> None:
        self._memory = memory
        self._scan, self._frame, self._normaliser = scan, frame, normaliser
        self._decision, self._engine, self._cut = decision, engine, plan
        self._watch, self._progress = watch, progress
        self._tiles = self._air = 0
        self._described: dict[str, Any] = {}
        self._held: NDArray[Any] | None = None
        self._held_start = 0

    def run(self, preview: Preview | None) -> Iterator[FloatArray]:
        """Yield the network's channels for each core, in canonical order, the file's order first.

        The channels are native where there is one, else in the network's units.
        """
        axis, factor = self._cut.axis, self._engine.scale[self._cut.axis]
        done = 0
        for piece in self._cut.pieces:
            self._follow(done, piece.planes)
            with self._watch.stage("load"):
                lr = self._read(piece, preview)
            with self._watch.stage("network"):
                answer = self._answer(lr)
            del lr
            low = piece.crop * factor
            core = slice(low, low + piece.planes * factor)
            yield answer[(slice(None),) * (1 + axis) + (core,)]
            del answer
            return_freed()
            done += piece.planes

    def _answer(self, lr: torch.Tensor) -> FloatArray:
        offset, divisor = self._normaliser.offset, self._normaliser.divisor
        if self._decision.uncertain:
            # A map of uncertainty has no offset, so both channels stay in the network's units.
            lr, offset, divisor = self._normaliser.forward(lr), 0.0, 1.0
        plan = self._engine.plan_for(lr, offset=offset, divisor=divisor)
        self._note(plan)
        answer = self._engine.run(lr, offset=offset, divisor=divisor, plan=plan)
        return np.asarray(answer.numpy())

    def summary(self) -> dict[str, Any]:
        """How the scan was run, for the report."""
        voxels = int(np.prod(self._scan.volume.shape))
        return {
            **self._described,
            "count": self._tiles,
            "air_share": round(min(self._air / voxels, 1.0), 4),
            "slabs": len(self._cut.pieces),
        }

    def _read(self, piece: Piece, preview: Preview | None) -> torch.Tensor:
        """A slab in canonical order; planes that the last one had too are not read again."""
        end, parts = piece.start, []
        if self._held is not None:
            end = self._held_start + self._held.shape[2]
            parts.append(self._held[:, :, piece.start - self._held_start :])
        if piece.stop > end:
            fresh = self._scan.slabs.read(end, piece.stop)
            if preview is not None:
                preview.add_before(end, fresh)
            parts.append(self._memory.note(end, fresh))
        held = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        self._held, self._held_start = held, piece.start
        canonical = self._frame.canonical_data(held)
        return torch.from_numpy(np.array(canonical, dtype=np.float32, order="C"))

    def _follow(self, done: int, planes: int) -> None:
        """Let the engine's progress through one slab count as planes of the scan."""
        progress, total = self._progress, self._scan.volume.shape[2]
        if progress is None:
            return

        def report(steps: int, steps_in_all: int) -> None:
            progress("network", done + planes * steps // max(steps_in_all, 1), total)

        self._engine.progress = report

    def _note(self, plan: Plan) -> None:
        self._tiles += len(plan.tiles)
        self._air += plan.air_voxels
        self._described = self._described or plan.as_dict()


class _Track:
    """The way of one of the network's channels into its file."""

    def __init__(
        self,
        decision: Decision,
        frame: AxisOrder,
        order: int,
        writer: PlaneSink | None,
        look: Callable[[int, FloatArray], None] | None,
    ) -> None:
        self._frame, self._order = frame, order
        self._writer, self._look = writer, look
        self._uncertain = decision.uncertain
        self._axis = frame.axes.index(2)
        scale = decision.model.spec.scale
        big = [n * s for n, s in zip(decision.grid.shape, scale, strict=True)]
        new = decision.target.shape
        self._rows = [
            None if k == self._axis or big[k] == new[k] else operator(big[k], new[k], order)
            for k in range(3)
        ]
        flipped = self._axis in frame.flips
        self._rolling = RollingRows(big[self._axis], new[self._axis], order, flipped=flipped)
        self.given = 0
        self._counts = np.zeros(1 << _MEDIAN_BITS, dtype=np.int64)

    def push(
        self, values: FloatArray, normaliser: Normaliser, memory: _Memory
    ) -> FloatArray | None:
        """Take the planes of one core in canonical order; return native ones that are ready."""
        if any(rows is not None for rows in self._rows):
            values = apply_rows(values, self._rows)
        ready = self._rolling.push(self._frame.array_data(values))
        if ready is None:
            return None
        if self._order == 3:
            if self._uncertain:
                ready = normaliser.restore(ready.copy())
            return memory.hold(self.given, ready)
        ready = memory.clear(self.given, ready * np.float32(normaliser.divisor))
        said = ready[ready > 0]
        self._counts += np.bincount(_coarse_keys(said), minlength=self._counts.size)
        return ready

    def write(self, ready: FloatArray | None) -> None:
        """Write planes that are ready."""
        if ready is None:
            return
        if self._look is not None:
            self._look(self.given, ready)
        if self._writer is not None:
            self._writer.append(ready)
        self.given += ready.shape[2]

    def finish(self) -> None:
        """Close the file; it stays under its temporary name."""
        if self._writer is not None:
            self._writer.finish()

    def median(self) -> float:
        """Median of a track of values above zero, to four digits."""
        cumulated = np.cumsum(self._counts)
        key = int(np.searchsorted(cumulated, cumulated[-1] / 2))
        bits = np.array([key << (31 - _MEDIAN_BITS)], dtype=np.uint32)
        return float(f"{bits.view(np.float32)[0]:.4g}")


def _coarse_keys(values: FloatArray) -> NDArray[np.uint32]:
    """The leading bits of numbers from zero up, which are in the order of the numbers."""
    bits = np.maximum(values, 0.0).view(np.uint32).ravel(order="K")
    return bits >> np.uint32(31 - _MEDIAN_BITS)

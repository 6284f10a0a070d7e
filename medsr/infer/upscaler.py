"""``Upscaler``: settings and loaded models that serve any number of scans, in three steps.

``read -> compute -> write``: each step takes what the one before gave, so that a caller may run
them for different scans at the same time. One scan from end to end is ``medsr.infer.upscale``, a
folder of them ``medsr.infer.folder``. torch is imported when the first scan is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medsr import io
from medsr.errors import MemoryLimitError
from medsr.geometry import Geometry
from medsr.infer import prepare
from medsr.infer.axes import AxisOrder
from medsr.infer.decide import (
    SLOW,
    Decision,
    Shelf,
    Wishes,
    bytes_left_for_engine,
    decide,
    default_limit,
)
from medsr.infer.large_scan import LargeScan, is_large, look_through, open_large
from medsr.infer.outputs import Outputs, derive
from medsr.infer.padding import find_padding
from medsr.infer.report import Stopwatch, build_report, note_fit, residual_of
from medsr.infer.resample import FloatArray
from medsr.infer.restore import restore
from medsr.infer.scope import beyond
from medsr.io import empty_slices
from medsr.io.allow import parse_allowances
from medsr.io.planes import MemoryPlanes
from medsr.model import Normaliser, SRModel
from medsr.volume import Derivation, Volume

if TYPE_CHECKING:
    import torch

    from medsr.infer.engine.device import Precision
    from medsr.infer.engine.engine import Engine

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

UNCHECKED = (
    "computed slab by slab to spare memory, so it was not checked whether the result fits its "
    "scan; with more memory (--max-memory) it is"
)


@dataclass(frozen=True)
class Read:
    """A scan that was read and can be computed.

    Args:
        volume: The scan, its modality known. Of a large scan only what its header says.
        watch: Seconds spent on it so far.
        large: Where it is larger than memory: what gives its voxels by slabs.
    """

    volume: Volume
    watch: Stopwatch
    large: LargeScan | None = None


@dataclass(frozen=True)
class Computed:
    """A result that can be written.

    Args:
        before: The scan.
        after: The result, float32 in native units, axes ordered as in the scan. None where it is
            larger than memory: it was written while it was computed.
        sigma: The standard deviation that the network expects of its error, where asked for.
        report: What was done, seconds and memory not yet among it.
        derivation: The same for formats that record it.
        watch: Seconds spent on it so far.
    """

    before: Volume
    after: Volume | None
    sigma: Volume | None
    report: dict[str, Any]
    derivation: Derivation
    watch: Stopwatch


class Upscaler:
    """Brings scans to finer grids; each model is loaded once, when a scan first asks for it.

    Args:
        model: ``"auto"``, a shipped name, a model folder, or a loaded model.
        modality: ``"auto"``, ``"mr"`` or ``"ct"``.
        spacing: As for :func:`medsr.upscale`.
        scale: As for :func:`medsr.upscale`.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        backend: ``"auto"``, ``"torch"``, ``"openvino"`` or ``"onnxruntime"``.
        max_memory: Bytes, or text such as ``"4GB"``, that the process should stay below.
        uncertainty: Whether the map of the expected error is computed too.
        consistency: As for :func:`medsr.upscale`.
        limits: As for :func:`medsr.upscale`.
        allow: As for :func:`medsr.io.load`.
        zoo_root: Folder of the models to choose from; those shipped when not given.

    Raises:
        UsageError: An option is outside its range, or two contradict each other.
    """

    def __init__(
        self,
        *,
        model: str | Path | SRModel = "auto",
        modality: str = "auto",
        spacing: str | Sequence[float] | None = "iso",
        scale: Sequence[float] | None = None,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "torch",
        max_memory: int | str | None = None,
        uncertainty: bool = False,
        consistency: bool | float = False,
        limits: bool = True,
        allow: Collection[str] = (),
        zoo_root: Path | None = None,
    ) -> None:
        self.wishes = Wishes(model, spacing, scale, uncertainty, zoo_root, consistency, limits)
        self.allow = parse_allowances(allow)
        self.modality = modality
        self.max_memory_bytes = prepare.parse_bytes(max_memory)
        self.backend = prepare.parse_backend(backend)
        self._device, self._precision = device, precision
        self._shelf = Shelf(zoo_root)
        prepare.parse_modality(modality)

    @cached_property
    def device(self) -> torch.device:
        """Where networks run.

        Raises:
            DeviceError: The device asked for is unknown or not there.
        """
        from medsr.infer.engine.device import resolve_device

        return resolve_device(self._device)

    @cached_property
    def precision(self) -> Precision:
        """What networks compute in.

        Raises:
            UsageError: The precision asked for is unknown.
        """
        from medsr.infer.engine.backends import precision_for

        return precision_for(self.backend, self._precision, self.device)

    def warm_up(self) -> None:
        """Refuse now what would be refused for every scan: device, backend, a model that was named.

        Raises:
            MedsrError: The device, the precision, the backend or the model cannot be used.
        """
        from medsr.infer.engine.backends import resolve_backend

        precision = self.precision
        if self.backend != "auto":
            resolve_backend(self.backend, precision, self.device)
        if self.wishes.model != "auto":
            self._shelf.get(self.wishes.model)

    def read(
        self,
        scan: str | Path | Volume | NDArray[Any] | torch.Tensor,
        outputs: Outputs | None = None,
        *,
        affine: ArrayLike | None = None,
        array_spacing: Sequence[float] | None = None,
        series: str | None = None,
    ) -> Read:
        """Read a scan, and check that it can be computed and written. Needs no torch.

        Args:
            scan: A file, a DICOM folder, a volume, or an array or tensor ``(X, Y, Z)``.
            outputs: Where its result will go; checked against the scan.
            affine: (4, 4) voxel index to RAS+ mm, for arrays.
            array_spacing: mm along X, Y, Z, for arrays without an affine.
            series: Which series of a DICOM folder, where it holds several.

        Raises:
            InputError: The scan cannot be used.
            OutputError: The output cannot hold it.
        """
        watch = Stopwatch()
        path = prepare.path_of(scan)
        prepare.check_name(path, self.allow)
        if isinstance(scan, (str, Path)) and outputs is not None and outputs.scan is not None:
            limit = self.max_memory_bytes or default_limit()
            if is_large(Path(scan), limit):
                with watch.stage("load"):
                    large = open_large(Path(scan), self.modality, series, self.allow)
                    outputs.check_source(large.volume)
                    prepare.warn_of_doubts(large.volume, scan)
                    volume = prepare.with_warning(large.volume, large.found.empty, scan)
                return Read(volume, watch, replace(large, volume=volume))
        with watch.stage("load"):
            volume = self._load(scan, affine, array_spacing, series)
            prepare.check(volume, self.allow, path)
            volume = prepare.with_modality(volume, self.modality)
            if outputs is not None:
                outputs.check_source(volume)
            prepare.warn_of_doubts(volume, scan)
            volume = prepare.with_warning(volume, empty_slices.note_of(volume), scan)
        return Read(volume, watch)

    def compute(
        self, scan: Read, outputs: Outputs | None = None, *, progress: Progress | None = None
    ) -> Computed:
        """Run the network over a scan and bring its output to the exact grid.

        Args:
            scan: What :meth:`read` gave.
            outputs: Where its result will go. A result larger than memory is written there by
                slabs while it is computed; without outputs it is refused.
            progress: Called with (stage, done, total).

        Raises:
            ModelError: No model suits the scan, or it cannot be run.
            UsageError: The grid asked for is nowhere finer than the scan's.
        """
        volume, watch = scan.volume, scan.watch
        with watch.stage("start"):
            import torch

            from medsr.infer.consistency import project as consistency
            from medsr.infer.engine.engine import Engine

        with watch.stage("prepare"):
            device, precision = self.device, self.precision
            frame = AxisOrder.of(volume.geometry)
            decision = self.decide(volume)
            for warning in decision.warnings:
                logger.warning(warning)
            modality = prepare.modality_of(volume)
            projection = consistency.plan(self.wishes.consistency, decision, modality)
            engine = Engine(
                decision.network().to(device),
                precision=precision,
                backend=self.backend,
                progress=None if progress is None else lambda *count: progress("network", *count),
            )
        if scan.large is not None or not self._fits(decision, engine, outputs):
            consistency.check_whole(projection)
            return self._by_slabs(scan, decision, engine, outputs or Outputs(), progress)
        with watch.stage("prepare"):
            spec = decision.model.spec
            padding, fit = find_padding(volume, modality), spec.intensity_for(modality).fit
            normaliser = fit(volume.data if padding is None else padding.measured(volume.data))
            array = np.array(frame.canonical_data(volume.data), dtype=np.float32, order="C")
            lr = torch.from_numpy(array if padding is None else padding.removed(array))
            # A map of uncertainty has no offset, so both channels stay in the network's units.
            scaling = Normaliser(0.0, 1.0) if decision.uncertain else normaliser
            lr = normaliser.forward(lr) if decision.uncertain else lr
            offset, divisor = scaling.offset, scaling.divisor
            plan = engine.plan_for(lr, offset=offset, divisor=divisor)

        with watch.stage("network"):
            sr = engine.run(lr, offset=offset, divisor=divisor, plan=plan)
            answers: list[FloatArray] = list(sr.numpy())
            del lr, sr

        with watch.stage("restore"):
            parts = volume, frame, normaliser, decision, padding, projection
            restored = restore(answers, *parts, limits=self.wishes.limits)
        after = restored.after

        report = self._report(volume, after.geometry, decision, plan.as_dict(), engine)
        note_fit(report, restored)
        report |= restored.told()
        request = None if outputs is None else outputs.request
        weights = decision.model.weight_hash
        derivation = derive(
            volume.geometry, after.geometry, spec, weights, request, restored.consistency
        )
        return Computed(volume, after, restored.sigma, report, derivation, watch)

    def _fits(self, decision: Decision, engine: Engine, outputs: Outputs | None) -> bool:
        """Whether all of it fits into memory; the engine is told how much is left for it.

        Raises:
            MemoryLimitError: It does not, and there is nothing to write it to.
        """
        can_be_written = outputs is not None and outputs.scan is not None
        limit = self.max_memory_bytes
        try:
            if limit is None and can_be_written:
                bytes_left_for_engine(default_limit(), decision)
            engine.max_memory_bytes = bytes_left_for_engine(limit, decision)
            cramped = engine.plan(decision.grid.shape).is_cramped
        except MemoryLimitError:
            if not can_be_written:
                raise
            return False
        if cramped and limit is not None:
            logger.warning(SLOW, limit / 2**20)
        return True

    def _by_slabs(
        self,
        scan: Read,
        decision: Decision,
        engine: Engine,
        outputs: Outputs,
        progress: Progress | None,
    ) -> Computed:
        """Compute and write a scan that does not fit into memory, slab by slab."""
        from medsr.infer import large

        volume, watch, model = scan.volume, scan.watch, decision.model
        with watch.stage("prepare"):
            slabs = scan.large or look_through(MemoryPlanes(volume), self.modality)
        shape = AxisOrder.of(volume.geometry).array_shape(decision.target.shape)
        after = volume.geometry.resize(shape)
        weights, request = model.weight_hash, outputs.request
        derivation = derive(volume.geometry, after, model.spec, weights, request)
        with ExitStack() as appearing:
            done = large.run(
                slabs,
                decision,
                engine,
                outputs,
                appearing,
                derivation=derivation,
                limit_bytes=self.max_memory_bytes or default_limit(),
                watch=watch,
                limits=self.wishes.limits,
                progress=progress,
            )
            report = self._report(volume, after, decision, done.plan, engine)
            if done.limits is not None:
                report["limits"] = done.limits
            if done.median_sigma is not None:
                report["uncertainty"] = {"units": volume.units, "median": done.median_sigma}
            report |= residual_of(None, "the result was computed slab by slab, to spare memory")
            logger.warning(UNCHECKED)
            report["warnings"].append(UNCHECKED)
            outputs.write_sidecar(volume, after, derivation, appearing)
            summary = outputs.write_report(report, watch, appearing)
        return Computed(volume, None, None, summary, derivation, watch)

    def _report(
        self,
        before: Volume,
        after: Geometry,
        decision: Decision,
        plan: dict[str, Any],
        engine: Engine,
    ) -> dict[str, Any]:
        from medsr.infer.engine.device import device_name

        return build_report(
            before=before,
            after=after,
            spec=decision.model.spec,
            weight_hash=decision.model.weight_hash,
            device=device_name(engine.device),
            precision=engine.precision,
            plan=plan,
            warnings=[*decision.warnings, *(before.source.notes if before.source else ())],
        )

    def write(self, computed: Computed, outputs: Outputs) -> dict[str, Any]:
        """Write a result; see :meth:`Outputs.write`. Returns the finished report."""
        return outputs.write(computed)

    def decide(self, volume: Volume) -> Decision:
        """Settle model and grid for a scan; see :func:`medsr.infer.decide.decide`."""
        modality = prepare.modality_of(volume)
        decision = decide(volume.geometry, modality, self.wishes, self._shelf.get)
        decision.warnings.extend(beyond(decision.model.spec, volume.source))
        return decision

    def _load(
        self,
        scan: Any,
        affine: ArrayLike | None,
        array_spacing: Sequence[float] | None,
        series: str | None,
    ) -> Volume:
        """Make a volume of whatever the user holds, its modality as far as it is said."""
        if isinstance(scan, Volume):
            return scan
        if isinstance(scan, (str, Path)):
            kind = prepare.parse_modality(self.modality)
            return io.load(scan, modality=kind or "auto", series=series, allow=self.allow)
        return prepare.volume_from_array(scan, affine=affine, array_spacing=array_spacing)

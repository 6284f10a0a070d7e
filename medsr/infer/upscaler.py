"""``Upscaler``: settings and loaded models that serve any number of scans, in three steps.

``read -> compute -> write``: each step takes what the one before gave, so that a caller may run
them for different scans at the same time. One scan from end to end is ``medsr.infer.upscale``, a
folder of them ``medsr.infer.folder``. torch is imported when the first scan is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import ArrayLike, NDArray

from medsr.infer import prepare
from medsr.infer.decide import Decision, ModelCache, decide, default_limit
from medsr.infer.options import UpscaleKeywords, UpscaleOptions
from medsr.infer.outputs import Outputs
from medsr.infer.report import build_report, note_findings
from medsr.infer.result import Findings, UpscaleOutput
from medsr.infer.scan import LoadedScan, is_large, look_through
from medsr.infer.scope import beyond
from medsr.infer.stopwatch import Stopwatch
from medsr.io import labels
from medsr.io.checks import check_slices
from medsr.io.modality import modality_of
from medsr.io.planes import MemoryPlanes, PlaneSource, gather
from medsr.io.reading import open_planes
from medsr.types import StageProgress
from medsr.volume import Volume

if TYPE_CHECKING:
    import torch

    from medsr.infer.engine.device import Precision
    from medsr.infer.engine.engine import Engine

logger = logging.getLogger(__name__)


class Upscaler:
    """Brings scans to finer grids; each model is loaded once, when a scan first asks for it.

    Args:
        options: How scans are upscaled; the defaults when not given.
        **changes: Fields of :class:`UpscaleOptions` that differ from those.

    Raises:
        UsageError: An option is outside its range, or two contradict each other.
    """

    def __init__(
        self, options: UpscaleOptions | None = None, **changes: Unpack[UpscaleKeywords]
    ) -> None:
        self.options = UpscaleOptions.of(options, **changes)
        self._models = ModelCache(self.options.zoo_root)

    @cached_property
    def device(self) -> torch.device:
        """Where networks run.

        Raises:
            DeviceError: The device asked for is unknown or not there.
        """
        from medsr.infer.engine.device import resolve_device

        return resolve_device(self.options.device)

    @cached_property
    def precision(self) -> Precision:
        """What networks compute in.

        Raises:
            UsageError: The precision asked for is unknown.
        """
        from medsr.infer.engine.backends import precision_for

        return precision_for(self.options.backend, self.options.precision, self.device)

    def warm_up(self) -> None:
        """Refuse now what would be refused for every scan: device, backend, a model that was named.

        Raises:
            MedsrError: The device, the precision, the backend or the model cannot be used.
        """
        from medsr.infer.engine.backends import resolve_backend

        options, precision = self.options, self.precision
        if options.backend != "auto":
            resolve_backend(options.backend, precision, self.device)
        if options.model != "auto":
            self._models.get(options.model)

    def read(
        self,
        scan: str | Path | Volume | NDArray[Any] | torch.Tensor,
        outputs: Outputs | None = None,
        *,
        affine: ArrayLike | None = None,
        array_spacing: Sequence[float] | None = None,
        series: str | None = None,
    ) -> LoadedScan:
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
        path, allow = prepare.path_of(scan), self.options.allowances
        prepare.check_name(path, allow)
        with watch.stage("load"):
            source = self._open(scan, outputs, affine, array_spacing, series)
            where = "the scan" if path is None else str(path)
            if path is None:
                check_slices(source.header.geometry, where, few="few-slices" in allow)
            if "labels" not in allow:
                labels.check(where, source=source.header.source)
            loaded = look_through(source, self.options.modality, where, allow, watch)
            if outputs is not None:
                outputs.check_source(loaded.volume)
            prepare.warn_of_doubts(loaded.volume, scan)
            if loaded.modality_warning is not None and not isinstance(scan, (str, Path)):
                logger.warning("%s", loaded.modality_warning)
            return loaded.with_note(prepare.warn(loaded.survey.empty, scan))

    def compute(
        self,
        scan: LoadedScan,
        outputs: Outputs | None = None,
        *,
        progress: StageProgress | None = None,
    ) -> UpscaleOutput:
        """Run the network over a scan and bring its output to the exact grid.

        Args:
            scan: What :meth:`read` gave.
            outputs: Where its result will go. A result larger than memory is written there by
                chunks while it is computed; without outputs it is refused.
            progress: Called with (stage, done, total).

        Raises:
            ModelError: No model suits the scan, or it cannot be run.
            UsageError: The grid asked for is nowhere finer than the scan's.
        """
        watch = scan.watch
        with watch.stage("start"):
            from medsr.infer.chunks import choose_chunks
            from medsr.infer.consistency import project
            from medsr.infer.consistency.check import (
                NO_COMPARISON,
                SHARE,
                SPREADS,
                ConsistencyCheck,
            )
            from medsr.infer.engine.engine import Engine
            from medsr.infer.pipeline import Pipeline

        with watch.stage("prepare"):
            device, precision = self.device, self.precision
            decision = self.plan(scan.volume)
            for warning in decision.warnings:
                logger.warning(warning)
            projection = project.plan(self.options.consistency, decision, scan.modality)
            check = ConsistencyCheck.of(
                decision.model.spec,
                scan.modality,
                decision.target.shape,
                decision.grid.shape,
                decision.order,
            )
            engine = Engine(
                decision.network().to(device),
                precision=precision,
                backend=self.options.backend,
                progress=None if progress is None else lambda *count: progress("network", *count),
            )
            limit = self.options.max_memory_bytes
            held = 0 if check is None else check.held_bytes
            checkable = held <= SHARE * (limit or default_limit())
            chunks = choose_chunks(
                scan,
                decision,
                engine,
                limit,
                can_stream=outputs is not None and outputs.scan is not None,
                check_bytes=held if checkable else 0,
            )
        whole = scan.in_memory and chunks.is_one
        if not whole:
            project.check_whole(projection)
        pipeline = Pipeline(
            scan,
            decision,
            engine,
            chunks,
            limits=self.options.limits,
            check=check if checkable or whole else None,
            unchecked=NO_COMPARISON if check is None else SPREADS,
            projection=projection,
            progress=progress,
        )
        describe = partial(self._report, scan.volume, decision, engine)
        output = UpscaleOutput(scan, decision, pipeline, describe)
        return output.gathered() if whole else output

    def plan(self, volume: Volume) -> Decision:
        """Settle model and grid for a scan, and how its result comes to be.

        Args:
            volume: Its grid, modality and source; its voxels are not looked at.

        Raises:
            ModelError: As for :func:`medsr.infer.decide.decide`.
            UsageError: Likewise.
        """
        decision = decide(volume.geometry, modality_of(volume), self.options, self._models.get)
        decision.warnings.extend(beyond(decision.model.spec, volume.source))
        return decision

    def _report(
        self, before: Volume, decision: Decision, engine: Engine, findings: Findings
    ) -> dict[str, Any]:
        from medsr.infer.engine.device import device_name

        report = build_report(
            before=before,
            after=decision.result,
            spec=decision.model.spec,
            weight_hash=decision.model.weight_hash,
            device=device_name(engine.device),
            precision=engine.precision,
            plan=findings.tiles,
            warnings=[*decision.warnings, *(before.source.notes if before.source else ())],
        )
        note_findings(report, findings)
        return report

    def write(self, output: UpscaleOutput, outputs: Outputs) -> dict[str, Any]:
        """Write a result, computing what is still to be computed; see :meth:`Outputs.write`.

        Returns:
            The finished report.
        """
        return outputs.write(output)

    def _open(
        self,
        scan: Any,
        outputs: Outputs | None,
        affine: ArrayLike | None,
        array_spacing: Sequence[float] | None,
        series: str | None,
    ) -> PlaneSource:
        """Open whatever the user holds; a file is loaded where that does not take too much."""
        if isinstance(scan, Volume):
            return MemoryPlanes(scan)
        if not isinstance(scan, (str, Path)):
            volume = prepare.volume_from_array(scan, affine=affine, array_spacing=array_spacing)
            return MemoryPlanes(volume)
        path = Path(scan)
        can_stream = outputs is not None and outputs.scan is not None
        options = self.options
        if can_stream and is_large(path, options.max_memory_bytes or default_limit()):
            return open_planes(path, series=series, allow=options.allowances)
        volume = gather(open_planes(path, series=series, allow=options.allowances, whole=True))
        return MemoryPlanes(volume)

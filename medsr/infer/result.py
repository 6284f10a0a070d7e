"""What an upscaled scan is while it is on its way to memory or files: planes, findings, the whole.

Nothing is computed or written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from medsr.infer.decide import Decision
from medsr.infer.scan import LoadedScan
from medsr.volume import Derivation, Volume

if TYPE_CHECKING:
    from medsr.infer.consistency.project import ConsistencyReport
    from medsr.infer.consistency.projection import Residual


@dataclass(frozen=True)
class Planes:
    """Some planes along the last array axis, axes as in the scan.

    Args:
        start: Place of the first.
        data: ``(X, Y, planes)``, native units.
    """

    start: int
    data: NDArray[Any]


@dataclass(frozen=True)
class OutputChunk:
    """What became ready with one chunk.

    Args:
        scan: Planes of the scan that were read for it and not before.
        result: Planes of the result, float32.
        sigma: Planes of the standard deviation of its error, where asked for.
    """

    scan: Planes | None
    result: Planes | None
    sigma: Planes | None


@dataclass(frozen=True)
class Findings:
    """What is known of a result once all of it was computed.

    Args:
        tiles: How the network was run, for the report.
        limits: What was held to the limits that the scan sets; None without them.
        median_sigma: Median of the map of uncertainty, to four digits where it came in chunks;
            None without one.
        residual: How far the result, degraded again, is from the scan, native units.
        residual_missing: Why that is not known, where it is not.
        warning: A sentence, where the result does not fit the scan.
        consistency: What the projection onto the scan did, where asked for.
    """

    tiles: dict[str, Any]
    limits: dict[str, Any] | None
    median_sigma: float | None
    residual: Residual | None
    residual_missing: str | None
    warning: str | None
    consistency: ConsistencyReport | None


class Computation(Protocol):
    """What computes a result chunk by chunk; see :class:`medsr.infer.pipeline.Pipeline`."""

    def run(self) -> Iterator[OutputChunk]:
        """Compute."""

    def findings(self) -> Findings:
        """What is known of the result, once all of it was computed."""


@dataclass(frozen=True)
class UpscaleOutput:
    """A result: in memory, or still to be computed chunk by chunk while it is written.

    Args:
        scan: The scan.
        decision: Model and grid.
        pipeline: What computes it.
        describe: Makes the report of what the pipeline found.
        after: The result, float32 in native units, axes ordered as in the scan. None where it is
            larger than memory.
        sigma: The standard deviation that the network expects of its error, where asked for.
    """

    scan: LoadedScan
    decision: Decision
    pipeline: Computation
    describe: Callable[[Findings], dict[str, Any]]
    after: Volume | None = None
    sigma: Volume | None = None

    def chunks(self) -> Iterator[OutputChunk]:
        """The result's planes, all at once where they are in memory.

        Raises:
            MedsrError: As for :meth:`Pipeline.run`.
        """
        if self.after is None:
            yield from self.pipeline.run()
            return
        sigma = None if self.sigma is None else Planes(0, self.sigma.data)
        yield OutputChunk(Planes(0, self.scan.volume.data), Planes(0, self.after.data), sigma)

    @cached_property
    def report(self) -> dict[str, Any]:
        """What was done, once all chunks were; seconds and memory not yet among it."""
        return self.describe(self.pipeline.findings())

    def gathered(self) -> UpscaleOutput:
        """The same, computed and kept in memory."""
        results, sigmas = [], []
        for chunk in self.pipeline.run():
            results += [] if chunk.result is None else [chunk.result.data]
            sigmas += [] if chunk.sigma is None else [chunk.sigma.data]
        header = self.scan.volume.replace(geometry=self.decision.result, data=results[0])
        # Without the source there is no stored type to round to.
        sigma = header.replace(data=sigmas[0], source=None) if sigmas else None
        return replace(self, after=header, sigma=sigma)

    def derivation(self, request: str | None = None) -> Derivation:
        """How the result came to be, for formats that record it."""
        made = None if self.after is None else self.pipeline.findings().consistency
        return self.decision.derivation(request, "" if made is None else made.words())

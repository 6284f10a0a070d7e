"""A scan that was opened and looked through once, whether it is in memory or larger than that.

What must be known of all voxels before the first is computed is found here, through
:class:`medsr.io.planes.PlaneSource`. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from medsr.errors import InputError
from medsr.infer import prepare
from medsr.infer.background import FacesRecorder
from medsr.infer.limits import Limits
from medsr.infer.padding import Padding, find_padding
from medsr.infer.stopwatch import Stopwatch
from medsr.intensity import Intensity, Normaliser
from medsr.io import labels
from medsr.io.modality import modality_of, settled
from medsr.io.planes import MemoryPlanes, PlaneSource
from medsr.io.reading import count_voxels
from medsr.io.survey import PlaneValues, Survey, sample_step, survey
from medsr.volume import Modality, Volume

PROGRAM_BYTES = 768 * 2**20
"""What the program itself takes, once a network runs."""

LOADED_SHARE = 0.25
"""A scan is loaded where its voxels take no more than this share of the memory that is left."""


@dataclass(frozen=True)
class LoadedScan:
    """A scan that can be computed.

    Args:
        source: Gives its voxels.
        volume: Its grid, modality and provenance. Its voxels too where they are in memory, else
            zeros that mean nothing.
        survey: What is known of all voxels, those without data left out.
        padding: Voxels without data, if any.
        limits: Those that it sets to its result.
        modality_warning: What there is to say on how its modality was settled.
        watch: Seconds spent on it so far.
    """

    source: PlaneSource
    volume: Volume
    survey: Survey
    padding: Padding | None
    limits: Limits
    modality_warning: str | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def in_memory(self) -> bool:
        """Whether all voxels are."""
        return isinstance(self.source, MemoryPlanes)

    @property
    def modality(self) -> Modality:
        """What the scan is."""
        return modality_of(self.volume)

    def fit(self, intensity: Intensity) -> Normaliser:
        """Fit a map of intensities to the voxels that hold data.

        Args:
            intensity: How a model normalises. A scan that is not in memory is read again where
                its type has more than 16 bits.
        """
        without = None if self.padding is None else self.padding.value
        return intensity.fit_values(PlaneValues(self.source, self.survey, without))

    def with_note(self, note: str | None) -> LoadedScan:
        """The same with one more sentence in the notes of its source, which go into reports."""
        source = self.volume.source
        if note is None or source is None:
            return self
        noted = replace(source, notes=(*source.notes, note))
        return replace(self, volume=self.volume.replace(source=noted))


def look_through(
    source: PlaneSource,
    modality: str = "auto",
    where: str = "the scan",
    allow: Collection[str] = ("labels",),
    watch: Stopwatch | None = None,
) -> LoadedScan:
    """Learn what must be known of all voxels of a scan, in one pass.

    Args:
        source: Of the scan.
        modality: ``"auto"``, ``"mr"`` or ``"ct"``.
        where: What messages call the scan.
        allow: "labels" takes what looks like a label image, or holds one value alone.
        watch: Seconds spent on it so far.

    Raises:
        InputError: The scan cannot be used; one of its family.
    """
    header = source.header
    recorder = FacesRecorder(source)
    everything = survey(recorder, where, step=sample_step(header.shape))
    if "labels" not in allow:
        labels.check(where, source=header.source, levels=everything.levels)
    volume, warning = settled(header, prepare.parse_modality(modality), everything.judgement)
    kind = modality_of(volume)
    padding, measured = find_padding(source, everything, kind)
    background = recorder.faces.background(padding)
    limits = Limits.of(measured.low, measured.high, kind, background)
    if isinstance(source, MemoryPlanes):
        volume = volume.replace(data=source.read(0, volume.shape[2]))
    return LoadedScan(source, volume, measured, padding, limits, warning, watch or Stopwatch())


def is_large(path: Path, limit_bytes: int) -> bool:
    """Whether a scan is better not loaded, told from as little of it as can be.

    Args:
        path: A file or a DICOM folder; for one that cannot be used the answer is no.
        limit_bytes: What the process should stay below.
    """
    with suppress(InputError):
        return 4 * count_voxels(path) > LOADED_SHARE * (limit_bytes - PROGRAM_BYTES)
    return False

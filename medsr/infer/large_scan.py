"""Scans of which no more than a slab is in memory: opened, and looked through once.

What is computed of them, and written, is ``medsr.infer.large``. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medsr.errors import InputError
from medsr.infer import prepare
from medsr.infer.background import Watched
from medsr.infer.limits import Limits
from medsr.infer.padding import Padding, find_padding_by_slabs
from medsr.io import labels
from medsr.io.modality import modality_of, settled
from medsr.io.planes import PlaneSource, count_voxels, open_planes
from medsr.io.survey import Survey, survey
from medsr.volume import Volume

PROGRAM_BYTES = 768 * 2**20
"""What the program itself takes, once a network runs."""

LOADED_SHARE = 0.25
"""A scan is read whole where its voxels take no more than this share of what is left."""


@dataclass(frozen=True)
class LargeScan:
    """A scan of which no more than a slab is in memory.

    Args:
        slabs: Gives its voxels.
        volume: Its grid, modality and source; the voxels mean nothing.
        found: What is known of all voxels, those without data left out.
        padding: Voxels without data, if any.
        limits: Those that it sets to its result.
    """

    slabs: PlaneSource
    volume: Volume
    found: Survey
    padding: Padding | None
    limits: Limits


def open_large(
    path: Path, modality: str, series: str | None, allow: Collection[str] = ()
) -> LargeScan:
    """Open a scan that does not fit into memory, and look through it once.

    Args:
        path: A file or a DICOM folder.
        modality: ``"auto"``, ``"mr"`` or ``"ct"``.
        series: Which series of a DICOM folder, where it holds several.
        allow: As for :func:`medsr.io.load`.

    Raises:
        InputError: The scan cannot be used.
    """
    slabs = open_planes(path, series=series, allow=allow)
    if "labels" not in allow:
        labels.check(str(path), source=slabs.header.source)
    return look_through(slabs, modality, str(path), allow)


def look_through(
    slabs: PlaneSource,
    modality: str,
    where: str = "the scan",
    allow: Collection[str] = ("labels",),
) -> LargeScan:
    """Learn of a scan what must be known of all voxels; arguments as for :func:`open_large`.

    Raises:
        InputError: The scan cannot be used.
    """
    from medsr.infer.preview import sample_step

    header = slabs.header
    watched = Watched(slabs)
    found = survey(watched, where, step=sample_step(header.shape))
    if "labels" not in allow:
        labels.check(where, levels=found.levels)
    known, _ = settled(header, prepare.parse_modality(modality), found.judgement)
    kind = modality_of(known)
    padding, measured = find_padding_by_slabs(slabs, found, kind)
    background = watched.faces.background(padding)
    limits = Limits.of(measured.low, measured.high, kind, background)
    return LargeScan(slabs, known, measured, padding, limits)


def is_large(path: Path, limit_bytes: int) -> bool:
    """Whether a scan is better not read whole, told from as little of it as can be.

    Args:
        path: A file or a DICOM folder; for one that cannot be used the answer is no.
        limit_bytes: What the process should stay below.
    """
    with suppress(InputError):
        return 4 * count_voxels(path) > LOADED_SHARE * (limit_bytes - PROGRAM_BYTES)
    return False

"""Which series of a study is meant, where only the study was named.

The archive's list is looked at first; where it leaves several, one instance of each is.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from medsr.errors import NotInPacsError, SeveralSeriesError
from medsr.pacs.archive import Archive, SeriesEntry, Transfer

logger = logging.getLogger(__name__)

_MODALITIES = ("CT", "MR")
_FEWEST_SLICES = 4
_PEEKED_AT = 30
_PARTS = (
    "ContributingEquipmentSequence",
    "ImageType",
    "NumberOfFrames",
    "SOPClassUID",
)


def choose_series(archive: Archive, study: str, scratch: Path) -> SeriesEntry:
    """Choose the only CT or MR series of a study that can be upscaled.

    Localizers, series of less than four images and results of medsr itself do not count, so that
    a request means the same when its result lies beside its source.

    Args:
        archive: Where the study is.
        study: StudyInstanceUID.
        scratch: An empty folder for the instances looked at.

    Raises:
        NotInPacsError: There is no such study, or nothing of CT or MR in it.
        SeveralSeriesError: Several series suit, or none of several does; the message lists them.
    """
    listed = archive.series(study)
    if not listed:
        raise NotInPacsError(f"{archive.address} has no study {study}")
    images = [entry for entry in listed if entry.modality in _MODALITIES]
    if not images:
        raise NotInPacsError(
            f"study {study} has no series of CT or MR; it has " + "; ".join(map(str, listed))
        )
    if len(images) == 1:
        return images[0]
    suiting = [entry for entry in images if entry.instances not in (2, 3)]
    if len(suiting) > 1:
        suiting = [
            entry
            for number, entry in enumerate(suiting)
            if number >= _PEEKED_AT or _suits(archive, study, entry, scratch / str(number))
        ]
    if len(suiting) == 1:
        logger.info("taking the only series that suits: %s", suiting[0])
        return suiting[0]
    raise SeveralSeriesError(
        f"study {study} has {len(suiting) or 'no'} series that suit; pick one with --series: "
        + "; ".join(map(str, suiting or images))
    )


def _suits(archive: Archive, study: str, entry: SeriesEntry, folder: Path) -> bool:
    """Look at one instance of a series."""
    uids = archive.instances(study, entry.uid)
    if not uids:
        return False
    folder.mkdir()
    archive.fetch(study, entry.uid, folder, Transfer(expected=1), only=min(uids))
    files = list(folder.iterdir())
    if not files:
        return True  # it will be said why when the series itself is fetched
    image = dcmread(files[0], force=True, specific_tags=list(_PARTS))
    many = (int(image.get("NumberOfFrames") or 1)) >= _FEWEST_SLICES or len(uids) >= _FEWEST_SLICES
    return many and "LOCALIZER" not in (image.get("ImageType") or []) and not is_ours(image)


def is_ours(image: Dataset) -> bool:
    """Whether an image is a result of medsr."""
    equipment = image.get("ContributingEquipmentSequence") or []
    return any(str(item.get("Manufacturer") or "") == "medsr" for item in equipment)

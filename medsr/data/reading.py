"""Reading the scans that a cohort names, so that a bad one among them is named too.

Every part that learns from a cohort, or calibrates on it, reads it here. Which scans there are is
in ``manifest`` and its neighbours; what is made of them in ``transforms``.
"""

from __future__ import annotations

from collections.abc import Iterable

from medsr.data.manifest import ScanRecord
from medsr.errors import InputError
from medsr.io import load
from medsr.volume import Volume

_NAMED = 5


def read_scan(record: ScanRecord) -> Volume:
    """Read one scan of a cohort.

    Args:
        record: The scan; its modality is that of the cohort, whatever the voxels look like.

    Raises:
        InputError: It cannot be used. Of the class that :func:`medsr.io.load` raises, and the
            message names the scan in any case.
    """
    try:
        return load(record.path, modality=record.modality)
    except InputError as error:
        place = str(record.path)
        if place in str(error):
            raise
        raise type(error)(f"{place}: {error}") from error


def names_of(scan_ids: Iterable[str]) -> str:
    """Scans in a message: each once, the first few by name."""
    every = list(dict.fromkeys(scan_ids))
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more

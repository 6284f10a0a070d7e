"""Damaged DICOM files: which series they may be of, and so which they bar.

A file that cannot be read may be a slice of the volume that is wanted, and a missing slice must
never go unnoticed. The rule here tells such files from those that belong elsewhere;
reading is in ``files``, the choice of a volume in ``choose``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medsr.errors import CorruptFileError, InputError
from medsr.io.dicom.read.header import SliceHeader
from medsr.io.dicom.read.sources import DicomFile

_TAGS = (Tag("SOPClassUID"), Tag("SeriesInstanceUID"))
_START_BYTES = 1024  # holds the file meta information
_NAMED = 5


@dataclass(frozen=True)
class DamagedFile:
    """A file that could not be read as the CT or MR image that it may be.

    Args:
        file: where it lies.
        error: why.
        series: SeriesInstanceUID, where it stands before the damage; "" where it is not known.
    """

    file: DicomFile
    error: InputError
    series: str = ""


def identity_before_damage(file: DicomFile) -> tuple[str, str]:
    """SOPClassUID and SeriesInstanceUID of a damaged file, each "" unless it was read whole.

    An attribute is whole where another one follows it, since attributes stand in the order of
    their tags: one that the file ends in may be cut.

    Source: DICOM PS3.5 7.1 (order of data elements).
    """
    reached = 0

    def past_both(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = max(reached, int(tag))
        return bool(reached > _TAGS[-1])

    try:
        with file.open() as stream:
            if DeflatedExplicitVRLittleEndian.encode("ascii") in stream.read(_START_BYTES):
                return "", ""  # it would be inflated as a whole
            stream.seek(0)
            header = read_partial(
                stream, stop_when=past_both, force=True, specific_tags=list(_TAGS)
            )
        sop_class, series = (
            str(header[tag].value or "") if tag in header and reached > tag else "" for tag in _TAGS
        )
    except Exception:  # a damaged file fails in many ways
        return "", ""
    return sop_class, series


def damage_of_series(
    damaged: Iterable[DamagedFile], wanted: Sequence[SliceHeader], slices: Iterable[SliceHeader]
) -> tuple[list[DamagedFile], list[DamagedFile]]:
    """Part damaged files into those that may be of a series and those that cannot be.

    One may be where its header says so; where its series is not known and it lies in the folder of
    the series, or, where that is spread over several, anywhere below the folder that holds all of
    them. A series that no second file here names is not taken for known: damage may have made it.

    Args:
        damaged: all damaged files of a source.
        wanted: the sound slices of the series.
        slices: all sound slices of the source.

    Returns:
        Those that may be of it, and the others.
    """
    damaged = list(damaged)
    files = {header.file: header.series for header in slices}
    count = Counter([*files.values(), *(each.series for each in damaged)])
    series = {header.series for header in wanted}
    folders = {header.file.folder for header in wanted}
    may_be: list[DamagedFile] = []
    cannot: list[DamagedFile] = []
    for each in damaged:
        if each.series and (each.series in series or count[each.series] > 1):
            belongs = each.series in series
        else:
            belongs = _is_among(each.file.folder, folders)
        (may_be if belongs else cannot).append(each)
    return may_be, cannot


def left_out_note(damaged: Sequence[DamagedFile]) -> str:
    """A sentence on damaged files that were left out; it names them as every message does."""
    names = ", ".join(each.file.name for each in damaged[:_NAMED])
    more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
    return f"left out {len(damaged)} damaged file(s) that are not of this series: {names}{more}"


def refusal(
    damaged: Sequence[DamagedFile],
    wanted: Sequence[SliceHeader],
    slices: Sequence[SliceHeader],
) -> InputError:
    """The error for a source whose only volume stands beside damage, where none was picked.

    Args:
        damaged: all damaged files of the source; at least one.
        wanted: the sound slices of the volume.
        slices: all sound slices of the source.
    """
    may_be, cannot = damage_of_series(damaged, wanted, slices)
    if may_be:
        return may_be[0].error
    return CorruptFileError(
        f"{cannot[0].error}; or pass --series {wanted[0].series}, which is not damaged"
    )


def _is_among(folder: PurePath, folders: set[PurePath]) -> bool:
    if len(folders) == 1:
        return folder in folders
    # As some archives export: a folder for each file.
    return folder.is_relative_to(os.path.commonpath(folders))

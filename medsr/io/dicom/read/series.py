"""DICOM CT and MR series as volumes: read_dicom, inspect_dicom, list_dicom.

Here the steps are put together: which volume is settled in ``choose``, whether it is a
regular stack in ``stack``, its values are decoded in ``pixels``. Messages never hold a
name, an identifier of a patient, or a date.
"""

from __future__ import annotations

import logging
from pathlib import Path

from medsr.errors import InputError
from medsr.io.allow import NOTHING, Allowance
from medsr.io.dicom.quiet import quiet
from medsr.io.dicom.read.choose import (
    Candidate,
    check_damage,
    choose_stack,
    list_candidates,
    stack_of,
)
from medsr.io.dicom.read.files import FoundSlices, find_slices, is_dicom
from medsr.io.dicom.read.pixels import read_values
from medsr.io.dicom.read.stack import Stack
from medsr.io.dicom.reference import CommonAttributes
from medsr.io.inspection import Inspection, ListedVolume, describe
from medsr.volume import Source, Volume, units_of

__all__ = ["inspect_dicom", "is_dicom", "list_dicom", "read_dicom", "read_stack"]

logger = logging.getLogger(__name__)

_LENIENT: frozenset[Allowance] = frozenset({"few-slices"})


@quiet
def read_dicom(
    path: Path, *, series: str | None = None, allow: frozenset[Allowance] = NOTHING
) -> Volume:
    """Read one CT or MR volume from a folder or archive of DICOM files, or from one file.

    Args:
        path: a folder, searched at every depth; a zip archive, which is read where it lies; a
            DICOMDIR; a multi-frame file; or one slice, whose series is read from its folder.
        series: Series Instance UID of the volume to take, or the name or number that the refusal
            of several volumes lists.
        allow: what may be done to a series that is refused otherwise: "gaps" and "tilt" resample
            it onto a regular grid, "duplicates" takes the first of different slices at one place,
            "few-slices" accepts two or three.

    Returns:
        The volume: array axes are columns, rows, slices; CT in HU. Its ``source.header`` is a
        :class:`medsr.io.dicom.reference.DicomReference`, and ``source.padding`` the value of all
        voxels without data.

    Raises:
        SeveralSeriesError: if there are several volumes and none was picked, or not this one.
        InputError: one subclass for each fault; see ``medsr.errors``.

    Source: DICOM PS3.3 C.7.6.2.1.1 (plane), C.11.1 (modality LUT).
    """
    stack, notes = choose_stack(Path(path), series, allow=allow)
    return read_stack(stack, notes, Path(path))


def read_stack(stack: Stack, notes: tuple[str, ...], path: Path) -> Volume:
    """Read the voxels of a stack that was chosen; see :func:`read_dicom`."""
    first = stack.slices[0]
    common = CommonAttributes(stack)
    values = read_values(stack, common.visit)
    source = Source(
        format="dicom",
        path=path,
        dtype=values.stored,
        slope=values.slope,
        intercept=values.intercept,
        header=common.reference(signed=values.stored.kind == "i"),
        notes=notes,
        padding=values.padding,
    )
    return Volume(
        data=values.data,
        geometry=stack.geometry,
        modality=first.modality,
        units=units_of(first.modality),
        source=source,
    )


@quiet
def inspect_dicom(
    path: Path, *, series: str | None = None, allow: frozenset[Allowance] = NOTHING
) -> Inspection:
    """Describe the volume that :func:`read_dicom` would read, from its headers alone.

    Args:
        path: as for :func:`read_dicom`.
        series: as for :func:`read_dicom`.
        allow: as for :func:`read_dicom`.

    Returns:
        The description; two or three slices are described too, with a warning.

    Raises:
        InputError: as :func:`read_dicom`, but for what only the pixel data tell.
    """
    stack, notes = choose_stack(Path(path), series, allow=allow | _LENIENT)
    first = stack.slices[0]
    return describe(
        stack.geometry,
        format="dicom",
        dtype=first.dtype,
        modality=first.modality,
        warnings=notes,
    )


@quiet
def list_dicom(path: Path, *, allow: frozenset[Allowance] = NOTHING) -> tuple[ListedVolume, ...]:
    """List the volumes that a path holds, those that cannot be read with their reasons.

    Args:
        path: as for :func:`read_dicom`.
        allow: as for :func:`read_dicom`.

    Raises:
        InputError: if there is no CT or MR slice at all that can be read.
    """
    found = find_slices(Path(path))
    candidates = list_candidates(found.slices, allow)
    return tuple(_listed(each, found, allow) for each in candidates)


def _listed(candidate: Candidate, found: FoundSlices, allow: frozenset[Allowance]) -> ListedVolume:
    first, spacing = candidate.slices[0], None
    shape, fault = (first.columns, first.rows, len(candidate.slices)), candidate.fault
    try:
        check_damage(candidate, found)
        geometry = stack_of(candidate, (), allow)[0].geometry
        shape, spacing = geometry.shape, geometry.spacing
    except InputError as error:
        fault = error
    return ListedVolume(
        number=candidate.number,
        series=candidate.key,
        modality=first.modality,
        shape=shape,
        spacing_mm=spacing,
        mark=candidate.mark,
        fault=None if fault is None else str(fault),
        exit_code=0 if fault is None else fault.exit_code,
    )

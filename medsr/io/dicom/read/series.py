"""DICOM CT and MR series: opened, inspected and listed.

Here the steps are put together: which volume is settled in ``choose``, whether it is a
regular stack in ``stack``, its values are decoded in ``pixels``. Messages never hold a
name, an identifier of a patient, or a date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medsr.errors import InputError
from medsr.io.allow import NOTHING, Allowance
from medsr.io.dicom.logs import suppress_logging
from medsr.io.dicom.read.choose import (
    Candidate,
    check_damage,
    choose_stack,
    list_candidates,
    stack_of,
)
from medsr.io.dicom.read.files import FoundSlices, find_slices
from medsr.io.dicom.read.pixels import (
    native_padding,
    native_values,
    regridded,
    stacked,
    stored_planes,
)
from medsr.io.dicom.read.reference import CommonAttributes
from medsr.io.dicom.read.stack import Stack
from medsr.io.inspection import Inspection, ListedVolume, describe
from medsr.io.planes import PlaneSource, header_of
from medsr.types import Array
from medsr.volume import Source

_LENIENT: frozenset[Allowance] = frozenset({"few-slices"})


class DicomPlanes(PlaneSource):
    """A stack of slices; see :class:`medsr.io.planes.PlaneSource`.

    Every file is decoded once when the stack is opened, since what the slices have in common and
    the type that holds all of them are known only then. What was decoded is kept where ``whole``
    asks for it, or one file holds all slices; otherwise it is decoded again when it is read.

    Args:
        stack: what :func:`medsr.io.dicom.read.choose.choose_stack` chose.
        notes: sentences about it.
        path: where it was found.
        whole: whether all planes will be asked for at once.

    Raises:
        TruncatedPixelsError: if pixel data are missing, truncated or do not decode.
        MissingDecoderError: if a decoder has to be installed.
    """

    def __init__(
        self, stack: Stack, notes: tuple[str, ...], path: Path, *, whole: bool = False
    ) -> None:
        self._stack, slices = stack, stack.slices
        self._padding = native_padding(slices)
        self._kept: Array | None = None
        self._types: list[np.dtype[Any]] = []
        common = CommonAttributes(stack)
        planes = self._first_pass(common)
        if whole or slices[0].frame is not None:
            self._kept = self._values(planes, 0, stack.geometry.shape[2])
            self._native = self._kept.dtype
        else:
            self._native = self._type_of(planes)
        one = len({(header.slope, header.intercept) for header in slices}) == 1
        source = Source(
            format="dicom",
            path=path,
            dtype=self._stored,
            slope=slices[0].slope if one else 1.0,
            intercept=slices[0].intercept if one else 0.0,
            header=common.reference(signed=self._stored.kind == "i"),
            notes=notes,
            padding=self._padding,
        )
        self.header = header_of(
            stack.geometry, self._native, modality=slices[0].modality, source=source
        )

    @suppress_logging
    def read(self, start: int, stop: int) -> Array:
        """Planes ``start`` to ``stop``, decoded unless they were kept."""
        if self._kept is not None:
            return self._kept[:, :, start:stop]
        regridding = self._stack.regridding
        first, behind = (start, stop) if regridding is None else regridding.needed(start, stop)
        planes = (plane for _, plane in stored_planes(self._stack.slices[first:behind]))
        return self._values(planes, start, stop, self._stored).astype(self._native, copy=False)

    @property
    def _stored(self) -> np.dtype[Any]:
        """The type that holds the stored numbers of all slices."""
        return np.result_type(*self._types)

    def _first_pass(self, common: CommonAttributes) -> Iterator[Array]:
        """All stored planes, while their types and their files' attributes are noted."""
        for index, (dataset, plane) in enumerate(stored_planes(self._stack.slices)):
            self._types.append(plane.dtype)
            common.visit(index, dataset)
            yield plane

    def _values(
        self, planes: Iterator[Array], start: int, stop: int, dtype: np.dtype[Any] | None = None
    ) -> Array:
        """Native values of planes ``start`` to ``stop``, from the stored planes for them."""
        if self._stack.regridding is not None:
            return regridded(planes, self._stack, start, stop)
        stored = stacked(planes, (*self._stack.geometry.shape[:2], stop - start), dtype)
        return native_values(stored, self._stack.slices[start:stop], self._padding)

    def _type_of(self, planes: Iterator[Array]) -> np.dtype[Any]:
        """What the whole stack would be turned into, told from its extremes."""
        extremes = [(plane.min(), plane.max()) for plane in planes]
        if self._stack.regridding is not None:
            return np.dtype(np.float32)
        ends = np.array(extremes, dtype=self._stored).T[:, np.newaxis]
        return native_values(ends, self._stack.slices, self._padding).dtype


@suppress_logging
def open_dicom(
    path: Path,
    series: str | None = None,
    *,
    allow: frozenset[Allowance] = NOTHING,
    whole: bool = False,
) -> DicomPlanes:
    """Open one CT or MR volume of a folder or archive of DICOM files, or of one file.

    Args:
        path: a folder, searched at every depth; a zip archive, which is read where it lies; a
            DICOMDIR; a multi-frame file; or one slice, whose series is read from its folder.
        series: Series Instance UID of the volume to take, or the name or number that the refusal
            of several volumes lists.
        allow: what may be done to a series that is refused otherwise: "gaps" and "tilt" resample
            it onto a regular grid, "duplicates" takes the first of different slices at one place,
            "few-slices" accepts two or three.
        whole: whether all planes will be asked for, so that each is decoded once.

    Returns:
        The volume: array axes are columns, rows, slices; CT in HU. Its ``header.source.header`` is
        a :class:`~medsr.io.dicom.read.reference.DicomReference`, and ``header.source.padding`` the
        value of all voxels without data.

    Raises:
        SeveralSeriesError: if there are several volumes and none was picked, or not this one.
        InputError: one subclass for each fault; see ``medsr.errors``.

    Source: DICOM PS3.3 C.7.6.2.1.1 (plane), C.11.1 (modality LUT).
    """
    stack, notes = choose_stack(path, series, allow=allow)
    return DicomPlanes(stack, notes, path, whole=whole)


@suppress_logging
def inspect_dicom(
    path: Path, *, series: str | None = None, allow: frozenset[Allowance] = NOTHING
) -> Inspection:
    """Describe the volume that :func:`open_dicom` would open, from its headers alone.

    Args:
        path: as for :func:`open_dicom`.
        series: as for :func:`open_dicom`.
        allow: as for :func:`open_dicom`.

    Returns:
        The description; two or three slices are described too, with a warning.

    Raises:
        InputError: as :func:`open_dicom`, but for what only the pixel data tell.
    """
    stack, notes = choose_stack(path, series, allow=allow | _LENIENT)
    first = stack.slices[0]
    return describe(
        stack.geometry,
        format="dicom",
        dtype=first.dtype,
        modality=first.modality,
        warnings=notes,
    )


@suppress_logging
def list_dicom(path: Path, *, allow: frozenset[Allowance] = NOTHING) -> tuple[ListedVolume, ...]:
    """List the volumes that a path holds, those that cannot be read with their reasons.

    Args:
        path: as for :func:`open_dicom`.
        allow: as for :func:`open_dicom`.

    Raises:
        InputError: if there is no CT or MR slice at all that can be read.
    """
    contents = find_slices(path)
    candidates = list_candidates(contents.slices, allow)
    return tuple(_listed(each, contents, allow) for each in candidates)


def _listed(
    candidate: Candidate, contents: FoundSlices, allow: frozenset[Allowance]
) -> ListedVolume:
    first, spacing = candidate.slices[0], None
    shape, fault = (first.columns, first.rows, len(candidate.slices)), candidate.fault
    try:
        check_damage(candidate, contents)
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

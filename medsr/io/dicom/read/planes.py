"""DICOM series read a few slices at a time.

The slices are the ones that ``series`` would choose, in the same order and with the same
values. Here is only what reading them by and by needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medsr.io.allow import NOTHING, Allowance
from medsr.io.dicom.quiet import quiet
from medsr.io.dicom.read.choose import choose_stack
from medsr.io.dicom.read.pixels import native_padding, native_values, regridded, stored_planes
from medsr.io.dicom.read.regular import Regridding
from medsr.io.dicom.read.series import read_stack
from medsr.io.dicom.read.stack import Stack
from medsr.io.dicom.reference import CommonAttributes
from medsr.io.planes import MemoryPlanes, PlaneSource, header_of
from medsr.volume import Source, units_of

Array = npt.NDArray[Any]


class DicomPlanes:
    """A stack of single-frame files; see :class:`medsr.io.planes.PlaneSource`.

    Every file is decoded once when the stack is opened, since what the slices have in common and
    the type that holds all of them are known only then.
    """

    @quiet
    def __init__(self, stack: Stack, notes: tuple[str, ...], path: Path) -> None:
        self._stack, self._slices = stack, stack.slices
        self._padding = native_padding(stack.slices)
        common = CommonAttributes(stack)
        stored: np.dtype[Any] | None = None
        extremes: list[tuple[Any, Any]] = []
        for index, (dataset, plane) in enumerate(stored_planes(stack.slices)):
            stored = plane.dtype if stored is None else np.result_type(stored, plane.dtype)
            extremes.append((plane.min(), plane.max()))
            common.visit(index, dataset)
        self._stored = np.dtype(np.int16) if stored is None else stored
        # What the whole stack would be turned into, told from its extremes.
        ends = np.array(extremes, dtype=self._stored).T[:, np.newaxis]
        self._native = native_values(ends, stack.slices, self._padding).dtype
        if stack.regridding is not None:
            self._native = np.dtype(np.float32)
        first = stack.slices[0]
        one = len({(h.slope, h.intercept) for h in stack.slices}) == 1
        source = Source(
            format="dicom",
            path=path,
            dtype=self._stored,
            slope=first.slope if one else 1.0,
            intercept=first.intercept if one else 0.0,
            header=common.reference(signed=self._stored.kind == "i"),
            notes=notes,
            padding=self._padding,
        )
        self.header = header_of(
            stack.geometry, self._native, modality=first.modality, source=source
        ).replace(units=units_of(first.modality))

    @quiet
    def read(self, start: int, stop: int) -> Array:
        """Decode slices ``start`` to ``stop``."""
        if self._stack.regridding is not None:
            return self._regridded(self._stack.regridding, start, stop)
        wanted = slice(start, stop)
        planes = np.empty((*self.header.shape[:2], stop - start), dtype=self._stored, order="F")
        for index, (_, plane) in enumerate(stored_planes(self._slices[wanted])):
            planes[:, :, index] = plane.T
        values = native_values(planes, self._slices[wanted], self._padding)
        return values.astype(self._native, copy=False)

    def _regridded(self, regridding: Regridding, start: int, stop: int) -> Array:
        """Planes of the regular grid, from the slices around them."""
        first, behind = regridding.needed(start, stop)
        planes = (plane for _, plane in stored_planes(self._slices[first:behind]))
        values = np.empty((*self.header.shape[:2], stop - start), np.float32, order="F")
        for k, plane in enumerate(regridded(planes, self._stack, start, stop, self._padding)):
            values[:, :, k] = plane
        return values

    def close(self) -> None:
        """Nothing is held open."""


@quiet
def open_dicom_planes(
    path: Path,
    series: str | None = None,
    *,
    allow: frozenset[Allowance] = NOTHING,
    whole: bool = False,
) -> PlaneSource:
    """Open a series; a multi-frame file, which is decoded in one piece, is read whole.

    Args:
        path: as for :func:`medsr.io.dicom.read.series.read_dicom`.
        series: likewise.
        allow: likewise.
        whole: whether all planes will be asked for, so that each is decoded once.

    Raises:
        InputError: one subclass for each fault.
    """
    stack, notes = choose_stack(path, series, allow=allow)
    if whole or stack.slices[0].frame is not None:
        return MemoryPlanes(read_stack(stack, notes, path))
    return DicomPlanes(stack, notes, path)

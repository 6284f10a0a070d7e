"""Scans read a slab at a time: the protocol, the readers, and ``open_planes``.

A slab is a run of planes along the last array axis, which every format stores slowest. Its values
are those that ``medsr.io.load`` gives. What a format cannot give by slabs is read whole. Writing by
slab is in ``slabs_write``, what must be known of all values in ``slabs_survey``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from medsr.errors import CorruptFileError, UsageError
from medsr.geometry import Geometry
from medsr.io.allow import parse_allowances
from medsr.io.checks import check_slices
from medsr.io.compressed import check_end, open_to_read
from medsr.io.inspect import format_of
from medsr.io.nifti import DAMAGED, NiftiInfo, brief, read_header
from medsr.io.scaling import dequantise
from medsr.volume import Modality, Source, Volume, units_of

Array = npt.NDArray[Any]

CHUNK_BYTES = 16 * 2**20
"""What is held at a time of a scan that is merely looked through."""


class PlaneSource(Protocol):
    """A scan whose planes can be had a few at a time.

    Attributes:
        header: Grid, type, source and (where the file says it) modality of the scan; its voxels
            are zeros that take no memory and mean nothing.
    """

    header: Volume

    def read(self, start: int, stop: int) -> Array:
        """Return planes ``start`` to ``stop`` along the last axis, (X, Y, stop - start).

        Cheapest where ``start`` is where the last call stopped.

        Raises:
            CorruptFileError: The voxels are missing or damaged.
        """

    def close(self) -> None:
        """Let go of the file."""


def header_of(
    geometry: Geometry,
    dtype: npt.DTypeLike,
    *,
    modality: Modality | None = None,
    source: Source | None = None,
) -> Volume:
    """Make a volume that tells all of a scan but its voxels, which are zeros without memory."""
    nothing = np.broadcast_to(np.zeros((), dtype=dtype), geometry.shape)
    return Volume(nothing, geometry, modality, units_of(modality), source)


def open_planes(
    path: Path, *, series: str | None = None, allow: Collection[str] = ()
) -> PlaneSource:
    """Open a scan to be read by slabs.

    Args:
        path: As for :func:`medsr.io.load`.
        series: Which series of a DICOM folder, where it holds several.
        allow: As for :func:`medsr.io.load`.

    Raises:
        InputError: The header cannot be taken; one of its family.
        UsageError: ``series`` is given for another format than DICOM.
    """
    kind = format_of(path)
    reader: PlaneSource
    if kind == "dicom":
        from medsr.io.dicom.read.planes import open_dicom_planes

        reader = open_dicom_planes(path, series, allow=parse_allowances(allow))
    elif series is not None:
        raise UsageError(f"{path}: a series can be chosen in DICOM only, and this is {kind}")
    elif kind in ("nifti", "mgz"):
        reader = NiftiPlanes(path)
    else:
        from medsr.io.itk_slabs import open_itk_planes

        reader = open_itk_planes(path)
    check_slices(reader.header.geometry, str(path), few="few-slices" in allow)
    return reader


def count_voxels(path: Path) -> int:
    """Say how many voxels a scan has, from as little of it as can be; for DICOM at most so many.

    Raises:
        InputError: The header cannot be taken; one of its family.
    """
    kind = format_of(path)
    if kind == "dicom":
        from medsr.io.dicom.read.files import count_voxels as count

        return count(path)
    if kind in ("nifti", "mgz"):
        return math.prod(read_header(path).geometry.shape)
    from medsr.io.itk import read_header as read_itk_header

    return math.prod(read_itk_header(path).geometry.shape)


def chunks(reader: PlaneSource) -> Iterator[tuple[int, Array]]:
    """Go through a scan: the first plane of each slab, and the slab."""
    x, y, count = reader.header.shape
    step = max(1, CHUNK_BYTES // (x * y * 4))
    for start in range(0, count, step):
        yield start, reader.read(start, min(start + step, count))


class MemoryPlanes:
    """A volume that is in memory already; see :class:`PlaneSource`."""

    def __init__(self, volume: Volume) -> None:
        self._data = volume.data
        self.header = header_of(
            volume.geometry, volume.data.dtype, modality=volume.modality, source=volume.source
        )

    def read(self, start: int, stop: int) -> Array:
        """A view of the planes."""
        return self._data[:, :, start:stop]

    def close(self) -> None:
        """Nothing is held open."""


class NiftiPlanes:
    """A NIfTI or MGZ file, compressed or not; see :class:`PlaneSource`.

    A compressed file is only ever read forward: a slab before the last one starts it again. Once
    its last plane is read, the end of the stream is checked too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._info: NiftiInfo = read_header(path)
        info = self._info
        x, y, self._count = info.geometry.shape
        self._plane_bytes = x * y * info.dtype.itemsize
        self._offset = int(info.header.get_data_offset())
        self._stream: BinaryIO | None = None
        self._next = 0
        source = Source(
            info.format, path, info.dtype, info.slope, info.intercept, info.header, info.notes
        )
        native = dequantise(np.zeros((1, 1, 1), info.dtype), info.slope, info.intercept).dtype
        self.header = header_of(info.geometry, native, source=source)

    def read(self, start: int, stop: int) -> Array:
        """Read and scale planes ``start`` to ``stop``."""
        wanted = (stop - start) * self._plane_bytes
        try:
            stream = self._at(start)
            voxels = stream.read(wanted)
            if stop == self._count:
                check_end(stream, self._path)
                self.close()
        except DAMAGED as error:
            message = f"{self._path}: the voxels cannot be read ({brief(error)})"
            raise CorruptFileError(message) from error
        if len(voxels) < wanted:
            there, claimed = start * self._plane_bytes + len(voxels), self._count
            raise CorruptFileError(
                f"{self._path}: {there} of {claimed * self._plane_bytes} bytes of voxels are "
                "there; it is truncated"
            )
        self._next = stop
        shape = (*self.header.shape[:2], stop - start)
        raw = np.frombuffer(voxels, self._info.dtype).reshape(shape, order="F")
        return dequantise(raw, self._info.slope, self._info.intercept)

    def close(self) -> None:
        """Close the file; another read opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _at(self, plane: int) -> BinaryIO:
        """The stream, standing at a plane."""
        if self._stream is None or plane != self._next:
            if self._stream is None or plane < self._next:
                self.close()
                self._stream = open_to_read(self._path)
            self._stream.seek(self._offset + plane * self._plane_bytes)
        return self._stream

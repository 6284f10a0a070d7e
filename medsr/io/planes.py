"""Scans as planes: what gives them a few at a time, a volume in memory too, and what takes them.

Planes lie along the last array axis, which every format stores slowest. A source gives native
values; a file takes numbers as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from medsr.geometry import Geometry
from medsr.types import Array
from medsr.volume import Modality, Source, Volume, units_of

__all__ = ["MemoryPlanes", "PlaneFile", "PlaneSource", "chunks", "gather", "header_of"]

CHUNK_BYTES = 16 * 2**20
"""What is held at a time of a scan that is merely looked through."""


class PlaneSource(Protocol):
    """A scan whose planes can be had a few at a time; ``with`` closes it at the end of a block.

    Contract: ``read(0, n)`` gives the volume that :func:`medsr.io.load` gives, and
    ``read(a, b)`` the planes ``a`` to ``b`` of it, the same values in the type of ``header``. All
    axes are as the file stores them. Any plane may be read at any time, cheapest where the last
    call stopped; what is returned may be a view and is not written to. Whatever is wrong with the
    header is raised when the source is opened, with the voxels when they are read. A source that
    was closed opens its file again when it is read.

    Attributes:
        header: Grid, type, source and (where the file says it) modality of the scan; its voxels
            are zeros that take no memory and mean nothing.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry
        >>> from medsr.io.planes import PlaneSource, gather, header_of
        >>> class Ramp(PlaneSource):  # plane k is k everywhere
        ...     header = header_of(Geometry((4, 4, 6), np.eye(4)), np.int16)
        ...     def read(self, start, stop):
        ...         planes = np.arange(start, stop, dtype=np.int16)
        ...         return np.broadcast_to(planes, (4, 4, stop - start))
        >>> with Ramp() as planes:
        ...     int(planes.read(2, 3).max())
        2
        >>> gather(Ramp()).data[0, 0].tolist()
        [0, 1, 2, 3, 4, 5]
    """

    header: Volume

    def read(self, start: int, stop: int) -> Array:
        """Return planes ``start`` to ``stop`` along the last axis, (X, Y, stop - start).

        Raises:
            CorruptFileError: The voxels are missing or damaged.
        """

    def close(self) -> None:
        """Let go of the file, where one is held open."""
        return

    def __enter__(self) -> Self:
        """Give the source."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class PlaneFile(Protocol):
    """A file or folder under way, which takes stored planes one after the other.

    Examples:
        >>> import io
        >>> import numpy as np
        >>> class Raw:
        ...     def __init__(self, stream):
        ...         self.stream = stream
        ...     def append(self, stored):
        ...         self.stream.write(stored.tobytes(order="F"))
        >>> file = Raw(io.BytesIO())
        >>> file.append(np.zeros((4, 4, 2), dtype=np.int16))
        >>> len(file.stream.getvalue())
        64
    """

    def append(self, stored: Array) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""


class MemoryPlanes(PlaneSource):
    """A volume that is in memory already; see :class:`PlaneSource`.

    Args:
        volume: It.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.io.planes import MemoryPlanes
        >>> data = np.zeros((4, 4, 6), dtype=np.int16)
        >>> source = MemoryPlanes(Volume(data, Geometry(data.shape, np.eye(4)), "MR"))
        >>> source.read(2, 5).shape
        (4, 4, 3)
    """

    def __init__(self, volume: Volume) -> None:
        self._data = volume.data
        self.header = header_of(
            volume.geometry, volume.data.dtype, modality=volume.modality, source=volume.source
        ).replace(units=volume.units)

    def read(self, start: int, stop: int) -> Array:
        """A view of the planes."""
        return self._data[:, :, start:stop]


def header_of(
    geometry: Geometry,
    dtype: npt.DTypeLike,
    *,
    modality: Modality | None = None,
    source: Source | None = None,
) -> Volume:
    """Make a volume that tells all of a scan but its voxels, which are zeros without memory.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry
        >>> from medsr.io.planes import header_of
        >>> header = header_of(Geometry((512, 512, 2000), np.eye(4)), np.int16)
        >>> header.data.dtype, header.data.strides
        (dtype('int16'), (0, 0, 0))
    """
    nothing = np.broadcast_to(np.zeros((), dtype=dtype), geometry.shape)
    return Volume(nothing, geometry, modality, units_of(modality), source)


def gather(source: PlaneSource) -> Volume:
    """Read all planes, and close the source.

    Raises:
        CorruptFileError: As for :meth:`PlaneSource.read`.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.io.planes import MemoryPlanes, gather
        >>> scan = Volume(np.ones((4, 4, 6), np.int16), Geometry((4, 4, 6), np.eye(4)), "MR")
        >>> int(gather(MemoryPlanes(scan)).data.sum())
        96
    """
    with closing(source):
        return source.header.replace(data=source.read(0, source.header.shape[2]))


def chunks(source: PlaneSource) -> Iterator[tuple[int, Array]]:
    """Go through a scan: the place of the first plane of each chunk, and the chunk.

    Examples:
        >>> import numpy as np
        >>> from medsr import Geometry, Volume
        >>> from medsr.io.planes import MemoryPlanes, chunks
        >>> scan = Volume(np.ones((4, 4, 6), np.int16), Geometry((4, 4, 6), np.eye(4)), "MR")
        >>> [(start, planes.shape) for start, planes in chunks(MemoryPlanes(scan))]
        [(0, (4, 4, 6))]
    """
    x, y, count = source.header.shape
    step = max(1, CHUNK_BYTES // (x * y * 4))
    for start in range(0, count, step):
        yield start, source.read(start, min(start + step, count))

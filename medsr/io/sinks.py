"""Scans written a slab at a time: ``saving_planes``.

Voxels are encoded by the same code as in ``medsr.io.save`` and lie under a temporary name until all
are there. Where the way of storing them depends on their range, they wait in a scratch file.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import numpy.typing as npt

from medsr.io import WRITABLE, check_no_source, is_dicom_name, output_format
from medsr.io.atomic import atomic_file, atomic_folder, check_output
from medsr.io.checks import FINITE, check_finite
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.inspect import suffix_of
from medsr.io.planes import CHUNK_BYTES
from medsr.io.scaling import Scaling, ValueRange, source_of
from medsr.volume import Derivation, SourceFormat, Volume

Array = npt.NDArray[Any]

logger = logging.getLogger(__name__)


class PlaneFile(Protocol):
    """A file or folder that takes stored planes one after the other."""

    def append(self, stored: Array) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""


class _RangeNeededError(Exception):
    """Somebody asked for the range of values before they are known."""


class PlaneSink:
    """Takes native planes in order along the last axis; see :func:`saving_planes`."""

    def __init__(
        self,
        like: Volume,
        kind: SourceFormat,
        place: Path,
        derivation: Derivation | None,
        dicom: DicomOptions = DEFAULTS,
    ) -> None:
        self._header, self._kind, self._place = like, kind, place
        self._derivation, self._dicom = derivation, dicom
        self._shape = like.shape
        self._given = 0
        self._low, self._high = np.inf, -np.inf
        self._open = ExitStack()
        self._scratch: BinaryIO | None = None
        self._file: PlaneFile | None = None
        self._scaling = Scaling(np.dtype(np.float32))

    def begin(self) -> None:
        """Open the file, or the scratch file where the range of values decides how they are kept.

        Raises:
            OutputFormatError: The format cannot hold the volume.
        """
        try:
            self._begin_file(_unknown_range)
        except _RangeNeededError:
            scratch = tempfile.TemporaryFile(dir=self._place.parent, prefix=".medsr-")  # noqa: SIM115
            self._scratch = cast(BinaryIO, self._open.enter_context(scratch))

    def append(self, planes: Array) -> None:
        """Take the next planes.

        Args:
            planes: (X, Y, planes) in native units.

        Raises:
            NonFiniteError: They hold NaN or infinity.
        """
        for k in range(planes.shape[2]):
            plane = planes[:, :, k : k + 1]
            check_finite(plane, f"plane {self._given + k} to be written", largest=FINITE)
        self._given += planes.shape[2]
        if self._scratch is None:
            self._store(planes)
            return
        self._low = min(self._low, float(planes.min()))
        self._high = max(self._high, float(planes.max()))
        for k in range(planes.shape[2]):
            plane = planes[:, :, k].astype(np.float32, copy=False)
            self._scratch.write(plane.tobytes(order="F"))

    def finish(self) -> None:
        """Write what waits, and close the file.

        Raises:
            ValueError: Planes are missing.
        """
        if self._given != self._shape[2]:
            raise ValueError(f"{self._given} of {self._shape[2]} planes were given")
        if self._scratch is not None:
            self._begin_file(lambda: (self._low, self._high))
            self._scratch.seek(0)
            for planes in self._waiting(self._scratch):
                self._store(planes)
            self._scratch = None
        for note in self._scaling.notes:
            logger.info("%s", note)
        self._open.close()

    def abandon(self) -> None:
        """Close what is open; the caller removes it."""
        self._open.close()

    def _begin_file(self, value_range: ValueRange) -> None:
        self._scaling = _scaling(self._header, self._kind, value_range)
        if self._kind == "dicom":
            from medsr.io.dicom.write.classic import derived_series

            self._file = derived_series(
                self._header, self._place, self._scaling, self._derivation, self._dicom
            )
            return
        self._file = self._open.enter_context(self._opened())

    def _opened(self) -> AbstractContextManager[PlaneFile]:
        if self._kind == "nifti":
            from medsr.io.nifti_write import nifti_file

            return nifti_file(self._header, self._place, self._scaling, self._derivation)
        if self._kind == "mgz":
            from medsr.io.nifti_write import mgz_file

            return mgz_file(self._header, self._place, self._scaling)
        from medsr.io.itk_slabs import itk_file

        return itk_file(self._header, self._place, self._scaling)

    def _store(self, planes: Array) -> None:
        if self._file is not None:
            for k in range(planes.shape[2]):
                self._file.append(self._scaling.stored(planes[:, :, k : k + 1]))

    def _waiting(self, scratch: BinaryIO) -> Iterator[Array]:
        x, y, count = self._shape
        step = max(1, CHUNK_BYTES // (4 * x * y))
        for start in range(0, count, step):
            planes = min(step, count - start)
            buffer = np.frombuffer(scratch.read(4 * x * y * planes), dtype=np.float32)
            yield buffer.reshape((x, y, planes), order="F")


@contextmanager
def saving_planes(
    like: Volume,
    path: Path,
    *,
    overwrite: bool = False,
    format: SourceFormat | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions = DEFAULTS,
) -> Iterator[PlaneSink]:
    """Write a scan by slabs under a temporary name, which becomes ``path`` when the block ends.

    The block gives all planes to :meth:`PlaneSink.append` and calls :meth:`PlaneSink.finish`.

    Args:
        like: Grid, type and source of what will be written; its voxels are not looked at.
        path: As for :func:`medsr.io.save`.
        overwrite: Whether an existing output may be replaced.
        format: The format, if the name shall not decide.
        derivation: How the volume was computed; recorded where the format has a place for it.
        dicom: How a DICOM series is written; other formats ignore it.

    Raises:
        OutputError: As :func:`medsr.io.save`; nothing is left then.
    """
    kind = output_format(path, format=format)
    check_no_source(like, path, kind)
    check_output(path, overwrite=overwrite)
    placing: AbstractContextManager[Path]
    if kind == "dicom":
        placing = atomic_folder(path, overwrite=overwrite, replaceable=is_dicom_name)
    else:
        suffix = suffix_of(path) if suffix_of(path) in WRITABLE[kind] else WRITABLE[kind][0]
        placing = atomic_file(path, overwrite=overwrite, suffix=suffix)
    with placing as place:
        writer = PlaneSink(like, kind, place, derivation, dicom)
        try:
            writer.begin()
            yield writer
        finally:
            writer.abandon()


def _scaling(like: Volume, kind: SourceFormat, value_range: ValueRange) -> Scaling:
    """How a format holds the values."""
    source = source_of(like)
    if kind == "dicom":
        from medsr.io.dicom.write.classic import dicom_scaling

        return dicom_scaling(source, value_range)
    if kind == "nifti":
        from medsr.io.nifti_write import nifti_scaling

        return nifti_scaling(source, value_range)
    if kind == "mgz":
        from medsr.io.nifti_write import mgz_scaling

        return mgz_scaling(source, value_range)
    from medsr.io.itk import itk_scaling

    return itk_scaling(source, value_range)


def _unknown_range() -> tuple[float, float]:
    raise _RangeNeededError

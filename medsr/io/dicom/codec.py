"""DICOM series as one of the formats of ``medsr.io``.

What writes them, and pydicom's dictionaries of codes with it, is imported when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medsr.io.allow import Allowance
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.read.files import count_voxels, is_dicom
from medsr.io.dicom.read.series import inspect_dicom, list_dicom, open_dicom
from medsr.io.inspection import Inspection, ListedVolume
from medsr.io.planes import PlaneFile, PlaneSource
from medsr.io.scaling import Scaling, ValueRange
from medsr.volume import Derivation, Source, Volume

__all__ = ["DICOM", "DicomCodec", "is_dicom"]


class DicomCodec:
    """CT and MR series, classic and enhanced; see :class:`medsr.io.formats.SeriesCodec`."""

    def open(
        self, path: Path, *, series: str | None, allow: frozenset[Allowance], whole: bool
    ) -> PlaneSource:
        """Open a series; see :func:`medsr.io.dicom.read.series.open_dicom`."""
        return open_dicom(path, series, allow=allow, whole=whole)

    def inspect(self, path: Path, *, series: str | None, allow: frozenset[Allowance]) -> Inspection:
        """Describe a series."""
        return inspect_dicom(path, series=series, allow=allow)

    def list_volumes(self, path: Path, *, allow: frozenset[Allowance]) -> tuple[ListedVolume, ...]:
        """List the volumes of a folder or archive."""
        return list_dicom(path, allow=allow)

    def count_voxels(self, path: Path) -> int:
        """Count the voxels of all that may be one volume."""
        return count_voxels(path)

    def companions(self, path: Path) -> list[Path]:
        """There are none: a folder is one scan."""
        return []

    def scaling(self, source: Source, value_range: ValueRange) -> Scaling:
        """How 16-bit numbers hold the values."""
        from medsr.io.dicom.write.scaling import dicom_scaling

        return dicom_scaling(source, value_range)

    def check_writable(self, volume: Volume, dicom: DicomOptions) -> None:
        """Refuse a volume that did not come from DICOM, or cannot be of the layout asked for."""
        from medsr.io.dicom.write.layout import check_writable

        check_writable(volume, dicom)

    @contextmanager
    def create(
        self,
        like: Volume,
        path: Path,
        scaling: Scaling,
        derivation: Derivation | None,
        dicom: DicomOptions,
    ) -> Iterator[PlaneFile]:
        """Begin a derived series in a folder."""
        from medsr.io.dicom.write.layout import derived_series

        yield derived_series(like, path, scaling, derivation, dicom)


DICOM = DicomCodec()

"""Reading scans of any format: ``open_planes``, ``load``, ``inspect`` and ``list_volumes``.

What holds for every format is done here (slices, finite values, modality, units); how a format is
read is its codec's part, see ``medsr.io.formats``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Literal

from medsr.errors import ModalityError, UsageError
from medsr.io.allow import NOTHING, parse_allowances
from medsr.io.checks import check_finite, check_integers, check_slices
from medsr.io.formats import Format, format_of
from medsr.io.inspection import Inspection, ListedVolume, describe_header
from medsr.io.modality import judge, settled, tally
from medsr.io.planes import PlaneSource, gather
from medsr.volume import Volume


def open_planes(
    path: Path, *, series: str | None = None, allow: Collection[str] = (), whole: bool = False
) -> PlaneSource:
    """Open a scan whose planes are read by and by, to be closed in the end, as ``with`` does.

    Args:
        path: As for :func:`load`.
        series: As for :func:`load`.
        allow: As for :func:`load`.
        whole: Whether all planes will be asked for at once.

    Raises:
        InputError: The header cannot be taken; one of its family.
        UsageError: ``series`` is given for a format that does not hold several volumes.
    """
    allowed = parse_allowances(allow)
    codec = _format_for(path, series).load()
    source = codec.open(path, series=series, allow=allowed, whole=whole)
    check_slices(source.header.geometry, str(path), few="few-slices" in allowed)
    return source


def count_voxels(path: Path) -> int:
    """Say how many voxels a scan has, from as little of it as can be; for DICOM at most so many.

    Raises:
        InputError: The header cannot be taken; one of its family.
    """
    format = format_of(path)
    if (several := format.series_codec()) is not None:
        return several.count_voxels(path)
    return math.prod(_header_of(path, format).header.shape)


def load(
    path: str | Path,
    *,
    modality: Literal["auto", "MR", "CT"] = "auto",
    series: str | None = None,
    allow: Collection[str] = (),
) -> Volume:
    """Read a scan.

    Args:
        path: a NIfTI, NRRD, MetaImage or MGZ file, a folder or zip archive of DICOM files, a
            DICOMDIR, or one DICOM file, which stands for its series.
        modality: what the scan is; "auto" takes DICOM's word and judges other formats by their
            values and BIDS's names, see :mod:`medsr.io.modality`.
        series: SeriesInstanceUID, for a DICOM source that holds several, or the name or number
            that :func:`list_volumes` gives a volume.
        allow: what may be done to a DICOM series that is refused otherwise, any of "gaps" and
            "tilt" (resample onto a regular grid), "duplicates" (take the first of different
            slices at one place) and, for every format, "few-slices" (fewer than four).
            "labels" is for :func:`medsr.upscale`; a label image is read in any case.

    Returns:
        The volume with its array axes as stored, in native units (HU for CT): integers as such
        where the file holds them unscaled, float32 otherwise. Its modality is None where it is in
        doubt; :func:`medsr.upscale` refuses that.

    Raises:
        InputError: one of its family, each with its own exit code.
        UsageError: if ``series`` is given for another format than DICOM, or what shall be allowed
            is not known.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> hu = np.linspace(-1000, 1500, 12 * 12 * 8).reshape(12, 12, 8).astype(np.float32)
        >>> grid = medsr.Geometry(hu.shape, np.diag([0.75, 0.75, 5.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = medsr.save(medsr.Volume(hu, grid, "CT", "HU"), Path(folder, "chest.nii.gz"))
        ...     scan = medsr.load(file, modality="CT")  # NIfTI does not say whether it is CT
        >>> scan.shape, scan.spacing, scan.units
        ((12, 12, 8), (0.75, 0.75, 5.0), 'HU')
    """
    path, allowed = Path(path), parse_allowances(allow)
    if modality not in ("auto", "MR", "CT"):
        raise UsageError(f"modality {modality!r} is not known; choose auto, MR or CT")
    volume = gather(open_planes(path, series=series, allow=allowed, whole=True))
    check_finite(volume.data, str(path))
    if volume.data.dtype.itemsize == 8:
        low, high = float(volume.data.min()), float(volume.data.max())
        check_integers(low, high, volume.data.dtype, str(path))
    with suppress(ModalityError):
        return settled(volume, None if modality == "auto" else modality)[0]
    return volume


def inspect(
    path: str | Path,
    *,
    with_range: bool = False,
    series: str | None = None,
    allow: Collection[str] = (),
) -> Inspection:
    """Describe a scan from its header.

    Args:
        path: a file, or a folder or zip archive of DICOM files.
        with_range: also read the voxels, for the value range and the modality of formats that
            do not record it.
        series: which volume of a DICOM source, as for :func:`medsr.io.load`.
        allow: as for :func:`medsr.io.load`.

    Raises:
        InputError: one of its family, as :func:`medsr.io.load` does for a header it cannot take.
            A stack with too few slices is described, with a warning.
        UsageError: if ``series`` is given for another format than DICOM.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> data = np.zeros((32, 32, 8), dtype=np.int16)
        >>> grid = medsr.Geometry(data.shape, np.diag([0.9, 0.9, 5.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = medsr.save(medsr.Volume(data, grid, "MR"), Path(folder, "brain.nii.gz"))
        ...     found = medsr.inspect(file)  # reads the header alone
        >>> found.shape, found.slice_axis, round(found.slice_ratio, 2), found.modality
        ((32, 32, 8), 2, 5.56, None)
    """
    path = Path(path)
    allowed = parse_allowances(allow)
    format = _format_for(path, series)
    if (several := format.series_codec()) is not None:
        inspection = several.inspect(path, series=series, allow=allowed)
    else:
        inspection = describe_header(_header_of(path, format))
    return _with_range(inspection, path, series, allowed) if with_range else inspection


def list_volumes(path: str | Path, *, allow: Collection[str] = ()) -> tuple[ListedVolume, ...]:
    """List the volumes of a DICOM source, each with the name that picks it.

    Args:
        path: a folder, zip archive, DICOMDIR or file.
        allow: as for :func:`medsr.io.load`.

    Raises:
        InputError: if nothing there is a CT or MR slice.
        UsageError: if it is of another format.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pydicom import Dataset, dcmwrite
        >>> from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
        >>> from medsr.io import list_volumes
        >>> def write_slice(folder, number):
        ...     image = Dataset()
        ...     image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"1.2.3.{number + 1}"
        ...     image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.1", "1.2.2"
        ...     image.FrameOfReferenceUID, image.Modality = "1.2.4", "CT"
        ...     image.ImagePositionPatient = [0, 0, 5 * number]
        ...     image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ...     image.PixelSpacing, image.Rows, image.Columns = [0.8, 0.8], 4, 4
        ...     image.BitsAllocated = image.BitsStored = 16
        ...     image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 1, 1
        ...     image.PhotometricInterpretation = "MONOCHROME2"
        ...     image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, 0, "HU"
        ...     image.PixelData = bytes(2 * 4 * 4)
        ...     image.file_meta = Dataset()
        ...     image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ...     dcmwrite(Path(folder, f"{number}.dcm"), image, enforce_file_format=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in range(5):
        ...         write_slice(folder, number)
        ...     (volume,) = list_volumes(folder)
        >>> volume.series, volume.modality, volume.shape, volume.spacing_mm
        ('1.2.2', 'CT', (4, 4, 5), (0.8, 0.8, 5.0))
    """
    path = Path(path)
    format = format_of(path)
    several = format.series_codec()
    if several is None:
        raise UsageError(
            f"{path}: only DICOM sources hold several volumes, and this is {format.name}"
        )
    return several.list_volumes(path, allow=parse_allowances(allow))


def _header_of(path: Path, format: Format) -> PlaneSource:
    """A scan of which no voxel will be read, in a format that holds one volume a file."""
    with closing(format.load().open(path, series=None, allow=NOTHING, whole=False)) as source:
        return source


def _with_range(
    inspection: Inspection, path: Path, series: str | None, allow: Collection[str]
) -> Inspection:
    """Add what only the voxels tell."""
    volume = load(path, series=series, allow=allow)
    doubt = () if volume.modality else (judge(tally(volume.data)).question(),)
    return dataclasses.replace(
        inspection,
        modality=volume.modality,
        units=volume.units if volume.modality else None,
        value_range=(float(volume.data.min()), float(volume.data.max())),
        warnings=(*inspection.warnings, *doubt),
    )


def _format_for(path: Path, series: str | None) -> Format:
    """The format of a path, where a series may be chosen in it if one is."""
    format = format_of(path)
    if series is not None and not format.has_series:
        raise UsageError(f"{path}: a series can be chosen in DICOM only, and this is {format.name}")
    return format

"""Writing a volume that came from DICOM as a derived CT or MR series: write_dicom.

The choice between one file per slice and one multi-frame file, the first of them, and
the scaling of values. The second is in ``enhanced``, what both say of their origin in
``derived``; the caller renames the finished folder into place.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    MRImageStorage,
)
from pydicom.valuerep import format_number_as_ds

from medsr.errors import NonFiniteError, OutputFormatError
from medsr.geometry import Geometry
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.dicom.quiet import quiet
from medsr.io.dicom.reference import DicomReference
from medsr.io.dicom.write.deidentify import Deidentifier, result_uids
from medsr.io.dicom.write.derived import (
    add_empty,
    decimals,
    file_meta,
    lasting_attributes,
    note,
    numbers_rise,
    rescale_type,
    set_derivation,
    set_identity,
    set_pixel_format,
    source_images,
)
from medsr.io.dicom.write.frames import flattened
from medsr.io.dicom.write.mend import mend_modules, mend_values
from medsr.io.planes import PlaneFile
from medsr.io.scaling import Scaling, ValueRange, range_of, source_of
from medsr.volume import Derivation, Source, Volume

_STORED_STEPS = 65534  # a 16-bit range, less one step for rounding at its ends
_SAME_STEP = 1e-3  # of a step
_NO_REFERENCE = (
    "DICOM output needs DICOM input, whose patient and study it belongs to; "
    "write .nii.gz, .nrrd or .mha instead"
)


@quiet
def check_writable(volume: Volume, options: DicomOptions = DEFAULTS) -> DicomReference:
    """Refuse what no derived series can be made of, before anything is computed.

    Args:
        volume: the volume to write, or the scan that it will be computed from.
        options: see :func:`write_dicom`.

    Returns:
        The reference to the source series.

    Raises:
        OutputFormatError: if the volume did not come from DICOM, its axes are not orthogonal, or
            it cannot be of the layout asked for.
    """
    reference = None if volume.source is None else volume.source.header
    if not isinstance(reference, DicomReference):
        raise OutputFormatError(_NO_REFERENCE)
    if not volume.geometry.is_orthogonal():
        raise OutputFormatError(
            "the axes of the volume are not orthogonal, which a DICOM series cannot hold; "
            "write .nii.gz instead"
        )
    if options.layout == "enhanced" and _is_inverted(reference):
        raise OutputFormatError(
            "the source shows low values bright (MONOCHROME1), which multi-frame objects cannot "
            "say; write single-frame images (--dicom-layout classic)"
        )
    return reference


@quiet
def write_dicom(
    volume: Volume,
    folder: Path,
    *,
    derivation: Derivation | None = None,
    options: DicomOptions = DEFAULTS,
) -> None:
    """Write a derived series: one file per slice along array axis 2, or one multi-frame file.

    Rows are array axis 1 and columns axis 0. Study, patient and frame of reference are the
    source's; series and instances are new. CT is stored in int16, as whole HU unless the source
    has finer steps; MR in 16 bits with the source's sign, and with a slope only where the source
    had one or its range asks for it; see :func:`dicom_scaling`. Values outside the range saturate.

    Args:
        volume: read from DICOM, on any grid with orthogonal axes.
        folder: where the files go; made if absent. The files are named by InstanceNumber.
        derivation: how the voxels were computed; None for plain resampling.
        options: what the user settled.

    Raises:
        OutputFormatError: if the volume did not come from DICOM, its axes are not orthogonal, or
            it is too large for one multi-frame file or shown inverted, where one is asked for.
        NonFiniteError: if voxels are NaN or infinite.
        MissingExtraError: if it shall be de-identified and the package for that is missing.
        OSError: if a file cannot be written.

    Source: DICOM PS3.3 C.7.6.1 (derivation), C.7.6.2 (plane), C.11.1 (modality LUT).
    """
    check_writable(volume, options)
    if volume.data.dtype.kind == "f" and not np.isfinite(volume.data).all():
        raise NonFiniteError("the result holds NaN or infinity, which DICOM cannot store")
    scaling = dicom_scaling(source_of(volume), range_of(volume.data))
    series = derived_series(volume, folder, scaling, derivation, options)
    series.append(scaling.stored(volume.data))


@quiet
def derived_series(
    like: Volume,
    folder: Path,
    scaling: Scaling,
    derivation: Derivation | None = None,
    options: DicomOptions = DEFAULTS,
) -> PlaneFile:
    """Begin a derived series.

    Args:
        like: grid and source of what will be written; its voxels are not looked at.
        folder: where the files go; made if absent.
        scaling: of the planes; see :func:`dicom_scaling`.
        derivation: see :func:`write_dicom`.
        options: see :func:`write_dicom`.

    Raises:
        OutputFormatError: as :func:`write_dicom`.
        MissingExtraError: as :func:`write_dicom`.
    """
    reference = check_writable(like, options)
    folder.mkdir(parents=True, exist_ok=True)
    if is_enhanced(reference, options):
        from medsr.io.dicom.write.enhanced import EnhancedSeries

        return EnhancedSeries(like.geometry, reference, folder, scaling, derivation, options)
    return ClassicSeries(like.geometry, reference, folder, scaling, derivation, options)


def is_enhanced(reference: DicomReference, options: DicomOptions) -> bool:
    """Whether one multi-frame file is written; by default where the source was of that class."""
    if options.layout != "source":
        return options.layout == "enhanced"
    if _is_inverted(reference):
        return False
    enhanced = {EnhancedCTImageStorage, EnhancedMRImageStorage}
    return all(image.sop_class in enhanced for images in reference.images for image in images)


def _is_inverted(reference: DicomReference) -> bool:
    """Whether low values are shown bright.

    Enhanced CT and MR images are MONOCHROME2 with an IDENTITY presentation by definition. To turn
    their values round instead would give numbers that are no HU.

    Source: DICOM PS3.3 C.7.6.3.1.2 (photometric interpretation), C.8.13.1, C.8.15.2 (enhanced).
    """
    return bool(reference.attributes.get("PhotometricInterpretation") == "MONOCHROME1")


def count_files(source: Volume, slices: int, options: DicomOptions = DEFAULTS) -> int:
    """How many files, and so instances, a result of this many slices will have.

    Args:
        source: the scan that the result is computed from.
        slices: of the result.
        options: see :func:`write_dicom`.

    Raises:
        OutputFormatError: as :func:`write_dicom`.
    """
    return 1 if is_enhanced(check_writable(source, options), options) else slices


class ClassicSeries:
    """A series of single-frame images under way; see :func:`derived_series`."""

    def __init__(
        self,
        geometry: Geometry,
        reference: DicomReference,
        folder: Path,
        scaling: Scaling,
        derivation: Derivation | None,
        options: DicomOptions,
    ) -> None:
        self._geometry, self._reference, self._folder = geometry, reference, folder
        self._anonymous = anonymous = _deidentifier(options)
        self._uids = result_uids(None if derivation is None else derivation.request, options)
        dataset = _passed_on(reference, anonymous)
        set_identity(dataset, options)
        _set_class(dataset, reference)
        _set_plane(dataset, geometry)
        set_derivation(dataset, derivation)
        set_pixel_format(dataset, reference, scaling)
        _set_rescale(dataset, reference, scaling)
        if anonymous is not None:
            anonymous.hide_dates(dataset)
        dataset.SeriesInstanceUID = self._uids.series
        self._dataset, self._written = dataset, 0

    @quiet
    def append(self, stored: npt.NDArray[Any]) -> None:
        """Write one file for each plane of ``(X, Y, planes)`` behind those that are there."""
        origin, spacing, direction = self._geometry.to_lps()
        step = np.asarray(direction)[:, 2] * spacing[2]
        count = self._geometry.shape[2]
        rises = numbers_rise(self._geometry, self._reference)
        dataset = self._dataset
        for k in range(stored.shape[2]):
            plane = np.ascontiguousarray(stored[:, :, k].T)
            index = self._written
            number = index + 1 if rises else count - index
            dataset.SOPInstanceUID = self._uids.instance(number)
            dataset.InstanceNumber = number
            dataset.ImagePositionPatient = decimals(np.asarray(origin) + index * step)
            sources = source_images(self._geometry, self._reference, index)
            if self._anonymous is not None:
                self._anonymous.clean_items(sources)
            dataset.SourceImageSequence = sources
            dataset.SmallestImagePixelValue = int(plane.min())
            dataset.LargestImagePixelValue = int(plane.max())
            dataset.PixelData = plane.tobytes()
            dataset.file_meta = file_meta(dataset)
            dataset.save_as(self._folder / f"IM{number:05d}.dcm", enforce_file_format=True)
            self._written += 1


def dicom_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """16-bit numbers with the slope and intercept exactly as a decimal string will hold them.

    Args:
        source: of a volume that came from DICOM.
        value_range: of the native values.

    Returns:
        A scaling whose steps are no coarser than the source's own where 16 bits suffice for the
        range of the result: of CT 1 HU or the source's finer step, of MR the source's step.
    """
    reference = source.header
    if not isinstance(reference, DicomReference):
        raise OutputFormatError(_NO_REFERENCE)
    if reference.modality == "CT":
        return _ct_scaling(source, reference, value_range)
    dtype = np.dtype("<i2" if reference.signed else "<u2")
    slope, intercept = reference.slope, reference.intercept
    short = source.dtype.kind in "iu" and source.dtype.itemsize <= 2
    if (slope, intercept) == (1.0, 0.0) and short:
        return Scaling(dtype)
    info = np.iinfo(dtype)
    low, high = value_range()
    ends = sorted(((low - intercept) / slope, (high - intercept) / slope))
    if ends[0] < info.min - 0.5 or ends[1] > info.max + 0.5:
        slope, intercept = _covering(low, high, info.min)
    return Scaling(dtype, _as_written(slope), _as_written(intercept))


def _ct_scaling(source: Source, reference: DicomReference, value_range: ValueRange) -> Scaling:
    """Whole HU, unless the source's steps are finer, lie between, or reach beyond int16."""
    dtype = np.dtype("<i2")
    info = np.iinfo(dtype)
    step = min(abs(reference.slope), 1.0)
    # Where the steps lie, so that every value of the source is one of them.
    offset = math.remainder(reference.intercept, step)
    offset = 0.0 if abs(offset) < _SAME_STEP * step else offset
    if (step, offset) == (1.0, 0.0) and _highest(source, reference) <= info.max:
        return Scaling(dtype)
    low, high = value_range()
    if low < offset + step * info.min or high > offset + step * info.max:
        # As many whole steps off zero as bring the lowest value to the lowest number.
        offset += step * (math.floor((low - offset) / step + _SAME_STEP) - info.min)
        if high > offset + step * (info.max + _SAME_STEP):
            step, offset = _covering(low, high, info.min)
    return Scaling(dtype, _as_written(step), _as_written(offset))


def _highest(source: Source, reference: DicomReference) -> float:
    """The highest native value that the source's stored type has room for."""
    if (source.slope, source.intercept) != (reference.slope, reference.intercept):
        return math.inf  # every slice has a scaling of its own
    bits = reference.attributes.get("BitsStored")
    if source.dtype.kind not in "iu" or not isinstance(bits, int):
        return math.inf
    largest = float(2 ** max(bits - int(reference.signed), 0) - 1)
    return abs(reference.slope) * largest + reference.intercept


def _covering(low: float, high: float, least: int) -> tuple[float, float]:
    """Slope and intercept that spread ``low``...``high`` over 16 bits from ``least`` up."""
    wider = max((high - low) / _STORED_STEPS, float(np.finfo(np.float32).tiny))
    slope = _as_written(wider * (1.0 + 1e-9))
    return slope, low - slope * least


def _as_written(value: float) -> float:
    """The number that a decimal string of 16 characters holds."""
    return float(format_number_as_ds(float(value)))


def _deidentifier(options: DicomOptions) -> Deidentifier | None:
    return Deidentifier() if options.deidentify else None


def _passed_on(reference: DicomReference, anonymous: Deidentifier | None) -> Dataset:
    """What the images have from their source, sound and, if wanted, anonymous."""
    dataset = lasting_attributes(reference)
    if reference.groups is not None:
        flattened(dataset, reference.groups, reference.modality)
    note(mend_values(dataset))
    note(mend_modules(dataset, reference.modality))
    if anonymous is not None:
        anonymous.clean(dataset)
    add_empty(dataset, reference)
    return dataset


def _set_class(dataset: Dataset, reference: DicomReference) -> None:
    """SOP class, modality and image type."""
    modality = reference.modality
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.Modality = modality
    dataset.ImageType = ["DERIVED", "SECONDARY", *_image_type_rest(dataset, modality)]
    if not _is_inverted(reference):
        dataset.PhotometricInterpretation = "MONOCHROME2"


def _image_type_rest(dataset: Dataset, modality: str) -> list[str]:
    """The source's image type from its third value on, which CT and MR must have."""
    value = dataset.get("ImageType") or []
    rest = [] if isinstance(value, str) else [str(part) for part in value[2:]]
    if modality == "CT" and rest[:1] not in (["AXIAL"], ["LOCALIZER"]):
        return ["AXIAL", *rest[1:]]  # C.8.2.1.1.1: no third value but these two
    return rest or ["OTHER"]


def _set_plane(dataset: Dataset, geometry: Geometry) -> None:
    _, spacing, direction = geometry.to_lps()
    columns, rows, _ = geometry.shape
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelSpacing = decimals([spacing[1], spacing[0]])
    dataset.ImageOrientationPatient = decimals(np.asarray(direction)[:, :2].T.ravel())
    dataset.SliceThickness = dataset.SpacingBetweenSlices = decimals([spacing[2]])[0]


def _set_rescale(dataset: Dataset, reference: DicomReference, scaling: Scaling) -> None:
    """One pair for the whole series, where there is anything to say."""
    pair = scaling.slope, scaling.intercept
    if reference.rescale_stated or pair != (1.0, 0.0) or reference.modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = decimals(pair)
        dataset.RescaleType = rescale_type(reference)

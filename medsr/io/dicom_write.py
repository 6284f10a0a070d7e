"""Writing a volume that came from DICOM as a derived CT or MR series: write_dicom.

Here lives what a derived image adds, recomputes and drops. What passes from the source unchanged
is chosen in ``dicom_reference``; the caller renames the finished folder into place.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from pydicom.valuerep import DSfloat, format_number_as_ds

import medsr
from medsr.errors import NonFiniteError, OutputFormatError
from medsr.geometry import Geometry
from medsr.io.dicom_quiet import quiet
from medsr.io.dicom_reference import DicomReference, SourceImage
from medsr.io.dicom_uids import DerivedUids
from medsr.io.quantise import Scaling, ValueRange, range_of, source_of
from medsr.volume import Derivation, Source, Volume

_STORED_STEPS = 65534  # a 16-bit range, less one step for rounding at its ends
_SERIES_NUMBER_FACTOR = 100
_NO_REFERENCE = (
    "DICOM output needs DICOM input, whose patient and study it belongs to; "
    "write .nii.gz, .nrrd or .mha instead"
)

# True of the source's pixels or files only.
_STALE = (
    "SliceLocation",
    "SourceImageSequence",
    "DerivationCodeSequence",
    "ReferencedSeriesSequence",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane",
    "LargestImagePixelValueInPlane",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelAspectRatio",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "FrameIncrementPointer",
    "ImagesInAcquisition",
    "InstanceCreatorUID",
    "PixelDataProviderURL",
    "OriginalAttributesSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "EncryptedAttributesSequence",
    "FileSetID",
)
# Type 2: must be there, may be empty. Source: DICOM PS3.3 A.3 (CT), A.4 (MR).
_MAY_BE_EMPTY = {
    "CT": ("KVP", "AcquisitionNumber"),
    "MR": ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
    "all": (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "Manufacturer",
        "PositionReferenceIndicator",
    ),
}


@quiet
def check_writable(volume: Volume) -> DicomReference:
    """Refuse what no derived series can be made of, before anything is computed.

    Args:
        volume: the volume to write, or the scan that it will be computed from.

    Returns:
        The reference to the source series.

    Raises:
        OutputFormatError: if the volume did not come from DICOM or its axes are not orthogonal.
    """
    reference = None if volume.source is None else volume.source.header
    if not isinstance(reference, DicomReference):
        raise OutputFormatError(_NO_REFERENCE)
    if not volume.geometry.is_orthogonal():
        raise OutputFormatError(
            "the axes of the volume are not orthogonal, which a DICOM series cannot hold; "
            "write .nii.gz instead"
        )
    return reference


@quiet
def write_dicom(volume: Volume, folder: Path, *, derivation: Derivation | None = None) -> None:
    """Write a derived series, one file per slice along array axis 2.

    Rows are array axis 1 and columns axis 0. Study, patient and frame of reference are the
    source's; series and instances are new. CT is stored as int16 HU; MR in 16 bits with the
    source's sign, and with a slope only where the source had one or its range asks for it. Values
    outside the range saturate. A multi-frame source gives a single-frame series.

    Args:
        volume: read from DICOM, on any grid with orthogonal axes.
        folder: where the files go; made if absent. The files are named by InstanceNumber.
        derivation: how the voxels were computed; None for plain resampling.

    Raises:
        OutputFormatError: if the volume did not come from DICOM or its axes are not orthogonal.
        NonFiniteError: if voxels are NaN or infinite.
        OSError: if a file cannot be written.

    Source: DICOM PS3.3 C.7.6.1 (derivation), C.7.6.2 (plane), C.11.1 (modality LUT).
    """
    check_writable(volume)
    if volume.data.dtype.kind == "f" and not np.isfinite(volume.data).all():
        raise NonFiniteError("the result holds NaN or infinity, which DICOM cannot store")
    scaling = dicom_scaling(source_of(volume), range_of(volume.data))
    series = DerivedSeries(volume, folder, scaling, derivation)
    series.append(scaling.stored(volume.data))


class DerivedSeries:
    """A derived series under way: takes stored planes, writes one file for each.

    Args:
        outline: grid and source of what will be written; its voxels are not looked at.
        folder: where the files go; made if absent.
        scaling: of the planes; see :func:`dicom_scaling`.
        derivation: see :func:`write_dicom`.

    Raises:
        OutputFormatError: as :func:`write_dicom`.
    """

    @quiet
    def __init__(
        self,
        outline: Volume,
        folder: Path,
        scaling: Scaling,
        derivation: Derivation | None = None,
    ) -> None:
        self._reference = reference = check_writable(outline)
        self._folder, self._geometry = folder, outline.geometry
        folder.mkdir(parents=True, exist_ok=True)
        self._uids = DerivedUids.of(None if derivation is None else derivation.request)
        self._dataset = _series_attributes(outline.geometry, reference, derivation, scaling.dtype)
        self._dataset.SeriesInstanceUID = self._uids.series
        _set_rescale(self._dataset, reference, scaling)
        self._written = 0

    @quiet
    def append(self, stored: npt.NDArray[Any]) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""
        origin, spacing, direction = self._geometry.to_lps()
        step = np.asarray(direction)[:, 2] * spacing[2]
        count = self._geometry.shape[2]
        rises = _numbers_rise(self._geometry, self._reference)
        dataset = self._dataset
        for k in range(stored.shape[2]):
            plane = np.ascontiguousarray(stored[:, :, k].T)
            index = self._written
            number = index + 1 if rises else count - index
            dataset.SOPInstanceUID = self._uids.instance(number)
            dataset.InstanceNumber = number
            dataset.ImagePositionPatient = _decimals(np.asarray(origin) + index * step)
            dataset.SourceImageSequence = _source_images(self._geometry, self._reference, index)
            dataset.SmallestImagePixelValue = int(plane.min())
            dataset.LargestImagePixelValue = int(plane.max())
            dataset.PixelData = plane.tobytes()
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(self._folder / f"IM{number:05d}.dcm", enforce_file_format=True)
            self._written += 1


def dicom_scaling(source: Source, value_range: ValueRange) -> Scaling:
    """16-bit numbers with the slope and intercept exactly as a decimal string will hold them.

    Args:
        source: of a volume that came from DICOM.
        value_range: of the native values.
    """
    reference = source.header
    if not isinstance(reference, DicomReference):
        raise OutputFormatError(_NO_REFERENCE)
    if reference.modality == "CT":
        return Scaling(np.dtype("<i2"))
    dtype = np.dtype("<i2" if reference.signed else "<u2")
    slope, intercept = reference.slope, reference.intercept
    short = source.dtype.kind in "iu" and source.dtype.itemsize <= 2
    if (slope, intercept) == (1.0, 0.0) and short:
        return Scaling(dtype)
    info = np.iinfo(dtype)
    low, high = value_range()
    ends = sorted(((low - intercept) / slope, (high - intercept) / slope))
    if ends[0] < info.min - 0.5 or ends[1] > info.max + 0.5:
        wider = max((high - low) / _STORED_STEPS, float(np.finfo(np.float32).tiny))
        slope = float(format_number_as_ds(wider * (1.0 + 1e-9)))
        intercept = low - slope * info.min
    slope, intercept = (float(format_number_as_ds(float(value))) for value in (slope, intercept))
    return Scaling(dtype, slope, intercept)


def _series_attributes(
    geometry: Geometry,
    reference: DicomReference,
    derivation: Derivation | None,
    dtype: np.dtype[Any],
) -> Dataset:
    """Everything that the images of the new series share, except for the rescale."""
    dataset = Dataset()
    dataset.update(reference.attributes)
    for name in _STALE:
        dataset.pop(Tag(name), None)
    modality = reference.modality
    now = datetime.datetime.now()
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    dataset.Modality = modality
    dataset.ImageType = ["DERIVED", "SECONDARY", *_image_type_rest(dataset, modality)]
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not dataset.get(name):
            setattr(dataset, name, generate_uid(prefix=None))
    dataset.SeriesNumber = _series_number(dataset.get("SeriesNumber"))
    dataset.SeriesDescription = f"{str(dataset.get('SeriesDescription', ''))[:58]} medsr".strip()
    dataset.InstanceCreationDate = dataset.ContentDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.ContentTime = now.strftime("%H%M%S")
    for name in (*_MAY_BE_EMPTY["all"], *_MAY_BE_EMPTY[modality]):
        if name not in dataset:
            setattr(dataset, name, None)
    _set_plane(dataset, geometry)
    _set_derivation(dataset, derivation)
    if reference.lossy:
        dataset.LossyImageCompression = "01"
    dataset.SamplesPerPixel = 1
    if dataset.get("PhotometricInterpretation") != "MONOCHROME1":
        dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(dtype.kind == "i")
    return dataset


def _image_type_rest(dataset: Dataset, modality: str) -> list[str]:
    """The source's image type from its third value on, which CT and MR must have."""
    value = dataset.get("ImageType") or []
    rest = [] if isinstance(value, str) else [str(part) for part in value[2:]]
    return rest or ["AXIAL" if modality == "CT" else "OTHER"]


def _series_number(source: Any) -> int:
    """A number that follows from the source's: 7 gives 701; without one, 1."""
    try:
        number = int(source)
    except (TypeError, ValueError):  # absent, empty or damaged
        number = 0
    derived = number * _SERIES_NUMBER_FACTOR + 1
    return derived if abs(derived) < 2**31 else 1


def _set_plane(dataset: Dataset, geometry: Geometry) -> None:
    _, spacing, direction = geometry.to_lps()
    columns, rows, _ = geometry.shape
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelSpacing = _decimals([spacing[1], spacing[0]])
    dataset.ImageOrientationPatient = _decimals(np.asarray(direction)[:, :2].T.ravel())
    dataset.SliceThickness = dataset.SpacingBetweenSlices = _decimals([spacing[2]])[0]


def _set_derivation(dataset: Dataset, derivation: Derivation | None) -> None:
    """Say in words and codes how the images came to be.

    Source: DICOM PS3.16 CID 7203 (derivation), CID 7005 (contributing equipment).
    """
    version = medsr.__version__ if derivation is None else derivation.version
    description, detail = "Resampled by medsr", "medsr"
    equipment = Dataset()
    if derivation is not None:
        scale = " x ".join(f"{factor:g}" for factor in derivation.scale)
        detail = f"model {derivation.model}, weights sha256 {derivation.weight_hash}"
        description = f"{derivation.description} (medsr {version}, {detail}, scale {scale})"
        equipment.ManufacturerModelName = _text(derivation.model, 64)
    dataset.DerivationDescription = _text(description, 1024)
    dataset.DerivationCodeSequence = [_code("113085", "Spatial resampling")]
    equipment.PurposeOfReferenceCodeSequence = [_code("109103", "Modifying Equipment")]
    equipment.Manufacturer = "medsr"
    equipment.SoftwareVersions = _text(version, 64)
    equipment.ContributionDateTime = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
    equipment.ContributionDescription = _text(detail, 1024)
    earlier = list(dataset.get("ContributingEquipmentSequence") or [])
    dataset.ContributingEquipmentSequence = Sequence([*earlier, equipment])


def _set_rescale(
    dataset: Dataset,
    reference: DicomReference,
    scaling: Scaling,
) -> None:
    """One pair for the whole series, where there is anything to say; padding goes along."""
    slope, intercept = scaling.slope, scaling.intercept
    kind = "HU" if reference.modality == "CT" else str(dataset.get("RescaleType") or "US")
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        dataset.pop(Tag(name), None)
    if reference.rescale_stated or (slope, intercept) != (1.0, 0.0) or kind == "HU":
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimals([slope, intercept])
        dataset.RescaleType = kind
    if reference.padding is not None:
        padding = round((reference.padding - intercept) / slope)
        if np.iinfo(scaling.dtype).min <= padding <= np.iinfo(scaling.dtype).max:
            dataset.PixelPaddingValue = padding


def _numbers_rise(geometry: Geometry, reference: DicomReference) -> bool:
    """Whether InstanceNumber rises along array axis 2, as it does in space in the source."""
    ours, theirs = geometry.directions[:, 2], reference.geometry.directions[:, 2]
    same_way = float(ours @ theirs) >= 0.0
    return reference.number_rises == same_way


def _source_images(geometry: Geometry, reference: DicomReference, index: int) -> Sequence:
    """References to the source slices between which slice ``index`` lies."""
    last_x, last_y = geometry.shape[0] - 1, geometry.shape[1] - 1
    corners = [(x, y, index) for x in (0, last_x) for y in (0, last_y)]
    places = reference.geometry.world_to_voxel(geometry.voxel_to_world(corners))[:, 2]
    last = len(reference.images) - 1
    low = int(np.clip(np.floor(places.min() + 1e-4), 0, last))
    high = int(np.clip(np.ceil(places.max() - 1e-4), 0, last))
    return Sequence([_source_item(image) for image in reference.images[low : max(low, high) + 1]])


def _source_item(image: SourceImage) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.sop_class
    item.ReferencedSOPInstanceUID = image.sop_instance
    if image.frame is not None:
        item.ReferencedFrameNumber = image.frame
    item.PurposeOfReferenceCodeSequence = [
        _code("121322", "Source image for image processing operation")
    ]
    return item


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "DCM"
    item.CodeMeaning = meaning
    return item


def _decimals(values: Any) -> list[DSfloat]:
    """Numbers as DICOM decimal strings of at most 16 characters."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def _text(value: str, limit: int) -> str:
    """Plain ASCII on one line, which every character set of DICOM holds."""
    plain = value.encode("ascii", "replace").decode("ascii").replace("\\", "/")
    return " ".join(plain.split())[:limit]

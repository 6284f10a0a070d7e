"""What derived images say of themselves: how they came to be, of what, and by which machine.

Used for single-frame series (``classic``) and multi-frame objects (``enhanced``). What
passes from the source is chosen in ``dicom.read.reference``.
"""

from __future__ import annotations

import copy
import datetime
import logging
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from medsr._version import __version__
from medsr.geometry import Geometry
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.read.reference import DicomReference, SourceImage
from medsr.io.scaling import Scaling
from medsr.volume import Derivation

logger = logging.getLogger(__name__)

SERIES_NUMBER_STEP = 1000
_MARK = " medsr"
_MOST_NUMBER = 2**31 - 1
_LONG_STRING = 64  # LO and ST; PS3.5 6.2
_SHORT_TEXT = 1024

# True of the source's pixels or files only.
_STALE = (
    "SliceLocation",
    "SourceImageSequence",
    "SourceImageEvidenceSequence",
    "ReferencedImageSequence",
    "ReferencedImageEvidenceSequence",
    "DerivationCodeSequence",
    "ReferencedSeriesSequence",
    "RealWorldValueMappingSequence",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestImagePixelValueInPlane",
    "LargestImagePixelValueInPlane",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelAspectRatio",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
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
    "ConversionSourceAttributesSequence",
)
# Type 2 in both classes: must be there, may be empty. Source: DICOM PS3.3 A.3, A.4, A.36, A.38.
_MAY_BE_EMPTY = (
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
)


def lasting_attributes(reference: DicomReference) -> Dataset:
    """The source's attributes that are still true; the source's own are not touched."""
    # Items are edited on the way, and the source may be written more than once.
    dataset = copy.deepcopy(reference.attributes)
    for name in _STALE:
        dataset.pop(Tag(name), None)
    return dataset


def set_identity(dataset: Dataset, options: DicomOptions) -> None:
    """Series description and number, study and frame of reference where they are missing."""
    description, number = options.series_description, options.series_number
    if description is None:
        source = str(dataset.get("SeriesDescription") or "")
        description = f"{source[: _LONG_STRING - len(_MARK)].rstrip()}{_MARK}".strip()
    dataset.SeriesDescription = description
    dataset.SeriesNumber = (
        _derived_number(dataset.get("SeriesNumber")) if number is None else number
    )
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not dataset.get(name):
            setattr(dataset, name, generate_uid(prefix=None))
    now = datetime.datetime.now()
    dataset.InstanceCreationDate = dataset.ContentDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.ContentTime = now.strftime("%H%M%S")


def _derived_number(source: Any) -> int:
    """A number that follows from the source's: 7 gives 1007; without one, 1000."""
    try:
        number = int(source)
    except (TypeError, ValueError):  # absent, empty or damaged
        number = 0
    derived = number + SERIES_NUMBER_STEP
    return derived if derived <= _MOST_NUMBER else SERIES_NUMBER_STEP


def set_pixel_format(dataset: Dataset, reference: DicomReference, scaling: Scaling) -> None:
    """The type of the stored numbers; the value that means "no data" goes along."""
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = int(scaling.dtype.kind == "i")
    if reference.lossy:
        dataset.LossyImageCompression = "01"
    if reference.padding is not None:
        padding = round((reference.padding - scaling.intercept) / scaling.slope)
        if np.iinfo(scaling.dtype).min <= padding <= np.iinfo(scaling.dtype).max:
            dataset.PixelPaddingValue = padding


def rescale_type(reference: DicomReference) -> str:
    """The unit that the source's slices state; HU or "unspecified" where they state none."""
    stated = str(reference.attributes.get("RescaleType") or "").strip()
    return stated or ("HU" if reference.modality == "CT" else "US")


def set_derivation(dataset: Dataset, derivation: Derivation | None) -> None:
    """Say in words and codes how the images came to be.

    Source: DICOM PS3.16 CID 7203 (derivation), CID 7005 (contributing equipment).
    """
    version = __version__ if derivation is None else derivation.version
    description, detail = "Resampled by medsr", "medsr"
    equipment = Dataset()
    if derivation is not None:
        detail = f"model {derivation.model}, weights sha256 {derivation.weight_hash}"
        description = _described(derivation)
        equipment.ManufacturerModelName = plain_text(derivation.model, _LONG_STRING)
    dataset.DerivationDescription = plain_text(description, _SHORT_TEXT)
    dataset.DerivationCodeSequence = [resampling_code()]
    equipment.PurposeOfReferenceCodeSequence = [code("109103", "Modifying Equipment")]
    equipment.Manufacturer = "medsr"
    equipment.SoftwareVersions = plain_text(version, _LONG_STRING)
    equipment.ContributionDateTime = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
    equipment.ContributionDescription = plain_text(detail, _SHORT_TEXT)
    earlier = list(dataset.get("ContributingEquipmentSequence") or [])
    dataset.ContributingEquipmentSequence = Sequence([*earlier, equipment])


def _described(derivation: Derivation) -> str:
    """The derivation's own sentence, and of the facts those that it does not say.

    Too long a sentence is cut, and no fact.
    """
    sentence = plain_text(derivation.description, _SHORT_TEXT)
    facts = [
        plain_text(fact, _SHORT_TEXT)
        for fact in (
            f"medsr {derivation.version}",
            f"model {derivation.model}",
            f"weights sha256 {derivation.weight_hash}",
            f"scale {' x '.join(f'{factor:g}' for factor in derivation.scale)}",
        )
    ]
    missing = [
        fact for fact in facts if not re.search(rf"(?<![\w.]){re.escape(fact)}(?![\w.])", sentence)
    ]
    description = f"{sentence} ({', '.join(missing)})" if missing else sentence
    if len(description) <= _SHORT_TEXT:
        return description
    tail = f" ({', '.join(facts)})"
    return sentence[: max(0, _SHORT_TEXT - len(tail))].rstrip() + tail


def source_images(geometry: Geometry, reference: DicomReference, index: int) -> Sequence:
    """References to the source slices between which slice ``index`` lies."""
    last_x, last_y = geometry.shape[0] - 1, geometry.shape[1] - 1
    corners = [(x, y, index) for x in (0, last_x) for y in (0, last_y)]
    places = reference.geometry.world_to_voxel(geometry.voxel_to_world(corners))[:, 2]
    last = len(reference.images) - 1
    low = int(np.clip(np.floor(places.min() + 1e-4), 0, last))
    high = int(np.clip(np.ceil(places.max() - 1e-4), 0, last))
    near = reference.images[low : max(low, high) + 1]
    return Sequence(_source_items(chain.from_iterable(near)))


def _source_items(images: Iterable[SourceImage]) -> list[Dataset]:
    """One item per source file; the frames of a multi-frame file stand together."""
    items: dict[str, Dataset] = {}
    for image in images:
        item = items.setdefault(image.sop_instance, Dataset())
        item.ReferencedSOPClassUID = image.sop_class
        item.ReferencedSOPInstanceUID = image.sop_instance
        if image.frame is not None:
            earlier = item.get("ReferencedFrameNumber", [])
            listed = [earlier] if isinstance(earlier, int) else list(earlier)
            # Planes that were interpolated may come from one frame.
            item.ReferencedFrameNumber = list(dict.fromkeys([*listed, image.frame]))
        item.PurposeOfReferenceCodeSequence = [
            code("121322", "Source image for image processing operation")
        ]
    return list(items.values())


def file_meta(dataset: Dataset) -> FileMetaDataset:
    """What stands before the data set in a file of uncompressed, little-endian pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return meta


def add_empty(dataset: Dataset, names: tuple[str, ...]) -> None:
    """Add empty what must be there and is unknown: ``names``, and what any image must have."""
    for name in (*_MAY_BE_EMPTY, *names):
        if name not in dataset:
            setattr(dataset, name, None)


def log_notes(sentences: tuple[str, ...]) -> None:
    """Log what was repaired."""
    for sentence in sentences:
        logger.info("%s", sentence)


def numbers_rise(geometry: Geometry, reference: DicomReference) -> bool:
    """Whether InstanceNumber rises along array axis 2, as it does in space in the source."""
    result, source = geometry.directions[:, 2], reference.geometry.directions[:, 2]
    return reference.number_rises == (float(result @ source) >= 0.0)


def image_type_rest(dataset: Dataset) -> list[str]:
    """The source's image type from its third value on."""
    value = dataset.get("ImageType") or []
    return [] if isinstance(value, str) else [str(part) for part in value[2:]]


def set_measures(dataset: Dataset, geometry: Geometry) -> None:
    """Set the spacing within and between slices, in mm."""
    x_mm, y_mm, z_mm = geometry.spacing
    dataset.PixelSpacing = decimals([y_mm, x_mm])
    dataset.SliceThickness = dataset.SpacingBetweenSlices = decimals([z_mm])[0]


def orientation(geometry: Geometry) -> list[DSfloat]:
    """ImageOrientationPatient: the directions of rows and columns, LPS+."""
    _, _, direction = geometry.to_lps()
    return decimals(np.asarray(direction)[:, :2].T.ravel())


def resampling_code() -> Dataset:
    """Source: DICOM PS3.16 CID 7203."""
    return code("113085", "Spatial resampling")


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def decimals(values: Any) -> list[DSfloat]:
    """Numbers as DICOM decimal strings of at most 16 characters."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]


def plain_text(value: str, limit: int) -> str:
    """Plain ASCII on one line, which every character set of DICOM holds."""
    plain = value.encode("ascii", "replace").decode("ascii").replace("\\", "/")
    return " ".join(plain.split())[:limit]

"""What medsr reads from the headers of DICOM files: one SliceHeader per slice or frame.

Here lives the parsing of a file's attributes (single-frame and enhanced multi-frame) into plain
values. Whether slices make a volume is judged in ``dicom_stack``; pixels are in ``dicom_pixels``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydicom import uid
from pydicom.dataset import Dataset

from medsr.errors import CorruptFileError
from medsr.volume import Modality

T = TypeVar("T")
Vector = tuple[float, ...]

SINGLE_FRAME: dict[str, Modality] = {uid.CTImageStorage: "CT", uid.MRImageStorage: "MR"}
MULTI_FRAME: dict[str, Modality] = {
    uid.EnhancedCTImageStorage: "CT",
    uid.LegacyConvertedEnhancedCTImageStorage: "CT",
    uid.EnhancedMRImageStorage: "MR",
    uid.LegacyConvertedEnhancedMRImageStorage: "MR",
}
READABLE: dict[str, Modality] = {**SINGLE_FRAME, **MULTI_FRAME}

# What can tell apart two images of one place, in the order in which people would name it.
_CONTRAST = (
    "ImageType",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "InversionTime",
    "TriggerTime",
    "FlipAngle",
    "KVP",
    "ConvolutionKernel",
    "AcquisitionNumber",
)
# The same for the frames of an enhanced object: (functional group, attribute).
_FRAME_CONTRAST = (
    ("MRImageFrameTypeSequence", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("CTImageFrameTypeSequence", "FrameType"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "StackID"),
    ("MRDiffusionSequence", "DiffusionBValue"),
    ("MRDiffusionSequence", "DiffusionDirectionality"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
)
_SIEMENS_CREATOR = (0x0019, 0x0010)
_SIEMENS_IMAGES_IN_MOSAIC = (0x0019, 0x100A)

HEADER_TAGS: list[Any] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "BitsAllocated",
    "PixelRepresentation",
    "PixelPaddingValue",
    "GantryDetectorTilt",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *_CONTRAST,
    (_SIEMENS_CREATOR[0] << 16) + _SIEMENS_CREATOR[1],
    (_SIEMENS_IMAGES_IN_MOSAIC[0] << 16) + _SIEMENS_IMAGES_IN_MOSAIC[1],
]


@dataclass(frozen=True)
class SliceHeader:
    """One slice as its header describes it; nothing here names a patient.

    Args:
        path: the file.
        frame: index of the frame in a multi-frame file, from 0; None for a single-frame file.
        sop_class: SOP Class UID.
        sop_instance: SOP Instance UID.
        series: Series Instance UID.
        modality: "CT" or "MR", by SOP class.
        number: InstanceNumber, or the frame's number from 1; None if absent.
        rows: pixels along array axis Y.
        columns: pixels along array axis X.
        position: LPS+ centre of the first pixel in mm; None if absent.
        orientation: row then column cosines, LPS+; None if absent.
        pixel_spacing: mm between rows, mm between columns; None if absent.
        slope: native value = stored * slope + intercept.
        intercept: see ``slope``.
        has_rescale: whether the file states slope and intercept.
        dtype: type of the stored pixels as announced, such as "int16".
        padding: stored value that marks "no data"; None if absent.
        tilt_degrees: GantryDetectorTilt as the file states it; None if absent.
        contrast: (attribute, value) pairs that can tell apart images of one place.
        kind: "colour", "mosaic", "localizer" or "slice".

    Source: DICOM PS3.3 C.7.6.2 (plane), C.7.6.3 (pixel), C.7.6.16 (functional groups).
    """

    path: Path
    frame: int | None
    sop_class: str
    sop_instance: str
    series: str
    modality: Modality
    number: int | None
    rows: int
    columns: int
    position: Vector | None
    orientation: Vector | None
    pixel_spacing: Vector | None
    slope: float
    intercept: float
    has_rescale: bool
    dtype: str
    padding: int | None
    tilt_degrees: float | None
    contrast: tuple[tuple[str, str], ...]
    kind: str

    @property
    def label(self) -> str:
        """How a message calls this slice: its number, else its file name."""
        if self.number is None:
            return f"file {self.path.name}"
        return f"{'image' if self.frame is None else 'frame'} {self.number}"


def slice_headers(dataset: Dataset, path: Path) -> list[SliceHeader]:
    """The slices of one CT or MR file of a readable SOP class.

    Args:
        dataset: the file's attributes; pixel data are not needed.
        path: the file, for later reading and for its name in messages.

    Returns:
        One header for a single-frame file, one per frame for an enhanced one.

    Raises:
        CorruptFileError: if an attribute that every image has is absent or malformed.
    """
    if str(dataset.SOPClassUID) not in MULTI_FRAME:
        return [_header(dataset, path, None, _flat(dataset))]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    count = _value(dataset, "NumberOfFrames", int, path) or 1
    if len(frames) != count:
        raise CorruptFileError(
            f"{path.name}: {count} frames are announced and {len(frames)} are described; "
            "export the series again"
        )
    return [
        _header(dataset, path, index, functional_groups(shared[0], frame, dataset))
        for index, frame in enumerate(frames)
    ]


def functional_groups(shared: Dataset, frame: Dataset, top: Dataset) -> Callable[[str], Dataset]:
    """Look-up of one frame's functional groups: the frame's own, else the shared, else the top.

    Source: DICOM PS3.3 C.7.6.16.1.1.
    """

    def group(name: str) -> Dataset:
        for place in (frame, shared):
            if items := place.get(name):
                item: Dataset = items[0]
                return item
        return top

    return group


def _flat(dataset: Dataset) -> Callable[[str], Dataset]:
    """Single-frame files keep everything at the top."""
    return lambda _: dataset


def _header(
    dataset: Dataset, path: Path, frame: int | None, group: Callable[[str], Dataset]
) -> SliceHeader:
    """Read one slice through ``group``, which knows where its attributes are."""
    rescale = group("PixelValueTransformationSequence")
    slope = _value(rescale, "RescaleSlope", float, path)
    intercept = _value(rescale, "RescaleIntercept", float, path)
    rows, columns = (_value(dataset, name, int, path) for name in ("Rows", "Columns"))
    instance, series = dataset.get("SOPInstanceUID"), dataset.get("SeriesInstanceUID")
    if not (rows and columns and instance and series):
        raise CorruptFileError(
            f"{path.name}: Rows, Columns, SOPInstanceUID or SeriesInstanceUID is missing; "
            "the file is cut short or damaged, export it again"
        )
    if rescale.get("ModalityLUTSequence") or slope == 0.0:
        raise CorruptFileError(
            f"{path.name}: its values have no linear rescale (a lookup table or a slope of 0); "
            "export the series with RescaleSlope and RescaleIntercept"
        )
    return SliceHeader(
        path=path,
        frame=frame,
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(instance),
        series=str(series),
        modality=READABLE[str(dataset.SOPClassUID)],
        number=_value(dataset, "InstanceNumber", int, path) if frame is None else frame + 1,
        rows=rows,
        columns=columns,
        position=_vector(group("PlanePositionSequence"), "ImagePositionPatient", 3, path),
        orientation=_vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6, path),
        pixel_spacing=_vector(group("PixelMeasuresSequence"), "PixelSpacing", 2, path),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        has_rescale=slope is not None and intercept is not None,
        dtype=_dtype(dataset, path),
        padding=_padding(dataset, path),
        tilt_degrees=_value(dataset, "GantryDetectorTilt", float, path),
        contrast=_contrast(dataset, frame, group),
        kind=_kind(dataset),
    )


def is_colour(dataset: Dataset) -> bool:
    """Whether the image holds RGB, YBR or palette colour."""
    samples = dataset.get("SamplesPerPixel") or 1
    return int(samples) > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"


def _kind(dataset: Dataset) -> str:
    if is_colour(dataset):
        return "colour"
    image_type = [str(part).upper() for part in _listed(dataset.get("ImageType"))]
    siemens = "SIEMENS MR HEADER" in str(dataset.get(_SIEMENS_CREATOR, ""))
    if "MOSAIC" in image_type or (siemens and _SIEMENS_IMAGES_IN_MOSAIC in dataset):
        return "mosaic"
    return "localizer" if "LOCALIZER" in image_type else "slice"


def _contrast(
    dataset: Dataset, frame: int | None, group: Callable[[str], Dataset]
) -> tuple[tuple[str, str], ...]:
    if frame is None:
        pairs = [(name, dataset.get(name)) for name in _CONTRAST]
    else:
        pairs = [(name, group(place).get(name)) for place, name in _FRAME_CONTRAST]
    return tuple(
        (name, "\\".join(str(part) for part in _listed(value)))
        for name, value in pairs
        if value not in (None, "")
    )


def _dtype(dataset: Dataset, path: Path) -> str:
    bits = _value(dataset, "BitsAllocated", int, path)
    if bits is None:  # floating point pixels say so by their own element
        return "float32"
    return f"{'int' if dataset.get('PixelRepresentation') == 1 else 'uint'}{bits}"


def _padding(dataset: Dataset, path: Path) -> int | None:
    """PixelPaddingValue, read as signed where the pixels are, whatever VR the file claims."""
    value = _value(dataset, "PixelPaddingValue", int, path)
    if value is not None and dataset.get("PixelRepresentation") == 1 and value > 32767:
        value -= 65536
    return value


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else value


def _value(dataset: Dataset, name: str, kind: Callable[[Any], T], path: Path) -> T | None:
    """One number, None if absent or empty."""
    try:
        value = dataset.get(name)
        return None if value in (None, "") else kind(value)
    except (ValueError, TypeError, ArithmeticError, NotImplementedError):
        raise CorruptFileError(
            f"{path.name}: {name} is not a number; export the file again"
        ) from None


def _vector(dataset: Dataset, name: str, length: int, path: Path) -> Vector | None:
    """``length`` numbers, None if absent or empty."""
    try:
        value = dataset.get(name)
        if value in (None, "") or len(value) == 0:
            return None
        numbers = tuple(float(part) for part in value)
    except (ValueError, TypeError, ArithmeticError, NotImplementedError):
        numbers = ()
    if len(numbers) != length:
        raise CorruptFileError(
            f"{path.name}: {name} does not hold {length} numbers; export the file again"
        )
    return numbers

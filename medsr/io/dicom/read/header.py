"""What medsr reads from the headers of DICOM files: one SliceHeader per slice or frame.

The parsing of a file's attributes (single-frame and enhanced multi-frame) into plain
values. Whether slices make a volume is judged in ``stack``; pixels are in ``pixels``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset

from medsr.errors import CorruptFileError, MissingGeometryError
from medsr.io.dicom.read.contrast import CONTRAST_TAGS, Contrast, Times, contrast_of, times_of
from medsr.io.dicom.read.padding import PaddingRule, padding_rule
from medsr.io.dicom.read.scaling import SCALING_TAGS, Rescale, rescale_of
from medsr.io.dicom.read.sources import DicomFile
from medsr.io.dicom.read.values import Vector, listed, number, vector
from medsr.volume import Modality

SINGLE_FRAME: dict[str, Modality] = {uid.CTImageStorage: "CT", uid.MRImageStorage: "MR"}
MULTI_FRAME: dict[str, Modality] = {
    uid.EnhancedCTImageStorage: "CT",
    uid.LegacyConvertedEnhancedCTImageStorage: "CT",
    uid.EnhancedMRImageStorage: "MR",
    uid.LegacyConvertedEnhancedMRImageStorage: "MR",
}
READABLE: dict[str, Modality] = {**SINGLE_FRAME, **MULTI_FRAME}

_FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")
_MOSAICS = {"MOSAIC", "VFRAME"}
"""What ImageType says of many slices tiled in one picture: Siemens' word and United Imaging's."""
# How dcmtk's dcmodify writes the same series into all files, or an instance into each.
_MISSING_UID = {
    "SeriesInstanceUID": "SeriesInstanceUID=2.25.1 (the same into all files of the series)",
    "SOPInstanceUID": "SOPInstanceUID=2.25.1 (another into each file)",
}
_SIEMENS_CREATOR = (0x0019, 0x0010)
_SIEMENS_IMAGES_IN_MOSAIC = (0x0019, 0x100A)

HEADER_TAGS: list[Any] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "InstanceNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    *SCALING_TAGS,
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ConcatenationUID",
    "GantryDetectorTilt",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *CONTRAST_TAGS,
    (_SIEMENS_CREATOR[0] << 16) + _SIEMENS_CREATOR[1],
    (_SIEMENS_IMAGES_IN_MOSAIC[0] << 16) + _SIEMENS_IMAGES_IN_MOSAIC[1],
]


@dataclass(frozen=True)
class SliceHeader:
    """One slice as its header describes it; nothing here names a patient.

    Args:
        file: the file.
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
        rescale: native value = stored * slope + intercept.
        dtype: type of the stored pixels as announced, such as "int16".
        padding_rule: which stored values mark "no data"; None if the file states none.
        tilt_degrees: GantryDetectorTilt as the file states it; None if absent.
        contrast: (attribute, value) pairs that can tell apart images of one place.
        kind: "colour", "mosaic", "localizer" or "slice".
        times: (attribute, (date, time)) of each clock; never shown.

    Source: DICOM PS3.3 C.7.6.2 (plane), C.7.6.3 (pixel), C.7.6.16 (functional groups).
    """

    file: DicomFile
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
    rescale: Rescale
    dtype: str
    padding_rule: PaddingRule | None
    tilt_degrees: float | None
    contrast: Contrast
    kind: str
    times: Times = ()

    @property
    def slope(self) -> float:
        """Native value = stored * slope + intercept."""
        return self.rescale.slope

    @property
    def intercept(self) -> float:
        """See ``slope``; in native units."""
        return self.rescale.intercept

    @property
    def has_rescale(self) -> bool:
        """Whether the file states slope and intercept."""
        return self.rescale.stated

    @property
    def padding(self) -> int | None:
        """The stored value that all padding is given; None if the file states none."""
        return None if self.padding_rule is None else self.padding_rule.value

    @property
    def label(self) -> str:
        """How a message calls this slice: its number, else its file's place."""
        if self.number is None:
            return self.file.name
        return f"{'image' if self.frame is None else 'frame'} {self.number}"


def slice_headers(dataset: Dataset, file: DicomFile) -> list[SliceHeader]:
    """The slices of one CT or MR file of a readable SOP class.

    Args:
        dataset: the file's attributes; pixel data are not needed.
        file: for later reading and for its name in messages.

    Returns:
        One header for a single-frame file, one per frame for an enhanced one.

    Raises:
        CorruptFileError: if an attribute that every image has is absent or malformed.
        MissingGeometryError: if nothing is said of the frames of an enhanced file.
    """
    if str(dataset.SOPClassUID) not in MULTI_FRAME:
        return [_header(dataset, file, None, dataset, _flat(dataset))]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    count = number(dataset, "NumberOfFrames", int, file.name) or 1
    if not frames:
        raise MissingGeometryError(
            f"{file.name}: {count} frame(s) and no functional groups of them: nothing says where "
            "they lie; export the series again"
        )
    if len(frames) != count:
        raise CorruptFileError(
            f"{file.name}: {count} frames are announced and {len(frames)} are described; "
            "export the series again"
        )
    return [
        _header(dataset, file, index, frame, functional_groups(shared[0], frame, dataset))
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
    dataset: Dataset,
    file: DicomFile,
    frame: int | None,
    own: Dataset,
    group: Callable[[str], Dataset],
) -> SliceHeader:
    """Read one slice through ``group``, which knows where its attributes are."""
    where = file.name
    rows, columns = (number(dataset, name, int, where) for name in ("Rows", "Columns"))
    instance, series = dataset.get("SOPInstanceUID"), dataset.get("SeriesInstanceUID")
    if not (rows and columns) or rows < 0 or columns < 0:
        raise CorruptFileError(
            f"{where}: Rows or Columns is missing; the file is cut short or no image, export it "
            "again or take it out of the folder"
        )
    if not (instance and series):
        name = "SOPInstanceUID" if series else "SeriesInstanceUID"
        raise CorruptFileError(
            f"{where}: {name} is missing, without which files are not known apart or together; "
            f"export the series again, or write it with dcmodify -i {_MISSING_UID[name]}"
        )
    modality = READABLE[str(dataset.SOPClassUID)]
    dtype = _dtype(dataset, where)
    return SliceHeader(
        file=file,
        frame=frame,
        sop_class=str(dataset.SOPClassUID),
        sop_instance=str(instance),
        series=str(series),
        modality=modality,
        number=number(dataset, "InstanceNumber", int, where) if frame is None else frame + 1,
        rows=rows,
        columns=columns,
        position=vector(group("PlanePositionSequence"), "ImagePositionPatient", 3, where),
        orientation=vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6, where),
        pixel_spacing=vector(group("PixelMeasuresSequence"), "PixelSpacing", 2, where),
        rescale=rescale_of(group, own, modality=modality, where=where),
        dtype=dtype,
        padding_rule=padding_rule(
            lambda name: number(dataset, name, int, where), modality=modality, dtype=dtype
        ),
        tilt_degrees=number(dataset, "GantryDetectorTilt", float, where),
        contrast=contrast_of(dataset, frame, group),
        kind=_kind(dataset, group),
        times=times_of(dataset, group),
    )


def is_colour(dataset: Dataset) -> bool:
    """Whether the image holds RGB, YBR or palette colour."""
    samples = dataset.get("SamplesPerPixel") or 1
    return int(samples) > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"


def _kind(dataset: Dataset, group: Callable[[str], Dataset]) -> str:
    if is_colour(dataset):
        return "colour"
    frame_types = [group(place).get("FrameType") for place in _FRAME_TYPES]
    values = [*listed(dataset.get("ImageType")), *(v for t in frame_types for v in listed(t))]
    image_type = [str(part).upper() for part in values]
    siemens = "SIEMENS MR HEADER" in str(dataset.get(_SIEMENS_CREATOR, ""))
    if _MOSAICS & set(image_type) or (siemens and _SIEMENS_IMAGES_IN_MOSAIC in dataset):
        return "mosaic"
    return "localizer" if "LOCALIZER" in image_type else "slice"


def _dtype(dataset: Dataset, where: str) -> str:
    bits = number(dataset, "BitsAllocated", int, where)
    if bits is None:  # floating point pixels say so by their own element
        return "float32"
    return f"{'int' if dataset.get('PixelRepresentation') == 1 else 'uint'}{bits}"

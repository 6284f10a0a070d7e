"""What a DICOM volume remembers of its source, so that a derived series can be written.

The choice of the attributes that may pass from the source to a derived image. They stay in memory
and never reach a log or report. What is added to them is in ``dicom.write``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from medsr.errors import OutputFormatError
from medsr.geometry import Geometry
from medsr.io.dicom.read.header import SliceHeader
from medsr.io.dicom.read.pixels import native_padding
from medsr.io.dicom.read.stack import Stack
from medsr.volume import Modality, Source

_PIXEL_TAGS = {
    Tag(name)
    for name in (
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "DataSetTrailingPadding",
        "IconImageSequence",
    )
}
_LOSSY = Tag("LossyImageCompression")
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"})
# They differ from slice to slice, and the middle one's serve all.
_MIDDLE_TAGS = {
    Tag(name)
    for name in (
        "WindowCenter",
        "WindowWidth",
        "WindowCenterWidthExplanation",
        "LossyImageCompressionRatio",
    )
}
# Functional groups that tell of the pixels or the place of the source's own frames.
_STALE_GROUPS = (
    "PlanePositionSequence",
    "PlanePositionVolumeSequence",
    "PlaneOrientationSequence",
    "PlaneOrientationVolumeSequence",
    "PixelMeasuresSequence",
    "FrameContentSequence",
    "PixelValueTransformationSequence",
    "RealWorldValueMappingSequence",
    "ReferencedImageSequence",
    "DerivationImageSequence",
)
# Differs from frame to frame, and the middle one's serves all.
_WINDOW_GROUP = "FrameVOILUTSequence"
_MULTI_FRAME_ONLY = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationType",
    "NumberOfFrames",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "ConcatenationFrameOffsetNumber",
    "SOPInstanceUIDOfConcatenationSource",
)


@dataclass(frozen=True)
class SourceImage:
    """One source slice as a derived image refers to it; ``frame`` counts from 1."""

    sop_class: str
    sop_instance: str
    frame: int | None


@dataclass(frozen=True)
class DicomReference:
    """The source series of a volume.

    Args:
        attributes: what all slices have in common (for windows and the ratio of compression: what
            the middle slice has), without pixels, private elements, overlays, icons and
            functional groups.
        groups: of a multi-frame source, the functional groups that all its frames share (for
            windows: the middle frame's), but for those of place and values; None for others.
        images: for each plane along axis 2 of ``geometry`` the source slice that it is, or the two
            that it was interpolated between.
        geometry: grid of the source.
        modality: "CT" or "MR", by the source's SOP class.
        number_rises: whether InstanceNumber rises along axis 2.
        signed: whether the stored pixels are signed.
        slope: the smallest slope of all slices.
        intercept: the intercept that goes with it.
        rescale_stated: whether the slices state slope and intercept.
        padding: native value that marks "no data"; None if the source has none.
        lossy: whether any slice was ever compressed with loss.
    """

    attributes: Dataset
    groups: Dataset | None
    images: tuple[tuple[SourceImage, ...], ...]
    geometry: Geometry
    modality: Modality
    number_rises: bool
    signed: bool
    slope: float
    intercept: float
    rescale_stated: bool
    padding: float | None
    lossy: bool

    @classmethod
    def of(cls, source: Source | None) -> DicomReference:
        """The reference of a volume's source.

        Raises:
            OutputFormatError: if it did not come from DICOM.
        """
        reference = None if source is None else source.header
        if not isinstance(reference, cls):
            raise OutputFormatError(
                "DICOM output needs DICOM input, whose patient and study it belongs to; "
                "write .nii.gz, .nrrd or .mha instead"
            )
        return reference

    @property
    def inverted(self) -> bool:
        """Whether low values are shown bright.

        Enhanced CT and MR images are MONOCHROME2 with an IDENTITY presentation by definition. To
        turn their values round instead would give numbers that are no HU.

        Source: DICOM PS3.3 C.7.6.3.1.2 (photometric interpretation), C.8.13.1, C.8.15.2 (enhanced).
        """
        return bool(self.attributes.get("PhotometricInterpretation") == "MONOCHROME1")

    @property
    def body_part(self) -> str:
        """What part of the body is shown, as the source has it; it may be anything."""
        stated = str(self.attributes.get("BodyPartExamined") or "")
        places = [self.attributes, *((self.groups or Dataset()).get("FrameAnatomySequence") or [])]
        regions = [code for place in places for code in place.get("AnatomicRegionSequence") or []]
        return stated or next((str(code.get("CodeMeaning") or "") for code in regions), "")


class CommonAttributes:
    """Collects, slice by slice, the attributes that every slice of a stack shares."""

    def __init__(self, stack: Stack) -> None:
        """Prepare to visit the slices of ``stack`` in order."""
        self._stack = stack
        self._middle = len(stack.slices) // 2
        self._common: dict[BaseTag, Any] = {}
        self._template = Dataset()
        self._last: object = None
        self._lossy = False

    def visit(self, index: int, dataset: FileDataset) -> None:
        """Take note of the slice with this array index."""
        if dataset is not self._last:
            current = dict(_lasting_elements(dataset))
            if self._last is None:
                self._common = current
            else:
                self._common = {
                    tag: raw
                    for tag, raw in self._common.items()
                    if tag in current and _same(raw, current[tag])
                }
            self._last = dataset
            self._lossy |= _is_lossy(dataset)
        if index == self._middle:
            self._template = dataset

    def reference(self, *, signed: bool) -> DicomReference:
        """The finished reference, once every slice was visited."""
        slices = self._stack.slices
        middle = slices[self._middle]
        remaining = [
            tag
            for tag, _ in _lasting_elements(self._template)
            if tag in self._common or tag in _MIDDLE_TAGS
        ]
        attributes = _decoded(self._template, remaining)
        groups = None
        if middle.frame is not None:
            frames = {h.frame for h in slices if h.sop_instance == middle.sop_instance}
            groups = _common_groups(attributes, middle.frame, frames)
            for name in _MULTI_FRAME_ONLY:
                attributes.pop(Tag(name), None)
        finest = min(slices, key=lambda header: abs(header.slope))
        return DicomReference(
            attributes=attributes,
            groups=groups,
            images=tuple(tuple(map(_source_image, headers)) for headers in self._stack.planes),
            geometry=self._stack.geometry,
            modality=middle.modality,
            number_rises=(slices[0].number or 0) <= (slices[-1].number or 0),
            signed=signed,
            slope=finest.slope,
            intercept=finest.intercept,
            rescale_stated=middle.has_rescale,
            padding=native_padding(slices),
            lossy=self._lossy,
        )


def _source_image(header: SliceHeader) -> SourceImage:
    frame = None if header.frame is None else header.frame + 1
    return SourceImage(header.sop_class, header.sop_instance, frame)


def _lasting_elements(dataset: Dataset) -> Iterator[tuple[BaseTag, Any]]:
    """Elements as read, undecoded where possible, without pixels, private groups and overlays."""
    for tag in sorted(dataset.keys()):
        if tag.is_private or tag in _PIXEL_TAGS or tag.group < 0x0008:
            continue
        if tag.group & 0xFF00 in (0x5000, 0x6000):  # curves and overlays, repeating groups
            continue
        yield tag, dataset.get_item(tag)


def _decoded(dataset: Dataset, tags: Iterable[BaseTag]) -> Dataset:
    """Public elements with their values decoded, at every depth.

    Undecoded values are bound to the source's byte order and character set, so that they must not
    be written into another file. What cannot be decoded is left out, and so is what has another
    value representation than the data dictionary gives it, for no writer could fill it.
    """
    decoded = Dataset()
    for tag in tags:
        if tag.is_private:
            continue
        try:
            element = _by_dictionary(dataset[tag])
            if element is None:
                continue
            if element.VR == "SQ":
                items = [_decoded(item, list(item.keys())) for item in element.value]
                element = DataElement(tag, "SQ", Sequence(items))
        except Exception:  # values are parsed on access, and fail in many ways
            continue
        decoded.add(element)
    return decoded


def _by_dictionary(element: DataElement) -> DataElement | None:
    """An element as the data dictionary has it; text stays text, other values are left out."""
    if not dictionary_has_tag(element.tag):
        return element
    right = dictionary_VR(element.tag).split(" or ")
    if element.VR in right:
        return element
    if element.VR in _TEXTS and right[0] in _TEXTS:
        return DataElement(element.tag, right[0], element.value)
    return None


def _is_lossy(dataset: FileDataset) -> bool:
    """What only the pixels tell was added when they were decoded; see ``dicom.read.decode``."""
    stated = _decoded(dataset, [tag for tag in (_LOSSY,) if tag in dataset])
    return bool(stated.get("LossyImageCompression") == "01")


def _same(first: Any, other: Any) -> bool:
    """Whether two elements hold the same value; raw ones carry their place in the file too."""
    if isinstance(first, DataElement) or isinstance(other, DataElement):
        return bool(first == other)
    return bool(first.VR == other.VR and first.value == other.value)


def _common_groups(attributes: Dataset, middle: int, frames: Iterable[int | None]) -> Dataset:
    """The functional groups of one frame that are the same in all ``frames``.

    Source: DICOM PS3.3 C.7.6.16.
    """
    shared = attributes.get("SharedFunctionalGroupsSequence") or [Dataset()]
    all_frames = attributes.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    used = [all_frames[frame] for frame in frames if frame is not None and frame < len(all_frames)]
    groups = Dataset()
    own = all_frames[min(middle, len(all_frames) - 1)]
    for place in (shared[0], own):  # a frame's own go before the shared ones
        for element in place:
            if element.VR != "SQ" or not element.value or element.keyword in _STALE_GROUPS:
                continue
            groups.pop(element.tag, None)
            alike = place is shared[0] or all(frame.get(element.tag) == element for frame in used)
            if alike or element.keyword == _WINDOW_GROUP:
                groups.add(element)
    return groups

"""The same facts in both kinds of image: attributes of single frames and functional groups.

``flattened`` puts a multi-frame source's groups where single-frame images keep them, ``grouped``
the other way round. Only what derived images may still say is moved; place, values and frame types
are made anew by the writers.
"""

from __future__ import annotations

from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from medsr.io.dicom.write.derived import code
from medsr.volume import Modality

# (group, its attribute, the single-frame attribute).
# Source: DICOM PS3.3 C.8.13.5, C.8.15.3 (groups), C.8.3.1, C.8.2.1 (single frames).
_PAIRS: dict[Modality, tuple[tuple[str, str, str], ...]] = {
    "MR": (
        ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
        ("MRTimingAndRelatedParametersSequence", "RepetitionTime", "RepetitionTime"),
        ("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
        ("MRTimingAndRelatedParametersSequence", "EchoTrainLength", "EchoTrainLength"),
        ("MRAveragesSequence", "NumberOfAverages", "NumberOfAverages"),
        ("MRImagingModifierSequence", "PixelBandwidth", "PixelBandwidth"),
        ("MRReceiveCoilSequence", "ReceiveCoilName", "ReceiveCoilName"),
        ("MRTransmitCoilSequence", "TransmitCoilName", "TransmitCoilName"),
    ),
    "CT": (
        ("CTXRayDetailsSequence", "KVP", "KVP"),
        ("CTXRayDetailsSequence", "FilterType", "FilterType"),
        ("CTExposureSequence", "ExposureTimeInms", "ExposureTime"),
        ("CTExposureSequence", "XRayTubeCurrentInmA", "XRayTubeCurrent"),
        ("CTExposureSequence", "ExposureInmAs", "Exposure"),
        ("CTReconstructionSequence", "ConvolutionKernel", "ConvolutionKernel"),
        ("CTReconstructionSequence", "ReconstructionDiameter", "ReconstructionDiameter"),
    ),
}
# Groups that are complete with what single-frame images say; others demand more than they know.
_COMPLETE = ("MREchoSequence", "MRAveragesSequence")
_WHOLE_NUMBERS = ("ExposureTime", "XRayTubeCurrent", "Exposure", "EchoTrainLength")
_WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
# Attributes of single frames that stay at the top of an enhanced object; some extend its class.
_TOP_OF_0018 = (
    "ScanningSequence",
    "SequenceVariant",
    "RepetitionTime",
    "FlipAngle",
    "KVP",
    "ConvolutionKernel",
    "ExposureTime",
    "XRayTubeCurrent",
    "Exposure",
    "ContrastBolusAgent",
    "BodyPartExamined",
    "MagneticFieldStrength",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ProtocolName",
    "PatientPosition",
)
_TOP_OF_0020 = (
    "StudyInstanceUID",
    "StudyID",
    "SeriesNumber",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "SynchronizationFrameOfReferenceUID",
    "Laterality",
    "ImageComments",
)
_TOP_OF_0028 = (
    "BurnedInAnnotation",
    "RecognizableVisualFeatures",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "PhotometricInterpretation",
)
_CHOSEN = {
    0x0018: {Tag(name) for name in _TOP_OF_0018},
    0x0020: {Tag(name) for name in _TOP_OF_0020},
    0x0028: {Tag(name) for name in _TOP_OF_0028},
}
_SINGLE_FRAME_OF_0008 = ("AnatomicRegionSequence", "AcquisitionDate", "AcquisitionTime")
# BodyPartExamined -> SNOMED concept. Source: DICOM PS3.16 table L-1.
_REGIONS = {
    "ABDOMEN": "Abdomen",
    "BRAIN": "Brain",
    "BREAST": "Breast",
    "CHEST": "Chest",
    "CSPINE": "CervicalSpine",
    "HEAD": "Head",
    "HEART": "Heart",
    "HIP": "HipJoint",
    "KNEE": "Knee",
    "LIVER": "Liver",
    "LSPINE": "LumbarSpine",
    "NECK": "Neck",
    "PELVIS": "Pelvis",
    "PROSTATE": "Prostate",
    "SHOULDER": "Shoulder",
    "SKULL": "Skull",
    "SPINE": "Spine",
    "TSPINE": "ThoracicSpine",
}


def flattened(attributes: Dataset, groups: Dataset, modality: Modality) -> None:
    """Put the groups of an enhanced source where single-frame images keep the same facts.

    Args:
        attributes: those at the top of the source; changed in place. What single-frame images
            have no place for goes.
        groups: the functional groups of its frames.
        modality: which class of image.
    """
    pulse = str(attributes.get("EchoPulseSequence") or "")
    nucleus = attributes.get("ResonantNucleus")
    inverted = attributes.get("InversionRecovery") == "YES"
    for tag in list(attributes.keys()):
        # Elements from 9000 on came into these groups with the enhanced classes.
        if tag.group in (0x0008, 0x0018, 0x0020, 0x0028) and tag.element >= 0x9000:
            del attributes[tag]
    attributes.pop(Tag("AcquisitionContextSequence"), None)
    attributes.pop(Tag("PresentationLUTShape"), None)
    for group, enhanced, classic in _PAIRS[modality]:
        _copy(_item(groups, group), enhanced, attributes, classic)
    for name in _WINDOW:
        _copy(_item(groups, "FrameVOILUTSequence"), name, attributes, name)
    anatomy = _item(groups, "FrameAnatomySequence")
    _copy(anatomy, "AnatomicRegionSequence", attributes, "AnatomicRegionSequence")
    if anatomy.get("FrameLaterality") in ("R", "L", "B", "U"):
        attributes.ImageLaterality = anatomy.FrameLaterality
    if modality == "CT":
        return
    times = _item(groups, "MRModifierSequence")
    inverted |= times.get("InversionRecovery") == "YES"
    if inverted:
        inversion_times = times.get("InversionTimes")
        attributes.InversionTime = None
        if inversion_times is not None:
            _set(attributes, "InversionTime", _first(inversion_times))
    kind = {"GRADIENT": "GR", "SPIN": "SE"}.get(pulse, "RM")
    attributes.ScanningSequence = [kind, "IR"] if inverted else kind
    attributes.SequenceVariant = "NONE"
    if nucleus:
        attributes.ImagedNucleus = nucleus


def grouped(attributes: Dataset, modality: Modality) -> Dataset:
    """Take out of a single-frame source's attributes what enhanced objects keep in groups.

    Args:
        attributes: of the source; changed in place. What enhanced objects have no place for goes.
        modality: which class of image.

    Returns:
        One item of functional groups.
    """
    groups = Dataset()
    for group, enhanced, classic in _PAIRS[modality]:
        if group not in _COMPLETE or attributes.get(classic) in (None, ""):
            continue
        item = _item(groups, group)
        _copy(attributes, classic, item, enhanced)
        if len(item):
            setattr(groups, group, [item])
    window = Dataset()
    for name in _WINDOW:
        _copy(attributes, name, window, name)
    if "WindowCenter" in window and "WindowWidth" in window:
        groups.FrameVOILUTSequence = [window]
    groups.FrameAnatomySequence = [_anatomy(attributes)]
    for tag in list(attributes.keys()):
        if tag in _CHOSEN.get(tag.group, {tag}):
            continue
        del attributes[tag]
    for name in _SINGLE_FRAME_OF_0008:
        attributes.pop(Tag(name), None)
    return groups


def _anatomy(attributes: Dataset) -> Dataset:
    """FrameAnatomySequence's item, which every enhanced object must have.

    Where the source names no part of the body that has a code, it is the entire body.
    """
    item = Dataset()
    region = attributes.get("AnatomicRegionSequence")
    if not region:
        part = str(attributes.get("BodyPartExamined") or "").replace(" ", "").upper()
        concept = getattr(codes.SCT, _REGIONS.get(part, ""), None)
        region = [
            code(concept.value, concept.meaning, concept.scheme_designator)
            if concept is not None
            else code("38266002", "Entire body", "SCT")
        ]
    item.AnatomicRegionSequence = list(region)[:1]
    side = attributes.get("ImageLaterality") or attributes.get("Laterality")
    item.FrameLaterality = side if side in ("R", "L", "B") else "U"
    return item


def _item(groups: Dataset, name: str) -> Dataset:
    items = groups.get(name)
    item: Dataset = items[0] if items else Dataset()
    return item


def _copy(source: Dataset, name: str, target: Dataset, new_name: str) -> None:
    value = source.get(name)
    if value is None or value == "":
        return
    _set(target, new_name, value)


def _set(target: Dataset, name: str, value: Any) -> None:
    """Give a value over, as the other attribute's kind of number."""
    if name in _WHOLE_NUMBERS:
        value = round(float(value))
    elif type(value) is float:
        value = f"{value:.10g}" if dictionary_VR(name) == "DS" else value
    elif not isinstance(value, str) and hasattr(value, "original_string"):
        value = float(value)
    setattr(target, name, value)


def _first(value: Any) -> Any:
    return value if isinstance(value, int | float) else value[0]

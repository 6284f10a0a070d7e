"""What can tell apart images of one series: echo, kernel, b value, phase, time, and the like.

Which attributes those are, standard and private, of single frames and of the frames of
an enhanced object, and how they become plain text. What follows from them is in ``split``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medsr.io.dicom.read.values import listed

Contrast = tuple[tuple[str, str], ...]
Times = tuple[tuple[str, tuple[int, float]], ...]
_Tag = tuple[int, int]

# In the order in which people would name it.
_SINGLE = (
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
    "DiffusionDirectionality",
    "RescaleType",
    "SliceThickness",
    "SequenceName",
    "RepetitionTime",
    "ScanOptions",
    "ContrastBolusAgent",
    "ReceiveCoilName",
)
# The same for the frames of an enhanced object: (functional group, attribute).
_TOP = ""  # no group: the object itself
_FRAME = (
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
    ("MRModifierSequence", "InversionTimes"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    ("CTXRayDetailsSequence", "KVP"),
    ("CTReconstructionSequence", "ConvolutionKernel"),
    ("PixelValueTransformationSequence", "RescaleType"),
    ("PixelMeasuresSequence", "SliceThickness"),
    (_TOP, "AcquisitionNumber"),
)
# Slices of one volume may differ in these: they count packages, slabs, heartbeats or slices.
COUNTERS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "StackID",
)
# Free text, in which anything may have been typed: a message numbers the values.
UNQUOTED = ("RescaleType", "SequenceName", "ContrastBolusAgent", "ReceiveCoilName")

# Private elements: creator's place and name, the elements, how their bytes are written.
# Source: conformance statements of the makers; dcm2niix (nii_dicom.cpp) reads the same.
_SIEMENS = ((0x0019, 0x0010), "SIEMENS MR HEADER")
_GE_PARAMETERS = ((0x0043, 0x0010), "GEMS_PARM_01")
_GE_ACQUISITION = ((0x0019, 0x0010), "GEMS_ACQU_01")
_PHILIPS = ((0x2001, 0x0010), "Philips Imaging DD 001")
_PHILIPS_MR = ((0x2005, 0x0010), "Philips MR Imaging DD 001")
_UIH = ((0x0065, 0x0010), "Image Private Header")
_GE_B_VALUE = (0x0043, 0x1039)
_TEXT = "text"
_Private = tuple[tuple[_Tag, str], tuple[_Tag, ...], str]
_PRIVATE: dict[str, tuple[_Private, ...]] = {
    "DiffusionBValue": (
        (_SIEMENS, ((0x0019, 0x100C),), _TEXT),
        (_GE_PARAMETERS, (_GE_B_VALUE,), _TEXT),
        (_PHILIPS, ((0x2001, 0x1003),), "<f4"),
        (_UIH, ((0x0065, 0x1009),), "<f8"),
    ),
    "DiffusionGradientOrientation": (
        (_SIEMENS, ((0x0019, 0x100E),), "<f8"),
        (_GE_ACQUISITION, ((0x0019, 0x10BB), (0x0019, 0x10BC), (0x0019, 0x10BD)), _TEXT),
        (_PHILIPS_MR, ((0x2005, 0x10B0), (0x2005, 0x10B1), (0x2005, 0x10B2)), "<f4"),
        (_UIH, ((0x0065, 0x1037),), "<f8"),
    ),
    # GE's magnitude, phase, real and imaginary part have one ImageType.
    "ImageComponent": ((_GE_PARAMETERS, ((0x0043, 0x102F),), "<i2"),),
}
_MALFORMED = (ValueError, TypeError, ArithmeticError, KeyError, NotImplementedError)
_GE_FLAGS = 100_000  # GE adds multiples of it to the b value

# When an image was taken, (date, time) in one attribute or two; the first that tells counts.
_CLOCKS = (
    ("FrameReferenceDateTime", ""),
    ("FrameAcquisitionDateTime", ""),
    ("AcquisitionDateTime", ""),
    ("AcquisitionTime", "AcquisitionDate"),
    ("ContentTime", "ContentDate"),
)

CONTRAST_TAGS: list[Any] = [
    *_SINGLE,
    *(name for clock in _CLOCKS for name in clock if name and not name.startswith("Frame")),
    *sorted(
        {
            (group << 16) + element
            for makers in _PRIVATE.values()
            for (creator, _), tags, _ in makers
            for group, element in (creator, *tags)
        }
    ),
]


def contrast_of(dataset: Dataset, frame: int | None, group: Callable[[str], Dataset]) -> Contrast:
    """(attribute, value) pairs of a slice that can tell it from others of one place.

    Args:
        dataset: the file.
        frame: index of the frame in an enhanced file, else None.
        group: look-up of the frame's functional groups, or of the file itself.
    """
    if frame is None:
        values = {name: _value(dataset, name) for name in (*_SINGLE, *_PRIVATE)}
        pairs = [
            (name, _private(dataset, _PRIVATE.get(name, ())) if value in (None, "") else value)
            for name, value in values.items()
        ]
    else:
        pairs = [(name, _value(group(place), name)) for place, name in _FRAME]
        name = "DiffusionGradientOrientation"
        for item in group("MRDiffusionSequence").get("DiffusionGradientDirectionSequence") or []:
            pairs.append((name, _value(item, name)))
    return tuple(
        (name, "\\".join(_plain(part) for part in listed(value)))
        for name, value in pairs
        if len(listed(value)) and value != ""
    )


def times_of(dataset: Dataset, group: Callable[[str], Dataset]) -> Times:
    """(attribute, (date, time)) for each clock of a slice; numbers that rise with time.

    Args:
        dataset: the file.
        group: look-up of the frame's functional groups, or of the file itself.
    """
    times = []
    for name, date in _CLOCKS:
        place = group("FrameContentSequence") if name.startswith("Frame") else dataset
        text = str(place.get(name) or "")
        day = str(dataset.get(date) or "") if date else text[:8]
        clock = text if date else text[8:]
        match = re.match(r"\d{2,6}(\.\d+)?", clock)
        if match:
            whole, _, part = match.group().partition(".")
            time = float(f"{whole.ljust(6, '0')}.{part or 0}")
            times.append((name, (int(day) if day.isdecimal() else 0, time)))
    return tuple(times)


def _private(dataset: Dataset, makers: Sequence[_Private]) -> list[float]:
    """The numbers of the first maker whose creator and elements are there."""
    for (creator, text), tags, kind in makers:
        if creator not in dataset or text not in str(dataset[creator].value):
            continue
        if numbers := [each for tag in tags for each in _numbers(dataset, tag, kind)]:
            return [numbers[0] % _GE_FLAGS] if tags == (_GE_B_VALUE,) else numbers
    return []


def _numbers(dataset: Dataset, tag: _Tag, kind: str) -> list[float]:
    """What a private element holds, also where its type was lost; nothing if it makes no sense."""
    try:
        value = dataset[tag].value
        if isinstance(value, bytes):
            if kind == _TEXT:
                value = value.decode("ascii").strip("\0 ").split("\\")
            else:
                value = np.frombuffer(value, kind).tolist()
        return [float(part) for part in listed(value) if part != ""]
    except _MALFORMED:
        return []


def _value(dataset: Dataset, name: str) -> Any:
    """A value that may be malformed, which is no reason to refuse a slice."""
    try:
        return dataset.get(name)
    except _MALFORMED:
        return None


def _plain(value: Any) -> str:
    """Numbers as one text, however they are written."""
    if isinstance(value, Integral):
        return str(int(value))
    return f"{float(value):.10g}" if isinstance(value, Real) else str(value)

"""Faults of a source's attributes that a writer can repair, so that they are not handed on.

A value that its kind of attribute cannot hold is moved to where it fits, shortened or left out;
attributes that the class of image demands or forbids are added empty or left out. Each is noted by
its keyword, never by its value.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pydicom import config
from pydicom.charset import convert_encodings, default_encoding, python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import MAX_VALUE_LEN, validate_value

_CODE_VALUE, _LONG_CODE_VALUE = Tag("CodeValue"), Tag("LongCodeValue")
_UTF8 = "ISO_IR 192"
_SHORTENED = ("SH", "LO", "ST", "LT")  # text that stays text when it is cut

# Parts of the body of which there is one. Source: DICOM PS3.16 Annex L (defined terms).
_UNPAIRED = {
    "ABDOMEN",
    "ABDOMENPELVIS",
    "BLADDER",
    "BRAIN",
    "CHEST",
    "CHESTABDOMEN",
    "CHESTABDPELVIS",
    "CHSTABDPELV",
    "COCCYX",
    "CSPINE",
    "CTSPINE",
    "HEAD",
    "HEADNECK",
    "HEART",
    "LIVER",
    "LSPINE",
    "LSSPINE",
    "NECK",
    "NECKCHEST",
    "PANCREAS",
    "PELVIS",
    "PROSTATE",
    "SKULL",
    "SPINE",
    "SPLEEN",
    "SSPINE",
    "STERNUM",
    "TLSPINE",
    "TSPINE",
    "UTERUS",
    "WHOLEBODY",
}
_SAYS_SIDE = (
    "Laterality",
    "ImageLaterality",
    "SharedFunctionalGroupsSequence",
    "MeasurementLaterality",
)


def repair_values(dataset: Dataset) -> tuple[str, ...]:
    """Move, shorten or leave out values that break the rules of their value representation.

    Args:
        dataset: changed in place, at every depth.

    Returns:
        One sentence for each.

    Text in a character set of a name that is misspelt or no term of DICOM, but known, becomes
    UTF-8.

    Source: DICOM PS3.5 6.2; PS3.3 8.8 (codes longer than 16 characters), C.12.1.1.2 (character
    sets).
    """
    misnamed = _is_misnamed(dataset)
    notes = dict.fromkeys(_repaired(dataset, ""))  # many items say the same
    if misnamed:  # all text is read by now
        dataset.SpecificCharacterSet = _UTF8
        notes[
            "SpecificCharacterSet of the source is no term of DICOM; text is written as UTF-8"
        ] = None
    return tuple(notes)


def repair_modules(dataset: Dataset, modality: str) -> tuple[str, ...]:
    """Add empty what the single-frame class demands; leave out what it forbids.

    Args:
        dataset: changed in place.
        modality: "CT" or "MR".

    Source: DICOM PS3.3 C.7.3.1 (Laterality, PatientPosition), C.8.3.1 (InversionTime).
    """
    notes = []
    body_part = str(dataset.get("BodyPartExamined") or "").replace(" ", "").upper()
    if not any(name in dataset for name in _SAYS_SIDE) and body_part not in _UNPAIRED:
        dataset.Laterality = None
        notes.append("Laterality is missing in the source; written empty (unknown)")
    if "PatientPosition" not in dataset and "PatientOrientationCodeSequence" not in dataset:
        dataset.PatientPosition = None
        notes.append("PatientPosition is missing in the source; written empty (unknown)")
    if modality == "MR" and "InversionTime" in dataset:
        sequence = dataset.get("ScanningSequence") or []
        kinds = [sequence] if isinstance(sequence, str) else list(sequence)
        if "IR" not in kinds:
            del dataset.InversionTime
            notes.append(
                "InversionTime is left out: the source's ScanningSequence names no inversion "
                "recovery"
            )
    return tuple(notes)


def _is_misnamed(dataset: Dataset) -> bool:
    """Whether the character set has no name in DICOM, and is known all the same."""
    value = dataset.get("SpecificCharacterSet")
    terms = [str(term) for term in _parts(value)] if value else []
    odd = [term for term in terms if term not in python_encoding]
    return any(encoding != default_encoding for encoding in convert_encodings(odd))


def _repaired(dataset: Dataset, where: str) -> Iterator[str]:
    for element in list(dataset):
        name = f"{where}{element.keyword or element.tag}"
        if element.VR == "SQ":
            for item in element.value:
                yield from _repaired(item, f"{name}.")
        elif not _is_valid(element):
            yield f"{name} of the source is not valid; {_repair(dataset, element)}"


def _repair(dataset: Dataset, element: DataElement) -> str:
    """Replace one faulty element and say what was done."""
    value, limit = element.value, MAX_VALUE_LEN.get(element.VR, 0)
    if element.tag == _CODE_VALUE and isinstance(value, str) and _LONG_CODE_VALUE not in dataset:
        longer = DataElement(_LONG_CODE_VALUE, "UC", value)
        if _is_valid(longer):
            del dataset[_CODE_VALUE]
            dataset.add(longer)
            return "written as LongCodeValue"
    if element.VR in _SHORTENED and limit:
        cut = [str(part)[:limit].rstrip("\0 ") for part in _parts(value)]
        shorter = DataElement(element.tag, element.VR, cut if len(cut) > 1 else cut[0])
        if _is_valid(shorter):
            dataset.add(shorter)
            return "shortened"
    if element.VR == "AS" and isinstance(value, str) and value[:-1].isdigit() and len(value) < 4:
        padded = DataElement(element.tag, "AS", value.rjust(4, "0"))
        if _is_valid(padded):
            dataset.add(padded)
            return "written with leading zeros"
    del dataset[element.tag]
    return "left out"


def _is_valid(element: DataElement) -> bool:
    """Whether every value keeps to the rules of its representation."""
    if element.VM == 0 or element.value is None:
        return True
    try:
        for value in _parts(element.value):
            if isinstance(value, int | float | Decimal):
                continue  # it was read, so that its text was a number
            validate_value(element.VR, value, config.RAISE)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return False
    return True


def _parts(value: Any) -> list[Any]:
    return list(value) if isinstance(value, MultiValue | list) else [value]

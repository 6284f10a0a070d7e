"""De-identification of what is written, by the Basic Application Level Confidentiality Profile.

The profile's table (which attribute is removed, emptied, replaced) comes from the package
dicom-anonymizer; here it is applied at every depth, and text that nobody knows to be technical is
removed besides. Pixels are not looked at: burnt-in text and faces stay.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_is_retired
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from medsr.errors import MissingExtraError, UsageError
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.uids import DerivedUids
from medsr.io.dicom.write.derived import code

KEY_VARIABLE = "MEDSR_DEIDENTIFY_KEY"
"""Environment variable: a secret from which pseudonyms and identifiers follow in every process."""

_SHORTEST_KEY = 16
_TABLE = "dicomfields_2026c"
PROFILE = "DICOM PS3.15 Basic Application Confidentiality Profile, 2026c"

# Text, free bytes and times.
_TELLING = ("LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "AE", "UN", "OB", "DA", "DT", "TM")
# Days since an event, which the profile's table passes over: dates in other words.
_OFFSETS = (Tag("LongitudinalTemporalOffsetFromEvent"), Tag("LongitudinalTemporalEventType"))
# Text that tells of the machine and the measurement, not of people and places.
TECHNICAL_TEXT = frozenset(
    Tag(name)
    for name in (
        "Manufacturer",
        "ManufacturerModelName",
        "SoftwareVersions",
        "ConvolutionKernel",
        "ConvolutionKernelGroup",
        "FilterType",
        "SequenceName",
        "PulseSequenceName",
        "ImagedNucleus",
        "ReceiveCoilName",
        "TransmitCoilName",
        "ReceiveCoilManufacturerName",
        "TransmitCoilManufacturerName",
        "MultiCoilElementName",
        "RescaleType",
        "WindowCenterWidthExplanation",
        "StackID",
        "CodeValue",
        "LongCodeValue",
        "CodingSchemeDesignator",
        "CodingSchemeVersion",
        "CodeMeaning",
        "PositionReferenceIndicator",
        "DimensionDescriptionLabel",
        "LUTLabel",
    )
)
# Where an item is one of the standard's codes: elsewhere a code may be a site's own words.
_STANDARD_SCHEMES = ("DCM", "SCT", "SRT", "SNM3", "UCUM", "LN", "FMA", "RADLEX", "NCIt")

_NO_DATE, _NO_TIME = "19000101", "000000"

Action = Callable[[Dataset, DataElement], None]


class Deidentifier:
    """Removes what could identify a patient; one instance maps identifiers consistently.

    All volumes that one process writes share a secret, so that series of one study stay in one
    study and two patients stay two; it is kept nowhere, so that nobody can undo the mapping. Where
    the user gives a secret by ``KEY_VARIABLE``, all processes with that one map alike.

    Raises:
        MissingExtraError: if the package with the profile's table is not installed.
        UsageError: if the user's secret is so short that it could be guessed.
    """

    def __init__(self) -> None:
        self._secret = _secret()
        self._actions: dict[BaseTag, Action] = dict.fromkeys(_OFFSETS, _remove)
        for names, action in (
            (("X_TAGS",), _remove),
            (("Z_TAGS", "X_Z_TAGS"), _empty),
            (("D_TAGS", "Z_D_TAGS"), _replace),
            (("X_D_TAGS", "X_Z_D_TAGS"), _remove_or_replace),
            (("U_TAGS", "X_Z_U_STAR_TAGS"), self._remap),
        ):
            for name in names:
                # Ranges have four numbers: curves and overlays, which are never written.
                pairs = [tag for tag in _table()[name] if len(tag) == 2]
                self._actions.update((Tag(pair), action) for pair in pairs)

    def clean(self, dataset: Dataset) -> None:
        """Remove from what passes from the source, at every depth; private attributes too.

        Args:
            dataset: changed in place.

        Source: DICOM PS3.15 E.2, E.3.1, table E.1-1.
        """
        pseudonym = self._pseudonym(dataset)
        self._clean(dataset)
        dataset.PatientName = dataset.PatientID = pseudonym
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = PROFILE
        dataset.DeidentificationMethodCodeSequence = [
            code("113100", "Basic Application Confidentiality Profile")
        ]
        dataset.LongitudinalTemporalInformationModified = "REMOVED"

    def hide_dates(self, dataset: Dataset) -> None:
        """Remove when the images were made, which may be the day of the scan."""
        for name in ("InstanceCreationDate", "InstanceCreationTime"):
            dataset.pop(Tag(name), None)
        dataset.ContentDate, dataset.ContentTime = _NO_DATE, _NO_TIME
        for item in dataset.get("ContributingEquipmentSequence") or []:
            item.pop(Tag("ContributionDateTime"), None)

    def uid(self, original: str) -> UID:
        """The identifier that stands for another one, wherever the secret is the same."""
        return UID(f"2.25.{uuid.uuid5(self._secret, original).int}")

    def _clean(self, dataset: Dataset) -> None:
        for element in list(dataset):
            tag = element.tag
            if tag.is_private or tag.group & 0xFF00 in (0x5000, 0x6000) or _is_retired(tag):
                del dataset[tag]
            elif tag in self._actions:
                self._actions[tag](dataset, element)
            elif element.VR in _TELLING and tag not in TECHNICAL_TEXT:
                del dataset[tag]
            elif element.VR == "SQ":
                self._clean_items(dataset, element)

    def _clean_items(self, dataset: Dataset, element: DataElement) -> None:
        for item in element.value:
            scheme = item.get("CodingSchemeDesignator")
            if scheme is not None and scheme not in _STANDARD_SCHEMES:
                del dataset[element.tag]
                return
            self._clean(item)

    def _remap(self, dataset: Dataset, element: DataElement) -> None:
        """Replace an identifier, or those in a sequence of references."""
        if element.VR == "SQ":
            self.clean_items(element.value)
        elif element.VM > 1:
            element.value = [self.uid(str(each)) for each in element.value]
        elif element.value:
            element.value = self.uid(str(element.value))

    def clean_items(self, items: Iterable[Dataset]) -> None:
        """The same inside the items of a sequence, which hold no patient's attributes."""
        for item in items:
            self._clean(item)

    def _pseudonym(self, dataset: Dataset) -> str:
        """A name that is the same for one patient throughout, and says nothing."""
        parts = (str(dataset.get(name) or "") for name in ("PatientID", "IssuerOfPatientID"))
        patient = "\n".join(parts).strip() or str(dataset.get("StudyInstanceUID") or "")
        return f"ANON-{uuid.uuid5(self._secret, 'patient ' + patient).hex[:12].upper()}"


def _remove(dataset: Dataset, element: DataElement) -> None:
    del dataset[element.tag]


def _empty(dataset: Dataset, element: DataElement) -> None:
    element.value = [] if element.VR == "SQ" else None


def _replace(dataset: Dataset, element: DataElement) -> None:
    """A dummy of the same kind; sequences, of which no image needs one, go."""
    from dicomanonymizer.simpledicomanonymizer import replace_element

    if element.VR == "SQ":
        del dataset[element.tag]
    elif element.VM == 0:
        return
    elif element.VR == "DA":
        element.value = _NO_DATE
    elif element.VR == "TM":
        element.value = _NO_TIME
    elif element.VR == "DT":
        element.value = _NO_DATE + _NO_TIME
    else:
        replace_element(element)


def _remove_or_replace(dataset: Dataset, element: DataElement) -> None:
    """No derived image must say when something was done; the rest may be demanded."""
    if element.VR in ("DA", "TM", "DT"):
        del dataset[element.tag]
    else:
        _replace(dataset, element)


def _is_retired(tag: BaseTag) -> bool:
    """Whether the standard has given an attribute up; those unknown to it count too."""
    try:
        return dictionary_is_retired(tag)
    except KeyError:
        return True


def result_uids(request: str | None, options: DicomOptions) -> DerivedUids:
    """The identifiers of a result; where it is de-identified, they do not give the request away.

    Args:
        request: see :class:`medsr.volume.Derivation`; new ones at every call where it is None.
        options: how the result is written.
    """
    if request is not None and options.deidentify:
        request = str(Deidentifier().uid(request))
    return DerivedUids.of(request)


def has_key() -> bool:
    """Whether the user gave a secret, so that other processes map alike."""
    return bool(os.environ.get(KEY_VARIABLE))


def _secret() -> uuid.UUID:
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return _passing_secret()
    if len(key) < _SHORTEST_KEY:
        raise UsageError(
            f"{KEY_VARIABLE} has {len(key)} characters and could be guessed; give at least "
            f"{_SHORTEST_KEY}, at random"
        )
    return uuid.UUID(bytes=hashlib.sha256(f"medsr {key}".encode()).digest()[:16])


@cache
def _passing_secret() -> uuid.UUID:
    return uuid.UUID(bytes=secrets.token_bytes(16))


@cache
def _table() -> dict[str, Any]:
    """The profile's table of attributes.

    Raises:
        MissingExtraError: if dicom-anonymizer is not installed.
    """
    try:
        from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
    except ImportError as error:
        raise MissingExtraError(
            "de-identification needs dicom-anonymizer, which is not installed; "
            "pip install 'medsr[dicom]'"
        ) from error
    table: dict[str, Any] = dicom_anonymization_database_selector(_TABLE)
    return table

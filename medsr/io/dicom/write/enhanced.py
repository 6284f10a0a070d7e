"""A derived series as one multi-frame file of the Enhanced CT or MR class: EnhancedSeries.

Functional groups, dimensions and writing frame by frame, so that a result
larger than memory can be written. What passes from a single-frame source into groups is chosen in
``frames``, the order of the steps is in ``series``, what every derived image says in ``derived``.
"""

from __future__ import annotations

import copy
import struct
from typing import Any

import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, generate_uid

from medsr.errors import OutputFormatError
from medsr.io.dicom.uids import DerivedUids
from medsr.io.dicom.write.derived import (
    decimals,
    file_meta,
    image_type_rest,
    lasting_attributes,
    orientation,
    resampling_code,
    set_measures,
)
from medsr.io.dicom.write.frames import grouped
from medsr.io.dicom.write.series import DerivedSeries

_FILE = "IM00001.dcm"
_STACK = "1"
_MOST_BYTES = 2**32 - 2  # the length of one element; PS3.5 7.1.1
_UNKNOWN = "UNKNOWN"
# Type 1 in the enhanced classes only. Source: DICOM PS3.3 C.7.5.2.
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
_PIXEL_DATA_TAG = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0)
# What both the image and its frames say of their making.
_OF_FRAME_TYPE = (
    "PixelPresentation",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    "ComplexImageComponent",
    "AcquisitionContrast",
)
# In single-frame images or groups alone, or of a pulse sequence,
# which a derived object may not state. Source: DICOM PS3.3 C.8.13.4.
_NOT_HERE = (
    "Laterality",
    "ImageLaterality",
    "AcquisitionDate",
    "AcquisitionTime",
    "SequenceName",
    "PulseSequenceName",
    "MRAcquisitionType",
    "EchoPulseSequence",
    "MultipleSpinEcho",
    "MultiPlanarExcitation",
    "PhaseContrast",
    "VelocityEncodingAcquisitionSequence",
    "TimeOfFlightContrast",
    "ArterialSpinLabelingContrast",
    "SteadyStatePulseSequence",
    "EchoPlanarPulseSequence",
    "SaturationRecovery",
    "SpectrallySelectedSuppression",
    "OversamplingPhase",
    "GeometryOfKSpaceTraversal",
    "RectilinearPhaseEncodeReordering",
    "SegmentedKSpaceTraversal",
    "CoverageOfKSpace",
    "NumberOfKSpaceTrajectories",
)


class EnhancedSeries(DerivedSeries):
    """One multi-frame object, with one frame for each plane.

    Raises:
        OutputFormatError: if the pixels need more bytes than one element may have.

    Source: DICOM PS3.3 A.36 (Enhanced MR), A.38 (Enhanced CT), C.7.6.16 (functional groups),
        C.7.6.17 (dimensions).
    """

    _may_be_empty = ()

    def _begin(self, dataset: Dataset) -> None:
        """Write the file with room for all frames."""
        columns, rows, count = self._geometry.shape
        self._plane_bytes = 2 * columns * rows
        size = self._plane_bytes * count
        if size > _MOST_BYTES:
            raise OutputFormatError(
                f"the result has {size / 2**30:.1f} GiB of pixels, and one multi-frame file holds "
                "less than 4 GiB; write single-frame images (--dicom-layout classic)"
            )
        self._path = self._folder / _FILE
        dataset.file_meta = file_meta(dataset)
        dataset.save_as(self._path, enforce_file_format=True)
        with self._path.open("ab") as file:
            file.write(_PIXEL_DATA_TAG + struct.pack("<I", size))
            self._pixels_at = file.tell()
            file.truncate(self._pixels_at + size)

    def _write(self, plane: npt.NDArray[Any], index: int) -> None:
        """Write a frame to its place in the file."""
        with self._path.open("r+b") as file:
            file.seek(self._pixels_at + (self._number(index) - 1) * self._plane_bytes)
            file.write(plane.tobytes())

    def _arrange(self, dataset: Dataset) -> None:
        """Put the attributes of a single-frame source into functional groups."""
        reference = self._reference
        if reference.groups is None:
            groups = grouped(dataset, reference.modality)
        else:
            groups = copy.deepcopy(reference.groups)
            if "FrameAnatomySequence" not in groups:
                anatomy = grouped(lasting_attributes(reference), reference.modality)
                groups.FrameAnatomySequence = anatomy.FrameAnatomySequence
        dataset.SharedFunctionalGroupsSequence = [groups]
        for name in _NOT_HERE:
            dataset.pop(Tag(name), None)

    def _set_class(self, dataset: Dataset) -> None:
        """SOP class, image type and what both image and frames say of their making."""
        is_mr = self._reference.modality == "MR"
        dataset.SOPClassUID = EnhancedMRImageStorage if is_mr else EnhancedCTImageStorage
        dataset.SOPInstanceUID, dataset.InstanceNumber = self._uids.instance(1), 1
        rest = image_type_rest(dataset)
        if self._reference.groups is None or len(rest) < 2:
            rest = ["VOLUME", "NONE"]
        dataset.ImageType = ["DERIVED", "PRIMARY", *rest[:2]]
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.ContentQualification = "RESEARCH"
        for name, value in (("LossyImageCompression", "00"), ("BurnedInAnnotation", "NO")):
            if not dataset.get(name):
                setattr(dataset, name, value)
        for name in _EQUIPMENT:
            if not dataset.get(name):
                setattr(dataset, name, _UNKNOWN)
        if not dataset.get("AcquisitionContextSequence"):
            dataset.AcquisitionContextSequence = Sequence()
        dataset.PixelPresentation = "MONOCHROME"
        dataset.VolumetricProperties = "VOLUME"
        dataset.VolumeBasedCalculationTechnique = "NONE"
        if is_mr:
            dataset.ComplexImageComponent = dataset.get("ComplexImageComponent") or "MAGNITUDE"
            agency = dataset.get("ApplicableSafetyStandardAgency")
            dataset.ApplicableSafetyStandardAgency = agency or _UNKNOWN
            dataset.AcquisitionContrast = dataset.get("AcquisitionContrast") or _UNKNOWN

    def _set_frame_attributes(self, dataset: Dataset) -> None:
        """Set functional groups and the dimensions that order the frames."""
        self._set_shared_groups(dataset)
        dataset.NumberOfFrames = self._geometry.shape[2]
        frames = [Dataset()] * self._geometry.shape[2]
        evidence: dict[str, str] = {}
        for index in range(len(frames)):
            frame = frames[self._number(index) - 1] = self._frame_groups(dataset, index)
            sources = frame.DerivationImageSequence[0].SourceImageSequence
            evidence |= {s.ReferencedSOPInstanceUID: s.ReferencedSOPClassUID for s in sources}
        del dataset.DerivationDescription, dataset.DerivationCodeSequence
        dataset.PerFrameFunctionalGroupsSequence = frames
        dataset.SourceImageEvidenceSequence = [self._evidence(dataset, evidence)]
        _set_dimensions(dataset)

    def _set_shared_groups(self, dataset: Dataset) -> None:
        """Set the groups that hold for all frames."""
        modality = self._reference.modality
        shared = dataset.SharedFunctionalGroupsSequence[0]
        measures, plane, values, kind = Dataset(), Dataset(), Dataset(), Dataset()
        set_measures(measures, self._geometry)
        plane.ImageOrientationPatient = orientation(self._geometry)
        pair = self._scaling.slope, self._scaling.intercept
        values.RescaleSlope, values.RescaleIntercept = decimals(pair)
        # The only value of each class. Source: DICOM PS3.3 C.8.15.3.10 (CT), C.7.6.16.2.9 (MR).
        values.RescaleType = "HU" if modality == "CT" else "US"
        kind.FrameType = list(dataset.ImageType)
        for name in _OF_FRAME_TYPE:
            if name in dataset:
                setattr(kind, name, dataset[name].value)
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
        shared.PixelValueTransformationSequence = [values]
        setattr(shared, f"{modality}ImageFrameTypeSequence", [kind])
        if modality == "CT" and "IrradiationEventIdentificationSequence" not in shared:
            event = Dataset()
            event.IrradiationEventUID = self._irradiation_event()
            shared.IrradiationEventIdentificationSequence = [event]

    def _frame_groups(self, dataset: Dataset, index: int) -> Dataset:
        """The groups of one frame."""
        frame, place, content, derived = Dataset(), Dataset(), Dataset(), Dataset()
        number = self._number(index)
        place.ImagePositionPatient = self._position(index)
        content.StackID, content.InStackPositionNumber = _STACK, number
        content.DimensionIndexValues = [1, number]
        derived.DerivationDescription = dataset.DerivationDescription
        derived.DerivationCodeSequence = [resampling_code()]
        derived.SourceImageSequence = self._sources(index)
        frame.FrameContentSequence, frame.PlanePositionSequence = [content], [place]
        frame.DerivationImageSequence = [derived]
        return frame

    def _irradiation_event(self) -> str:
        """The source's; where it names none, one that follows from its series."""
        attributes = self._reference.attributes
        uid = attributes.get("IrradiationEventUID")
        if isinstance(uid, str) and uid:
            return uid if self._deidentifier is None else self._deidentifier.uid(uid)
        if self._deidentifier is not None:
            return self._deidentifier.uid(f"event {attributes.SeriesInstanceUID}")
        return DerivedUids.of(f"irradiation event of {attributes.SeriesInstanceUID}").series

    def _evidence(self, dataset: Dataset, images: dict[str, str]) -> Dataset:
        """The files that the frames refer to, by study and series."""
        series = str(self._reference.attributes.SeriesInstanceUID)
        study, listed = Dataset(), Dataset()
        study.StudyInstanceUID = dataset.StudyInstanceUID
        listed.SeriesInstanceUID = (
            series if self._deidentifier is None else self._deidentifier.uid(series)
        )
        listed.ReferencedSOPSequence = [_reference(uid, sop) for uid, sop in images.items()]
        study.ReferencedSeriesSequence = [listed]
        return study


def _reference(instance: str, sop_class: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def _set_dimensions(dataset: Dataset) -> None:
    """One stack of frames in order. Source: DICOM PS3.3 C.7.6.17."""
    organisation = Dataset()
    organisation.DimensionOrganizationUID = generate_uid(prefix=None)
    dataset.DimensionOrganizationSequence = [organisation]
    dataset.DimensionOrganizationType = "3D"
    indices = []
    for name, label in (("StackID", "Stack"), ("InStackPositionNumber", "Position in the stack")):
        index = Dataset()
        index.DimensionOrganizationUID = organisation.DimensionOrganizationUID
        index.DimensionIndexPointer = Tag(name)
        index.FunctionalGroupPointer = Tag("FrameContentSequence")
        index.DimensionDescriptionLabel = label
        indices.append(index)
    dataset.DimensionIndexSequence = indices

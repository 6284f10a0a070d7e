"""A derived series as one multi-frame file of the Enhanced CT or MR class: EnhancedSeries.

Functional groups, dimensions and writing frame by frame, so that a result
larger than memory can be written. What passes from a single-frame source into groups is chosen in
``frames``, what every derived image says in ``derived``.
"""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, generate_uid

from medsr.errors import OutputFormatError
from medsr.geometry import Geometry
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.quiet import quiet
from medsr.io.dicom.reference import DicomReference
from medsr.io.dicom.uids import DerivedUids
from medsr.io.dicom.write.deidentify import Deidentifier, result_uids
from medsr.io.dicom.write.derived import (
    add_empty,
    decimals,
    file_meta,
    lasting_attributes,
    note,
    numbers_rise,
    resampling_code,
    set_derivation,
    set_identity,
    set_pixel_format,
    source_images,
)
from medsr.io.dicom.write.frames import grouped
from medsr.io.dicom.write.mend import mend_modules, mend_values
from medsr.io.scaling import Scaling
from medsr.volume import Derivation

_FILE = "IM00001.dcm"
_STACK = "1"
_MOST_BYTES = 2**32 - 2  # the length of one element; PS3.5 7.1.1
_UNKNOWN = "UNKNOWN"
# Type 1 in the enhanced classes only. Source: DICOM PS3.3 C.7.5.2.
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
_PIXEL_DATA_TAG = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0)
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


class EnhancedSeries:
    """A multi-frame object under way: takes stored planes, one frame for each.

    Args:
        geometry: grid of what will be written.
        reference: its source.
        folder: where the file goes.
        scaling: of the planes.
        derivation: how the voxels were computed; None for plain resampling.
        options: what the user settled.

    Raises:
        OutputFormatError: if the pixels need more bytes than one element may have.

    Source: DICOM PS3.3 A.36 (Enhanced MR), A.38 (Enhanced CT), C.7.6.16 (functional groups),
        C.7.6.17 (dimensions).
    """

    def __init__(
        self,
        geometry: Geometry,
        reference: DicomReference,
        folder: Path,
        scaling: Scaling,
        derivation: Derivation | None,
        options: DicomOptions,
    ) -> None:
        columns, rows, count = geometry.shape
        self._plane_bytes = 2 * columns * rows
        size = self._plane_bytes * count
        if size > _MOST_BYTES:
            raise OutputFormatError(
                f"the result has {size / 2**30:.1f} GiB of pixels, and one multi-frame file holds "
                "less than 4 GiB; write single-frame images (--dicom-layout classic)"
            )
        self._geometry, self._reference = geometry, reference
        self._anonymous = anonymous = Deidentifier() if options.deidentify else None
        uids = result_uids(None if derivation is None else derivation.request, options)
        dataset = self._passed_on()
        set_identity(dataset, options)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uids.series, uids.instance(1)
        self._set_class(dataset)
        set_derivation(dataset, derivation)
        set_pixel_format(dataset, reference, scaling)
        dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, columns, count
        self._set_groups(dataset, scaling)
        if anonymous is not None:
            anonymous.hide_dates(dataset)
        self._path = folder / _FILE
        dataset.file_meta = file_meta(dataset)
        dataset.save_as(self._path, enforce_file_format=True)
        with self._path.open("ab") as file:
            file.write(_PIXEL_DATA_TAG + struct.pack("<I", size))
            self._pixels_at = file.tell()
            file.truncate(self._pixels_at + size)
        self._rises, self._written = numbers_rise(geometry, reference), 0

    @quiet
    def append(self, stored: npt.NDArray[Any]) -> None:
        """Write the frames of stored numbers ``(X, Y, planes)`` to their places in the file."""
        with self._path.open("r+b") as file:
            for k in range(stored.shape[2]):
                frame = self._frame(self._written)
                file.seek(self._pixels_at + frame * self._plane_bytes)
                file.write(np.ascontiguousarray(stored[:, :, k].T).tobytes())
                self._written += 1

    def _frame(self, index: int) -> int:
        """Where in the file a slice stands; frames run as the source's numbers do."""
        return index if self._rises else self._geometry.shape[2] - 1 - index

    def _passed_on(self) -> Dataset:
        """What the object has from its source, sound and, if wanted, anonymous."""
        reference = self._reference
        dataset = lasting_attributes(reference)
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
        note(mend_values(dataset))
        note(mend_modules(dataset, reference.modality))
        if self._anonymous is not None:
            self._anonymous.clean(dataset)
        add_empty(dataset, reference, enhanced=True)
        return dataset

    def _set_class(self, dataset: Dataset) -> None:
        """SOP class, image type and what both image and frames say of their making."""
        modality = self._reference.modality
        is_mr = modality == "MR"
        dataset.SOPClassUID = EnhancedMRImageStorage if is_mr else EnhancedCTImageStorage
        dataset.Modality, dataset.InstanceNumber = modality, 1
        kinds = dataset.get("ImageType") or []
        rest = [] if isinstance(kinds, str) else [str(part) for part in kinds[2:]]
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

    def _set_groups(self, dataset: Dataset, scaling: Scaling) -> None:
        """Functional groups and the dimensions that order the frames."""
        reference, geometry = self._reference, self._geometry
        origin, spacing, direction = geometry.to_lps()
        shared = dataset.SharedFunctionalGroupsSequence[0]
        measures, plane, values, kind = Dataset(), Dataset(), Dataset(), Dataset()
        measures.PixelSpacing = decimals([spacing[1], spacing[0]])
        measures.SliceThickness = measures.SpacingBetweenSlices = decimals([spacing[2]])[0]
        plane.ImageOrientationPatient = decimals(np.asarray(direction)[:, :2].T.ravel())
        values.RescaleSlope, values.RescaleIntercept = decimals([scaling.slope, scaling.intercept])
        # The only value of each class. Source: DICOM PS3.3 C.8.15.3.10 (CT), C.7.6.16.2.9 (MR).
        values.RescaleType = "HU" if reference.modality == "CT" else "US"
        kind.FrameType = list(dataset.ImageType)
        for name in (
            "PixelPresentation",
            "VolumetricProperties",
            "VolumeBasedCalculationTechnique",
            "ComplexImageComponent",
            "AcquisitionContrast",
        ):
            if name in dataset:
                setattr(kind, name, dataset[name].value)
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
        shared.PixelValueTransformationSequence = [values]
        setattr(shared, f"{reference.modality}ImageFrameTypeSequence", [kind])
        if reference.modality == "CT" and "IrradiationEventIdentificationSequence" not in shared:
            event = Dataset()
            event.IrradiationEventUID = self._irradiation_event()
            shared.IrradiationEventIdentificationSequence = [event]

        step = np.asarray(direction)[:, 2] * spacing[2]
        count = geometry.shape[2]
        self._rises = numbers_rise(geometry, reference)
        frames = [Dataset() for _ in range(count)]
        evidence: dict[str, str] = {}
        for index in range(count):
            number = self._frame(index) + 1
            frame, place, content, derived = frames[number - 1], Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient = decimals(np.asarray(origin) + index * step)
            content.StackID, content.InStackPositionNumber = _STACK, number
            content.DimensionIndexValues = [1, number]
            sources = source_images(geometry, reference, index)
            if self._anonymous is not None:
                self._anonymous.clean_items(sources)
            evidence |= {s.ReferencedSOPInstanceUID: s.ReferencedSOPClassUID for s in sources}
            derived.DerivationDescription = dataset.DerivationDescription
            derived.DerivationCodeSequence = [resampling_code()]
            derived.SourceImageSequence = sources
            frame.FrameContentSequence, frame.PlanePositionSequence = [content], [place]
            frame.DerivationImageSequence = [derived]
        del dataset.DerivationDescription, dataset.DerivationCodeSequence
        dataset.PerFrameFunctionalGroupsSequence = frames
        dataset.SourceImageEvidenceSequence = [self._evidence(dataset, evidence)]
        _set_dimensions(dataset)

    def _irradiation_event(self) -> str:
        """The source's; where it names none, one that follows from its series."""
        attributes = self._reference.attributes
        known = attributes.get("IrradiationEventUID")
        if isinstance(known, str) and known:
            return known if self._anonymous is None else self._anonymous.uid(known)
        if self._anonymous is not None:
            return self._anonymous.uid(f"event {attributes.SeriesInstanceUID}")
        return DerivedUids.of(f"irradiation event of {attributes.SeriesInstanceUID}").series

    def _evidence(self, dataset: Dataset, images: dict[str, str]) -> Dataset:
        """The files that the frames refer to, by study and series."""
        series = str(self._reference.attributes.SeriesInstanceUID)
        study, listed = Dataset(), Dataset()
        study.StudyInstanceUID = dataset.StudyInstanceUID
        listed.SeriesInstanceUID = (
            series if self._anonymous is None else self._anonymous.uid(series)
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

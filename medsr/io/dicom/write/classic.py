"""A derived series of single-frame CT or MR images: ClassicSeries.

The order of the steps is in ``series``, what every derived image says in ``derived``.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage

from medsr.io.dicom.write.derived import (
    decimals,
    file_meta,
    image_type_rest,
    orientation,
    rescale_type,
    set_measures,
)
from medsr.io.dicom.write.frames import flattened
from medsr.io.dicom.write.series import DerivedSeries

# Type 2: must be there, may be empty. Source: DICOM PS3.3 A.3 (CT), A.4 (MR).
_MAY_BE_EMPTY = {
    "CT": ("KVP", "AcquisitionNumber"),
    "MR": ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
}


class ClassicSeries(DerivedSeries):
    """One file for each plane, named by its InstanceNumber."""

    @property
    def _may_be_empty(self) -> tuple[str, ...]:
        return _MAY_BE_EMPTY[self._reference.modality]

    def _arrange(self, dataset: Dataset) -> None:
        """Put the groups of a multi-frame source at the top."""
        if self._reference.groups is not None:
            flattened(dataset, self._reference.groups, self._reference.modality)

    def _set_class(self, dataset: Dataset) -> None:
        modality = self._reference.modality
        dataset.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        rest = image_type_rest(dataset)
        if modality == "CT" and rest[:1] not in (["AXIAL"], ["LOCALIZER"]):
            rest = ["AXIAL", *rest[1:]]  # C.8.2.1.1.1: no third value but these two
        dataset.ImageType = ["DERIVED", "SECONDARY", *(rest or ["OTHER"])]
        if not self._reference.inverted:
            dataset.PhotometricInterpretation = "MONOCHROME2"

    def _set_frame_attributes(self, dataset: Dataset) -> None:
        """Set the grid, and one pair of slope and intercept where there is anything to say."""
        set_measures(dataset, self._geometry)
        dataset.ImageOrientationPatient = orientation(self._geometry)
        pair = self._scaling.slope, self._scaling.intercept
        reference = self._reference
        if reference.rescale_stated or pair != (1.0, 0.0) or reference.modality == "CT":
            dataset.RescaleSlope, dataset.RescaleIntercept = decimals(pair)
            dataset.RescaleType = rescale_type(reference)

    def _begin(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def _write(self, plane: npt.NDArray[Any], index: int) -> None:
        dataset, number = self._dataset, self._number(index)
        dataset.SOPInstanceUID = self._uids.instance(number)
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = self._position(index)
        dataset.SourceImageSequence = self._sources(index)
        dataset.SmallestImagePixelValue = int(plane.min())
        dataset.LargestImagePixelValue = int(plane.max())
        dataset.PixelData = plane.tobytes()
        dataset.file_meta = file_meta(dataset)
        dataset.save_as(self._folder / f"IM{number:05d}.dcm", enforce_file_format=True)

"""A derived series under way: the steps that both layouts share, in their order.

What single-frame images do otherwise is in ``classic``, what multi-frame objects do in
``enhanced``; the attributes that both write are made in ``derived``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.valuerep import DSfloat

from medsr.geometry import Geometry
from medsr.io.dicom.logs import suppress_logging
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.read.reference import DicomReference
from medsr.io.dicom.write.deidentify import Deidentifier, result_uids
from medsr.io.dicom.write.derived import (
    add_empty,
    decimals,
    lasting_attributes,
    log_notes,
    numbers_rise,
    set_derivation,
    set_identity,
    set_pixel_format,
    source_images,
)
from medsr.io.dicom.write.repair import repair_modules, repair_values
from medsr.io.scaling import Scaling
from medsr.types import Array
from medsr.volume import Derivation


class DerivedSeries(ABC):
    """Takes stored planes one after the other; see :class:`medsr.io.planes.PlaneFile`.

    A layout is a class that gives the abstract methods, which are called in the order of
    :meth:`__init__`, and :meth:`_write` for each plane.

    Args:
        geometry: grid of what will be written.
        reference: its source.
        folder: where the files go.
        scaling: of the planes.
        derivation: how the voxels were computed; None for plain resampling.
        options: what the user settled.
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
        self._geometry, self._reference = geometry, reference
        self._folder, self._scaling = folder, scaling
        self._deidentifier = Deidentifier() if options.deidentify else None
        self._uids = result_uids(None if derivation is None else derivation.request, options)
        self._rises, self._written = numbers_rise(geometry, reference), 0
        dataset = self._passed_on()
        set_identity(dataset, options)
        dataset.SeriesInstanceUID, dataset.Modality = self._uids.series, reference.modality
        self._set_class(dataset)
        set_derivation(dataset, derivation)
        set_pixel_format(dataset, reference, scaling)
        dataset.Columns, dataset.Rows, _ = geometry.shape
        self._set_frame_attributes(dataset)
        if self._deidentifier is not None:
            self._deidentifier.hide_dates(dataset)
        self._begin(dataset)

    @suppress_logging
    def append(self, stored: Array) -> None:
        """Write stored numbers ``(X, Y, planes)`` behind those that are there."""
        for k in range(stored.shape[2]):
            self._write(np.ascontiguousarray(stored[:, :, k].T), self._written)
            self._written += 1

    def _passed_on(self) -> Dataset:
        """What the images have from their source, sound and, if wanted, de-identified."""
        dataset = lasting_attributes(self._reference)
        self._arrange(dataset)
        log_notes(repair_values(dataset))
        log_notes(repair_modules(dataset, self._reference.modality))
        if self._deidentifier is not None:
            self._deidentifier.clean(dataset)
        add_empty(dataset, self._may_be_empty)
        return dataset

    @property
    @abstractmethod
    def _may_be_empty(self) -> tuple[str, ...]:
        """Attributes that the class of image demands, empty where they are not known."""

    @abstractmethod
    def _arrange(self, dataset: Dataset) -> None:
        """Put the source's attributes where this layout keeps them."""

    @abstractmethod
    def _set_class(self, dataset: Dataset) -> None:
        """Set SOP class, image type and what follows from them."""

    @abstractmethod
    def _set_frame_attributes(self, dataset: Dataset) -> None:
        """Set grid and scaling."""

    @abstractmethod
    def _begin(self, dataset: Dataset) -> None:
        """Take the finished attributes."""

    @abstractmethod
    def _write(self, plane: Array, index: int) -> None:
        """Write stored numbers (Y, X) of the plane ``index`` along array axis 2."""

    def _number(self, index: int) -> int:
        """Number of a plane from 1; numbers run in space as the source's do."""
        return index + 1 if self._rises else self._geometry.shape[2] - index

    def _position(self, index: int) -> list[DSfloat]:
        """ImagePositionPatient of a plane."""
        origin, spacing, direction = self._geometry.to_lps()
        step = np.asarray(direction)[:, 2] * spacing[2]
        return decimals(np.asarray(origin) + index * step)

    def _sources(self, index: int) -> Sequence:
        """References to the source slices of a plane."""
        items = source_images(self._geometry, self._reference, index)
        if self._deidentifier is not None:
            self._deidentifier.clean_items(items)
        return items

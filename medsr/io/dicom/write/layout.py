"""Which of two layouts a derived series has, one file per slice or one multi-frame file; begins it.

The caller renames the finished folder into place.
"""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from medsr.errors import OutputFormatError
from medsr.io.dicom.logs import suppress_logging
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.dicom.read.reference import DicomReference
from medsr.io.dicom.write.classic import ClassicSeries
from medsr.io.dicom.write.enhanced import EnhancedSeries
from medsr.io.dicom.write.series import DerivedSeries
from medsr.io.scaling import Scaling
from medsr.volume import Derivation, Volume


@suppress_logging
def check_writable(volume: Volume, options: DicomOptions = DEFAULTS) -> DicomReference:
    """Refuse what no derived series can be made of, before anything is computed.

    Args:
        volume: the volume to write, or the scan that it will be computed from.
        options: what the user settled.

    Returns:
        The reference to the source series.

    Raises:
        OutputFormatError: if the volume did not come from DICOM, its axes are not orthogonal, or
            it cannot be of the layout asked for.
    """
    reference = DicomReference.of(volume.source)
    if not volume.geometry.is_orthogonal():
        raise OutputFormatError(
            "the axes of the volume are not orthogonal, which a DICOM series cannot hold; "
            "write .nii.gz instead"
        )
    if options.layout == "enhanced" and reference.inverted:
        raise OutputFormatError(
            "the source shows low values bright (MONOCHROME1), which multi-frame objects cannot "
            "say; write single-frame images (--dicom-layout classic)"
        )
    return reference


@suppress_logging
def derived_series(
    like: Volume,
    folder: Path,
    scaling: Scaling,
    derivation: Derivation | None = None,
    options: DicomOptions = DEFAULTS,
) -> DerivedSeries:
    """Begin a derived series: one file per slice along array axis 2, or one multi-frame file.

    Rows are array axis 1 and columns axis 0. Study, patient and frame of reference are the
    source's; series and instances are new.

    Args:
        like: grid and source of what will be written; its voxels are not looked at.
        folder: where the files go, named by InstanceNumber; made if absent.
        scaling: of the planes; see :func:`medsr.io.dicom.write.scaling.dicom_scaling`.
        derivation: how the voxels were computed; None for plain resampling.
        options: what the user settled.

    Raises:
        OutputFormatError: as :func:`check_writable`, and if it is too large for one multi-frame
            file where one is asked for.
        MissingExtraError: if it shall be de-identified and the package for that is missing.
        OSError: if a file cannot be written.

    Source: DICOM PS3.3 C.7.6.1 (derivation), C.7.6.2 (plane).
    """
    reference = check_writable(like, options)
    folder.mkdir(parents=True, exist_ok=True)
    kind = EnhancedSeries if is_enhanced(reference, options) else ClassicSeries
    return kind(like.geometry, reference, folder, scaling, derivation, options)


def is_enhanced(reference: DicomReference, options: DicomOptions) -> bool:
    """Whether one multi-frame file is written; by default where the source was of that class."""
    if options.layout != "source":
        return options.layout == "enhanced"
    if reference.inverted:
        return False
    enhanced = {EnhancedCTImageStorage, EnhancedMRImageStorage}
    return all(image.sop_class in enhanced for images in reference.images for image in images)


def count_files(source: Volume, slices: int, options: DicomOptions = DEFAULTS) -> int:
    """How many files, and so instances, a result of this many slices will have.

    Args:
        source: the scan that the result is computed from.
        slices: of the result.
        options: what the user settled.

    Raises:
        OutputFormatError: as :func:`check_writable`.
    """
    return 1 if is_enhanced(check_writable(source, options), options) else slices

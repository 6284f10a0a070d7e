"""Every way medsr refuses: one class and one exit code each.

A message says what was found, where, and what to do about it, in one line. The command line
prints that line and leaves with ``exit_code``; library callers catch :class:`MedsrError` or one of
its families. Nothing here names a patient. The table of codes is in
``docs/reference/exit-codes.md`` and a test keeps both equal.
"""

from __future__ import annotations

from typing import ClassVar


class MedsrError(Exception):
    """A condition that the user can understand and mend; never a programming error.

    Examples:
        >>> from medsr import Geometry, MedsrError
        >>> try:
        ...     Geometry((64, 64, 0), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        ... except MedsrError as error:
        ...     print(type(error).__name__, error.exit_code)
        GeometryError 18
    """

    exit_code: ClassVar[int] = 1
    nothing_to_do: bool = False
    """Whether the scan needs no upscaling, so that a run over many skips it and does not fail."""


class UsageError(MedsrError):
    """Options that contradict each other or lie outside their range."""

    exit_code = 2


class InputError(MedsrError):
    """Family: the input cannot be taken as a scan.

    Examples:
        >>> import medsr
        >>> from medsr.errors import InputError, OutputError
        >>> try:
        ...     medsr.load("no-such-scan.nii.gz")
        ... except OutputError:
        ...     print("nothing was written")
        ... except InputError as error:  # whatever is wrong with the scan
        ...     print(type(error).__name__, error.exit_code)
        InputNotFoundError 11
    """

    exit_code = 10


class InputNotFoundError(InputError):
    """The input path does not exist or cannot be read."""

    exit_code = 11


class UnsupportedFormatError(InputError):
    """The file is of no format that medsr reads."""

    exit_code = 12


class CorruptFileError(InputError):
    """The file is truncated, damaged, or contradicts its own header."""

    exit_code = 13


class DimensionError(InputError):
    """The image is not one 3D scalar volume (2D, 4D, complex)."""

    exit_code = 14


class ColourError(InputError):
    """The image holds colour (RGB, palette) and not one intensity per voxel."""

    exit_code = 15


class TooFewSlicesError(InputError):
    """Fewer slices than a volume needs."""

    exit_code = 16


class NonFiniteError(InputError):
    """The voxels hold NaN, infinity, or numbers too large to compute with in float32."""

    exit_code = 17


class GeometryError(InputError):
    """Zero spacing, a singular affine, contradicting transforms."""

    exit_code = 18


class SliceSpacingError(InputError):
    """Slices are unevenly spaced or some are missing."""

    exit_code = 19


class GantryTiltError(InputError):
    """The slice stack is sheared (gantry tilt)."""

    exit_code = 20


class OrientationError(InputError):
    """Slice orientation is missing, mixed, or not orthogonal."""

    exit_code = 21


class DuplicateSlicesError(InputError):
    """Two different slices claim the same position."""

    exit_code = 22


class SeveralSeriesError(InputError):
    """The folder holds several series or volumes and none was picked."""

    exit_code = 23


class MosaicError(InputError):
    """A mosaic: many slices tiled in one picture."""

    exit_code = 24


class MissingDecoderError(InputError):
    """The pixel data are compressed and the decoder is not installed."""

    exit_code = 25


class NotHounsfieldError(InputError):
    """CT images of other values than Hounsfield units (perfusion, atomic number, density)."""

    exit_code = 26


class LabelsError(InputError):
    """A label image, a mask or a constant volume: there are no intensities to restore."""

    exit_code = 27
    nothing_to_do = True


class ModalityError(InputError):
    """Whether the scan is CT or MR cannot be told, and nobody says it."""

    exit_code = 28


class MissingGeometryError(GeometryError):
    """DICOM slices do not state their position, orientation or pixel spacing."""

    exit_code = 80


class NotOrthogonalError(OrientationError):
    """The direction cosines of DICOM slices are no unit vectors at right angles."""

    exit_code = 81


class MissingSlicesError(SliceSpacingError):
    """Slices are evenly spaced but for some that are missing."""

    exit_code = 82


class LocalizerError(DimensionError):
    """Localizers (scouts), which are no slices of a volume."""

    exit_code = 83


class TimeSeriesError(SeveralSeriesError):
    """One series holds several volumes of one place (4D: times, echoes, directions)."""

    exit_code = 84


class NotAnImageError(UnsupportedFormatError):
    """DICOM objects without a CT or MR image (structured reports, segmentations, raw data)."""

    exit_code = 85
    nothing_to_do = True


class TruncatedPixelsError(CorruptFileError):
    """Pixel data are missing, truncated or do not decode."""

    exit_code = 86


class ArchiveError(InputError):
    """A zip archive is encrypted, damaged, unsafe or beyond the limits."""

    exit_code = 87


class ComplexError(DimensionError):
    """The voxels are complex numbers."""

    exit_code = 88


class WideIntegerError(InputError):
    """64-bit integers too large for float32, which networks compute in: no intensities."""

    exit_code = 89


class OutputError(MedsrError):
    """Family: the result cannot be written."""

    exit_code = 30


class OutputExistsError(OutputError):
    """The output is there already and overwriting was not asked for."""

    exit_code = 31


class OutputNotWritableError(OutputError):
    """The folder of the output is missing, read-only or full."""

    exit_code = 32


class OutputFormatError(OutputError):
    """The output's format is unknown or cannot hold this volume."""

    exit_code = 33


class SourceOverwriteError(OutputError):
    """An output would replace the scan it is made of, or a file that belongs to it."""

    exit_code = 34


class ModelError(MedsrError):
    """Family: the model cannot be used."""

    exit_code = 40


class UnknownModelError(ModelError):
    """No shipped model and no folder of that name."""

    exit_code = 41


class ModelFileError(ModelError):
    """A model folder is incomplete or its weights do not fit its spec."""

    exit_code = 42


class OutOfScopeError(ModelError):
    """The scan lies outside what any shipped model was trained for."""

    exit_code = 43


class DeviceError(ModelError):
    """The device asked for is not there."""

    exit_code = 44


class MemoryLimitError(ModelError):
    """Not even the smallest tile fits into the memory given."""

    exit_code = 45


class NoUncertaintyError(ModelError):
    """An uncertainty map is asked of a model that gives values only."""

    exit_code = 46


class BackendError(ModelError):
    """The backend lacks the precision, the device or an operation that is needed."""

    exit_code = 47


class RecipeError(MedsrError):
    """A recipe has an unknown key, a wrong type or a value out of range."""

    exit_code = 50


class CohortError(MedsrError):
    """A manifest is incomplete, or a patient stands in two splits."""

    exit_code = 51


class CheckpointError(MedsrError):
    """A checkpoint is damaged or belongs to another recipe."""

    exit_code = 52


class ScansFailedError(MedsrError):
    """Some scans of a folder could not be upscaled; the others were."""

    exit_code = 53


class TrainingPatientsError(CohortError):
    """A model would be scored on its own training patients."""

    exit_code = 54


class CohortChangedError(CohortError):
    """Scans are missing or have changed since the cohort was locked."""

    exit_code = 55


class LeakError(CohortError):
    """The same scan stands in two splits under different names."""

    exit_code = 56


class DoubtfulResultsError(MedsrError):
    """Every scan of a folder was upscaled or skipped, but some results are not to be trusted."""

    exit_code = 57


class MissingExtraError(MedsrError):
    """An optional dependency is not installed; the message gives the install command."""

    exit_code = 60


class PacsError(MedsrError):
    """Family: a DICOM node or DICOMweb server cannot be worked with."""

    exit_code = 61


class PacsUnreachableError(PacsError):
    """The server does not answer, or breaks off, and went on so through every retry.

    Args:
        message: What happened.
        wait_seconds: How long the server asks to be left alone, where it says so.
    """

    exit_code = 62

    def __init__(self, message: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class PacsRefusedError(PacsError):
    """The server refuses: its association, the credentials, the certificate, or an operation."""

    exit_code = 63


class NotInPacsError(PacsError):
    """The server has no such study or series."""

    exit_code = 64


class PartialTransferError(PacsError):
    """Some instances could not be fetched or stored; the same request again brings the rest."""

    exit_code = 65


class Interrupted(MedsrError):
    """Stopped by the user; what was finished is kept, nothing half-written is left."""

    exit_code = 130

"""Writing scans of any format: ``save``, ``creating``, and what a name says of its format.

Voxels lie under a temporary name until all are there. Where the way of storing them depends on
their range, which is not known before the last, they wait in a scratch file. How a format is
written is its codec's part, see ``medsr.io.formats``.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from medsr.errors import OutputFormatError
from medsr.io.atomic import atomic_file, atomic_folder, check_output, check_replaceable
from medsr.io.checks import FINITE, check_finite
from medsr.io.dicom.options import DEFAULTS, DicomOptions
from medsr.io.formats import FOLDERS, Codec, Format, by_name_of, find, format_of, suffix_of, table
from medsr.io.planes import CHUNK_BYTES, PlaneFile
from medsr.io.scaling import Scaling, ValueRange, range_of, source_of
from medsr.io.source_files import check_apart
from medsr.types import Array
from medsr.volume import Derivation, SourceFormat, Volume

logger = logging.getLogger(__name__)

# What is held of stored numbers at a time.
_STORED_BYTES = 4 * 2**20

# "scan.png" asks for a format; "1.2.840" or "visit.2" is the name of a folder.
_LOOKS_LIKE_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{1,4}$")


def save(
    volume: Volume,
    path: str | Path,
    *,
    overwrite: bool = False,
    format: SourceFormat | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions = DEFAULTS,
) -> Path:
    """Write a scan, whole or not at all.

    Integer types are rounded half to even and saturate; the source's stored type, slope and
    intercept are kept where the format can hold them.

    Args:
        volume: what to write.
        path: its ending chooses the format (.nii, .nii.gz, .nrrd, .mha, .mgz); a name without
            one is a DICOM folder.
        overwrite: whether an existing output may be replaced.
        format: the format, if the name shall not decide.
        derivation: how the volume was computed; recorded where the format has a place for it.
        dicom: how a DICOM series is written; other formats ignore it.

    Returns:
        The path written.

    Raises:
        OutputFormatError: if the format is unknown or cannot hold the volume.
        OutputExistsError, OutputNotWritableError: see ``medsr.io.atomic``.
        SourceOverwriteError: if ``path`` is the scan that the volume came from.
        NonFiniteError: if the voxels hold NaN or infinity.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> data = np.arange(8 * 8 * 6, dtype=np.int16).reshape(8, 8, 6)
        >>> grid = medsr.Geometry(data.shape, np.diag([1.0, 1.0, 4.0, 1.0]))
        >>> scan = medsr.Volume(data, grid, "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = medsr.save(scan, Path(folder, "brain.nrrd"))  # the ending chooses the format
        ...     again = medsr.load(file, modality="MR")
        ...     try:
        ...         medsr.save(scan, file)
        ...     except medsr.MedsrError as error:
        ...         print("not overwritten; exit code", error.exit_code)
        not overwritten; exit code 31
        >>> np.array_equal(again.data, scan.data), again.geometry.same_grid(grid)
        (True, True)
    """
    path = Path(path)
    _check_place(volume, path, overwrite=overwrite, format=format)
    check_finite(volume.data, "the volume to be written", largest=FINITE)
    with creating(
        volume,
        path,
        overwrite=overwrite,
        format=format,
        derivation=derivation,
        dicom=dicom,
        value_range=range_of(volume.data),
    ) as sink:
        sink.append(volume.data, checked=True)
        sink.finish()
    return path


@contextmanager
def creating(
    like: Volume,
    path: Path,
    *,
    overwrite: bool = False,
    format: SourceFormat | None = None,
    derivation: Derivation | None = None,
    dicom: DicomOptions = DEFAULTS,
    value_range: ValueRange | None = None,
) -> Iterator[PlaneSink]:
    """Write a scan plane by plane under a temporary name, which becomes ``path`` in the end.

    So several outputs can appear together, or none of them. The block gives all planes to
    :meth:`PlaneSink.append` and calls :meth:`PlaneSink.finish`.

    Args:
        like: Grid, type and source of what will be written; its voxels are not looked at.
        path: As for :func:`save`.
        overwrite: Whether an existing output may be replaced.
        format: The format, if the name shall not decide.
        derivation: How the volume was computed; recorded where the format has a place for it.
        dicom: How a DICOM series is written; other formats ignore it.
        value_range: Gives the range of the values, where that is known before.

    Raises:
        OutputError: As :func:`save`; nothing is left then.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.io import creating
        >>> planes = np.arange(8 * 8 * 6, dtype=np.int16).reshape(8, 8, 6)
        >>> like = medsr.Volume(planes, medsr.Geometry(planes.shape, np.eye(4)), "MR")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "brain.nii.gz")
        ...     with creating(like, file) as sink:
        ...         for start in (0, 3):  # three planes at a time
        ...             sink.append(planes[..., start : start + 3])
        ...         print(file.exists())  # it appears when the block ends
        ...         sink.finish()
        ...     np.array_equal(medsr.load(file, modality="MR").data, planes)
        False
        True
    """
    chosen = _check_place(like, path, overwrite=overwrite, format=format)
    placing: AbstractContextManager[Path]
    if chosen.is_folder:
        placing = atomic_folder(path, overwrite=overwrite, replaceable=_replaceable(chosen, path))
    else:
        placing = atomic_file(path, overwrite=overwrite, suffix=chosen.suffix_for(path))
    with placing as place:
        sink = PlaneSink(like, chosen.load(), place, derivation, dicom, value_range)
        try:
            sink.begin()
            yield sink
        finally:
            sink.abandon()


@contextmanager
def saving(volume: Volume, path: Path, **options: Any) -> Iterator[None]:
    """Write a scan that appears when the block ends; deprecated, see :func:`creating`."""
    message = "medsr.io.saving is deprecated; use medsr.io.creating"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    with creating(volume, path, value_range=range_of(volume.data), **options) as sink:
        sink.append(volume.data)
        sink.finish()
        yield


class _RangeNeededError(Exception):
    """Somebody asked for the range of values before they are known."""


class PlaneSink:
    """Takes native planes in order along the last axis; see :func:`creating`."""

    def __init__(
        self,
        like: Volume,
        codec: Codec,
        place: Path,
        derivation: Derivation | None,
        dicom: DicomOptions,
        value_range: ValueRange | None = None,
    ) -> None:
        self._header, self._codec, self._place = like, codec, place
        self._derivation, self._dicom, self._range = derivation, dicom, value_range
        self._shape = like.shape
        self._given = 0
        self._low, self._high = np.inf, -np.inf
        self._open = ExitStack()
        self._scratch: BinaryIO | None = None
        self._file: PlaneFile | None = None
        self._scaling = Scaling(np.dtype(np.float32))

    def begin(self) -> None:
        """Open the file, or the scratch file where the range of values decides how they are kept.

        Raises:
            OutputFormatError: The format cannot hold the volume.
        """
        try:
            self._begin_file(self._range or _unknown_range)
        except _RangeNeededError:
            scratch = tempfile.TemporaryFile(dir=self._place.parent, prefix=".medsr-")  # noqa: SIM115
            self._scratch = cast(BinaryIO, self._open.enter_context(scratch))

    def append(self, planes: Array, *, checked: bool = False) -> None:
        """Take the next planes.

        Args:
            planes: (X, Y, planes) in native units.
            checked: Whether they are known to be finite.

        Raises:
            NonFiniteError: They hold NaN or infinity.
        """
        for k in () if checked else range(planes.shape[2]):
            plane = planes[:, :, k : k + 1]
            check_finite(plane, f"plane {self._given + k} to be written", largest=FINITE)
        self._given += planes.shape[2]
        if self._scratch is None:
            self._store(planes)
            return
        self._low = min(self._low, float(planes.min()))
        self._high = max(self._high, float(planes.max()))
        for k in range(planes.shape[2]):
            plane = planes[:, :, k].astype(np.float32, copy=False)
            self._scratch.write(plane.tobytes(order="F"))

    def finish(self) -> None:
        """Write what waits, and close the file.

        Raises:
            ValueError: Planes are missing.
        """
        if self._given != self._shape[2]:
            raise ValueError(f"{self._given} of {self._shape[2]} planes were given")
        if self._scratch is not None:
            self._begin_file(lambda: (self._low, self._high))
            self._scratch.seek(0)
            for planes in self._waiting(self._scratch):
                self._store(planes)
            self._scratch = None
        for note in self._scaling.notes:
            logger.info("%s", note)
        self._open.close()

    def abandon(self) -> None:
        """Close what is open; the caller removes it."""
        self._open.close()

    def _begin_file(self, value_range: ValueRange) -> None:
        self._scaling = self._codec.scaling(source_of(self._header), value_range)
        self._file = self._open.enter_context(
            self._codec.create(
                self._header, self._place, self._scaling, self._derivation, self._dicom
            )
        )

    def _store(self, planes: Array) -> None:
        if self._file is not None:
            x, y, count = planes.shape
            step = max(1, _STORED_BYTES // (4 * x * y))
            for start in range(0, count, step):
                self._file.append(self._scaling.stored(planes[:, :, start : start + step]))

    def _waiting(self, scratch: BinaryIO) -> Iterator[Array]:
        x, y, count = self._shape
        step = max(1, CHUNK_BYTES // (4 * x * y))
        for start in range(0, count, step):
            planes = min(step, count - start)
            buffer = np.frombuffer(scratch.read(4 * x * y * planes), dtype=np.float32)
            yield buffer.reshape((x, y, planes), order="F")


def output_format(path: str | Path, *, format: SourceFormat | None = None) -> SourceFormat:
    """The format that :func:`save` will write to ``path``.

    Raises:
        OutputFormatError: if the name asks for a format that medsr does not write, or for
            another one than ``format``.

    Examples:
        >>> from medsr.io import output_format
        >>> output_format("sharp.nii.gz"), output_format("sharp.mha"), output_format("sharp")
        ('nifti', 'mha', 'dicom')
    """
    path = Path(path)
    suffix = suffix_of(path)
    parse_format(format)
    if suffix is None:
        if format is not None:
            return format
        if _LOOKS_LIKE_SUFFIX.search(path.name.lower()) and not path.is_dir():
            raise OutputFormatError(_unknown_output(path))
        return find(FOLDERS).name
    named = by_name_of(path)
    if named is None or suffix not in named.endings:
        raise OutputFormatError(_unknown_output(path))
    if format is not None and format != named.name:
        raise OutputFormatError(
            f"{path}: the name says {named.name} and the format asked for {format}"
        )
    return named.name


def parse_format(name: str | None) -> SourceFormat | None:
    """A format that medsr writes, by the name that a user typed; None stays None.

    Raises:
        OutputFormatError: if it is none of them.

    Examples:
        >>> from medsr.io import parse_format
        >>> parse_format("nrrd"), parse_format(None)
        ('nrrd', None)
    """
    if name is not None and name not in table():
        raise OutputFormatError(f"format {name!r} is not known; choose {', '.join(table())}")
    return name


def name_output(path: Path, format: SourceFormat | None) -> Path:
    """The name of an output whose format was asked for: its ending is added where there is none.

    Examples:
        >>> from pathlib import Path
        >>> from medsr.io import name_output
        >>> name_output(Path("sharp"), "nifti").name
        'sharp.nii.gz'
        >>> name_output(Path("sharp.nii"), "nifti").name, name_output(Path("sharp"), "dicom").name
        ('sharp.nii', 'sharp')
    """
    if format is None or suffix_of(path) is not None:
        return path
    return path.with_name(path.name + "".join(find(format).endings[:1]))


def _check_place(
    volume: Volume, path: Path, *, overwrite: bool, format: SourceFormat | None
) -> Format:
    """The format of an output, which must not replace the scan that the volume came from.

    Raises:
        OutputFormatError: See :func:`output_format`.
        SourceOverwriteError: See :func:`medsr.io.source_files.check_apart`.
        OutputExistsError, OutputNotWritableError: See :func:`medsr.io.check_output`.
    """
    chosen = find(output_format(path, format=format))
    source = None if volume.source is None else volume.source.path
    if source is not None and source.exists():
        is_folder = chosen.is_folder
        check_apart(source, () if is_folder else (path,), path if is_folder else None)
    check_output(path, overwrite=overwrite)
    return chosen


def check_writable(
    volume: Volume,
    path: str | Path,
    *,
    format: SourceFormat | None = None,
    dicom: DicomOptions = DEFAULTS,
) -> None:
    """Refuse an output that :func:`save` would refuse in the end, before anything is computed.

    Raises:
        OutputFormatError: if ``path`` is a DICOM folder and the volume did not come from DICOM,
            or cannot be of the layout asked for.
        OutputExistsError: if that folder holds files that overwriting would delete.

    Examples:
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.errors import OutputFormatError
        >>> from medsr.io import check_writable
        >>> data = np.zeros((8, 8, 6), dtype=np.float32)
        >>> scan = medsr.Volume(data, medsr.Geometry(data.shape, np.eye(4)), "MR")
        >>> check_writable(scan, "sharp.nii.gz")
        >>> try:
        ...     check_writable(scan, "sharp")  # a DICOM folder
        ... except OutputFormatError:
        ...     print("a DICOM series needs a DICOM source")
        a DICOM series needs a DICOM source
    """
    chosen = find(output_format(path, format=format))
    chosen.load().check_writable(volume, dicom)
    if chosen.is_folder:
        check_replaceable(Path(path), _replaceable(chosen, Path(path)))


def _unknown_range() -> tuple[float, float]:
    raise _RangeNeededError


def _unknown_output(path: Path) -> str:
    endings = ", ".join(suffix for known in table().values() for suffix in known.written)
    return f"{path}: cannot write this format; use {endings}, or a plain name for a DICOM folder"


def _replaceable(chosen: Format, path: Path) -> Callable[[Path], bool]:
    """Whether an entry of a folder may go when a result replaces the folder."""
    if chosen.name == FOLDERS:
        return _is_dicom_name
    is_of_format = path.is_dir() and format_of(path) == chosen
    return lambda entry: is_of_format


def _is_dicom_name(entry: Path) -> bool:
    """Whether an entry of an output folder is one that a DICOM writer leaves."""
    return entry.is_file() and entry.suffix.lower() in (".dcm", "")

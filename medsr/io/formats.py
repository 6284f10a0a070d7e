"""The table of file formats: what each is called, by which names it is known, and its codec.

A format is one module with a :class:`Codec` and one line in the table below; :func:`register` and
the entry points ``medsr.formats`` add formats from outside. Codecs are imported when they are
needed, so that the libraries of one format are not loaded for another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from medsr.errors import InputNotFoundError, UnsupportedFormatError

if TYPE_CHECKING:
    from medsr.io.allow import Allowance
    from medsr.io.dicom.options import DicomOptions
    from medsr.io.inspection import Inspection, ListedVolume
    from medsr.io.planes import PlaneFile, PlaneSource
    from medsr.io.scaling import Scaling, ValueRange
    from medsr.volume import Derivation, Source, SourceFormat, Volume

__all__ = ["Codec", "Format", "SeriesCodec", "find", "format_of", "register", "table"]

logger = logging.getLogger(__name__)

_IN_TWO_FILES = (".hdr", ".img", ".hdr.gz", ".img.gz")


class Codec(Protocol):
    """How one format is read and written; CONTRIBUTING.md adds one step by step.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import medsr
        >>> from medsr.io import formats
        >>> data = np.zeros((32, 32, 8), dtype=np.int16)
        >>> grid = medsr.Geometry(data.shape, np.diag([0.9, 0.9, 5.0, 1.0]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = medsr.save(medsr.Volume(data, grid, "MR"), Path(folder, "brain.mha"))
        ...     codec = formats.format_of(file).load()
        ...     with codec.open(file, series=None, allow=frozenset(), whole=False) as planes:
        ...         planes.read(2, 5).shape  # three planes, native units
        (32, 32, 3)
    """

    def open(
        self, path: Path, *, series: str | None, allow: frozenset[Allowance], whole: bool
    ) -> PlaneSource:
        """Open a scan; its header is read and checked, its voxels as far as that needs them.

        Args:
            path: An existing file, or a folder.
            series: Which volume, for formats that hold several.
            allow: What may be done to a scan that is refused otherwise.
            whole: Whether all planes will be asked for at once, so that what is decoded on the
                way may be kept.

        Raises:
            InputError: The header cannot be taken; one of its family.
        """

    def companions(self, path: Path) -> list[Path]:
        """Files that belong to a scan besides its own, such as voxels beside their header."""

    def scaling(self, source: Source, value_range: ValueRange) -> Scaling:
        """Settle how values are stored.

        Args:
            source: Of the scan that the values come from.
            value_range: Gives the range of the values; called only where it decides something.
        """

    def check_writable(self, volume: Volume, dicom: DicomOptions) -> None:
        """Refuse a volume, or the scan of which it will be computed, that cannot be held.

        Raises:
            OutputFormatError: It cannot.
        """

    def create(
        self,
        like: Volume,
        path: Path,
        scaling: Scaling,
        derivation: Derivation | None,
        dicom: DicomOptions,
    ) -> AbstractContextManager[PlaneFile]:
        """Begin a file or folder, whose stored planes follow.

        Args:
            like: Grid and source of what will be written; its voxels are not looked at.
            path: Where, under a temporary name that ends as the final one.
            scaling: Of the planes.
            derivation: How the volume was computed, where the format has a place for it.
            dicom: How a DICOM series is written.

        Raises:
            OutputFormatError: The format cannot hold the volume.
        """


class SeriesCodec(Codec, Protocol):
    """How a format is read and written of which one path may hold several volumes.

    What is told of a scan without its voxels takes choosing here; of other formats it is what the
    source's header says.
    """

    def inspect(self, path: Path, *, series: str | None, allow: frozenset[Allowance]) -> Inspection:
        """Describe a scan from its header; arguments and errors as for :meth:`open`."""

    def count_voxels(self, path: Path) -> int:
        """Say how many voxels a scan has at most, from as little of it as can be.

        Raises:
            InputError: The header cannot be taken; one of its family.
        """

    def list_volumes(self, path: Path, *, allow: frozenset[Allowance]) -> tuple[ListedVolume, ...]:
        """List the volumes; errors as for :func:`medsr.io.list_volumes`."""


@dataclass(frozen=True)
class Format:
    """One format of the table.

    Args:
        name: What ``format=`` and ``--format`` call it.
        suffixes: Endings of names that are read, lower case; none for what is told by content.
        written: Endings of files that are written, the usual first; none where a scan is a folder.
        codec: Its :class:`Codec`, or ``"module:object"`` of it, which is imported when needed.
        has_series: Whether one path may hold several volumes to choose from; then the codec is a
            :class:`SeriesCodec`.
        recognise: ``"module:function"`` that tells a file without a known ending, or a folder, by
            its content.

    Examples:
        >>> from medsr.io import formats
        >>> formats.find("nifti").written
        ('.nii.gz', '.nii')
        >>> formats.find("dicom").is_folder
        True
    """

    name: SourceFormat
    suffixes: tuple[str, ...]
    written: tuple[str, ...]
    codec: str | Codec
    has_series: bool = False
    recognise: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is written as a folder."""
        return not self.written

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings that the name of a result may have, the usual first."""
        return self.written or self.suffixes

    def load(self) -> Codec:
        """The codec, imported where need be."""
        if not isinstance(self.codec, str):
            return self.codec
        codec: Codec = _import(self.codec)
        return codec

    def series_codec(self) -> SeriesCodec | None:
        """The codec, where one path may hold several volumes."""
        return cast(SeriesCodec, self.load()) if self.has_series else None

    def recognises(self, path: Path) -> bool:
        """Whether a file without a known ending, or a folder, is of this format."""
        return self.recognise is not None and bool(_import(self.recognise)(path))

    def suffix_for(self, path: Path) -> str:
        """The ending of a file of this format that is written to a path."""
        suffix = suffix_of(path)
        return suffix if suffix in self.written else self.written[0]


_TABLE: dict[str, Format] = {
    known.name: known
    for known in (
        Format("nifti", (".nii.gz", ".nii"), (".nii.gz", ".nii"), "medsr.io.nifti:NIFTI"),
        Format("nrrd", (".nrrd", ".nhdr"), (".nrrd",), "medsr.io.nrrd:NRRD"),
        Format("mha", (".mha", ".mhd"), (".mha",), "medsr.io.metaimage:METAIMAGE"),
        Format("mgz", (".mgz", ".mgh"), (".mgz", ".mgh"), "medsr.io.nifti:MGZ"),
        Format(
            "dicom",
            (),
            (),
            "medsr.io.dicom.codec:DICOM",
            has_series=True,
            recognise="medsr.io.dicom.codec:is_dicom",
        ),
    )
}


FOLDERS = "dicom"
"""The format of folders that no other format claims."""
BUILT_IN: tuple[str, ...] = tuple(_TABLE)
"""Names of the formats above, for texts of help: those of other packages take longer to find."""


def register(format: Format) -> Format:
    """Add a format to the table for this process, or replace the one of its name.

    Examples:
        >>> from medsr.io import formats
        >>> plain = formats.Format("plain", (".plain",), (".plain",), "my_package.plain:PLAIN")
        >>> formats.register(plain) is plain  # CONTRIBUTING.md has such a codec
        True
        >>> formats.find("plain").suffixes
        ('.plain',)
        >>> _ = formats.table().pop("plain")
    """
    table()[format.name] = format
    return format


def table() -> dict[str, Format]:
    """The formats by name: those above, and those of the entry points ``medsr.formats``.

    Examples:
        >>> from medsr.io import formats
        >>> sorted(formats.table())
        ['dicom', 'mgz', 'mha', 'nifti', 'nrrd']
    """
    _add_entry_points()
    return _TABLE


def find(name: str) -> Format:
    """The format of a name.

    Raises:
        KeyError: There is none.

    Examples:
        >>> from medsr.io import formats
        >>> formats.find("mha").suffixes
        ('.mha', '.mhd')
    """
    return table()[name]


def suffix_of(path: Path) -> str | None:
    """The ending of a name that decides its format (lower case), or None for any other."""
    name = path.name.lower()
    endings = (suffix for known in table().values() for suffix in known.suffixes)
    return next((suffix for suffix in endings if name.endswith(suffix)), None)


def by_name_of(path: Path) -> Format | None:
    """The format that a name's ending says, or None."""
    suffix = suffix_of(path)
    return next((known for known in table().values() if suffix in known.suffixes), None)


def readable() -> str:
    """What medsr reads, for messages."""
    endings = (suffix for format in table().values() for suffix in sorted(format.written))
    return f"{', '.join(s for s in endings if s != '.mgh')}, or a DICOM file, folder or zip archive"


def format_of(path: Path) -> Format:
    """The format of an existing file or folder.

    Raises:
        InputNotFoundError: There is nothing at ``path``.
        UnsupportedFormatError: It is of no format that medsr reads.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.io import formats
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     formats.format_of(Path(folder)).name  # a folder is taken for a DICOM series
        'dicom'
    """
    from medsr.io.foreign import LOST_LINK, fault_of, is_lost_link

    if not path.exists():
        what = LOST_LINK if is_lost_link(path) else "no such file or folder"
        raise InputNotFoundError(f"{path}: {what}")
    if path.is_dir():
        return special_folder(path) or find(FOLDERS)
    named = by_name_of(path)
    if named is not None:
        return named
    if path.name.lower().endswith(_IN_TWO_FILES):
        raise UnsupportedFormatError(
            f"{path}: Analyze or NIfTI in two files; convert both to one .nii.gz"
        )
    for known in table().values():
        if known.recognises(path):
            return known
    with path.open("rb") as stream:
        what = fault_of(stream) or f"the format is not known; medsr reads {readable()}"
    raise UnsupportedFormatError(f"{path}: {what}")


def special_folder(path: Path) -> Format | None:
    """The format of a folder by its ending or its content; None for DICOM, which has no mark."""
    name = path.name.lower()
    others = (known for known in table().values() if known.is_folder and known.name != FOLDERS)
    return next((o for o in others if name.endswith(o.suffixes) or o.recognises(path)), None)


@cache
def _add_entry_points() -> None:
    from importlib.metadata import entry_points  # takes longer than a text of help

    for point in entry_points(group="medsr.formats"):
        try:
            added: Format = point.load()
        except (ImportError, AttributeError) as problem:  # other formats can be read all the same
            logger.warning(
                "format %r of %s cannot be loaded (%s); mend or remove the package that offers it",
                point.name,
                point.value,
                problem,
            )
            continue
        _TABLE.setdefault(added.name, added)


@cache
def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    attribute_value: Callable[..., Any] = getattr(import_module(module), attribute)
    return attribute_value

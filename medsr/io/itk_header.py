"""Headers of NRRD and MetaImage files, parsed and checked; the voxels are read in ``itk``.

ITK's own readers were written for files of friends: damaged headers make them overrun a buffer,
take 1 mm for a spacing that is not there, or hand out memory without voxels (the fuzz tests keep
examples). What a header means is as in ITK, and tested against it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from medsr.errors import (
    ColourError,
    ComplexError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    InputNotFoundError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry

_Number = TypeVar("_Number", int, float)

Encoding = Literal["raw", "deflate", "bzip2"]
NRRD_SUFFIXES = (".nrrd", ".nhdr")
_START_BYTES = 1 << 20
_MAX_AXES = 7
_MAX_SIZE = 1 << 31
_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)
_COLOURS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color")
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NRRD_TYPES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
_NRRD_CODES = {name: code for code, names in _NRRD_TYPES.items() for name in names.split(",")}
_NRRD_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gzip": "deflate",
    "gz": "deflate",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
# NRRD's frames of space as signs of LPS+; "space dimension" names none.
_LPS = (1.0, 1.0, 1.0)
_SPACES = {
    "left-posterior-superior": _LPS,
    "lps": _LPS,
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
_UNPLACED_SPACES = ("scanner-xyz", "3d-right-handed", "3d-left-handed", "3dr", "3dl")
_NO_SPACING = "the header has no spacing; voxels of 1 mm were taken"
_UNPLACED = "the header names no directions in space; orientation and position are unknown"


@dataclass(frozen=True)
class TextHeader:
    """What the text at the start of a file says.

    Args:
        geometry: the grid.
        dtype: type and byte order of the stored numbers.
        encoding: how they are packed.
        data_file: where they lie: the file itself, or the one beside it that it names.
        offset: bytes before them in that file; None where they are its end.
        notes: sentences about what is doubtful.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    encoding: Encoding
    data_file: Path
    offset: int | None
    notes: tuple[str, ...] = ()

    @property
    def voxel_bytes(self) -> int:
        """Bytes of the voxels, unpacked."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize


def read_text_header(path: Path) -> TextHeader:
    """Read and check the text of a header.

    Args:
        path: an NRRD file if its name ends in ``.nrrd`` or ``.nhdr``, else a MetaImage.

    Raises:
        InputNotFoundError: there is no such file.
        CorruptFileError: it is no such file, or a field is damaged or missing.
        UnsupportedFormatError: the voxels are spread over several files, or lie in another folder.
        DimensionError: 2D, or several frames.
        ComplexError: complex numbers.
        ColourError: colour.
        GeometryError: a spacing, direction or position is missing, not finite or not positive.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror or 'cannot be opened'}") from error
    if path.suffix.lower() in NRRD_SUFFIXES:
        return _nrrd(path, start)
    return _metaimage(path, start)


def _metaimage(path: Path, start: bytes) -> TextHeader:
    end = re.search(rb"ElementDataFile[ \t]*=[^\n]*(\n|\Z)", start)
    if end is None or b"NDims" not in start[: end.end()]:
        raise CorruptFileError(f"{path}: this is no MetaImage file (it has no NDims)")
    check = _Checked(path, _fields(path, start[: end.end()].decode("latin-1"), "=", "MetaImage"))
    fields = check.fields
    name = fields.get("ElementDataFile", "")
    axes = check.axes("NDims")
    sizes = check.sizes(check.whole("DimSize", axes))
    if any(n > 1 for n in sizes[3:]):
        raise DimensionError(
            f"{path}: {_by(sizes)} holds {math.prod(sizes[3:])} frames; split it and give one"
        )
    channels = check.whole("ElementNumberOfChannels", 1, missing=[1])[0]
    if channels in (3, 4):
        raise ColourError(
            f"{path}: {channels} components a voxel (colour); give one intensity per voxel"
        )
    if channels != 1:
        raise DimensionError(f"{path}: {channels} components a voxel; give one")
    kind = _META_TYPES.get(fields.get("ElementType", ""))
    if kind is None:
        raise CorruptFileError(f"{path}: no ElementType of MetaImage's; export it again")
    # "True" by the first letter, as MetaIO has it.
    flags = {name for name, value in fields.items() if value.upper()[:1] in ("T", "1")}
    if "BinaryData" in fields and "BinaryData" not in flags:
        raise UnsupportedFormatError(f"{path}: the voxels are written as text; save them as binary")
    order = ">" if flags & {"BinaryDataByteOrderMSB", "ElementByteOrderMSB"} else "<"
    spacing = check.numbers(("ElementSpacing", "ElementSize"), axes)
    origin = check.numbers(("Offset", "Position", "Origin"), axes) or [0.0] * axes
    matrix = check.numbers(("TransformMatrix", "Rotation", "Orientation"), axes * axes)
    # A row of the file is the direction of an axis.
    rows = np.eye(axes) if matrix is None else np.reshape(matrix, (axes, axes))
    geometry = check.grid(sizes[:3], spacing or [1.0] * 3, rows[:3, :3], origin[:3])
    packed: Encoding = "deflate" if "CompressedData" in flags else "raw"
    local = name.upper() == "LOCAL"
    offset: int | None = check.whole("HeaderSize", 1, missing=[0])[0]
    if offset is not None and (offset < -1 or (offset != 0 and (local or packed != "raw"))):
        raise CorruptFileError(f"{path}: HeaderSize is {offset}; export it again")
    return TextHeader(
        geometry,
        np.dtype(order + kind),
        packed,
        path if local else check.beside(name),
        end.end() if local else (None if offset == -1 else offset),
        () if spacing else (_NO_SPACING,),
    )


def _nrrd(path: Path, start: bytes) -> TextHeader:
    if not re.match(rb"NRRD\d{4}\r?\n", start):
        raise CorruptFileError(f"{path}: this is no NRRD file (it does not start with NRRD)")
    end = re.search(rb"\n\r?\n", start)
    text = start[: end.end() if end else None].decode("latin-1").split("\n", 1)[1]
    # A list of files may follow; one is refused by its first line.
    detached = re.search(r"^data ?file:[^\n]*", text, re.M | re.I)
    if end is None and detached is None:
        raise CorruptFileError(f"{path}: the header has no end; export it again")
    text = text[: detached.end()] if detached else text
    check = _Checked(path, _fields(path, text, ":", "NRRD"))
    fields = check.fields
    sizes = check.whole("sizes", check.axes("dimension"))
    kind = _NRRD_CODES.get(fields.get("type", "").lower())
    if kind is None:
        raise CorruptFileError(f"{path}: the type is none of NRRD's numbers; export it again")
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and kind[1] != "1":
        raise CorruptFileError(f"{path}: no endian says which byte comes first; export it again")
    packed = _NRRD_ENCODINGS.get(fields.get("encoding", "").lower())
    if packed is None:
        raise UnsupportedFormatError(f"{path}: this encoding is not read; save it as raw or gzip")
    geometry, notes = _nrrd_grid(check, sizes)
    skip = check.whole("byte skip", 1, missing=[0])[0]
    lines = check.whole("line skip", 1, missing=[0])[0]
    if skip < -1 or lines != 0 or (skip != 0 and packed != "raw"):
        raise UnsupportedFormatError(f"{path}: lines or bytes to be skipped are read in raw alone")
    data = path if detached is None else check.beside(fields["data file"])
    before = end.end() if end is not None and detached is None else 0
    offset = None if skip == -1 else before + skip
    return TextHeader(geometry, np.dtype((order or "<") + kind), packed, data, offset, notes)


def _nrrd_grid(check: _Checked, sizes: list[int]) -> tuple[Geometry, tuple[str, ...]]:
    """Where the voxels lie, and a refusal unless there is one volume of numbers."""
    axes, fields = len(sizes), check.fields
    kinds = fields.get("kinds", "").lower().split()
    text = fields.get("space directions")
    vectors = None if text is None else _VECTOR.findall(text)
    if vectors is not None and (len(vectors) != axes or _VECTOR.sub("", text or "").strip()):
        raise CorruptFileError(f"{check.path}: not {axes} space directions; export it again")
    spatial = [
        k
        for k in range(axes)
        if (vectors is None or vectors[k].lower() != "none") and _is_spatial(kinds, k)
    ]
    for k in set(range(axes)) - set(spatial):
        _check_other_axis(check.path, sizes, kinds, k)
    sizes = check.sizes([sizes[k] for k in spatial])
    if any(n > 1 for n in sizes[3:]):
        raise DimensionError(
            f"{check.path}: {_by(sizes)} holds {math.prod(sizes[3:])} frames; split it and give one"
        )
    spatial = spatial[:3]
    origin = check.vector("space origin", fields.get("space origin", "(0,0,0)"))
    notes: list[str] = []
    if vectors is not None:
        rows = np.array([check.vector("space directions", vectors[k]) for k in spatial])
        frame = fields.get("space", "").lower()
        if frame not in _SPACES:
            if frame not in ("", *_UNPLACED_SPACES):
                raise UnsupportedFormatError(
                    f"{check.path}: this space is not known; save it as LPS"
                )
            notes.append("the space is no patient's; it was taken as left-posterior-superior")
        rows, origin = (
            rows * _SPACES.get(frame, _LPS),
            list(np.multiply(origin, _SPACES.get(frame, _LPS))),
        )
        return check.grid(sizes[:3], [1.0] * 3, rows, origin), tuple(notes)
    words = fields.get("spacings", "").split()
    if words and len(words) != axes:
        raise CorruptFileError(f"{check.path}: spacings of not {axes} axes; export it again")
    try:
        spacing = [float(words[k]) for k in spatial] if words else [1.0] * 3
    except ValueError:
        raise CorruptFileError(f"{check.path}: a spacing is no number; export it again") from None
    notes = [_UNPLACED] if words else [_UNPLACED, _NO_SPACING]
    return check.grid(sizes[:3], spacing, np.eye(3), origin), tuple(notes)


def _check_other_axis(path: Path, sizes: list[int], kinds: list[str], axis: int) -> None:
    """Refuse an axis that is none of space's, unless it has one entry that is a number."""
    kind = kinds[axis] if axis < len(kinds) else ""
    if kind in _COLOURS:
        raise ColourError(f"{path}: the voxels are colours ({kind}); give one intensity per voxel")
    if kind == "complex":
        raise ComplexError(f"{path}: the voxels are complex; give their magnitude")
    if sizes[axis] > 1 and len(sizes) <= 3:
        raise GeometryError(f"{path}: axis {axis} has no direction in space; all three need one")
    if sizes[axis] != 1:
        raise DimensionError(
            f"{path}: {_by(sizes)} holds {sizes[axis]} frames or components; split it and give one"
        )


def _is_spatial(kinds: list[str], axis: int) -> bool:
    return axis >= len(kinds) or kinds[axis] in ("domain", "space", "???", "none")


def _fields(path: Path, text: str, mark: str, format: str) -> dict[str, str]:
    """Names and values, one a line; names in lower case for NRRD, and no name twice."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, found, value = line.partition(mark)
        if format == "NRRD":
            if line.startswith("#") or value.startswith("="):
                continue  # a comment, or a key and its value, which mean nothing to NRRD itself
            name = _ALIASES.get(name.strip().lower(), name.strip().lower())
        name = name.strip()
        if not line.strip():
            continue
        if not found or "\0" in line:
            raise CorruptFileError(f"{path}: a line is no field of {format}; export it again")
        if name in fields:
            raise CorruptFileError(f"{path}: the header has a field twice; export it again")
        fields[name] = value.strip()
    return fields


_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}


@dataclass(frozen=True)
class _Checked:
    """Fields of a header, turned into numbers or refused."""

    path: Path
    fields: dict[str, str]

    def axes(self, name: str) -> int:
        count = self.whole(name, 1)[0]
        if not 1 <= count <= _MAX_AXES:
            raise DimensionError(f"{self.path}: {count} axes; three are needed")
        return count

    def whole(self, name: str, count: int, *, missing: list[int] | None = None) -> list[int]:
        if name not in self.fields:
            if missing is not None:
                return missing
            raise CorruptFileError(f"{self.path}: the header has no {name}; export it again")
        return self._parsed(name, self.fields[name].split(), count, int)

    def numbers(self, names: tuple[str, ...], count: int) -> list[float] | None:
        """The first of several names that is there; all that are there must be numbers."""
        found = [
            self._parsed(name, self.fields[name].split(), count, float)
            for name in names
            if name in self.fields
        ]
        return found[0] if found else None

    def vector(self, name: str, text: str) -> list[float]:
        return self._parsed(name, text.strip("() ").split(","), 3, float)

    def grid(
        self,
        sizes: list[int],
        spacing: list[float],
        rows: npt.NDArray[np.float64],
        origin: list[float],
    ) -> Geometry:
        """The grid; each row is the LPS+ direction of an axis."""
        try:
            return Geometry.from_lps(sizes, origin, spacing[:3], rows.T)
        except GeometryError as error:
            raise GeometryError(f"{self.path}: {error}; export it again") from None

    def _parsed(
        self, name: str, words: list[str], count: int, kind: Callable[[str], _Number]
    ) -> list[_Number]:
        """So many finite numbers, or a refusal."""
        try:
            values = [kind(word) for word in words[: _MAX_AXES**2] if len(word) < 64]
        except ValueError:
            values = []
        if len(values) != count or len(words) != count:
            raise CorruptFileError(f"{self.path}: {name} is not {count} number(s); export it again")
        if not all(math.isfinite(value) for value in values):
            raise GeometryError(f"{self.path}: {name} holds NaN or infinity; export it again")
        return values

    def sizes(self, values: list[int]) -> list[int]:
        if any(not 0 < size < _MAX_SIZE for size in values):
            raise CorruptFileError(f"{self.path}: the header gives {_by(values)} voxels")
        if len(values) < 3:
            raise DimensionError(
                f"{self.path}: {_by(values)} is no volume; three dimensions are needed"
            )
        return values

    def beside(self, name: str) -> Path:
        """The file with the voxels, which must lie in the header's own folder."""
        words = name.split()
        if not words or words[0].upper() == "LIST" or "%" in name:
            raise UnsupportedFormatError(
                f"{self.path}: the voxels are spread over several files; convert it to one .nrrd "
                "or .mha"
            )
        if "/" in name or "\\" in name or name in (".", "..") or len(name) > 255:
            raise UnsupportedFormatError(
                f"{self.path}: the header names a file in another folder; put both side by side"
            )
        data = self.path.parent / name
        if not data.is_file():
            raise CorruptFileError(f"{self.path}: its file of voxels is not beside it; bring both")
        return data


def _by(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes))

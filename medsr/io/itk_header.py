"""Headers of NRRD and MetaImage files, read as text and checked before ITK sees the file.

ITK's parsers were written for files of friends: some of these headers make them overrun a buffer,
take 1 mm for a spacing that is not there, or hand out memory without voxels. What they must not be
given is refused here. Voxels and everything else are ``medsr.io.itk``'s work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from medsr.errors import (
    ColourError,
    ComplexError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    InputNotFoundError,
    UnsupportedFormatError,
)
from medsr.geometry import format_mm

_Number = TypeVar("_Number", int, float)

NRRD_SUFFIXES = (".nrrd", ".nhdr")
_START_BYTES = 1 << 16
# MetaIO keeps a field's value in a buffer of 32 KiB and its name in one of 256 bytes.
_MAX_NAME, _MAX_VALUE = 200, 8000
_MAX_AXES = 7
_MAX_SIZE = 1 << 31
_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)
_COLOURS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color")
_UNCOMPRESSED_ENCODINGS = ("raw",)


@dataclass(frozen=True)
class TextHeader:
    """What the text at the start of a file says.

    Args:
        data_file: where the voxels lie: the file itself, or the one beside it that it names.
        header_bytes: what goes before the voxels in that file, at least.
        compressed: whether the voxels may take less room than they claim.
        notes: sentences about what is doubtful.
    """

    data_file: Path
    header_bytes: int
    compressed: bool
    notes: tuple[str, ...] = ()


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
    text = start[: end.end()].decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, mark, value = (part.strip() for part in line.partition("="))
        if not line.strip():
            continue
        if not mark or len(name) > _MAX_NAME or len(value) > _MAX_VALUE or "\0" in line:
            raise CorruptFileError(f"{path}: a line of the header is no field of a MetaImage")
        if name in fields:
            raise CorruptFileError(f"{path}: the header says {name} twice")
        fields[name] = value
    check = _Checked(path, fields)
    axes = check.whole("NDims", 1)[0]
    if not 1 <= axes <= _MAX_AXES:
        raise DimensionError(f"{path}: {axes} axes; three are needed")
    sizes = check.whole("DimSize", axes)
    channels = check.whole("ElementNumberOfChannels", 1, missing=[1])[0]
    if channels < 1:
        raise CorruptFileError(f"{path}: ElementNumberOfChannels is {channels}")
    check.sizes(sizes)
    for names, count in (
        (("ElementSpacing", "ElementSize"), axes),
        (("Offset", "Position", "Origin"), axes),
        (("TransformMatrix", "Rotation", "Orientation"), axes * axes),
        (("CenterOfRotation",), axes),
    ):
        for name in names:
            numbers = check.numbers(name, count)
            if name == "ElementSpacing" and numbers is not None:
                check.spacing(numbers[:3])
    # "True" by the first letter, as MetaIO has it.
    flags = {name: fields.get(name, "").upper()[:1] in ("T", "1") for name in _FLAGS}
    if "BinaryData" in fields and not flags["BinaryData"]:
        raise UnsupportedFormatError(f"{path}: the voxels are written as text; save them as binary")
    before = check.skipped("HeaderSize")
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data = path if local else check.beside(fields["ElementDataFile"])
    notes = [] if {"ElementSpacing", "ElementSize"} & set(fields) else [_NO_SPACING]
    before = len(text) if local else before
    return TextHeader(data, before, flags["CompressedData"], tuple(notes))


_FLAGS = ("CompressedData", "BinaryData")
_NO_SPACING = "the header has no spacing; voxels of 1 mm were taken"


def _nrrd(path: Path, start: bytes) -> TextHeader:
    if not re.match(rb"NRRD\d{4}\r?\n", start):
        raise CorruptFileError(f"{path}: this is no NRRD file (it does not start with NRRD)")
    end = re.search(rb"\n\r?\n", start)
    text = start[: end.end() if end else None].decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if not line.strip() or line.startswith("#"):
            continue
        name, mark, value = line.partition(":")
        if value.startswith("="):
            continue  # a key and its value, which mean nothing to NRRD itself
        name = _ALIASES.get(name.strip().lower(), name.strip().lower())
        if not mark or "\0" in line:
            raise CorruptFileError(f"{path}: a line of the header is no field of an NRRD file")
        if name in fields:
            raise CorruptFileError(f"{path}: the header says {name} twice")
        fields[name] = value.strip()
        if name == "data file":
            break  # what follows may be a list of files
    if end is None and "data file" not in fields:
        raise CorruptFileError(f"{path}: the header has no end")
    check = _Checked(path, fields)
    axes = check.whole("dimension", 1)[0]
    if not 1 <= axes <= _MAX_AXES:
        raise DimensionError(f"{path}: {axes} axes; three are needed")
    sizes = check.whole("sizes", axes)
    kinds = fields.get("kinds", "").lower().split()
    notes = _nrrd_space(check, sizes, kinds)
    before = check.skipped("byte skip")
    check.skipped("line skip")
    data = path if "data file" not in fields else check.beside(fields["data file"])
    compressed = fields.get("encoding", "").lower() not in _UNCOMPRESSED_ENCODINGS
    before = 0 if compressed else before
    return TextHeader(data, before + (len(text) if data == path else 0), compressed, notes)


_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}


def _nrrd_space(check: _Checked, sizes: list[int], kinds: list[str]) -> tuple[str, ...]:
    """Check what says where the voxels lie, and that there is one volume of numbers."""
    axes, fields = len(sizes), check.fields
    text = fields.get("space directions")
    vectors = None if text is None else _VECTOR.findall(text)
    if vectors is not None and (len(vectors) != axes or _VECTOR.sub("", text or "").strip()):
        raise CorruptFileError(f"{check.path}: the space directions are no {axes} vectors")
    spatial = [
        (vectors is None or vectors[k].lower() != "none") and _is_spatial(kinds, k, axes)
        for k in range(axes)
    ]
    for k, (size, kind) in enumerate(zip(sizes, [*kinds, *[""] * axes], strict=False)):
        if spatial[k]:
            continue
        if kind in _COLOURS:
            raise ColourError(
                f"{check.path}: the voxels are colours ({kind}); give one intensity per voxel"
            )
        if kind == "complex":
            raise ComplexError(f"{check.path}: the voxels are complex; give their magnitude")
        if size > 1:
            raise DimensionError(
                f"{check.path}: {_by(sizes)} holds {size} frames or components; split it and "
                "give one"
            )
    if sum(spatial) < 3 <= axes and vectors is not None and sum(n > 1 for n in sizes) >= 3:
        raise GeometryError(
            f"{check.path}: an axis of the volume has no direction in space; all three need one"
        )
    check.sizes([n for n, there in zip(sizes, spatial, strict=True) if there])
    for vector in vectors or []:
        if vector.lower() != "none":
            _ = check.parsed("space directions", vector.strip("()").split(","), 3, float)
    spacings = fields.get("spacings", "").split()
    if spacings and len(spacings) != axes:
        raise CorruptFileError(f"{check.path}: there are {len(spacings)} spacings for {axes} axes")
    inside = [word for word, there in zip(spacings, spatial, strict=False) if there]
    if inside:
        check.spacing([_number(word) for word in inside])
    if "space origin" in fields:
        check.parsed("space origin", fields["space origin"].strip("() ").split(","), 3, float)
    if vectors is None:
        doubt = "orientation and position are unknown"
        return (f"the header names no directions in space; {doubt}",) + (
            () if spacings else (_NO_SPACING,)
        )
    return ()


def _is_spatial(kinds: list[str], axis: int, axes: int) -> bool:
    if axis < len(kinds):
        return kinds[axis] in ("domain", "space", "???", "none", "")
    return axes <= 3 or axis < 3


@dataclass(frozen=True)
class _Checked:
    """Fields of a header, turned into numbers or refused."""

    path: Path
    fields: dict[str, str]

    def whole(self, name: str, count: int, *, missing: list[int] | None = None) -> list[int]:
        if name not in self.fields:
            if missing is not None:
                return missing
            raise CorruptFileError(f"{self.path}: the header has no {name}")
        return self.parsed(name, self.fields[name].split(), count, int)

    def numbers(self, name: str, count: int) -> list[float] | None:
        if name not in self.fields:
            return None
        return self.parsed(name, self.fields[name].split(), count, float)

    def parsed(
        self, name: str, words: list[str], count: int, kind: Callable[[str], _Number]
    ) -> list[_Number]:
        """So many finite numbers, or a refusal."""
        try:
            values = [kind(word) for word in words if len(word) < 64]
        except ValueError:
            values = []
        if len(values) != count or len(words) != count:
            raise CorruptFileError(f"{self.path}: {name} is not {count} number(s)")
        if not all(math.isfinite(value) for value in values):
            raise GeometryError(f"{self.path}: {name} holds NaN or infinity")
        return values

    def skipped(self, name: str) -> int:
        """Bytes or lines before the voxels; -1 stands for "whatever is there"."""
        count = self.whole(name, 1, missing=[0])[0]
        if not -1 <= count < _MAX_SIZE:
            raise CorruptFileError(f"{self.path}: {name} is {count}")
        return max(count, 0)

    def spacing(self, values: list[float]) -> None:
        if not all(math.isfinite(value) and value > 0.0 for value in values):
            raise GeometryError(
                f"{self.path}: the voxel spacing is {format_mm(values)} mm; every axis needs more "
                "than zero"
            )

    def sizes(self, values: list[int]) -> None:
        if any(not 0 < size < _MAX_SIZE for size in values):
            raise CorruptFileError(f"{self.path}: the header gives {_by(values)} voxels")
        if len(values) < 3:
            raise DimensionError(
                f"{self.path}: {_by(values)} is no volume; three dimensions are needed"
            )

    def beside(self, name: str) -> Path:
        """The file with the voxels, which must lie in the header's own folder."""
        words = name.split()
        if not words or words[0].upper() == "LIST" or "%" in name:
            raise UnsupportedFormatError(
                f"{self.path}: the voxels are spread over several files; convert it to one .nrrd "
                "or .mha"
            )
        data = self.path.parent / name
        if "/" in name or "\\" in name or name in (".", ".."):
            raise UnsupportedFormatError(
                f"{self.path}: the header names a file in another folder; put both side by side"
            )
        if not data.is_file():
            raise CorruptFileError(f"{self.path}: the file with the voxels is not beside it")
        return data


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _by(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes))

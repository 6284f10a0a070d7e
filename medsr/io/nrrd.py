"""NRRD files (.nrrd, .nhdr): headers parsed and checked, and written as ITK writes them.

Source: https://teem.sourceforge.net/nrrd/format.html, and what ITK makes of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medsr.errors import (
    ColourError,
    ComplexError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry
from medsr.io.compressed import gzip_stream
from medsr.io.foreign import hint
from medsr.io.text_header import NO_SPACING, Encoding, Fields, TextHeader, by, parse_fields
from medsr.io.text_voxels import StreamFile, TextCodec, numbers
from medsr.volume import Volume

_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)
_COLOURS = ("rgb-color", "rgba-color", "hsv-color", "xyz-color")
_TYPES = {
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
_CODES = {name: code for code, names in _TYPES.items() for name in names.split(",")}
_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw",
    "gzip": "deflate",
    "gz": "deflate",
    "bzip2": "bzip2",
    "bz2": "bzip2",
    "text": "text",
    "txt": "text",
    "ascii": "text",
    "hex": "hex",
}
# Frames of space as signs of LPS+.
_LPS = (1.0, 1.0, 1.0)
_SPACES = {
    "left-posterior-superior": _LPS,
    "lps": _LPS,
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
    "left-posterior-superior-time": _LPS,
    "lpst": _LPS,
}
_UNPLACED_SPACES = ("", "scanner-xyz", "3d-right-handed", "3d-left-handed", "3dr", "3dl")
SEGMENTS = "the header describes segments and no intensities"
_UNPLACED = "the header names no directions in space; orientation and position are unknown"
_MIN_TAKEN = (
    "the header names no directions in space; position was taken from axis mins, and orientation "
    "is unknown"
)
_NOT_MM = "the header gives lengths in another unit than mm; they were taken as mm"
_ALIASES = {
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "centerings": "centers",
}


_WRITTEN = {
    "i1": "signed char",
    "u1": "unsigned char",
    "i2": "short",
    "u2": "unsigned short",
    "i4": "int",
    "u4": "unsigned int",
    "i8": "long long int",
    "u8": "unsigned long long int",
    "f4": "float",
    "f8": "double",
}


@contextmanager
def _create(like: Volume, path: Path, dtype: np.dtype[Any]) -> Iterator[StreamFile]:
    """Begin a gzipped file, whose planes follow."""
    origin, spacing, direction = like.geometry.to_lps()
    axes = (np.asarray(direction)[:, k] * spacing[k] for k in range(3))
    kind = _WRITTEN[f"{dtype.kind}{dtype.itemsize}"]
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {kind}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, like.shape))}",
        "space directions: " + " ".join(f"({numbers(axis, ',')})" for axis in axes),
        "kinds: domain domain domain",
        *(["endian: little"] if dtype.itemsize > 1 else []),
        "encoding: gzip",
        f"space origin: ({numbers(origin, ',')})",
    ]
    with path.open("wb") as stream:
        stream.write(("\n".join(lines) + "\n\n").encode("ascii"))
        file = StreamFile(stream, gzip_stream())
        yield file
        file.finish()


def _parse(path: Path, start: bytes) -> TextHeader:
    """Read the header at the start of a file; errors as for :meth:`TextCodec.open`."""
    if not re.match(rb"NRRD\d{4}\r?\n", start):
        seems = hint(path) or "it does not start with NRRD"
        raise CorruptFileError(f"{path}: this is no NRRD file; {seems}")
    end = re.search(rb"\n\r?\n", start)
    text = start[: end.end() if end else None].decode("latin-1").split("\n", 1)[1]
    detached = re.search(r"^data ?file:(?!=)[ \t]*(\S*)[^\n]*", text, re.M | re.I)
    if end is None and detached is None:
        raise CorruptFileError(f"{path}: the header has no end; export it again")
    if detached is not None and detached[1].upper() == "LIST":
        text = text[: detached.end()]  # names of files follow, which are no fields
    segments = (SEGMENTS,) if "\nSegment0_" in text else ()  # as 3D Slicer writes
    # Comments, and keys with values of their own (":="), mean nothing to NRRD itself.
    text = re.sub(r"^(#.*|[^\n:]*:=.*)$", "", text, flags=re.M)
    fields = parse_fields(path, text, ":", "NRRD", _name)
    sizes = fields.whole("sizes", fields.axes("dimension"))
    kind = _CODES.get(fields.get("type").lower())
    if kind is None:
        raise CorruptFileError(f"{path}: the type is none of NRRD's numbers; export it again")
    packed = _ENCODINGS.get(fields.get("encoding").lower())
    if packed is None:
        raise UnsupportedFormatError(f"{path}: this encoding is not read; save it as raw or gzip")
    order = {"little": "<", "big": ">"}.get(fields.get("endian").lower())
    if order is None and kind[1] != "1" and packed != "text":
        raise CorruptFileError(f"{path}: no endian says which byte comes first; export it again")
    geometry, notes = _grid(fields, sizes)
    if not set(re.findall(r'"([^"]*)"', fields.get("space units"))) <= {"mm", "", "???"}:
        notes += (_NOT_MM,)
    skip = fields.whole("byte skip", 1, missing=[0])[0]
    lines = fields.whole("line skip", 1, missing=[0])[0]
    if skip < -1 or lines != 0 or (skip != 0 and packed != "raw"):
        raise UnsupportedFormatError(
            f"{path}: lines are not skipped, and bytes in raw voxels alone; save it without a skip"
        )
    data = path if detached is None else fields.beside(fields.texts["data file"])
    before = end.end() if end is not None and detached is None else 0
    offset = None if skip == -1 else before + skip
    return TextHeader(
        geometry, np.dtype((order or "<") + kind), packed, data, offset, notes + segments
    )


def _name(name: str) -> str:
    return _ALIASES.get(name.lower(), name.lower())


def _grid(fields: Fields, sizes: list[int]) -> tuple[Geometry, tuple[str, ...]]:
    """Where the voxels lie, and a refusal unless there is one volume of numbers."""
    axes, kinds = len(sizes), fields.get("kinds").lower().split()
    vectors = _vectors(fields, axes)
    spatial = [
        k
        for k in range(axes)
        if (vectors is None or vectors[k].lower() != "none") and _is_spatial(kinds, k)
    ]
    for k in set(range(axes)) - set(spatial):
        _check_other_axis(fields.path, sizes, kinds, k)
    shape = fields.volume([sizes[k] for k in spatial])
    spatial = spatial[:3]
    space = fields.get("space").lower()
    signs, notes = _SPACES.get(space, _LPS), []
    if vectors is not None:
        if space not in (*_SPACES, *_UNPLACED_SPACES):
            raise UnsupportedFormatError(f"{fields.path}: this space is not known; save it as LPS")
        if space in _UNPLACED_SPACES:
            notes = ["the space is no patient's; it was taken as left-posterior-superior"]
        rows = [_point(fields, "space directions", vectors[k]) for k in spatial]
        origin = _point(fields, "space origin", fields.texts.get("space origin"))
        turned = np.array(rows) * signs
        return fields.grid(shape, [1.0] * 3, turned, _times(origin, signs)), tuple(notes)
    spacing = _along(fields, "spacings", axes, spatial)
    if space or "space dimension" in fields.texts or "space origin" in fields.texts:
        corner = None
        origin = _times(_point(fields, "space origin", fields.texts.get("space origin")), signs)
    else:
        corner = _first_centres(fields, axes, spatial, spacing)
        origin = corner or [0.0] * 3
    notes = [_UNPLACED if corner is None else _MIN_TAKEN, *([] if spacing else [NO_SPACING])]
    return fields.grid(shape, spacing or [1.0] * 3, np.eye(3), origin), tuple(notes)


def _vectors(fields: Fields, axes: int) -> list[str] | None:
    """The directions in space as texts, one an axis; None where there are none."""
    text = fields.texts.get("space directions")
    if text is None:
        return None
    vectors = _VECTOR.findall(text)
    if len(vectors) != axes or _VECTOR.sub("", text).strip():
        raise CorruptFileError(f"{fields.path}: not {axes} space directions; export it again")
    return vectors


def _point(fields: Fields, name: str, text: str | None) -> list[float]:
    """A vector in space, zeros where there is none; a space with time must not mix it in."""
    has_time = "time" in fields.get("space").lower() or fields.get("space").lower()[3:] == "t"
    count = 4 if has_time or fields.get("space dimension") == "4" else 3
    if text is None:
        return [0.0] * 3
    vector = fields.vector(name, text, count)
    if name == "space directions" and any(vector[3:]):
        raise GeometryError(f"{fields.path}: an axis runs in space and time; export it again")
    return vector[:3]


def _times(vector: list[float], signs: tuple[float, ...]) -> list[float]:
    return [value * sign for value, sign in zip(vector, signs, strict=True)]


def _along(fields: Fields, name: str, axes: int, spatial: list[int]) -> list[float] | None:
    """A number for each axis of the volume, NaN where that is said; None without the field."""
    entries = fields.get(name).split()
    if not entries:
        return None
    if len(entries) != axes:
        raise CorruptFileError(f"{fields.path}: {name} of not {axes} axes; export it again")
    try:
        return [float(entries[k]) for k in spatial]
    except ValueError:
        raise CorruptFileError(
            f"{fields.path}: one of the {name} is no number; export it again"
        ) from None


def _first_centres(
    fields: Fields, axes: int, spatial: list[int], spacing: list[float] | None
) -> list[float] | None:
    """The centre of the first voxel where axis mins tell it; None where nothing is told.

    A min is the edge of the first voxel, or with a centering of ``node`` its centre.
    """
    low, high = (_along(fields, name, axes, spatial) for name in ("axis mins", "axis maxs"))
    if low is None or all(map(math.isnan, low)):
        return None
    if spacing is None:
        if high is None or all(map(math.isnan, high)):
            return None
        raise GeometryError(
            f"{fields.path}: axis mins and maxs but no spacings, which readers take for different "
            "grids; give it spacings"
        )
    if not all(map(math.isfinite, low)):
        raise GeometryError(f"{fields.path}: axis mins holds NaN or infinity; export it again")
    centers = fields.get("centers").lower().split() or ["cell"] * axes
    if len(centers) != axes:
        raise CorruptFileError(f"{fields.path}: centers of not {axes} axes; export it again")
    to_centre = [0.0 if centers[k] == "node" else 0.5 for k in spatial]
    return [a + share * mm for a, share, mm in zip(low, to_centre, spacing, strict=True)]


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
            f"{path}: {by(sizes)} holds {sizes[axis]} frames or components; split it and give one"
        )


def _is_spatial(kinds: list[str], axis: int) -> bool:
    return axis >= len(kinds) or kinds[axis] in ("domain", "space", "???", "none")


NRRD = TextCodec("nrrd", _parse, _create)

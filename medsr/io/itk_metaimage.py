"""Headers of MetaImage files (.mha, .mhd), parsed and checked; see ``itk_header``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medsr.errors import (
    ColourError,
    CorruptFileError,
    DimensionError,
    UnsupportedFormatError,
)
from medsr.io.itk_fields import NO_SPACING, Encoding, TextHeader, parse_fields
from medsr.io.misnamed import hint

_TYPES = {
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


def read_metaimage(path: Path, start: bytes) -> TextHeader:
    """Read the header at the start of a file; errors as for ``itk_header.read_text_header``."""
    end = re.search(rb"ElementDataFile[ \t]*=[^\n]*(\n|\Z)", start)
    if end is None or b"NDims" not in start[: end.end()]:
        seems = hint(path) or "it has no NDims"
        raise CorruptFileError(f"{path}: this is no MetaImage file; {seems}")
    fields = parse_fields(path, start[: end.end()].decode("latin-1"), "=", "MetaImage")
    name = fields.get("ElementDataFile")
    axes = fields.axes("NDims")
    sizes = fields.volume(fields.whole("DimSize", axes))
    channels = fields.whole("ElementNumberOfChannels", 1, missing=[1])[0]
    if channels in (3, 4):
        raise ColourError(
            f"{path}: {channels} components a voxel (colour); give one intensity per voxel"
        )
    if channels != 1:
        raise DimensionError(f"{path}: {channels} components a voxel; give one")
    kind = _TYPES.get(fields.get("ElementType"))
    if kind is None:
        raise CorruptFileError(f"{path}: no ElementType of MetaImage's; export it again")
    # "True" by the first letter, as MetaIO has it.
    flags = {name for name, value in fields.texts.items() if value.upper()[:1] in ("T", "1")}
    if "BinaryData" in fields.texts and "BinaryData" not in flags:
        raise UnsupportedFormatError(f"{path}: the voxels are written as text; save them as binary")
    order = ">" if flags & {"BinaryDataByteOrderMSB", "ElementByteOrderMSB"} else "<"
    # The size of a voxel may be another than the distance to the next, which counts.
    size = fields.numbers(("ElementSize",), axes)
    spacing = fields.numbers(("ElementSpacing",), axes) or size
    origin = fields.numbers(("Offset", "Position", "Origin"), axes) or [0.0] * axes
    matrix = fields.numbers(("TransformMatrix", "Rotation", "Orientation"), axes * axes)
    # A row of the file is the direction of an axis.
    rows = np.eye(axes) if matrix is None else np.reshape(matrix, (axes, axes))
    geometry = fields.grid(sizes, (spacing or [1.0] * 3)[:3], rows[:3, :3], origin[:3])
    packed: Encoding = "deflate" if "CompressedData" in flags else "raw"
    local = name.upper() == "LOCAL"
    offset: int | None = fields.whole("HeaderSize", 1, missing=[0])[0]
    if offset is not None and (offset < -1 or (offset != 0 and (local or packed != "raw"))):
        raise CorruptFileError(f"{path}: HeaderSize is {offset}; export it again")
    return TextHeader(
        geometry,
        np.dtype(order + kind),
        packed,
        path if local else fields.beside(name),
        end.end() if local else (None if offset == -1 else offset),
        () if spacing else (NO_SPACING,),
    )

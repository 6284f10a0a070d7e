"""MetaImage files (.mha, .mhd): headers parsed and checked, and written as ITK writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medsr.errors import (
    ColourError,
    CorruptFileError,
    DimensionError,
    UnsupportedFormatError,
)
from medsr.io.compressed import zlib_stream
from medsr.io.foreign import hint
from medsr.io.text_header import NO_SPACING, Encoding, TextHeader, parse_fields
from medsr.io.text_voxels import StreamFile, TextCodec, numbers
from medsr.volume import Volume

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


_WRITTEN = {code: name for name, code in _TYPES.items() if name not in ("MET_LONG", "MET_ULONG")}
# What MetaIO calls an axis: by where it comes from.
_FROM = dict(zip("RLAPIS", "LRPASI", strict=True))
# Room for the size of the compressed voxels, which is known last; readers skip leading zeros.
_SIZE_DIGITS = 20


@contextmanager
def _create(like: Volume, path: Path, dtype: np.dtype[Any]) -> Iterator[StreamFile]:
    """Begin a compressed file, whose planes follow."""
    origin, spacing, direction = like.geometry.to_lps()
    size = "CompressedDataSize = "
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"{size}{0:0{_SIZE_DIGITS}}",
        f"TransformMatrix = {numbers(np.asarray(direction).T)}",
        f"Offset = {numbers(origin)}",
        "CenterOfRotation = 0 0 0",
        f"AnatomicalOrientation = {''.join(_FROM[code] for code in like.geometry.axcodes)}",
        f"ElementSpacing = {numbers(spacing)}",
        f"DimSize = {' '.join(map(str, like.shape))}",
        f"ElementType = {_WRITTEN[f'{dtype.kind}{dtype.itemsize}']}",
        "ElementDataFile = LOCAL",
    ]
    header = "\n".join(lines) + "\n"
    with path.open("w+b") as stream:
        stream.write(header.encode("ascii"))
        file = StreamFile(stream, zlib_stream())
        yield file
        file.finish()
        stream.seek(header.index(size) + len(size))
        stream.write(f"{file.written:0{_SIZE_DIGITS}}".encode("ascii"))


def _parse(path: Path, start: bytes) -> TextHeader:
    """Read the header at the start of a file; errors as for :meth:`TextCodec.open`."""
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


METAIMAGE = TextCodec("mha", _parse, _create)

"""NRRD and MetaImage headers that lie, repeat themselves, lack fields or name other files."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsr import io
from medsr.io.reading import open_planes

Edits = list[list[Any]]
VOXELS = np.arange(210, dtype="<i2").tobytes()
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "4",
    "99",
    "4294967296",
    "60000",
    "nan",
    "inf",
    "1e30",
    "1e-30",
]
WORDS = [
    "",
    "x",
    "LIST",
    "LOCAL",
    "True",
    "none",
    "../../etc/passwd",
    "%03d 1 9 1",
    "é",
    "-" * 9000,
]
METAIMAGE = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "0 0 0",
    "CenterOfRotation": "0 0 0",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "1 1 1",
    "DimSize": "6 5 7",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "6 5 7",
    "space directions": "(1,0,0) (0,1,0) (0,0,1)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(0,0,0)",
}
EXTRA = {
    "mha": "ElementSize HeaderSize ElementNumberOfChannels Position Rotation Comment ElementMin "
    "CompressedDataSize ElementByteOrderMSB ID Modality",
    "nrrd": "spacings,byte skip,line skip,data file,space dimension,centers,thicknesses,axis mins,"
    "measurement frame,content,block size,number",
}
TYPES = {
    "mha": ["MET_UCHAR", "MET_DOUBLE", "MET_LONG_LONG", "MET_STRING", "MET_SHORT_ARRAY"],
    "nrrd": ["uchar", "double", "block", "int64", "longlong", "signed char"],
}


def propose(rng: np.random.Generator, kind: str, propose_spoil: Callable[..., Edits]) -> Edits:
    """A few fields changed, left out, said twice or added, perhaps damaged bytes too."""
    fields = METAIMAGE if kind == "mha" else NRRD
    edits: Edits = []
    for _ in range(int(rng.integers(0, 4))):
        name = str(rng.choice([*fields, *EXTRA[kind].split(" " if kind == "mha" else ",")]))
        edits.append([str(rng.choice(["set", "set", "set", "drop", "twice"])), name])
        if edits[-1][0] != "drop":
            edits[-1].append(_value(rng, kind, name, fields.get(name, "")))
    if rng.random() < 0.3:
        edits.append(
            [str(rng.choice(["deflate"] if kind == "mha" else ["deflate", "text", "hex"]))]
        )
    if rng.random() < 0.4:
        edits += propose_spoil(rng, within=float(rng.choice([0.4, 1.0])))
    return edits


def _value(rng: np.random.Generator, kind: str, name: str, value: str) -> str:
    if name in ("ElementType", "type") and rng.random() < 0.7:
        return str(rng.choice(TYPES[kind]))
    if rng.random() < 0.2 or not value:
        return str(rng.choice(WORDS + NUMBERS))
    marks = value.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()
    words = [k for k, mark in enumerate(marks) if mark not in "(),"]
    change = rng.random()
    if change < 0.7:
        marks[int(rng.choice(words))] = str(rng.choice(NUMBERS))
    elif change < 0.85:
        marks.append(str(rng.choice(NUMBERS)))
    else:
        del marks[int(rng.choice(words))]
    return " ".join(marks).replace("( ", "(").replace(" )", ")").replace(" , ", ",")


def build(edits: Edits, folder: Path, kind: str) -> Path:
    """Write the file that the edits describe."""
    fields = dict(METAIMAGE if kind == "mha" else NRRD)
    again: list[tuple[str, str]] = []
    voxels = VOXELS
    for edit, *what in edits:
        if edit == "set":
            fields[what[0]] = what[1]
        elif edit == "drop":
            fields.pop(what[0], None)
        elif edit == "twice":
            again.append((what[0], what[1]))
        elif edit == "deflate":
            wrapped = zlib.compressobj(6, zlib.DEFLATED, 15 if kind == "mha" else 31)
            voxels = wrapped.compress(VOXELS) + wrapped.flush()
            if kind == "mha":
                fields["CompressedData"] = "True"
            else:
                fields["encoding"] = "gzip"
        elif edit == "text":
            voxels = " ".join(map(str, range(210))).encode()
            fields["encoding"] = "text"
        elif edit == "hex":
            voxels = VOXELS.hex().encode()
            fields["encoding"] = "hex"
    last = (
        [("ElementDataFile", fields.pop("ElementDataFile"))] if "ElementDataFile" in fields else []
    )
    lines = [*again, *fields.items(), *last]
    if kind == "mha":
        text = "".join(f"{name} = {value}\n" for name, value in lines)
    else:
        text = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in lines) + "\n"
    path = folder / f"a.{kind}"
    path.write_bytes(_SPOIL[0](text.encode("latin-1") + voxels, edits))
    return path


_SPOIL: list[Callable[[bytes, Edits], bytes]] = []


@pytest.fixture(autouse=True)
def _spoil(spoil: Callable[[bytes, Edits], bytes]) -> None:
    _SPOIL[:] = [spoil]


def use(path: Path) -> None:
    """Everything that reads."""
    io.inspect(path)
    volume = io.load(path)
    assert np.isfinite(volume.geometry.affine).all()
    np.testing.assert_array_equal(open_planes(path).read(0, 2), volume.data[:, :, :2])


@pytest.mark.parametrize("kind", ["mha", "nrrd"])
def test_itk(fuzz: Any, kind: str, propose_spoil: Callable[..., Edits]) -> None:
    fuzz.run(
        kind,
        lambda rng: propose(rng, kind, propose_spoil),
        lambda edits, folder: build(edits, folder, kind),
        use,
        share=2.0,
    )


@pytest.mark.parametrize("kind", ["mha", "nrrd"])
def test_itk_corpus(fuzz: Any, kind: str) -> None:
    fuzz.replay(kind, lambda edits, folder: build(edits, folder, kind), use)

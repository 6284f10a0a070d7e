"""DICOM series whose headers lie, lengths are hostile and pixel data are cut or swapped; archives.

The files are encoded here, element by element, so that anything can be written: a text under a
number's VR, a length of four gigabytes, an item that never ends.
"""

from __future__ import annotations

import io as streams
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsr import io
from medsr.errors import ArchiveError

Edits = list[list[Any]]
Element = tuple[str, str, bytes]
SLICES = 5
LONG_VRS = {"OB", "OW", "OF", "SQ", "UN", "UT", "OD", "OL", "UC", "UR"}
VRS = ["CS", "DS", "IS", "LO", "UI", "US", "SS", "FD", "SQ", "OW", "UN", "PN", "AT", "ZZ"]
TEXTS = ["", " ", "x", "0", "-1", "1e400", "nan", "inf", "1\\2", "1\\2\\3\\4\\5\\6\\7", "9" * 40]
TEXTS += ["1\\0\\0\\0\\1\\0", "0\\0\\0\\0\\0\\0", "1.2.840.10008.1.2.4.90", "\u00e9\x00\x1b$B"]
NUMBERS = [0, 1, 2, 7, 8, 9, 12, 16, 17, 32, 255, 32767, 32768, 65535]
LENGTHS = [0, 1, 3, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF]
META = "1.2.840.10008.1.2.1"
SYNTAXES = [META, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]
SYNTAXES += ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.57", "1.2.3"]


def short(value: int) -> bytes:
    """A number under US."""
    return struct.pack("<H", value)


def slice_elements(k: int) -> list[Element]:
    """The elements of a good CT slice, in order."""
    pixels = (np.arange(72, dtype="<u2") * 13 + k).tobytes()
    return [
        ("00080008", "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        ("00080016", "UI", b"1.2.840.10008.5.1.4.1.1.2"),
        ("00080018", "UI", f"1.2.826.0.1.7.{k}".encode()),
        ("00080060", "CS", b"CT"),
        ("00100010", "PN", b"Doe^Jane"),
        ("00180050", "DS", b"3.6"),
        ("00181120", "DS", b"0"),
        ("0020000D", "UI", b"1.2.826.0.1.1"),
        ("0020000E", "UI", b"1.2.826.0.1.3"),
        ("00200013", "IS", str(k + 1).encode()),
        ("00200032", "DS", f"-10\\-20\\{3.6 * k:.2f}".encode()),
        ("00200037", "DS", b"1\\0\\0\\0\\1\\0"),
        ("00200052", "UI", b"1.2.826.0.1.2"),
        ("00280002", "US", short(1)),
        ("00280004", "CS", b"MONOCHROME2"),
        ("00280008", "IS", b"1"),
        ("00280010", "US", short(8)),
        ("00280011", "US", short(9)),
        ("00280030", "DS", b"0.9\\0.9"),
        ("00280100", "US", short(16)),
        ("00280101", "US", short(12)),
        ("00280102", "US", short(11)),
        ("00280103", "US", short(0)),
        ("00280120", "US", short(65535)),
        ("00281050", "DS", b"40"),
        ("00281051", "DS", b"400"),
        ("00281052", "DS", b"-1024"),
        ("00281053", "DS", b"1"),
        ("7FE00010", "OW", pixels),
    ]


TAGS = [tag for tag, _, _ in slice_elements(0)]


def encode(tag: str, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element in explicit VR, little endian; ``length`` may lie."""
    value += (b"\0" if vr in ("UI", "OB", "OW") else b" ") * (len(value) % 2)
    head = struct.pack("<HH2s", int(tag[:4], 16), int(tag[4:], 16), vr.encode())
    size = len(value) if length is None else length
    if vr in LONG_VRS:
        return head + struct.pack("<HI", 0, size & 0xFFFFFFFF) + value
    return head + struct.pack("<H", size & 0xFFFF) + value


def propose(rng: np.random.Generator, propose_spoil: Callable[..., Edits]) -> Edits:
    """A few faults in one slice, in some, or in all of them."""
    edits: Edits = []
    for _ in range(int(rng.integers(1, 4))):
        where = int(rng.choice([-1, -1, 0, 2, SLICES - 1]))  # -1 is all
        tag = str(rng.choice(TAGS[5:]))
        kind = str(rng.choice(["text", "text", "number", "drop", "vr", "length", "twice", "nest"]))
        what: dict[str, Any] = {
            "text": str(rng.choice(TEXTS)),
            "number": int(rng.choice(NUMBERS)),
            "vr": str(rng.choice(VRS)),
            "length": int(rng.choice(LENGTHS)),
            "nest": int(rng.choice([1, 3, 40])),
        }
        edits.append([kind, where, tag, *([what[kind]] if kind in what else [])])
    if rng.random() < 0.15:
        edits.append(["syntax", int(rng.choice([-1, 1])), str(rng.choice(SYNTAXES))])
    if rng.random() < 0.15:
        edits.append(
            ["pixels", int(rng.choice([-1, 1])), int(rng.choice([0, 1, 71, 143, 145, 9000]))]
        )
    if rng.random() < 0.25:
        edits += propose_spoil(rng)
    return edits


def encode_slice(edits: Edits, k: int) -> bytes:
    """One file with its faults."""
    here = [edit for edit in edits if edit[0] in FAULTS and edit[1] in (-1, k)]
    syntax = META.encode()
    elements: list[tuple[str, str, bytes, int | None]] = [(*e, None) for e in slice_elements(k)]
    for kind, _, *what in here:
        if kind == "syntax":
            syntax = what[0].encode()
            continue
        tag = "7FE00010" if kind == "pixels" else what[0]
        at = next((n for n, e in enumerate(elements) if e[0] == tag), None)
        if at is None:
            continue
        _, vr, value, length = elements[at]
        if kind == "drop":
            del elements[at]
        elif kind == "text":
            elements[at] = (tag, vr, what[1].encode("latin-1", "replace"), length)
        elif kind == "number":
            elements[at] = (
                tag,
                vr,
                short(what[1]) if vr == "US" else str(what[1]).encode(),
                length,
            )
        elif kind == "vr":
            elements[at] = (tag, what[1], value, length)
        elif kind == "length":
            elements[at] = (tag, vr, value, what[1])
        elif kind == "twice":
            elements.insert(at, elements[at])
        elif kind == "nest":  # sequences of undefined length, one in the other, that never end
            elements[at] = (tag, "SQ", bytes.fromhex("feff00e0ffffffff") * what[1], 0xFFFFFFFF)
        elif kind == "pixels":
            elements[at] = (tag, vr, (value * 70)[: what[0]], length)
    meta = [
        encode("00020001", "OB", b"\0\1"),
        encode("00020002", "UI", b"1.2.840.10008.5.1.4.1.1.2"),
        encode("00020003", "UI", f"1.2.826.0.1.7.{k}".encode()),
        encode("00020010", "UI", syntax),
    ]
    group = b"".join(meta)
    head = bytes(128) + b"DICM" + encode("00020000", "UL", struct.pack("<I", len(group))) + group
    return head + b"".join(encode(*element) for element in elements)


FAULTS = {"text", "number", "drop", "vr", "length", "twice", "nest", "syntax", "pixels"}


def build(edits: Edits, folder: Path) -> Path:
    """A folder with five slices; damaged bytes are in the third."""
    series = folder / "series"
    series.mkdir()
    for k in range(SLICES):
        raw = encode_slice(edits, k)
        (series / f"{k}.dcm").write_bytes(_SPOIL[0](raw, edits) if k == 2 else raw)
    return series


def use(path: Path) -> None:
    """Everything that reads, and the writing back."""
    io.inspect(path)
    io.list_volumes(path)
    volume = io.load(path)
    assert np.isfinite(volume.geometry.affine).all()
    assert np.isfinite(volume.data).all()
    written = io.save(volume, path.parent / "written", format="dicom")
    back = io.load(written)
    assert back.shape == volume.shape
    np.testing.assert_allclose(back.geometry.affine, volume.geometry.affine, rtol=1e-4, atol=1e-3)


_SPOIL: list[Callable[[bytes, Edits], bytes]] = []


@pytest.fixture(autouse=True)
def _spoil(spoil: Callable[[bytes, Edits], bytes]) -> None:
    _SPOIL[:] = [spoil]


def test_the_series_fuzzed_is_a_good_one(tmp_path: Path) -> None:
    volume = io.load(build([], tmp_path))
    assert volume.shape == (9, 8, SLICES)
    assert volume.data[1, 0, 0] == 13 - 1024


def test_dicom(fuzz: Any, propose_spoil: Callable[..., Edits]) -> None:
    fuzz.run("dicom", lambda rng: propose(rng, propose_spoil), build, use, share=1.5, apart=True)


def test_dicom_corpus(fuzz: Any) -> None:
    fuzz.replay("dicom", build, use, apart=True)


def propose_zip(rng: np.random.Generator, propose_spoil: Callable[..., Edits]) -> Edits:
    """Members with names that lead elsewhere, bombs, damaged bytes."""
    edits: Edits = []
    if rng.random() < 0.4:
        names = ["../../evil.dcm", "/etc/evil", "C:\\evil", "a/../../b", "x" * 300, ".", "\u00e9"]
        edits.append(["name", str(rng.choice(names))])
    if rng.random() < 0.2:
        edits.append(["bomb", 300 if rng.random() < 0.1 else 1])
    if rng.random() < 0.3:
        edits.append(["method", int(rng.choice([0, 8, 12, 14]))])
    return [*edits, *propose_spoil(rng)] if rng.random() < 0.6 else edits


def build_zip(edits: Edits, folder: Path) -> Path:
    """An archive of five slices."""
    told = {edit[0]: edit[1] for edit in edits if edit[0] in ("name", "bomb", "method")}
    buffer = streams.BytesIO()
    with zipfile.ZipFile(buffer, "w", int(told.get("method", 8))) as archive:
        for k in range(SLICES):
            name = told["name"] if k == 1 and "name" in told else f"series/{k}"
            archive.writestr(zipfile.ZipInfo(name), encode_slice([], k), int(told.get("method", 8)))
        if "bomb" in told:
            with archive.open("bomb", "w") as file:
                for _ in range(int(told["bomb"])):
                    file.write(bytes(1 << 20))
    path = folder / "scan.zip"
    path.write_bytes(_SPOIL[0](buffer.getvalue(), edits))
    return path


def test_zip(fuzz: Any, propose_spoil: Callable[..., Edits]) -> None:
    fuzz.run(
        "zip", lambda rng: propose_zip(rng, propose_spoil), build_zip, use, share=0.5, apart=True
    )


def test_nothing_is_written_outside_by_an_archive(fuzz: Any) -> None:
    fault, error = fuzz.one([["name", "../../evil.dcm"]], build_zip, use)
    assert fault is None
    assert isinstance(error, ArchiveError)
    assert not list(fuzz.folder.rglob("evil*"))
    assert not list(fuzz.folder.parent.glob("evil*"))

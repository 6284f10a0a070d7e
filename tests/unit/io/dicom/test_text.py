"""Names in any script reach the result, whatever the source calls its character set."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from medsr import errors, io
from medsr.io.dicom.options import DicomOptions

Make = Callable[..., Path]

JAPANESE = (
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
)
HALF_WIDTH = (
    b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^"
    b"\x1b$B$?$m$&\x1b(J",
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
)
KOREAN = (
    b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    "Hong^Gildong=洪^吉洞=홍^길동",
)
# Source of the names: DICOM PS3.5 annexes H, I and J.
NAMES = [
    ("\\ISO 2022 IR 87", *JAPANESE),
    ("ISO 2022 IR 13\\ISO 2022 IR 87", *HALF_WIDTH),
    ("\\ISO 2022 IR 149", *KOREAN),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
    ("GB18030", "Wang=王^小东".encode("gb18030"), "Wang=王^小东"),
    ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
    ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
    # No terms of DICOM, and met all the same.
    ("ISO IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
    ("\\ISO-2022-IR-87", *JAPANESE),
    ("UTF-8", "Wang=王^小东".encode(), "Wang=王^小东"),
]


def _named(folder: Path, charset: str, name: bytes) -> Path:
    """Put a name into all files, byte by byte."""
    filled = name + b" " * (len(name) % 2)
    terms = charset.encode() + b" " * (len(charset) % 2)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PatientName = "@" * len(filled)
        dataset.SpecificCharacterSet = "X" * len(terms)
        dataset.save_as(file)
        raw = file.read_bytes().replace(b"@" * len(filled), filled)
        file.write_bytes(raw.replace(b"X" * len(terms), terms))
    return folder


@pytest.mark.parametrize("layout", ["classic", "enhanced"])
@pytest.mark.parametrize(("charset", "raw", "text"), NAMES)
def test_a_name_reaches_the_result(
    tmp_path: Path, make_series: Make, charset: str, raw: bytes, text: str, layout: str
) -> None:
    folder = _named(make_series(tmp_path / "s"), charset, raw)
    io.save(io.load(folder), tmp_path / "out", dicom=DicomOptions.of(layout))
    file = min((tmp_path / "out").iterdir())
    written = pydicom.dcmread(file)
    assert str(written.PatientName) == text
    terms = written.get("SpecificCharacterSet") or ""
    assert set([terms] if isinstance(terms, str) else terms) <= set(pydicom.charset.python_encoding)
    if shutil.which("dcmdump") and "2022" not in charset:
        run = ["dcmdump", "+U8", "+P", "0010,0010", str(file)]
        assert f"[{text}" in subprocess.run(run, check=True, capture_output=True).stdout.decode()


@pytest.mark.parametrize(
    ("charset", "raw"),
    [
        ("ISO_IR 999", "Müller".encode("latin-1")),
        ("ISO_IR 192", "Müller".encode("latin-1")),
        ("ISO_IR 100", "山田".encode()),
        ("\\ISO 2022 IR 87", b"Yamada=\x1b$B;3E"),
        ("ISO 2022 IR 6\\ISO 2022 IR 999", b"Doe\x1b$Zxx"),
        ("\\", b"Doe"),
    ],
)
def test_text_that_cannot_be_read_stands_in_no_way(
    tmp_path: Path, make_series: Make, charset: str, raw: bytes
) -> None:
    folder = _named(make_series(tmp_path / "s"), charset, raw)
    volume = io.load(folder)
    io.save(volume, tmp_path / "out")
    assert io.load(tmp_path / "out").geometry.same_grid(volume.geometry)


def test_a_character_set_that_breaks_the_reader_is_one_line(
    tmp_path: Path, make_series: Make
) -> None:
    folder = _named(make_series(tmp_path / "s"), "\0ÿ", b"Doe")
    with pytest.raises(errors.CorruptFileError, match="cannot be parsed") as caught:
        io.load(folder)
    assert "\n" not in str(caught.value)

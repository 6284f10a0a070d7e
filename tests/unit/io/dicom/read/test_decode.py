"""Compressed frames: each encoder's twin is read alike, damage is refused, loss is stated."""

from __future__ import annotations

import io as streams
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from medsr import errors, io
from medsr.io import load
from medsr.io.dicom.options import DicomOptions
from medsr.io.dicom.read import decode as dicom_decode
from medsr.io.dicom.read.codestream import is_reversible, jpeg2000_shape, jpeg_shape
from medsr.pacs.receiver import TRANSFER_SYNTAXES

Array = npt.NDArray[np.uint16]
Make = Callable[..., Path]
Encode = Callable[[Array], bytes]


def _jpeg(predictor: int, bits: int = 12) -> Encode:
    return lambda plane: imagecodecs.jpeg8_encode(
        plane, lossless=True, predictor=predictor, bitspersample=bits
    )


def _jpeg2000(*, reversible: bool) -> Encode:
    return lambda plane: imagecodecs.jpeg2k_encode(
        plane,
        reversible=reversible,
        level=None if reversible else 60,
        bitspersample=12,
        codecformat="j2k",
    )


def _htj2k(*, reversible: bool) -> Encode:
    return lambda plane: imagecodecs.htj2k_encode(plane, reversible=reversible)


def _jpegls(near: int) -> Encode:
    return lambda plane: imagecodecs.jpegls_encode(plane, level=near)


def _extended(plane: Array) -> bytes:
    encoded: bytes = imagecodecs.jpeg8_encode(plane, bitspersample=12, level=95)
    return encoded


def _baseline(plane: Array) -> bytes:
    buffer = streams.BytesIO()
    Image.fromarray(plane.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


LOSSLESS: list[tuple[UID, Encode]] = [
    *((JPEGLossless, _jpeg(predictor)) for predictor in range(1, 8)),
    (JPEGLosslessSV1, _jpeg(1)),
    (JPEGLosslessSV1, _jpeg(1, 16)),
    (JPEGLSLossless, _jpegls(0)),
    (JPEG2000Lossless, _jpeg2000(reversible=True)),
    (JPEG2000, _jpeg2000(reversible=True)),
    (HTJ2KLossless, _htj2k(reversible=True)),
    (HTJ2K, _htj2k(reversible=True)),
]
LOSSY: list[tuple[UID, Encode, str]] = [
    (JPEGExtended12Bit, _extended, "ISO_10918_1"),
    (JPEGLSNearLossless, _jpegls(2), "ISO_14495_1"),
    (JPEG2000, _jpeg2000(reversible=False), "ISO_15444_1"),
    (HTJ2K, _htj2k(reversible=False), "ISO_15444_15"),
]


@pytest.fixture
def planes() -> Array:
    """(24, 20, 5) smooth 12-bit values with some noise."""
    x, y, z = np.mgrid[:24, :20, :5]
    noise = np.random.default_rng(4).integers(0, 40, x.shape)
    values: Array = (60 * x + 90 * y + 100 * z + noise).astype(np.uint16)
    return values


def _pack(folder: Path, syntax: UID, encode: Encode, fragments: int = 1) -> Path:
    """Replace the plain pixels of each file by encoded ones."""
    for file in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        kind = f"u{dataset.BitsAllocated // 8}"
        plane = np.frombuffer(dataset.PixelData, kind).reshape(dataset.Rows, dataset.Columns)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([encode(plane)], fragments_per_frame=fragments)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(file)
    return folder


def _spoil(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Damage the stream of the second slice."""
    file = sorted(folder.iterdir())[1]
    dataset = pydicom.dcmread(file)
    dataset.PixelData = encapsulate([spoil(get_frame(dataset.PixelData, 0, number_of_frames=1))])
    dataset.save_as(file)


def _names(pair: tuple[UID, Encode] | UID | str | Encode) -> str | None:
    return pair.keyword if isinstance(pair, UID) else None


@pytest.mark.parametrize(("syntax", "encode"), LOSSLESS, ids=_names)
def test_lossless_frames_equal_their_plain_twin(
    tmp_path: Path, make_series: Make, planes: Array, syntax: UID, encode: Encode
) -> None:
    folder = make_series(tmp_path / "s", planes, modality="MR", rescale=None)
    plain = load(folder)
    assert np.array_equal(plain.data, planes)
    volume = load(_pack(folder, syntax, encode))
    assert np.array_equal(volume.data, planes)
    assert volume.data.dtype == plain.data.dtype
    assert volume.source is not None
    assert not volume.source.header.lossy  # type: ignore[union-attr]


@pytest.mark.parametrize(("syntax", "encode", "method"), LOSSY, ids=_names)
def test_loss_is_stated_where_the_source_does_not(
    tmp_path: Path, make_series: Make, planes: Array, syntax: UID, encode: Encode, method: str
) -> None:
    folder = _pack(make_series(tmp_path / "s", planes, bits_stored=12), syntax, encode)
    volume = io.load(folder)
    np.testing.assert_allclose(volume.data, planes.astype(float) - 1024, atol=60)
    io.save(volume, tmp_path / "out", format="dicom")
    for file in (tmp_path / "out").iterdir():
        written = pydicom.dcmread(file)
        assert written.LossyImageCompression == "01"
        assert written.LossyImageCompressionMethod == method
        assert 1 < float(written.LossyImageCompressionRatio) < 100


@pytest.mark.parametrize("layout", ["classic", "enhanced"])
def test_the_validator_takes_what_is_said_of_the_loss(
    tmp_path: Path, make_series: Make, planes: Array, layout: str
) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    series = make_series(tmp_path / "s", planes, bits_stored=12)
    folder = _pack(series, JPEG2000, _jpeg2000(reversible=False))
    options = DicomOptions.of(layout)
    io.save(io.load(folder), tmp_path / "out", format="dicom", dicom=options)
    for file in (tmp_path / "out").iterdir():
        done = subprocess.run(
            [validator, str(file)], capture_output=True, encoding="utf-8", check=False
        )
        told = (done.stdout + done.stderr).splitlines()
        assert any("CTImage" in line or "EnhancedCT" in line for line in told)
        assert not [line for line in told if "Lossy" in line]


def test_an_attribute_under_a_wrong_representation_does_not_reach_the_result(
    tmp_path: Path, make_series: Make
) -> None:
    def edit(dataset: pydicom.Dataset, k: int) -> None:
        dataset["SliceThickness"].VR = "LO"
        dataset["SliceThickness"]._value = "3.6"
        dataset.add_new("StudyDescription", "SH", "words stay words")

    io.save(io.load(make_series(tmp_path / "s", edit=edit)), tmp_path / "out", format="dicom")
    for file in (tmp_path / "out").iterdir():
        written = pydicom.dcmread(file)
        assert written["SliceThickness"].VR == "DS"
        assert float(written.SliceThickness) == pytest.approx(2.5)
        assert written["StudyDescription"].VR == "LO"
        assert written.StudyDescription == "words stay words"


def test_baseline_is_what_pillow_decodes(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: pydicom.Dataset, k: int) -> None:
        dataset.BitsAllocated = 8
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype("u1").tobytes()

    x, y, z = np.mgrid[:24, :20, :5]
    stored = (4 * x + 5 * y + 9 * z).astype(np.uint16)
    folder = make_series(
        tmp_path / "s", stored, modality="MR", rescale=None, bits_stored=8, edit=edit
    )
    volume = load(_pack(folder, JPEGBaseline8Bit, _baseline))
    for k in range(5):
        expected = np.asarray(Image.open(streams.BytesIO(_baseline(stored[:, :, k].T))))
        assert np.array_equal(volume.data[:, :, k].T, expected)
    assert volume.source is not None
    assert volume.source.header.lossy  # type: ignore[union-attr]


def test_fragments_are_joined(tmp_path: Path, make_series: Make, planes: Array) -> None:
    folder = make_series(tmp_path / "s", planes, modality="MR", rescale=None)
    assert np.array_equal(load(_pack(folder, JPEGLossless, _jpeg(6), 3)).data, planes)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in the middle": lambda raw: raw[: len(raw) // 2],
    "cut at the end": lambda raw: raw[:-9],
    "empty": lambda raw: bytes(2),
    "another size": lambda raw: raw.replace(b"\x00\x14\x00\x18", b"\x0f\xff\x0f\xff").replace(
        b"\x00\x00\x00\x18\x00\x00\x00\x14", b"\x00\x00\x7f\xff\x00\x00\x7f\xff"
    ),
    "no beginning": lambda raw: raw[2:],
    "zeros": lambda raw: bytes(len(raw)),
    "noise": lambda raw: raw[:20] + np.random.default_rng(0).bytes(len(raw) - 20),
    "a part lost": lambda raw: raw[: len(raw) // 2] + raw[len(raw) // 2 + 90 :],
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [*LOSSLESS[:1], *LOSSLESS[8:11], LOSSLESS[12], (JPEGExtended12Bit, _extended)],
    ids=_names,
)
def test_damage_is_refused_and_the_slice_named(
    tmp_path: Path,
    make_series: Make,
    planes: Array,
    identifiers: tuple[str, ...],
    syntax: UID,
    encode: Encode,
    damage: str,
) -> None:
    folder = _pack(make_series(tmp_path / "s", planes, bits_stored=12), syntax, encode)
    _spoil(folder, DAMAGE[damage])
    with pytest.raises(errors.TruncatedPixelsError) as refusal:
        io.load(folder)
    message = str(refusal.value)
    assert refusal.value.exit_code == 86
    assert "2" in message.split(":")[0]
    assert "\n" not in message
    assert not any(word in message for word in (*identifiers, str(tmp_path)))


@pytest.mark.parametrize(
    ("syntax", "packages"),
    [
        (JPEGBaseline8Bit, "imagecodecs"),
        (JPEGLosslessSV1, "imagecodecs"),
        (JPEGLSNearLossless, "pyjpegls"),
        (JPEG2000, "pylibjpeg and pylibjpeg-openjpeg"),
        (HTJ2KLossless, "pylibjpeg and pylibjpeg-openjpeg"),
    ],
    ids=_names,
)
def test_a_missing_decoder_is_named_and_gdcm_does_not_stand_in(
    monkeypatch: pytest.MonkeyPatch, syntax: UID, packages: str
) -> None:
    only_gdcm = SimpleNamespace(available_plugins=("gdcm", "pillow"), is_available=True)
    monkeypatch.setattr(dicom_decode, "get_decoder", lambda syntax: only_gdcm)
    with pytest.raises(errors.MissingDecoderError, match=rf"{packages}, is not.*medsr\[dicom\]"):
        dicom_decode.require_decoder(syntax)


def test_a_syntax_without_any_decoder_is_refused() -> None:
    with pytest.raises(errors.MissingDecoderError, match="export the series uncompressed"):
        dicom_decode.require_decoder(UID("1.2.840.10008.1.2.4.102"))


def test_nodes_may_send_every_encoding_that_is_decoded() -> None:
    assert set(dicom_decode._FAMILIES) <= set(TRANSFER_SYNTAXES)


def test_headers_of_streams_tell_their_size() -> None:
    plane = np.zeros((20, 24), np.uint16)
    for encode in (_jpeg(1), _jpegls(0), _extended):
        assert jpeg_shape(encode(plane)) == (20, 24)
    for encode in (_jpeg2000(reversible=True), _htj2k(reversible=False)):
        assert jpeg2000_shape(encode(plane)) == (20, 24)
    in_a_file = imagecodecs.jpeg2k_encode(plane, reversible=True, codecformat="jp2")
    assert jpeg2000_shape(in_a_file) == (20, 24)
    assert is_reversible(in_a_file)
    colour = imagecodecs.jpeg8_encode(np.zeros((20, 24, 3), np.uint8))
    for shape, stream in ((jpeg_shape, colour), (jpeg_shape, b""), (jpeg2000_shape, colour)):
        with pytest.raises(ValueError, match="no "):
            shape(stream)


def test_what_cannot_be_told_is_lossy() -> None:
    plane = np.zeros((20, 24), np.uint16)
    whole = _jpeg2000(reversible=True)(plane)
    assert is_reversible(whole)
    assert not is_reversible(_jpeg2000(reversible=False)(plane))
    assert not any(is_reversible(whole[:size]) for size in range(55))

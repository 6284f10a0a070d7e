"""Decoders of compressed pixel data: one for each transfer syntax, chosen here and nowhere else.

pydicom tries every decoder that is installed, in an order of its own. One of them, GDCM, throws
C++ exceptions that no Python code can catch, so that a damaged slice ends the whole process. Each
family is given to one decoder that fails as Python functions do, and to no other. Native pixels
and RLE are pydicom's own. What the pixels mean is in ``pixels``.

The functions below that pydicom calls make this module one of its plugins, for JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medsr.errors import MissingDecoderError
from medsr.io.dicom.read.codestream import (
    is_reversible,
    jpeg2000_shape,
    jpeg_shape,
    jpeg_with_tail,
    jpegls_shape,
)


@dataclass(frozen=True)
class _Family:
    """Transfer syntaxes that one decoder serves.

    Args:
        plugin: its name in pydicom.
        packages: what to install for it.
        shape: rows and columns that a frame's own header states.
        method: LossyImageCompressionMethod where a frame was compressed with loss.
    """

    plugin: str
    packages: str
    shape: Callable[[bytes], tuple[int, int]] | None
    method: str


_JPEG = _Family("imagecodecs", "imagecodecs", jpeg_shape, "ISO_10918_1")
_JPEG_LS = _Family("pyjpegls", "pyjpegls", jpegls_shape, "ISO_14495_1")
_OPENJPEG = "pylibjpeg and pylibjpeg-openjpeg"
_JPEG_2000 = _Family("pylibjpeg", _OPENJPEG, jpeg2000_shape, "ISO_15444_1")
_HTJ2K = _Family("pylibjpeg", _OPENJPEG, jpeg2000_shape, "ISO_15444_15")
_FAMILIES: dict[str, _Family] = {
    JPEGBaseline8Bit: _JPEG,
    JPEGExtended12Bit: _JPEG,
    JPEGLossless: _JPEG,
    JPEGLosslessSV1: _JPEG,
    JPEGLSLossless: _JPEG_LS,
    JPEGLSNearLossless: _JPEG_LS,
    JPEG2000Lossless: _JPEG_2000,
    JPEG2000: _JPEG_2000,
    HTJ2KLossless: _HTJ2K,
    HTJ2KLosslessRPCL: _HTJ2K,
    HTJ2K: _HTJ2K,
    RLELossless: _Family("pydicom", "pydicom", None, ""),
}
_ALWAYS_LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
_PERHAPS_LOSSY = frozenset({JPEG2000, HTJ2K})
_TAIL = b"\xaa" * 64  # its first bit is not that of the zeros that libjpeg reads behind the end

DECODER_DEPENDENCIES = {
    syntax: ("imagecodecs>=2026.3",) for syntax, family in _FAMILIES.items() if family is _JPEG
}
"""What pydicom tells where :func:`is_available` says no."""


def require_decoder(syntax: UID) -> None:
    """Make sure that a transfer syntax can be decoded.

    Raises:
        MissingDecoderError: if there is no decoder for it, or it has to be installed.
    """
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise MissingDecoderError(
            f"the pixel data are encoded as {syntax.name}, for which there is no decoder; "
            "export the series uncompressed"
        ) from None
    family = _FAMILIES.get(syntax)
    if family is not None and family.plugin not in decoder.available_plugins:
        raise MissingDecoderError(
            f"the pixel data are compressed ({syntax.name}) and the decoder, {family.packages}, "
            "is not installed; run: pip install 'medsr[dicom]'"
        )


def decode(dataset: FileDataset) -> npt.NDArray[Any]:
    """The pixels of a dataset as they are encoded, (Y, X) or (frames, Y, X).

    Frames that state another size than the dataset are not given to a decoder, for it would
    allocate what they state.

    Args:
        dataset: with its transfer syntax, for which there is a decoder.

    Raises:
        Exception: of any kind, if the pixel data are damaged.
    """
    family = _FAMILIES.get(dataset.file_meta.TransferSyntaxUID)
    if family is None:
        return pixel_array(dataset, raw=True)
    if family.shape is not None:
        expected = int(dataset.Rows), int(dataset.Columns)
        for frame in _frames(dataset):
            if family.shape(frame) != expected:
                raise ValueError("a frame is of another size than its header says")
    return pixel_array(dataset, raw=True, decoding_plugin=family.plugin)


def mark_lossy(dataset: FileDataset) -> None:
    """State in the dataset that its pixels were compressed with loss, where only they tell.

    Sets LossyImageCompression and, where they are missing, its method and ratio.

    Source: DICOM PS3.3 C.7.6.1.1.5; PS3.5 8.2 and A.4 (transfer syntaxes).
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax in _PERHAPS_LOSSY:
        if all(is_reversible(frame) for frame in _frames(dataset)):
            return
    elif syntax not in _ALWAYS_LOSSY:
        return
    dataset.LossyImageCompression = "01"
    plain = int(dataset.Rows) * int(dataset.Columns) * _count(dataset)
    plain *= int(dataset.get("BitsAllocated") or 16) // 8
    packed = sum(map(len, _frames(dataset)))
    # Those of an earlier compression stay; the standard wants one value for each step.
    for name, value in (
        ("LossyImageCompressionMethod", _FAMILIES[syntax].method),
        ("LossyImageCompressionRatio", f"{plain / max(packed, 1):.2f}"),
    ):
        if not dataset.get(name):
            setattr(dataset, name, value)


def _count(dataset: FileDataset) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _frames(dataset: FileDataset) -> Iterator[bytes]:
    """The encoded frames, their fragments joined."""
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    return generate_frames(
        dataset.PixelData,
        number_of_frames=_count(dataset),
        extended_offsets=offsets if all(offsets) else None,
    )


def is_available(syntax: UID) -> bool:
    """Whether this module can decode; pydicom asks when the plugin is added."""
    return syntax in DECODER_DEPENDENCIES and find_spec("imagecodecs") is not None


def decode_jpeg(stream: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame for pydicom, by libjpeg-turbo: 2 to 16 bits, lossless or not.

    libjpeg makes up what a cut image lacks. So it is decoded again with more bytes behind its last
    one: only what was made up changes.

    Raises:
        ValueError: if pixels are missing.
        RuntimeError: if the stream is damaged.
    """
    from imagecodecs import jpeg8_decode

    pixels = jpeg8_decode(stream)
    if not np.array_equal(pixels, jpeg8_decode(jpeg_with_tail(stream, _TAIL))):
        raise ValueError("the image ends early")
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    encoded: bytes = pixels.tobytes()
    return encoded


for _syntax in DECODER_DEPENDENCIES:
    get_decoder(UID(_syntax)).add_plugin(_JPEG.plugin, (__name__, decode_jpeg.__name__))

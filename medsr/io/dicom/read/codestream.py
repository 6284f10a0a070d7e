"""What the headers of compressed frames say: the size, and whether they were compressed with loss.

The markers of JPEG, JPEG-LS and JPEG 2000, read without decoding anything. Decoders
allocate what these headers ask for, so a damaged one is found here first. Decoding is in
``decode``.
"""

from __future__ import annotations

from collections.abc import Iterator

_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}  # 0xF7: JPEG-LS
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = b"\xff\xd9"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_CODESTREAM = b"\xff\x4f\xff\x51"  # SOC and SIZ, which every JPEG 2000 codestream begins with
_START_OF_TILE = 0x90
_CODING_STYLE, _COMPONENT_STYLE = 0x52, 0x53
_REVERSIBLE = 1  # the 5-3 wavelet; 0 is the 9-7 one


def jpeg_shape(stream: bytes) -> tuple[int, int]:
    """Rows and columns that a JPEG or JPEG-LS image states.

    Raises:
        ValueError: if the markers before the first scan are damaged, or the image has colours.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2.
    """
    for marker, body in _jpeg_segments(stream):
        if marker in _JPEG_FRAMES:
            if len(body) < 6 or body[5] != 1:
                raise ValueError("no frame header of one component")
            return int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    raise ValueError("no frame header")


def jpegls_shape(stream: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG-LS image that has an end; CharLS may look for one for ever.

    Raises:
        ValueError: as :func:`jpeg_shape`, or if the image is cut.
    """
    if not stream.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise ValueError("no end of image")
    return jpeg_shape(stream)


def jpeg_with_tail(stream: bytes, tail: bytes) -> bytes:
    """The same image with more entropy-coded bytes behind its last; a whole image needs none."""
    end = stream.rfind(_END_OF_IMAGE)
    return stream[: end if end >= 0 else len(stream)] + tail + _END_OF_IMAGE


def jpeg2000_shape(stream: bytes) -> tuple[int, int]:
    """Rows and columns of a JPEG 2000 (or HTJ2K) image, in a JP2 file or bare.

    Raises:
        ValueError: if the SIZ marker is damaged, or the image has colours.

    Source: ITU-T T.800 A.5.1.
    """
    siz = stream[_start(stream) + 4 :][:38]
    if len(siz) < 38:
        raise ValueError("the SIZ marker is cut")
    right, bottom, left, top, wide, high = (
        int.from_bytes(siz[at : at + 4], "big") for at in range(4, 28, 4)
    )
    if int.from_bytes(siz[36:38], "big") != 1 or not wide or not high:
        raise ValueError("no size of one component")
    return bottom - top, right - left


def is_reversible(stream: bytes) -> bool:
    """Whether a JPEG 2000 (or HTJ2K) image was transformed without loss.

    What cannot be told is taken for lossy. A reversible transform whose last bits were left out
    cannot be told from a whole one.

    Source: ITU-T T.800 A.6.1 (COD), A.6.2 (COC).
    """
    try:
        at = _start(stream) + 2
    except ValueError:
        return False
    wavelets = []
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != _START_OF_TILE:
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        body = stream[at + 4 : at + 2 + length]
        if length < 2:
            return False
        if stream[at + 1] == _CODING_STYLE:
            wavelets.append(body[9] if len(body) > 9 else None)
        elif stream[at + 1] == _COMPONENT_STYLE:
            wavelets.append(body[6] if len(body) > 6 else None)  # of at most 256 components
        at += 2 + length
    return bool(wavelets) and all(wavelet == _REVERSIBLE for wavelet in wavelets)


def _start(stream: bytes) -> int:
    at = stream.find(_CODESTREAM)
    if at < 0:
        raise ValueError("no codestream")
    return at


def _jpeg_segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and their bodies, up to the first scan."""
    if stream[:2] != b"\xff\xd8":
        raise ValueError("no start of image")
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            raise ValueError("no marker where one should be")
        marker = stream[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if marker == _START_OF_SCAN:
            return
        if marker in _STANDALONE:
            at += 2
            continue
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        yield marker, stream[at + 4 : at + 2 + length]
        at += 2 + length

"""Stored pixels of DICOM slices, decoded by pydicom's handlers, and their native values.

Here lives everything about values: decoding, unused bits, rescale, the array's type. Order and
geometry of the slices are decided before, in ``dicom_stack``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medsr.errors import CorruptFileError, MedsrError, MissingDecoderError
from medsr.io.dicom_files import read_dataset
from medsr.io.dicom_header import SliceHeader
from medsr.io.dicom_stack import Stack

Array = npt.NDArray[Any]

# Packages by transfer syntax family; all of them have permissive licences.
_DECODERS = (
    ("JPEG-LS", "pyjpegls"),
    ("JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    ("High-Throughput JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    ("JPEG", "python-gdcm"),
)


@dataclass(frozen=True)
class StackValues:
    """The voxels of a stack.

    Args:
        data: (X, Y, Z) native values; integer where every slice has slope 1 and one whole-numbered
            intercept, else float32.
        stored: type of the stored pixels.
        slope: the slope of all slices, or 1 if they differ (then ``data`` is native already).
        intercept: likewise, or 0.
    """

    data: Array
    stored: np.dtype[Any]
    slope: float
    intercept: float


def read_values(
    stack: Stack, visit: Callable[[int, FileDataset], None] = lambda index, dataset: None
) -> StackValues:
    """Decode a stack into native values.

    Args:
        stack: ordered slices.
        visit: called with the array index of each slice and its whole file, which is open for a
            moment only; lets a caller keep attributes without a second reading.

    Raises:
        CorruptFileError: if pixel data are missing, truncated or do not decode.
        MissingDecoderError: if a decoder has to be installed.
    """
    slices = stack.slices
    planes = np.empty((0,), dtype=np.int16)
    for index, (dataset, plane) in enumerate(stored_planes(slices)):
        if index == 0:
            planes = np.empty(stack.geometry.shape, dtype=plane.dtype, order="F")
        elif plane.dtype != planes.dtype:
            # Signed beside unsigned slices: only a wider type holds both.
            planes = planes.astype(np.result_type(plane.dtype, planes.dtype), copy=False)
        planes[:, :, index] = plane.T
        visit(index, dataset)
    slopes = np.array([header.slope for header in slices])
    intercepts = np.array([header.intercept for header in slices])
    data = native_values(planes, slopes, intercepts)
    one = bool((slopes == slopes[0]).all() and (intercepts == intercepts[0]).all())
    return StackValues(
        data, planes.dtype, float(slopes[0]) if one else 1.0, float(intercepts[0]) if one else 0.0
    )


def native_plane(header: SliceHeader) -> Array:
    """The native float64 values of one slice, (Y, X); for comparing copies.

    Raises:
        CorruptFileError, MissingDecoderError: see :func:`read_values`.
    """
    _, plane = next(stored_planes([header]))
    values: Array = plane.astype(np.float64) * header.slope + header.intercept
    return values


def stored_planes(slices: Sequence[SliceHeader]) -> Iterator[tuple[FileDataset, Array]]:
    """Each slice's file and stored pixels (Y, X); a multi-frame file is decoded once."""
    path: Path | None = None
    dataset, pixels = FileDataset("", {}), np.empty(0)
    for header in slices:
        if header.path != path:
            path, dataset = header.path, read_dataset(header.path)
            pixels = _decode(dataset, header)
        plane = pixels if header.frame is None else pixels[header.frame]
        if plane.shape != (header.rows, header.columns):
            raise CorruptFileError(
                f"{header.label}: the pixel data hold {plane.shape} pixels and the header says "
                f"{(header.rows, header.columns)}; export the series again"
            )
        yield dataset, plane


def _decode(dataset: FileDataset, header: SliceHeader) -> Array:
    """Stored values of one file, with unused high bits cleared and the sign extended."""
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise CorruptFileError(f"{header.label}: the file has no pixel data; export it again")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        # Without a file meta group the encoding is what the parser found.
        implicit, _ = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    _require_decoder(syntax)
    try:
        pixels = pixel_array(dataset, raw=True)
        if pixels.dtype.kind in "iu":
            pixels = _used_bits(pixels, dataset)
    except MedsrError:
        raise
    except Exception as error:  # every decoder has exceptions of its own
        raise CorruptFileError(
            f"{header.label}: the pixel data are truncated or damaged "
            f"({type(error).__name__} while decoding {syntax.name}); export the series again"
        ) from None
    if header.frame is not None and pixels.ndim == 2:
        pixels = pixels[np.newaxis]
    return pixels


def _require_decoder(syntax: UID) -> None:
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise MissingDecoderError(
            f"the pixel data are encoded as {syntax.name}, for which there is no decoder; "
            "export the series uncompressed"
        ) from None
    if not available:
        packages = next((p for family, p in _DECODERS if syntax.name.startswith(family)), "gdcm")
        raise MissingDecoderError(
            f"the pixel data are compressed ({syntax.name}) and no decoder is installed; "
            f"run: pip install {packages}"
        )


def _used_bits(pixels: Array, dataset: FileDataset) -> Array:
    """Drop what overlays and careless writers leave above HighBit.

    Source: DICOM PS3.5 8.1.1, bits stored and high bit.
    """
    width = pixels.dtype.itemsize * 8
    stored = int(dataset.get("BitsStored") or width)
    high = int(dataset.get("HighBit", stored - 1))
    if not 0 < stored <= width or not stored - 1 <= high < width:
        raise CorruptFileError(
            f"{stored} bits stored up to bit {high} do not fit into {width}; "
            "export the series again"
        )
    if stored == width:
        return pixels
    used: Array = (pixels << (width - 1 - high)) >> (width - stored)
    return used


def native_values(
    planes: Array, slopes: npt.NDArray[np.float64], intercepts: npt.NDArray[np.float64]
) -> Array:
    """Native values of stored planes ``(X, Y, slices)``, with a slope and intercept for each."""
    first = float(intercepts[0])
    whole = (slopes == 1.0).all() and (intercepts == first).all() and first.is_integer()
    if planes.dtype.kind in "iu" and whole:
        if first == 0.0:
            return planes
        low, high = int(planes.min()) + int(first), int(planes.max()) + int(first)
        kind = next(
            (t for t in (np.int16, np.int32) if low >= np.iinfo(t).min and high <= np.iinfo(t).max),
            np.int64,
        )
        shifted: Array = planes.astype(kind)
        np.add(shifted, kind(first), out=shifted)
        return shifted
    native = np.empty(planes.shape, dtype=np.float32, order="F")
    for index, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True)):
        native[:, :, index] = planes[:, :, index] * slope + intercept
    return native

"""Stored pixels of DICOM slices and their native values.

Everything about values: unused bits, rescale, the array's type. Decoders are chosen in
``decode``; order and geometry of the slices are decided before, in ``stack``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medsr.errors import CorruptFileError, MedsrError, TruncatedPixelsError
from medsr.hu import AIR_HU
from medsr.io.dicom.read.decode import decode, mark_lossy, require_decoder
from medsr.io.dicom.read.header import SliceHeader
from medsr.io.dicom.read.open import read_dataset
from medsr.io.dicom.read.stack import Stack
from medsr.io.parallel import ordered_map
from medsr.types import Array

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_SMALL_BYTES = 2**28
_HIGHEST_RATIO = 10_000  # blank frames in JPEG 2000 reach some thousands
_LARGEST_SHIFT = 2.0**31


def stacked(
    planes: Iterator[Array], shape: tuple[int, int, int], dtype: np.dtype[Any] | None = None
) -> Array:
    """Put stored planes (Y, X) one behind the other.

    Args:
        planes: as many as ``shape`` says.
        shape: (X, Y, planes).
        dtype: type of the result; None for the narrowest that holds all planes.
    """
    data = np.empty((0,), dtype=np.int16)
    for index, plane in enumerate(planes):
        if index == 0:
            data = np.empty(shape, dtype=plane.dtype if dtype is None else dtype, order="F")
        elif dtype is None and plane.dtype != data.dtype:
            # Signed beside unsigned slices: only a wider type holds both.
            data = data.astype(np.result_type(plane.dtype, data.dtype), copy=False)
        data[:, :, index] = plane.T
    return data


def regridded(planes: Iterator[Array], stack: Stack, start: int, stop: int) -> Array:
    """Bring stored planes (Y, X) onto the regular grid of their stack.

    Args:
        planes: those of the slices that ``stack.regridding.needed(start, stop)`` names.
        stack: a stack with a regridding.
        start: first plane of the grid.
        stop: plane behind the last.

    Returns:
        (X, Y, stop - start) native float32 values; what nothing was measured for has the value of
        padding, or that of air where there is none.
    """
    regridding = stack.regridding
    if regridding is None:
        raise ValueError("the stack is regular already")
    first, _ = regridding.needed(start, stop)

    def native() -> Iterator[npt.NDArray[np.float64]]:
        for header, plane in zip(stack.slices[first:], planes, strict=False):
            values = plane.T * header.slope + header.intercept
            if header.padding is not None:
                values[header.padding == plane.T] = np.nan
            yield values

    fill = native_padding(stack.slices)
    if fill is None:
        fill = AIR_HU if stack.slices[0].modality == "CT" else 0.0
    data = np.empty((*stack.geometry.shape[:2], stop - start), dtype=np.float32, order="F")
    for k, values in enumerate(regridding.planes(native(), start, stop)):
        values[np.isnan(values)] = fill
        data[:, :, k] = values
    return data


def native_padding(slices: Sequence[SliceHeader]) -> float | None:
    """The native value that all padding of a stack is given; None if no slice states any."""
    return next((h.padding * h.slope + h.intercept for h in slices if h.padding is not None), None)


def native_plane(header: SliceHeader) -> Array:
    """The native float64 values of one slice, (Y, X); for comparing copies.

    Raises:
        TruncatedPixelsError, MissingDecoderError: see :func:`stored_planes`.
    """
    _, plane = next(stored_planes([header]))
    values: Array = plane.astype(np.float64) * header.slope + header.intercept
    return values


def stored_planes(slices: Sequence[SliceHeader]) -> Iterator[tuple[FileDataset, Array]]:
    """Each slice's file and stored pixels (Y, X), padding brought to one value.

    Single-frame files are read and decoded by several threads, a few ahead of what is taken; a
    multi-frame file is decoded once. The pixel data are gone from the datasets that are given.

    Raises:
        TruncatedPixelsError: if pixel data are missing, truncated or do not decode.
        MissingDecoderError: if a decoder has to be installed.
    """
    runs = [list(run) for _, run in groupby(slices, key=lambda header: header.file)]
    for dataset, pixels, run in ordered_map(_decoded, runs):
        for header in run:
            plane = pixels if header.frame is None else pixels[header.frame]
            if plane.shape != (header.rows, header.columns):
                raise TruncatedPixelsError(
                    f"{header.label}: the pixel data hold {plane.shape} pixels and the header says "
                    f"{(header.rows, header.columns)}; export the series again"
                )
            yield dataset, plane


def _decoded(run: list[SliceHeader]) -> tuple[FileDataset, Array, list[SliceHeader]]:
    """One file and its pixels, for the slices that it holds."""
    dataset = read_dataset(run[0].file)
    pixels = _decode(dataset, run[0])
    for name in _PIXELS:
        dataset.pop(Tag(name), None)
    return dataset, pixels, run


def _decode(dataset: FileDataset, header: SliceHeader) -> Array:
    """Stored values of one file: unused high bits cleared, the sign extended, padding one value."""
    present = [name for name in _PIXELS if name in dataset]
    if not present:
        # The parser drops encoded pixels whose end is missing.
        raise TruncatedPixelsError(
            f"{header.label}: the file has no pixel data, or they are cut short; export it again"
        )
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        # Without a file meta group the encoding is what the parser found.
        implicit, _ = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    require_decoder(syntax)
    try:
        _refuse_promises(dataset, header, len(dataset[present[0]].value))
        raw = decode(dataset)
        mark_lossy(dataset)
        pixels = raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
        if raw.dtype.kind in "iu":
            pixels = _used_bits(raw, dataset, header.label)
            if header.padding_rule is not None:
                pixels = header.padding_rule.mark(pixels, raw)
    except MedsrError:
        raise
    except Exception as error:  # every decoder has exceptions of its own
        raise TruncatedPixelsError(
            f"{header.label}: the pixel data are truncated or damaged "
            f"({type(error).__name__} while decoding {syntax.name}); export the series again"
        ) from None
    if header.frame is not None and pixels.ndim == 2:
        pixels = pixels[np.newaxis]
    return pixels


def _refuse_promises(dataset: FileDataset, header: SliceHeader, there: int) -> None:
    """Refuse a header that promises more pixels than any decoder makes of the bytes there are."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    bits = int(dataset.get("BitsAllocated") or 8)
    promised = header.rows * header.columns * frames * bits // 8
    if promised > max(_SMALL_BYTES, _HIGHEST_RATIO * there):
        raise TruncatedPixelsError(
            f"{header.label}: the header promises {promised} bytes of pixels and {there} bytes "
            "are there, compressed or not; export the series again"
        )


def _used_bits(pixels: Array, dataset: FileDataset, label: str) -> Array:
    """Drop what overlays and careless writers leave above HighBit.

    Source: DICOM PS3.5 8.1.1, bits stored and high bit.
    """
    width = pixels.dtype.itemsize * 8
    stored = int(dataset.get("BitsStored") or width)
    high = int(dataset.get("HighBit", stored - 1))
    if not 0 < stored <= width or not stored - 1 <= high < width:
        raise CorruptFileError(
            f"{label}: {stored} bits stored up to bit {high} do not fit into {width}; "
            "export the series again"
        )
    if stored == width:
        return pixels
    used: Array = (pixels << (width - 1 - high)) >> (width - stored)
    return used


def native_values(planes: Array, slices: Sequence[SliceHeader], padding: float | None) -> Array:
    """Native values of stored planes.

    Args:
        planes: (X, Y, slices) stored numbers; may be changed.
        slices: their headers, which say slope, intercept and padding of each.
        padding: native value for what a slice marks as padding; see :func:`native_padding`.

    Returns:
        Integers where every slope is 1 and all intercepts are one whole number, else float32.
    """
    first = slices[0].intercept
    marks = {header.padding for header in slices} - {None}
    whole = all(h.slope == 1.0 and h.intercept == first for h in slices) and first.is_integer()
    whole = whole and abs(first) < _LARGEST_SHIFT
    if planes.dtype.kind in "iu" and whole and len(marks) < 2:
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
    for index, header in enumerate(slices):
        native[:, :, index] = planes[:, :, index] * header.slope + header.intercept
        if header.padding is not None:
            native[planes[:, :, index] == header.padding, index] = padding
    return native

"""Native values: padding, signs, private scales, and every transfer syntax with a decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medsr import errors, io
from medsr.io import load
from medsr.io.dicom.read.decode import require_decoder
from medsr.io.dicom.read.padding import padding_rule
from medsr.io.dicom.read.scaling import Rescale, on_one_scale

Make = Callable[..., Path]


def _rewrite(folder: Path, change: Callable[[pydicom.FileDataset], None], **options: Any) -> None:
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        change(dataset)
        dataset.save_as(file, **options)


def _to_syntax(syntax: UID) -> Callable[[pydicom.FileDataset], None]:
    def change(dataset: pydicom.FileDataset) -> None:
        dataset.compress(syntax, generate_instance_uid=False)

    return change


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_syntaxes_that_pydicom_writes(
    tmp_path: Path, make_series: Make, syntax: UID
) -> None:
    stored = np.random.default_rng(1).integers(-900, 900, (64, 48, 4)).astype(np.int16)
    folder = make_series(tmp_path / "s", stored)
    plain = load(folder).data
    _rewrite(folder, _to_syntax(syntax))
    assert np.array_equal(load(folder).data, plain)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=["implicit", "deflated"]
)
def test_native_syntaxes(tmp_path: Path, make_series: Make, syntax: UID) -> None:
    folder = make_series(tmp_path / "s")
    plain = load(folder).data

    def change(dataset: pydicom.FileDataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    implicit = syntax == ImplicitVRLittleEndian
    _rewrite(folder, change, implicit_vr=implicit, little_endian=True)
    assert np.array_equal(load(folder).data, plain)


def test_big_endian(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", modality="MR", rescale=None)
    plain = load(folder).data
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        turned = Dataset()
        for element in dataset:
            if not element.tag.is_private:
                turned.add(element)
        turned.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        turned.file_meta = dataset.file_meta
        turned.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        turned.save_as(file, implicit_vr=False, little_endian=False, enforce_file_format=True)
    volume = load(folder)
    assert np.array_equal(volume.data, plain)
    assert volume.data.dtype.isnative


@pytest.mark.parametrize(
    "syntax",
    [
        JPEGBaseline8Bit,
        JPEGExtended12Bit,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEGLSNearLossless,
        JPEG2000Lossless,
        JPEG2000,
        HTJ2KLossless,
        HTJ2KLosslessRPCL,
        HTJ2K,
        RLELossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_the_extra_brings_a_decoder_of_every_syntax(syntax: UID) -> None:
    require_decoder(syntax)


def test_lossless_jpeg_as_gdcm_writes_it(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", np.arange(32 * 16 * 5).reshape(32, 16, 5).astype("int16"))
    plain = load(folder).data
    for file in sorted(folder.iterdir()):
        image = SimpleITK.ReadImage(str(file), SimpleITK.sitkInt16)
        dataset = pydicom.dcmread(file)
        writer = SimpleITK.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "one.dcm"))
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(image)
        packed = pydicom.dcmread(tmp_path / "one.dcm")
        syntax = packed.file_meta.TransferSyntaxUID
        assert syntax in (JPEGLosslessSV1, "1.2.840.10008.1.2.4.57")
        for name in ("RescaleSlope", "RescaleIntercept"):
            setattr(dataset, name, packed.get(name, getattr(dataset, name)))
        for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            setattr(dataset, name, getattr(packed, name))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = packed.PixelData
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(file)
    assert np.array_equal(load(folder).data, plain)


def _rule(modality: str = "CT", dtype: str = "int16", **values: int) -> Any:
    return padding_rule(values.get, modality=modality, dtype=dtype)


@pytest.mark.parametrize(
    ("value", "stored", "dtype", "meant", "raw"),
    [
        (-2000, 16, "int16", -2000, False),
        (63536, 16, "int16", -2000, False),  # US beside signed pixels
        (0x830, 12, "int16", -2000, False),  # the bits stored alone
        (-3024, 12, "int16", -3024, True),  # does not fit: the whole word is filled
        (63536, 12, "uint16", -2000, True),
        (63536, 16, "uint16", -2000, False),
        (0, 16, "uint16", 0, False),
    ],
)
def test_padding_is_read_in_the_sign_that_was_meant(
    value: int, stored: int, dtype: str, meant: int, raw: bool
) -> None:
    rule = _rule(dtype=dtype, PixelPaddingValue=value, BitsStored=stored)
    assert (rule.value, rule.raw) == (meant, raw)
    word = np.array([value & 0xFFFF, 5], np.uint16).view(dtype)
    used = (word << (16 - stored)) >> (16 - stored)
    assert rule.mark(used.copy(), word).tolist() == [meant, 5]


def test_a_range_of_padding_becomes_one_value(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = -2000, -1500

    stored = np.full((5, 4, 6), 30, np.int16)
    stored[0], stored[1], stored[2] = -2000, -1700, -1500
    volume = load(make_series(tmp_path / "s", stored, edit=edit))
    assert (volume.data[:3] == -3024).all()
    assert (volume.data[3:] == 30 - 1024).all()
    assert volume.source is not None
    assert volume.source.padding == -3024


def test_padding_is_one_native_value_whatever_the_slices_scale(
    tmp_path: Path, make_series: Make
) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.PixelPaddingValue = 0

    stored = np.random.default_rng(0).integers(1, 900, (5, 4, 6)).astype(np.uint16)
    stored[0] = 0
    pairs = [(1.0 + k, 7.0 * k) for k in range(6)]
    folder = make_series(tmp_path / "s", stored, modality="MR", rescale=pairs, edit=edit)
    volume = load(folder)
    assert volume.source is not None
    assert volume.source.padding == 0.0
    assert (volume.data[0] == 0).all()
    slopes, intercepts = np.array(pairs).T
    np.testing.assert_allclose(volume.data[1:], stored[1:] * slopes + intercepts, rtol=1e-6)


def test_a_real_world_mapping_stands_in_for_a_rescale(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        mapping = Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = 0.5, -3.0
        dataset.RealWorldValueMappingSequence = [mapping]

    stored = np.random.default_rng(0).integers(1, 900, (5, 4, 6)).astype(np.uint16)
    mapped = make_series(tmp_path / "a", stored, modality="MR", rescale=None, edit=edit)
    np.testing.assert_allclose(load(mapped).data, stored * 0.5 - 3.0)
    both = make_series(tmp_path / "b", stored, modality="MR", rescale=(2.0, 1.0), edit=edit)
    np.testing.assert_allclose(load(both).data, stored * 2.0 + 1.0)


def test_philips_slices_come_to_one_scale(tmp_path: Path, make_series: Make) -> None:
    """Stored numbers over the private slope are what was measured; all slices measured the same."""
    measured = np.random.default_rng(0).integers(100, 900, (5, 4)).astype(np.float64)
    private = [0.5, 0.25, 0.5, 1.0, 0.5]
    stored = np.stack([measured * slope for slope in private], axis=2).round().astype(np.uint16)

    def edit(dataset: Dataset, k: int) -> None:
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", private[k])

    folder = make_series(tmp_path / "s", stored, modality="MR", rescale=(2.0, 0.0), edit=edit)
    volume = io.load(folder)
    for k in range(1, 5):
        np.testing.assert_allclose(volume.data[:, :, k], volume.data[:, :, 0], atol=4.1)
    assert volume.source is not None
    assert any("one scale" in note for note in volume.source.notes)


def test_one_scale_is_left_alone_and_unknown_ones_too() -> None:
    same = [Rescale(2.0, 1.0, per_real=3.0)] * 3
    assert on_one_scale(same) == same
    mixed = [Rescale(2.0, 1.0, per_real=3.0), Rescale(2.0, 1.0)]
    assert on_one_scale(mixed) == mixed


def test_promises_beyond_any_decoder_are_refused(tmp_path: Path, make_series: Make) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        dataset.Rows = dataset.Columns = 60000

    with pytest.raises(errors.TruncatedPixelsError, match="promises"):
        load(make_series(tmp_path / "s", edit=edit))

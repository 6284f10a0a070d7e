"""NIfTI files that are doubtful: what is taken, what is said of it, what is refused."""

from __future__ import annotations

import gzip
import math
import re
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from medsr import io
from medsr.errors import (
    CorruptFileError,
    GeometryError,
    UnsupportedFormatError,
    WideIntegerError,
)
from medsr.geometry import Geometry
from medsr.io.reading import open_planes
from medsr.io.survey import survey

sitk = SimpleITK
SHAPE = (6, 5, 7)
AFFINE = np.array([[0.0, 0, -4, 9], [0.9, 0, 0, -8], [0, 0.8, 0, 7], [0, 0, 0, 1]])


def counting(dtype: type = np.int16) -> np.ndarray:
    return np.arange(math.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def write(path: Path, data: np.ndarray, **header: object) -> Path:
    """Write with header fields set afterwards, byte for byte."""
    image = nib.Nifti1Image(data, AFFINE, dtype=data.dtype)
    image.set_qform(AFFINE, 1)
    raw = image.to_bytes()
    fields = nib.Nifti1Header.from_fileobj(BytesIO(raw), check=False)
    for name, value in header.items():
        fields[name] = value
    raw = fields.binaryblock + raw[len(fields.binaryblock) :]
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_that_float32_cannot_tell_apart_are_refused(tmp_path: Path, dtype: type) -> None:
    data = counting(dtype)
    data[1, 2, 3] = 2**24
    assert io.load(write(tmp_path / "a.nii", data)).data.max() == 2**24
    data[1, 2, 3] += 1
    assert np.float32(2**24) == np.float32(2**24 + 1)
    with pytest.raises(WideIntegerError, match="16777217"):
        io.load(write(tmp_path / "a.nii", data))
    with pytest.raises(WideIntegerError):
        survey(open_planes(tmp_path / "a.nii"), "a.nii")
    assert io.load(write(tmp_path / "b.nii", data.astype(np.int32))).data.max() == 2**24 + 1


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(np.nan, np.nan), (np.nan, 5.0), (0.0, 0.0), (0.0, np.nan), (0.0, 5.0)],
)
def test_a_slope_of_nothing_is_none(tmp_path: Path, slope: float, intercept: float) -> None:
    path = write(tmp_path / "a.nii", counting(), scl_slope=slope, scl_inter=intercept)
    volume = io.load(path)
    np.testing.assert_array_equal(volume.data, nib.load(path).get_fdata())
    assert any("scl_inter" in note for note in volume.source.notes) == (intercept == 5.0)


@pytest.mark.parametrize(("slope", "intercept"), [(np.inf, 0.0), (2.0, np.nan), (2.0, -np.inf)])
def test_a_scaling_that_readers_disagree_about_is_refused(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    path = write(tmp_path / "a.nii", counting(), scl_slope=slope, scl_inter=intercept)
    with pytest.raises(CorruptFileError, match="scl_"):
        io.load(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"intent_code": 1002}, "labels"),
        ({"intent_code": 3}, "statistic"),
        ({"qform_code": 0, "pixdim": [1, 1, 1, 1, 0, 0, 0, 0]}, "pixdim says 1 x 1 x 1 mm"),
        ({"xyzt_units": 1}, "metres"),
    ],
)
def test_what_is_doubtful_is_said(tmp_path: Path, header: dict[str, object], words: str) -> None:
    path = write(tmp_path / "a.nii", counting(), **header)
    assert io.load(path).geometry.same_grid(Geometry(SHAPE, AFFINE))
    assert any(words in warning for warning in io.inspect(path).warnings)


@pytest.mark.parametrize("extra", [b"garbage behind the stream", b"\x1f\x8b\x08\x00"])
def test_what_follows_a_gzip_stream_counts(tmp_path: Path, extra: bytes) -> None:
    path = write(tmp_path / "a.nii.gz", counting())
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(64))  # padding of tapes and block devices
    np.testing.assert_array_equal(io.load(path).data, counting())
    path.write_bytes(whole + extra)
    with pytest.raises(CorruptFileError):
        io.load(path)
    raw = gzip.decompress(whole)
    path.write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]))
    np.testing.assert_array_equal(io.load(path).data, counting())


WRONG_NAMES = {
    "packed.nii": "name it .nii.gz",
    "plain.nii.gz": "name it .nii",
    "plain2.nii.gz": "name it .nii",
    "twice.nii.gz": "packed by gzip twice, so unpack it once",
    "packed.mgh": "name it .mgz",
    "plain.mgz": "name it .mgh",
    "mgz.nii.gz": "it is a FreeSurfer volume, so name it .mgz",
    "nifti.mgz": "it is a NIfTI file, so name it .nii.gz",
    "nifti.nrrd": "it is a NIfTI file, so name it .nii",
    "packed.nrrd": "it is an NRRD file packed by gzip, so unpack it",
    "meta.nrrd": "it is a MetaImage file, so name it .mha",
    "nrrd.mha": "it is an NRRD file, so name it .nrrd",
    "packed.mha": "it is a MetaImage file packed by gzip, so unpack it",
    "nrrd.nii": "it is an NRRD file, so name it .nrrd",
    "dicom.nii.gz": "it is a DICOM file, so name it .dcm",
    "empty.nii.gz": "the file is empty (0 bytes); fetch it again",
    "empty.mha": "the file is empty (0 bytes); fetch it again",
    "page.nii": "a download that failed; fetch it again",
    "page.nii.gz": "a download that failed; fetch it again",
    "page.nrrd": "a download that failed; fetch it again",
}


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_files_by_the_wrong_name(tmp_path: Path, name: str) -> None:
    nifti = write(tmp_path / "a.nii", counting()).read_bytes()
    nifti2 = nib.Nifti2Image(counting(), AFFINE).to_bytes()
    mgh = nib.MGHImage(counting(), AFFINE).to_bytes()
    image = sitk.GetImageFromArray(counting())
    for ending in ("nrrd", "mha"):
        sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    nrrd, meta = ((tmp_path / f"a.{ending}").read_bytes() for ending in ("nrrd", "mha"))
    pack = gzip.compress
    content = {
        "packed.nii": pack(nifti),
        "plain.nii.gz": nifti,
        "plain2.nii.gz": nifti2,
        "twice.nii.gz": pack(pack(nifti)),
        "packed.mgh": pack(mgh),
        "plain.mgz": mgh,
        "mgz.nii.gz": pack(mgh),
        "nifti.mgz": pack(nifti),
        "nifti.nrrd": nifti,
        "packed.nrrd": pack(nrrd),
        "meta.nrrd": meta,
        "nrrd.mha": nrrd,
        "packed.mha": pack(meta),
        "nrrd.nii": nrrd,
        "dicom.nii.gz": bytes(128) + b"DICM" + bytes(500),
        **dict.fromkeys(("empty.nii.gz", "empty.mha"), b""),
        **dict.fromkeys(("page.nii", "page.nii.gz", "page.nrrd"), b"<html>502</html>" * 40),
    }
    path = tmp_path / name
    path.write_bytes(content[name])
    for read in (io.load, io.inspect, open_planes):
        with pytest.raises((CorruptFileError, UnsupportedFormatError)) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith(WRONG_NAMES[name])
    renamed = re.search(r"name it (\S+)$", WRONG_NAMES[name])
    if renamed and "DICOM" not in WRONG_NAMES[name]:
        there = path.rename(tmp_path / f"right{renamed[1]}")
        np.testing.assert_array_equal(np.sort(io.load(there).data.ravel()), counting().ravel())


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.mgh", "a.nrrd", "a.mha"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello" * 200, b"\x1f\x8b", gzip.compress(b"x" * 900, mtime=0)],
    ids=["empty", "text", "cut", "packed"],
)
def test_no_name_is_proposed_for_what_is_not_known(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((CorruptFileError, UnsupportedFormatError)) as caught:
        io.load(tmp_path / name)
    assert "so name it" not in str(caught.value)
    assert ("the file is empty (0 bytes)" in str(caught.value)) == (not content)


def test_a_pair_of_files_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(counting(), AFFINE), tmp_path / "pair.hdr")
    for name in ("pair.hdr", "pair.img"):
        with pytest.raises(UnsupportedFormatError, match="two files"):
            io.load(tmp_path / name)


AWAY = AFFINE.copy()
AWAY[:3, :3] = Rotation.from_euler("xyz", (9, -4, 15), degrees=True).as_matrix() @ AFFINE[:3, :3]
AWAY[:3, 3] += (12, -7, 3)
WIDER = AWAY @ np.diag([1.1, 0.95, 1.05, 1.0])


def in_two_spaces(path: Path, sform: int, qform: int, away: np.ndarray = AWAY) -> Path:
    image = nib.Nifti1Image(counting(), AFFINE)
    image.set_qform(AFFINE, qform)
    image.set_sform(away, sform)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("sform", "qform"), [(4, 1), (2, 1), (3, 1), (5, 2), (1, 2), (1, 4)])
@pytest.mark.parametrize("away", [AWAY, WIDER])
def test_transforms_into_different_spaces_do_not_contradict(
    tmp_path: Path, sform: int, qform: int, away: np.ndarray
) -> None:
    path = in_two_spaces(tmp_path / "a.nii", sform, qform, away)
    volume, image = io.load(path), nib.load(path)
    np.testing.assert_allclose(volume.geometry.affine, image.affine, atol=1e-5)
    (note,) = [text for text in volume.source.notes if "different spaces" in text]
    assert f"sform (code {sform}" in note
    assert f"qform (code {qform}" in note
    assert note in io.inspect(path).warnings
    assert any("pixdim says" in text for text in volume.source.notes) == (away is WIDER)
    # The result lies over the scan in either space, so in any reader.
    fine = volume.geometry.refine((1, 1, 4))
    large = np.zeros(fine.shape, np.float32)
    io.save(volume.replace(data=large, geometry=fine), tmp_path / "b.nii")
    before, after = image.header, nib.load(tmp_path / "b.nii").header
    assert (int(after["sform_code"]), int(after["qform_code"])) == (sform, qform)
    for get in ("get_sform", "get_qform"):
        corners = [
            Geometry(header.get_data_shape(), getattr(header, get)()).voxel_to_world(index)
            for header in (before, after)
            for index in ([-0.5] * 3, [n - 0.5 for n in header.get_data_shape()])
        ]
        np.testing.assert_allclose(corners[:2], corners[2:], atol=1e-3)
    if away is WIDER:
        return  # ITK lays it by the sform and its voxels by pixdim
    in_itk = [
        sitk.ReadImage(str(tmp_path / name)).TransformContinuousIndexToPhysicalPoint([-0.5] * 3)
        for name in ("a.nii", "b.nii")
    ]
    np.testing.assert_allclose(*in_itk, atol=1e-3)


@pytest.mark.parametrize("code", [1, 2, 4])
def test_transforms_into_one_space_must_agree(tmp_path: Path, code: int) -> None:
    with pytest.raises(GeometryError, match=f"both of code {code} .*disagree by up to"):
        io.load(in_two_spaces(tmp_path / "a.nii", code, code))
    near = AFFINE.copy()
    near[0, 3] += 0.05
    for sform in (code, 5):
        volume = io.load(in_two_spaces(tmp_path / "b.nii", sform, code, near))
        assert volume.source.notes == ()
        assert volume.geometry.same_grid(Geometry(SHAPE, near))


def test_a_space_without_a_name_is_not_written_as_another(tmp_path: Path) -> None:
    path = in_two_spaces(tmp_path / "a.nii", 4, 1)
    raw = bytearray(path.read_bytes())
    place = nib.Nifti1Header.template_dtype.fields["sform_code"][1]
    raw[place : place + 2] = (7).to_bytes(2, "little")
    path.write_bytes(bytes(raw))
    volume = io.load(path)
    assert volume.geometry.same_grid(Geometry(SHAPE, AWAY))
    io.save(volume, tmp_path / "b.nii")
    written = io.load(tmp_path / "b.nii")
    assert written.geometry.same_grid(Geometry(SHAPE, AWAY))
    assert written.source.notes == ()

"""NIfTI and MGZ: grids against nibabel and SimpleITK, types and scaling, refusals."""

from __future__ import annotations

import gzip
import math
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medsr import io
from medsr.errors import (
    ColourError,
    ComplexError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    InputNotFoundError,
    MedsrError,
    NonFiniteError,
    TooFewSlicesError,
    UnsupportedFormatError,
)
from medsr.geometry import Geometry
from medsr.volume import Derivation, Volume

SHAPE = (6, 5, 7)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (20, -35, 170), degrees=True).as_matrix() * (
    0.9,
    0.8,
    4.0,
)
OBLIQUE[:3, 3] = (-80.5, 33.25, 210.0)
angles = st.floats(-math.pi, math.pi)


def counting(dtype: type = np.int16) -> np.ndarray:
    return np.arange(math.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def write(path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE, **header: object) -> Path:
    """Write by nibabel with header fields set afterwards, byte for byte."""
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.set_qform(affine, 1)
    nib.save(image, path)
    if header:
        opener = gzip.open if path.name.endswith(".gz") else open
        with opener(path, "rb") as file:
            raw = file.read()
        fields = nib.Nifti1Header.from_fileobj(BytesIO(raw), check=False)
        for name, value in header.items():
            fields[name] = value
        with opener(path, "wb") as file:
            file.write(fields.binaryblock + raw[len(fields.binaryblock) :])
    return path


def itk_geometry(path: Path) -> Geometry:
    image = SimpleITK.ReadImage(str(path))
    return Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )


@settings(max_examples=25)
@given(
    st.tuples(angles, angles, angles),
    st.tuples(*(st.floats(0.3, 6.0),) * 3),
    st.tuples(*(st.floats(-250.0, 250.0),) * 3),
    st.booleans(),
    st.permutations([0, 1, 2]),
)
def test_every_reader_sees_the_same_grid(
    tmp_path_factory: pytest.TempPathFactory,
    turn: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    mirrored: bool,
    axes: list[int],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix() * spacing
    affine[:3, 3] = origin
    if mirrored:
        affine[:3, 1] *= -1.0
    geometry = Geometry(SHAPE, affine).permute(axes)
    path = tmp_path_factory.mktemp("grid") / "a.nii"
    io.save(Volume(counting().transpose(axes), geometry), path)
    loaded = io.load(path)
    assert loaded.geometry.same_grid(geometry)
    assert Geometry(geometry.shape, nib.load(path).affine).same_grid(geometry)
    # ITK may take the quaternion, whose float32 is good to a tenth of a millimetre.
    assert itk_geometry(path).same_grid(geometry, tol_mm=0.2)
    np.testing.assert_array_equal(loaded.data, counting().transpose(axes))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_array_axes_stay_as_stored(tmp_path: Path, codes: str) -> None:
    original = nib.Nifti1Image(counting(), np.diag([1.0, 2.0, 3.0, 1.0]))
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(original.affine), nib.orientations.axcodes2ornt(codes)
    )
    turned = original.as_reoriented(turn)
    nib.save(turned, tmp_path / "a.nii.gz")
    volume = io.load(tmp_path / "a.nii.gz")
    assert volume.geometry.axcodes == tuple(codes)
    np.testing.assert_array_equal(volume.data, np.asarray(turned.dataobj))
    np.testing.assert_allclose(volume.geometry.affine, turned.affine, atol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", ">i2", ">f4"],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_types_survive_a_round_trip(tmp_path: Path, dtype: str, name: str) -> None:
    data = (counting() % 120).astype(dtype)
    image = nib.Nifti1Image(
        data, OBLIQUE, nib.Nifti1Header(endianness=dtype[0].strip("uif") or "<")
    )
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / name)
    volume = io.load(tmp_path / name)
    expected = np.float32 if np.dtype(dtype).kind == "f" else np.dtype(dtype).newbyteorder("=")
    assert volume.data.dtype == expected
    io.save(volume, tmp_path / f"b{name}")
    back = nib.load(tmp_path / f"b{name}")
    assert back.get_data_dtype().newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)


def test_nifti2_stays_nifti2(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(counting(), OBLIQUE), tmp_path / "a.nii")
    io.save(io.load(tmp_path / "a.nii"), tmp_path / "b.nii")
    assert isinstance(nib.load(tmp_path / "b.nii"), nib.Nifti2Image)


@pytest.mark.parametrize(("slope", "intercept"), [(0.25, -1024.0), (2.0, 0.0), (-0.5, 7.0)])
def test_scaling_is_applied_and_written_back(
    tmp_path: Path, slope: float, intercept: float, rng: np.random.Generator
) -> None:
    stored = rng.integers(-3000, 3000, SHAPE).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", stored, scl_slope=slope, scl_inter=intercept)
    volume = io.load(path)
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.data, nib.load(path).get_fdata(), rtol=1e-6)
    changed = volume.data + np.float32(0.3 * slope)
    io.save(volume.replace(data=changed), tmp_path / "b.nii.gz")
    back = nib.load(tmp_path / "b.nii.gz")
    assert back.get_data_dtype() == np.int16
    assert (back.dataobj.slope, back.dataobj.inter) == (slope, intercept)
    assert np.abs(back.get_fdata() - changed).max() <= 0.5 * abs(slope) * (1 + 1e-4)


def test_a_scaling_too_narrow_for_the_result_is_widened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", counting(np.uint8), scl_slope=0.5, scl_inter=10.0)
    volume = io.load(path)
    wide = np.linspace(-300.0, 900.0, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    io.save(volume.replace(data=wide), tmp_path / "b.nii")
    back = nib.load(tmp_path / "b.nii")
    assert back.get_data_dtype() == np.uint8
    step = 1200.0 / 255.0
    assert np.abs(back.get_fdata() - wide).max() <= 0.5 * step * 1.001
    constant = volume.replace(data=np.full(SHAPE, 5e4, np.float32))
    io.save(constant, tmp_path / "c.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "c.nii").get_fdata(), 5e4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_unscaled_integers_round_half_to_even_and_saturate(tmp_path: Path, dtype: type) -> None:
    volume = io.load(write(tmp_path / "a.nii", counting(dtype)))
    info = np.iinfo(dtype)
    values = np.full(SHAPE, 9.0, np.float32)
    values[0, 0, :6] = (0.5, 1.5, 2.5, 3.4999, 1e20, -1e20)
    io.save(volume.replace(data=values), tmp_path / "b.nii")
    back = np.asarray(nib.load(tmp_path / "b.nii").dataobj)
    assert back.dtype == dtype
    assert back[0, 0, :4].tolist() == [0, 2, 2, 3]
    assert float(back[0, 0, 4]) == pytest.approx(info.max, rel=1e-9)
    assert back[0, 0, 5] == info.min


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 2), (4, 4), (0, 1), (3, 0)])
def test_transform_codes_are_kept_and_both_are_written(
    tmp_path: Path, sform: int, qform: int
) -> None:
    path = write(tmp_path / "a.nii", counting(), sform_code=sform, qform_code=qform)
    volume = io.load(path)
    assert volume.geometry.same_grid(Geometry(SHAPE, nib.load(path).affine))
    fine = volume.geometry.refine((1, 1, 4))
    large = np.zeros(fine.shape, np.float32)
    io.save(volume.replace(data=large, geometry=fine), tmp_path / "b.nii")
    header = nib.load(tmp_path / "b.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (
        sform or qform,
        qform or sform,
    )
    for affine in (header.get_sform(), header.get_qform()):
        assert Geometry(fine.shape, affine).same_grid(fine, tol_mm=0.01)
    np.testing.assert_allclose(header.get_zooms(), fine.spacing, rtol=1e-6)


def test_without_transforms_the_grid_is_nibabels_and_said_to_be_doubtful(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", counting(), sform_code=0, qform_code=0)
    volume = io.load(path)
    np.testing.assert_allclose(volume.geometry.affine, nib.load(path).affine)
    assert any("unknown" in note for note in volume.source.notes)
    assert any("unknown" in warning for warning in io.inspect(path).warnings)


def test_a_sheared_grid_survives_in_the_sform_alone(tmp_path: Path) -> None:
    affine = OBLIQUE.copy()
    affine[:3, 2] += 0.3 * affine[:3, 1]
    geometry = Geometry(SHAPE, affine)
    io.save(Volume(counting(), geometry), tmp_path / "a.nii")
    assert io.load(tmp_path / "a.nii").geometry.same_grid(geometry)
    assert int(nib.load(tmp_path / "a.nii").header["qform_code"]) == 0


def test_contradicting_transforms_are_refused_with_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", counting(), sform_code=1, qoffset_x=OBLIQUE[0, 3] + 5.0)
    with pytest.raises(GeometryError, match=r"disagree by up to 5 mm") as caught:
        io.load(path)
    assert "a.nii" in str(caught.value)
    near = write(tmp_path / "b.nii", counting(), sform_code=1, qoffset_x=OBLIQUE[0, 3] + 0.02)
    assert io.load(near).shape == SHAPE


@pytest.mark.parametrize("zoom", [0.0, -4.0, np.nan])
def test_spacing_must_be_positive(tmp_path: Path, zoom: float) -> None:
    pixdim = np.array([1, 0.9, 0.8, zoom, 0, 0, 0, 0])
    with pytest.raises(GeometryError, match="spacing"):
        io.load(write(tmp_path / "a.nii", counting(), pixdim=pixdim))


def test_a_singular_sform_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", counting(), qform_code=0, srow_z=[0, 0, 0, 1], srow_y=0)
    with pytest.raises(GeometryError, match=r"a\.nii: "):
        io.load(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_voxels_are_counted_and_located(tmp_path: Path, bad: float) -> None:
    data = counting(np.float32)
    data[2, 3, 4] = data[5, 4, 6] = bad
    with pytest.raises(NonFiniteError, match=r"2 of 210 .* \(2, 3, 4\)"):
        io.load(write(tmp_path / "a.nii.gz", data))


def test_float64_beyond_float32_counts_as_infinite(tmp_path: Path) -> None:
    data = counting(np.float64)
    data[1, 1, 1] = 1e300
    with pytest.raises(NonFiniteError, match="1 of 210"):
        io.load(write(tmp_path / "a.nii", data))


def test_nothing_non_finite_is_written(tmp_path: Path) -> None:
    data = counting(np.float32)
    data[0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError):
        io.save(Volume(data, Geometry(SHAPE, OBLIQUE)), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_one_frame_is_squeezed_and_several_are_refused(tmp_path: Path) -> None:
    data = counting()[..., np.newaxis]
    nib.save(nib.Nifti1Image(data, OBLIQUE), tmp_path / "one.nii")
    np.testing.assert_array_equal(io.load(tmp_path / "one.nii").data, counting())
    nib.save(nib.Nifti1Image(data.repeat(3, axis=3), OBLIQUE), tmp_path / "many.nii")
    with pytest.raises(DimensionError, match="3 frames"):
        io.load(tmp_path / "many.nii")
    nib.save(nib.Nifti1Image(counting()[:, :, 0], OBLIQUE), tmp_path / "flat.nii")
    with pytest.raises(DimensionError, match="three dimensions"):
        io.load(tmp_path / "flat.nii")


def test_complex_and_colour_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(counting().astype(np.complex64), OBLIQUE), tmp_path / "c.nii")
    with pytest.raises(ComplexError, match="complex"):
        io.load(tmp_path / "c.nii")
    with pytest.raises(ComplexError, match="complex"):
        io.load(write(tmp_path / "c256.nii", counting(), datatype=2048, bitpix=256))
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, OBLIQUE), tmp_path / "rgb.nii")
    with pytest.raises(ColourError):
        io.load(tmp_path / "rgb.nii")


def test_too_few_slices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", counting()[:, :, :3])
    with pytest.raises(TooFewSlicesError, match=r"3 slice.*6 x 5 x 3"):
        io.load(path)
    assert any("fewer than 4" in warning for warning in io.inspect(path).warnings)


@pytest.mark.parametrize("kept", [0, 1, 100, 500, -20, -4])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mgz"])
def test_truncated_files_are_refused(
    tmp_path: Path, name: str, kept: int, rng: np.random.Generator
) -> None:
    noise = rng.integers(-3000, 3000, (8, 8, 8)).astype(np.int16)
    path = tmp_path / name
    nib.save(nib.load(write(tmp_path / "whole.nii", noise)), path) if name != "a.mgz" else nib.save(
        nib.MGHImage(noise, OBLIQUE), path
    )
    assert io.load(path).shape == (8, 8, 8)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError, match=name.replace(".", r"\.")):
        io.load(path)


def test_a_flipped_bit_in_a_gzip_stream_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", np.zeros((16, 16, 16), np.int16))
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF  # the checksum in the trailer
    path.write_bytes(bytes(raw))
    with pytest.raises(CorruptFileError):
        io.load(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_an_absurd_header_is_refused_before_memory_is_taken(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, counting(), dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    with pytest.raises(CorruptFileError, match="54000000000"):
        io.load(path)
    with pytest.raises(CorruptFileError, match="54000000000"):
        io.inspect(path)


def test_what_is_not_there_or_no_nifti(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        io.load(tmp_path / "none.nii")
    (tmp_path / "a.nii").write_bytes(b"hello" * 200)
    with pytest.raises(CorruptFileError, match="no NIfTI"):
        io.load(tmp_path / "a.nii")
    pair = write(tmp_path / "pair.nii", counting(), magic=b"ni1")
    with pytest.raises(UnsupportedFormatError, match="two files"):
        io.load(pair)
    odd = write(tmp_path / "odd.nii", counting(), datatype=1)
    with pytest.raises(MedsrError):
        io.load(odd)


def test_nothing_personal_travels_with_the_header(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.nii", counting(), descrip=b"Jane Doe", aux_file=b"Doe.txt", db_name=b"DOE"
    )
    image = nib.load(path)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe 1970"))
    image.header["intent_name"] = b"Doe"
    nib.save(image, tmp_path / "b.nii")
    volume = io.load(tmp_path / "b.nii")
    derivation = Derivation("mr-z4", "1.2.3", "00", "upscaled", (1, 1, 4))
    io.save(volume, tmp_path / "c.nii", derivation=derivation)
    raw = (tmp_path / "c.nii").read_bytes()
    assert b"Doe" not in raw
    assert b"DOE" not in raw
    assert nib.load(tmp_path / "c.nii").header["descrip"].item() == b"medsr 1.2.3 mr-z4"
    assert len(volume.source.header.extensions) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_mgz_round_trip(tmp_path: Path, dtype: type) -> None:
    data = (counting() % 200).astype(dtype)
    nib.save(nib.MGHImage(data, OBLIQUE), tmp_path / "a.mgz")
    volume = io.load(tmp_path / "a.mgz")
    assert volume.geometry.same_grid(Geometry(SHAPE, OBLIQUE))
    io.save(volume, tmp_path / "b.mgz")
    back = nib.load(tmp_path / "b.mgz")
    assert back.get_data_dtype().newbyteorder("=") == dtype
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)
    assert Geometry(SHAPE, back.affine).same_grid(volume.geometry)

"""NRRD and MetaImage against SimpleITK: grids, types, refusals."""

from __future__ import annotations

import bz2
import gzip
import math
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medsr import io
from medsr.errors import (
    ColourError,
    CorruptFileError,
    DimensionError,
    GeometryError,
    MedsrError,
    NonFiniteError,
    TooFewSlicesError,
)
from medsr.geometry import Geometry
from medsr.volume import Source, Volume

sitk = SimpleITK
SHAPE = (6, 5, 7)
ENDINGS = ["nrrd", "mha"]
angles = st.floats(-math.pi, math.pi)


def counting(dtype: type = np.int16) -> np.ndarray:
    return np.arange(math.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def image_of(data: np.ndarray, **options: bool) -> sitk.Image:
    return sitk.GetImageFromArray(np.ascontiguousarray(np.swapaxes(data, 0, 2)), **options)


def metaimage(path: Path, body: bytes = counting().tobytes(order="F"), **fields: str) -> Path:
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "DimSize": "6 5 7",
        "ElementType": "MET_SHORT",
        **fields,
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{key} = {value}\n" for key, value in header.items())
    path.write_bytes(text.encode() + body)
    return path


def nrrd(path: Path, body: bytes = counting().tobytes(order="F"), **fields: str) -> Path:
    header = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "6 5 7",
        "space directions": "(1,0,0) (0,1,0) (0,0,1)",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    } | {key.replace("_", " "): value for key, value in fields.items()}
    text = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in header.items()) + "\n"
    path.write_bytes(text.encode() + body)
    return path


@settings(max_examples=25)
@given(
    st.tuples(angles, angles, angles),
    st.tuples(*(st.floats(0.3, 6.0),) * 3),
    st.tuples(*(st.floats(-250.0, 250.0),) * 3),
    st.booleans(),
    st.floats(-0.4, 0.4),
    st.sampled_from(ENDINGS),
)
def test_simpleitk_sees_the_same_world_points(
    tmp_path_factory: pytest.TempPathFactory,
    turn: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    mirrored: bool,
    shear: float,
    ending: str,
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix() * spacing
    affine[:3, 2] += shear * affine[:3, 1]
    affine[:3, 3] = origin
    if mirrored:
        affine[:3, 0] *= -1.0
    geometry = Geometry(SHAPE, affine)
    path = tmp_path_factory.mktemp("grid") / f"a.{ending}"
    io.save(Volume(counting(), geometry), path)
    image = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (5, 4, 6), (3, 0, 6)):
        point = np.asarray(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose(point, geometry.voxel_to_world(index), atol=1e-4)
        assert image.GetPixel(index) == counting()[index]
    loaded = io.load(path)
    assert loaded.geometry.same_grid(geometry)
    np.testing.assert_array_equal(loaded.data, counting())


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_types_survive_a_round_trip(tmp_path: Path, ending: str, dtype: str) -> None:
    data = (counting() % 120).astype(dtype)
    sitk.WriteImage(image_of(data), str(tmp_path / f"a.{ending}"))
    volume = io.load(tmp_path / f"a.{ending}")
    assert volume.data.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype))
    io.save(volume, tmp_path / f"b.{ending}")
    back = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"b.{ending}")))
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.transpose(2, 1, 0), data)


@pytest.mark.parametrize("ending", ENDINGS)
def test_integers_round_half_to_even_and_saturate(tmp_path: Path, ending: str) -> None:
    sitk.WriteImage(image_of(counting(np.uint8)), str(tmp_path / f"a.{ending}"))
    volume = io.load(tmp_path / f"a.{ending}")
    values = np.zeros(SHAPE, np.float32)
    values[0, 0, :5] = (0.5, 1.5, 2.5, 300.0, -7.0)
    io.save(volume.replace(data=values), tmp_path / f"b.{ending}")
    assert io.load(tmp_path / f"b.{ending}").data[0, 0, :5].tolist() == [0, 2, 2, 255, 0]


@pytest.mark.parametrize(
    ("slope", "intercept", "values", "stored"),
    [
        (1.0, -1024.0, (-1024.0, 3071.0), np.int16),
        (1.0, -1024.0, (-1024.0, 40000.0), np.int32),
        (0.25, 0.0, (0.25, 99.75), np.float32),
        (1.0, 0.0, (0.0, 4000.0), np.uint16),
    ],
)
def test_native_values_survive_where_there_is_no_slope(
    tmp_path: Path,
    slope: float,
    intercept: float,
    values: tuple[float, float],
    stored: type,
) -> None:
    data = np.linspace(*values, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    source = Source("dicom", None, np.dtype(np.uint16), slope, intercept)
    volume = Volume(data, Geometry(SHAPE, np.eye(4)), source=source)
    for name in ("a.nrrd", "a.mha", "a.nii"):
        io.save(volume, tmp_path / name)
        back = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))).transpose(2, 1, 0)
        assert back.dtype == stored
        assert np.abs(back - data).max() <= (0.5 if np.dtype(stored).kind in "iu" else 1e-6)


def test_nrrd_in_ras_agrees_with_simpleitk(tmp_path: Path) -> None:
    path = nrrd(
        tmp_path / "a.nrrd",
        space="right-anterior-superior",
        space_origin="(1,2,3)",
        space_directions="(0,2,0) (0,0,3) (-1,0,0)",
    )
    expected = [[0, 0, -1, 1], [2, 0, 0, 2], [0, 3, 0, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(io.load(path).geometry.affine, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"ElementSpacing": "1 1 0"}, GeometryError),
        ({"ElementSpacing": "1 1 -2"}, GeometryError),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, GeometryError),
        ({"DimSize": "6 5 8"}, CorruptFileError),
        ({"DimSize": "60000 50000 70000"}, CorruptFileError),
        ({"DimSize": "60000 50000 70000", "CompressedData": "True"}, CorruptFileError),
        ({"ElementType": "MET_NOTHING"}, CorruptFileError),
        ({"ElementNumberOfChannels": "3", "DimSize": "2 5 7"}, ColourError),
        ({"ElementNumberOfChannels": "2", "DimSize": "3 5 7"}, DimensionError),
        ({"DimSize": "6 5 3"}, TooFewSlicesError),
    ],
)
def test_metaimages_are_refused(
    tmp_path: Path, fields: dict[str, str], error: type[MedsrError], capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(error, match=r"a\.mha"):
        io.load(metaimage(tmp_path / "a.mha", **fields))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, GeometryError),
        ({"sizes": "6 5 8"}, CorruptFileError),
        ({"sizes": "60000 50000 70000"}, CorruptFileError),
        ({"type": "nothing"}, CorruptFileError),
    ],
)
def test_nrrds_are_refused(
    tmp_path: Path, fields: dict[str, str], error: type[MedsrError], capfd: pytest.CaptureFixture
) -> None:
    with pytest.raises(error, match=r"a\.nrrd"):
        io.load(nrrd(tmp_path / "a.nrrd", **fields))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0, 5, -40, 0.5])
def test_truncated_compressed_files_are_refused(
    tmp_path: Path, ending: str, kept: float, rng: np.random.Generator
) -> None:
    noise = rng.integers(-3000, 3000, (12, 12, 12)).astype(np.int16)
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(image_of(noise), str(path), useCompression=True)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(CorruptFileError):
        io.load(path)


def test_complex_frames_and_non_finite_voxels(tmp_path: Path) -> None:
    one = sitk.JoinSeries([image_of(counting())])
    sitk.WriteImage(one, str(tmp_path / "one.mha"))
    np.testing.assert_array_equal(io.load(tmp_path / "one.mha").data, counting())
    sitk.WriteImage(sitk.JoinSeries([image_of(counting())] * 2), str(tmp_path / "two.mha"))
    with pytest.raises(DimensionError, match="2 frames"):
        io.load(tmp_path / "two.mha")
    sitk.WriteImage(image_of(counting())[:, :, 0], str(tmp_path / "flat.mha"))
    with pytest.raises(DimensionError, match="three dimensions"):
        io.load(tmp_path / "flat.mha")
    data = counting(np.float32)
    data[1, 2, 3] = np.nan
    sitk.WriteImage(image_of(data), str(tmp_path / "nan.nrrd"))
    with pytest.raises(NonFiniteError, match=r"\(1, 2, 3\)"):
        io.load(tmp_path / "nan.nrrd")


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_nrrds_with_an_axis_that_is_none_of_space(
    tmp_path: Path, space: str, place: int, encoding: str
) -> None:
    vectors = ["(0,2,0.1)", "(0,0,3)", "(-1,0,0)"]
    kinds, sizes = ["domain"] * 3, ["6", "5", "7"]
    for words, extra in ((vectors, "none"), (kinds, "list"), (sizes, "1")):
        words.insert(place, extra)
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding]
    body = counting().astype(">i2").tobytes(order="F")
    fields = {
        "dimension": "4",
        "sizes": " ".join(sizes),
        "kinds": " ".join(kinds),
        "space": space,
        "space_directions": " ".join(vectors),
        "space_origin": "(1,2,3)",
        "endian": "big",
    }
    volume = io.load(nrrd(tmp_path / "a.nrrd", pack(body), encoding=encoding, **fields))
    # SimpleITK is built without bzip2.
    image = sitk.ReadImage(str(nrrd(tmp_path / "raw.nrrd", body, **fields)))
    np.testing.assert_array_equal(volume.data, counting())
    expected = Geometry.from_lps(
        image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )
    assert volume.geometry.same_grid(expected)


def test_metaimages_in_either_byte_order_and_from_the_end_of_a_file(tmp_path: Path) -> None:
    swapped = counting().astype(">i2").tobytes(order="F")
    path = metaimage(tmp_path / "a.mha", swapped, BinaryDataByteOrderMSB="True")
    np.testing.assert_array_equal(io.load(path).data, counting())
    (tmp_path / "b.raw").write_bytes(b"some header" + counting().tobytes(order="F"))
    behind = metaimage(tmp_path / "b.mhd", b"", HeaderSize="-1")
    behind.write_text(behind.read_text().replace("LOCAL", "b.raw"))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(behind))).transpose(2, 1, 0)
    np.testing.assert_array_equal(expected, counting())
    np.testing.assert_array_equal(io.load(behind).data, expected)


def test_a_space_without_directions_is_said_to_be_unknown(tmp_path: Path) -> None:
    text = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 7\nspacings: 1 2 3\n"
        "endian: little\nencoding: raw\n\n"
    )
    path = tmp_path / "a.nrrd"
    path.write_bytes(text.encode() + counting().tobytes(order="F"))
    volume = io.load(path)
    assert volume.spacing == (1.0, 2.0, 3.0)
    assert any("unknown" in note for note in volume.source.notes)
    assert any("unknown" in warning for warning in io.inspect(path).warnings)


def test_free_text_does_not_travel(tmp_path: Path) -> None:
    image = image_of(counting())
    image.SetMetaData("PatientName", "Doe^Jane")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert b"Doe" in (tmp_path / "a.nrrd").read_bytes()
    io.save(io.load(tmp_path / "a.nrrd"), tmp_path / "b.nrrd")
    assert b"Doe" not in (tmp_path / "b.nrrd").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4"], ids=lambda name: name
)
@pytest.mark.parametrize("seed", range(4))
def test_headers_are_those_that_itk_writes(
    tmp_path: Path, ending: str, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn = Rotation.random(random_state=seed).as_matrix() if seed else np.eye(3)
    affine[:3, :3] = turn[:, rng.permutation(3)] * rng.uniform(0.3, 6.0, 3) * [-1, 1, 1]
    affine[:3, 3] = rng.uniform(-200, 200, 3) * (seed > 1)
    data = rng.uniform(0, 100, SHAPE).astype(dtype)
    source = Source("array", dtype=np.dtype(dtype))
    volume = Volume(data, Geometry(SHAPE, affine), source=source)
    ours, theirs = io.save(volume, tmp_path / f"a.{ending}"), tmp_path / f"b.{ending}"
    image = image_of(data)
    origin, spacing, direction = volume.geometry.to_lps()
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(theirs), useCompression=True)
    assert header_text(ours) == header_text(theirs)
    again = sitk.ReadImage(str(ours))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), np.swapaxes(data, 0, 2))
    assert again.GetOrigin() == origin


def header_text(path: Path) -> str:
    """What stands before the voxels, but for their size."""
    start, end = path.read_bytes(), b"\n\n" if path.suffix == ".nrrd" else b"LOCAL\n"
    text = start[: start.index(end)].decode("ascii")
    return re.sub(r"(CompressedDataSize =) \d+", r"\1", text)

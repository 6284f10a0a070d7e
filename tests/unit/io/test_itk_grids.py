"""Every way in which NRRD and MetaImage headers say where voxels lie, against SimpleITK."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from medsr import io
from medsr.errors import DimensionError, GeometryError, MedsrError, UnsupportedFormatError
from medsr.geometry import Geometry

sitk = SimpleITK
SIZES = (6, 5, 7)
VOXELS = np.arange(math.prod(SIZES), dtype=np.int16).reshape(SIZES, order="F")
NONE = st.just("")


def nrrd(path: Path, *lines: str, sizes: str = "6 5 7") -> Path:
    head = ["NRRD0005", "type: short", f"dimension: {len(sizes.split())}", f"sizes: {sizes}"]
    head += ["endian: little", "encoding: raw", *filter(None, lines)]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + VOXELS.tobytes(order="F"))
    return path


def itk_grid(path: Path) -> Geometry | None:
    """What ITK reads, its fourth axis left out; None where it refuses or gives NaN."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
    axes = image.GetDimension()
    matrix = np.reshape(image.GetDirection(), (axes, axes))[:3, :3]
    if not np.isfinite([*image.GetOrigin(), *image.GetSpacing()]).all():
        return None
    return Geometry.from_lps(
        image.GetSize()[:3], image.GetOrigin()[:3], image.GetSpacing()[:3], matrix
    )


def words(values: object) -> str:
    return " ".join(f"{value}" for value in values)  # type: ignore[attr-defined]


NUMBERS = st.floats(-90, 90).map(lambda value: f"{value:.3f}")
STEPS = st.floats(0.2, 8).map(lambda value: f"{value:.3f}")
OR_NAN = st.one_of(NUMBERS, st.just("nan"))
MINS = st.one_of(
    NONE,
    st.tuples(st.sampled_from(["axis mins: ", "axismins: "]), st.tuples(*(NUMBERS,) * 3)).map(
        lambda pair: pair[0] + words(pair[1])
    ),
    st.tuples(*(OR_NAN,) * 3).map(lambda values: "axis mins: " + words(values)),
)
MAXS = st.one_of(NONE, st.tuples(*(OR_NAN,) * 3).map(lambda values: "axis maxs: " + words(values)))
CENTERS = st.one_of(
    NONE,
    st.tuples(
        st.sampled_from(["centers: ", "centerings: "]),
        st.tuples(*(st.sampled_from(["cell", "node", "none", "???"]),) * 3),
    ).map(lambda pair: pair[0] + words(pair[1])),
)
SPACINGS = st.one_of(NONE, st.tuples(*(STEPS,) * 3).map(lambda mm: "spacings: " + words(mm)))
SPACE_NAMES = [
    "space: left-posterior-superior",
    "space: RAS",
    "space: left-anterior-superior",
    "space: scanner-xyz",
    "space: 3D-right-handed",
    "space: 3D-left-handed",
    "space dimension: 3",
    "space: RAST",
]
ORIGINS = st.one_of(
    NONE, st.tuples(*(NUMBERS,) * 3).map(lambda v: f"space origin: ({','.join(v)})")
)
DIRECTIONS = st.sampled_from(["", "space directions: (0,2,0.5) (0,0,3) (1,0.25,0)"])


@settings(max_examples=300)
@given(
    st.tuples(
        st.sampled_from(["", *SPACE_NAMES]), DIRECTIONS, ORIGINS, SPACINGS, MINS, MAXS, CENTERS
    )
)
def test_where_both_read_a_header_they_agree(
    tmp_path_factory: pytest.TempPathFactory, lines: tuple[str, ...]
) -> None:
    path = nrrd(tmp_path_factory.mktemp("n") / "a.nrrd", *lines)
    expected = itk_grid(path)
    try:
        found = io.load(path).geometry
    except MedsrError:
        return
    assert expected is None or found.same_grid(expected)


@given(
    st.tuples(
        SPACINGS.filter(bool), MINS.filter(lambda text: text and "nan" not in text), MAXS, CENTERS
    )
)
def test_axis_mins_place_a_volume_as_they_do_in_itk(
    tmp_path_factory: pytest.TempPathFactory, lines: tuple[str, ...]
) -> None:
    path = nrrd(tmp_path_factory.mktemp("n") / "a.nrrd", *lines)
    volume, expected = io.load(path), itk_grid(path)
    assert expected is not None
    assert volume.geometry.same_grid(expected)
    assert any("orientation is unknown" in note for note in volume.source.notes)


@pytest.mark.parametrize("name", SPACE_NAMES[1:3])
def test_an_origin_without_directions_is_in_the_space_that_is_named(
    tmp_path: Path, name: str
) -> None:
    path = nrrd(tmp_path / "a.nrrd", name, "space origin: (10,20,30)")
    expected = itk_grid(path)
    assert expected is not None
    assert io.load(path).geometry.same_grid(expected)
    assert abs(expected.origin[0] - (-10 if "anterior" in name else 10)) < 1e-9


def test_edges_without_spacings_are_refused(tmp_path: Path) -> None:
    path = nrrd(tmp_path / "a.nrrd", "axis mins: 0 0 0", "axis maxs: 12 10 14")
    with pytest.raises(GeometryError, match="give it spacings"):
        io.load(path)
    path = nrrd(tmp_path / "b.nrrd", "spacings: 1 2 3", "axis mins: 10 nan 0")
    with pytest.raises(GeometryError, match="axis mins holds NaN"):
        io.load(path)


PLACE = "(0,2,0.5) (0,0,3) (1,0.25,0)"
FOUR = "(0,2,0.5,0) (0,0,3,0) (1,0.25,0,0)"


@pytest.mark.parametrize(
    ("sizes", "lines"),
    [
        ("6 5 7 1", ["spacings: 1 2 3 1"]),
        ("6 5 7 1", ["spacings: 1 2 3 nan", "kinds: domain domain domain list"]),
        ("6 5 7 1", ["spacings: 1 2 3 2", "kinds: domain domain domain time"]),
        ("6 5 7 1", ["spacings: 1 2 3 nan", "kinds: domain domain domain scalar"]),
        ("1 6 5 7", ["spacings: nan 1 2 3", "kinds: list domain domain domain"]),
        ("1 6 5 7", ["spacings: nan 1 2 3", "kinds: scalar domain domain domain"]),
        ("1 6 5 7", ["spacings: nan 1 2 3", "axis mins: nan 4 5 6",
                     "kinds: vector space space space"]),
        ("6 5 7 1", ["spacings: 1 2 3 nan", "axis mins: 4 5 6 nan", "centers: node cell node ???",
                     "kinds: domain domain domain list"]),
        ("6 5 7 1", ["space: LPS", f"space directions: {PLACE} none", "space origin: (4,5,6)",
                     "kinds: domain domain domain list"]),
        ("1 6 5 7", ["space: RAS", f"space directions: none {PLACE}", "space origin: (4,5,6)",
                     "kinds: list space space space"]),
        ("6 5 7 1", ["space dimension: 4", f"space directions: {FOUR} (0,0,0,2)",
                     "space origin: (4,5,6,9)", "kinds: domain domain domain domain"]),
        ("6 5 7 1", ["space: left-posterior-superior-time",
                     f"space directions: {FOUR} (0,0,0,2)", "space origin: (4,5,6,9)"]),
        ("6 5 7 1", ["space: LPST", f"space directions: {FOUR} (0,0,0,2)",
                     "kinds: domain domain domain time"]),
    ],
)  # fmt: skip
def test_one_frame_is_a_volume(tmp_path: Path, sizes: str, lines: list[str]) -> None:
    path = nrrd(tmp_path / "a.nrrd", *lines, sizes=sizes)
    expected, volume = itk_grid(path), io.load(path)
    assert expected is not None
    assert volume.geometry.same_grid(expected)
    np.testing.assert_array_equal(volume.data, VOXELS)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_one_frame_that_simpleitk_writes(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VOXELS.transpose(2, 1, 0)))
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((4, 5, 6))
    image.SetDirection((0, 1, 0, 0, 0, 1, 1, 0, 0))
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.JoinSeries([image], 7.0, 2.0), str(path))
    volume = io.load(path)
    np.testing.assert_array_equal(volume.data, VOXELS)
    assert volume.geometry.same_grid(
        Geometry.from_lps(SIZES, image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    )
    sitk.WriteImage(sitk.JoinSeries([image] * 2), str(path))
    with pytest.raises(DimensionError, match="2 frames"):
        io.load(path)


def test_time_is_not_mixed_into_space(tmp_path: Path) -> None:
    four = "(0,2,0.5,0) (0,0,3,1) (1,0.25,0,0) (0,0,0,2)"
    path = nrrd(tmp_path / "a.nrrd", "space: LPST", f"space directions: {four}", sizes="6 5 7 1")
    with pytest.raises(GeometryError, match="space and time"):
        io.load(path)
    # ITK does not turn these into LPS+, though it turns RAS and LAS.
    for space in ("RAST", "left-anterior-superior-time", "scanner-xyz-time"):
        path = nrrd(
            tmp_path / "b.nrrd",
            f"space: {space}",
            f"space directions: {FOUR} (0,0,0,2)",
            sizes="6 5 7 1",
        )
        with pytest.raises(UnsupportedFormatError, match="save it as LPS"):
            io.load(path)


META_PLACES = {
    "spacing": ["ElementSpacing", "ElementSize"],
    "origin": ["Offset", "Position", "Origin"],
    "matrix": ["TransformMatrix", "Rotation", "Orientation"],
}


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            **{n: st.tuples(*(STEPS,) * 3).map(words) for n in META_PLACES["spacing"]},
            # By several names the same is said now and then.
            **{n: st.sampled_from(["1 2 3", "-4.5 5 6"]) for n in META_PLACES["origin"]},
            **{
                n: st.sampled_from(["0 1 0 0 0 1 1 0 0", "0.8 0.6 0 -0.6 0.8 0 0 0 1"])
                for n in META_PLACES["matrix"]
            },
            "CenterOfRotation": st.tuples(*(NUMBERS,) * 3).map(words),
            "AnatomicalOrientation": st.sampled_from(["RAI", "LPS", "???"]),
            "ElementToIntensityFunctionSlope": st.just("2"),
            "ElementToIntensityFunctionOffset": st.just("-7"),
        },
    )
)
def test_metaimages_lie_where_itk_puts_them(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("m") / "a.mha"
    head = {"ObjectType": "Image", "NDims": "3", **fields, "DimSize": "6 5 7"}
    head |= {"ElementType": "MET_SHORT", "ElementDataFile": "LOCAL"}
    text = "".join(f"{name} = {value}\n" for name, value in head.items())
    path.write_bytes(text.encode() + VOXELS.tobytes(order="F"))
    expected = itk_grid(path)
    try:
        volume = io.load(path)
    except MedsrError:
        return
    if expected is not None:
        assert volume.geometry.same_grid(expected)
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).transpose(2, 1, 0)
        np.testing.assert_array_equal(volume.data, values)

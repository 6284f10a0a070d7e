"""Volume: what fits together, and changes that move no voxel in space."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsr.errors import DimensionError, GeometryError
from medsr.geometry import Geometry
from medsr.volume import Derivation, Source, Volume, units_of

GEOMETRY = Geometry((5, 6, 7), np.array([[0, 0, 3, 9], [-1, 0, 0, 4], [0, 2, 0, -8], [0, 0, 0, 1]]))


def make_volume(dtype: type = np.int16) -> Volume:
    data = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(dtype)
    return Volume(data, GEOMETRY, "CT", "HU", Source("array"))


def value_at(volume: Volume, world: np.ndarray) -> float:
    i, j, k = np.rint(volume.geometry.world_to_voxel(world)).astype(int)
    return float(volume.data[i, j, k])


@settings(max_examples=30)
@given(
    st.permutations([0, 1, 2]),
    st.sets(st.integers(0, 2)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
)
def test_a_voxel_keeps_its_value_and_its_place(
    axes: list[int], ends: set[int], voxel: tuple[int, int, int]
) -> None:
    volume = make_volume()
    world = volume.geometry.voxel_to_world(voxel)
    turned = volume.crop((1, 1, 1), (5, 6, 7)).permute(axes).flip(ends)
    assert value_at(turned, world) == volume.data[voxel]
    assert turned.data.shape == turned.shape
    assert (turned.modality, turned.units, turned.source) == ("CT", "HU", volume.source)


def test_replace_brings_the_units_along() -> None:
    volume = make_volume()
    assert volume.replace(modality="MR").units == "arbitrary"
    assert volume.replace(modality="MR").replace(modality="CT").units == "HU"
    assert volume.units == "HU"
    assert [units_of(m) for m in ("CT", "MR", None)] == ["HU", "arbitrary", "arbitrary"]


def test_spacing_is_that_of_the_array_axes() -> None:
    assert make_volume().spacing == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (np.zeros((5, 6), np.float32), DimensionError),
        (np.zeros((5, 6, 7, 1), np.float32), DimensionError),
        (np.zeros((5, 6, 7), np.complex64), DimensionError),
        (np.zeros((5, 6, 7), bool), DimensionError),
        (np.zeros((5, 6, 8), np.float32), GeometryError),
        (np.zeros((5, 6, 7), np.float64), TypeError),
        (np.zeros((5, 6, 7), np.float16), TypeError),
    ],
)
def test_voxels_that_do_not_fit_are_refused(data: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error):
        Volume(data, GEOMETRY)


@pytest.mark.parametrize(("modality", "units"), [("MR", "HU"), ("CT", "arbitrary"), (None, "HU")])
def test_units_follow_from_the_modality(modality: str | None, units: str) -> None:
    with pytest.raises(ValueError, match="do not go with"):
        Volume(np.zeros((5, 6, 7), np.float32), GEOMETRY, modality, units)


def test_values_are_frozen() -> None:
    for value, field in (
        (make_volume(), "data"),
        (Source("array"), "slope"),
        (Derivation("m", "1", "00", "text", (1, 1, 4)), "model"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


def test_a_source_hides_its_header_when_printed() -> None:
    assert "secret" not in repr(Source("nifti", header={"name": "secret"}))

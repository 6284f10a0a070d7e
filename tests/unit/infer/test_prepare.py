"""Arrays and tensors become volumes; options are read; axes find their order."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medsr.errors import (
    DimensionError,
    GeometryError,
    MedsrError,
    NonFiniteError,
    TooFewSlicesError,
    UsageError,
)
from medsr.geometry import Geometry
from medsr.infer import prepare
from medsr.infer.axes import AxisOrder
from medsr.infer.scan import look_through
from medsr.infer.upscaler import Upscaler
from medsr.io.planes import MemoryPlanes


def test_arrays_take_a_spacing_or_an_affine(phantom: NDArray[np.float32]) -> None:
    by_spacing = prepare.volume_from_array(phantom, array_spacing=(1, 1, 4))
    by_affine = prepare.volume_from_array(phantom, affine=np.diag([1, 1, 4, 1]))
    assert by_spacing.geometry == by_affine.geometry
    assert by_spacing.geometry.spacing == (1, 1, 4)
    assert by_spacing.modality is None
    assert look_through(MemoryPlanes(by_spacing), "mr").modality == "MR"
    with pytest.raises(UsageError):
        look_through(MemoryPlanes(by_spacing), "pet")


def test_a_meta_tensor_brings_its_affine(phantom: NDArray[np.float32]) -> None:
    affine = np.diag([2.0, -1.0, 3.0, 1.0])
    tensor = MetaTensor(torch.from_numpy(phantom)[None], affine=torch.as_tensor(affine))
    volume = prepare.volume_from_array(tensor)
    np.testing.assert_array_equal(volume.data, phantom)
    np.testing.assert_array_equal(volume.geometry.affine, affine)


@pytest.mark.parametrize(
    ("dtype", "expected", "stored"),
    [
        (np.float64, np.float32, np.float64),
        (np.float16, np.float32, np.float32),
        (np.int16, np.int16, np.int16),
        (bool, np.uint8, np.uint8),
    ],
)
def test_types(dtype: Any, expected: Any, stored: Any) -> None:
    volume = prepare.volume_from_array(np.ones((5, 5, 5), dtype), array_spacing=(1, 1, 1))
    assert volume.data.dtype == expected
    assert volume.source is not None
    assert volume.source.dtype == stored


def test_the_modality_is_guessed_from_the_values(phantom: NDArray[np.float32]) -> None:
    mr, ct = (
        look_through(MemoryPlanes(prepare.volume_from_array(data, array_spacing=(1, 1, 4)))).volume
        for data in (phantom, phantom - 1000)
    )
    assert (mr.modality, mr.units) == ("MR", "arbitrary")
    assert (ct.modality, ct.units) == ("CT", "HU")
    assert look_through(MemoryPlanes(ct), "mr").volume.units == "arbitrary"


@pytest.mark.parametrize(
    ("array", "options", "error"),
    [
        (np.ones((4, 4, 4)), {}, UsageError),
        (np.ones((4, 4, 4)), {"affine": np.eye(4), "array_spacing": (1, 1, 1)}, UsageError),
        (np.ones((4, 4, 4)), {"affine": np.zeros((4, 4))}, GeometryError),
        (np.ones((4, 4, 4)), {"array_spacing": (1, 0, 1)}, GeometryError),
        (np.ones((4, 4)), {"array_spacing": (1, 1, 1)}, DimensionError),
        (np.ones((4, 4, 4, 3)), {"array_spacing": (1, 1, 1)}, DimensionError),
        (np.ones((4, 4, 4), complex), {"array_spacing": (1, 1, 1)}, DimensionError),
    ],
)
def test_unusable_arrays(array: Any, options: dict[str, Any], error: type[MedsrError]) -> None:
    with pytest.raises(error):
        prepare.volume_from_array(array, **options)


def test_checks(phantom: NDArray[np.float32]) -> None:
    bad = phantom.copy()
    bad[3, 3, 3] = np.nan
    with pytest.raises(NonFiniteError):
        Upscaler().read(bad, array_spacing=(1, 1, 1))
    with pytest.raises(TooFewSlicesError):
        Upscaler().read(phantom[..., :1], array_spacing=(1, 1, 1))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (0, 1, 2)])
def test_the_slice_axis_comes_last_and_axes_return(
    order: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    geometry = Geometry((5, 6, 7), np.diag([0.8, 1.0, 4.0, 1.0])).permute(order).flip(flips)
    frame = AxisOrder.of(geometry)
    canonical = frame.canonical_geometry(geometry)
    assert canonical.spacing == pytest.approx((0.8, 1.0, 4.0))
    assert canonical.axcodes == ("R", "A", "S")
    assert frame.canonical_values(geometry.spacing) == pytest.approx(canonical.spacing)
    assert frame.array_shape(canonical.shape) == geometry.shape
    data = np.arange(210).reshape(geometry.shape)
    turned = frame.canonical_data(data)
    assert turned.shape == canonical.shape
    np.testing.assert_array_equal(frame.array_data(turned), data)
    first = canonical.voxel_to_world((1, 2, 3))
    index = tuple(np.rint(geometry.world_to_voxel(first)).astype(int))
    assert turned[1, 2, 3] == data[index]


def test_without_a_thick_axis_the_last_is_taken() -> None:
    geometry = Geometry((5, 6, 7), np.eye(4)).permute((1, 2, 0))
    frame = AxisOrder.of(geometry)
    assert frame.axes == (0, 1, 2)
    assert AxisOrder((1, 0, 2), ()).canonical_scale((2, 3, 4)) == [3, 2, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 2**32), ("1.5 GiB", 3 * 2**29), ("800mb", 800 * 2**20), (12345, 12345), (None, None)],
)
def test_amounts_of_memory(text: Any, expected: int | None) -> None:
    assert prepare.parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "-4GB", "0", "4 apples"])
def test_no_amounts_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="memory"):
        prepare.parse_bytes(text)


def test_backends_are_known_by_name_before_any_is_loaded() -> None:
    from medsr.infer.engine.backends import BACKENDS

    assert set(prepare.BACKENDS) == {"auto", *BACKENDS}
    assert [prepare.parse_backend(name) for name in prepare.BACKENDS] == list(prepare.BACKENDS)
    with pytest.raises(UsageError, match="use auto, torch, openvino, onnxruntime"):
        prepare.parse_backend("Torch")

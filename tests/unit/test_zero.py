"""Where MR's zero is: maps follow the values under any scale and offset; magnitudes keep theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medsr.geometry import Geometry
from medsr.infer.padding import Padding, find_padding
from medsr.intensity import Intensity, Normaliser
from medsr.io import planes
from medsr.io.planes import MemoryPlanes
from medsr.io.survey import PlaneValues, survey
from medsr.types import Float32Array
from medsr.volume import Volume

MR = Intensity.for_modality("MR")
AFFINES = [(1.0, 1000.0), (0.004, -1.3), (2e-3, -1.0), (1e-3, 0.0), (37.0, -4e4), (1.0, -700.0)]


def of_a_magnitude(data: NDArray[Any]) -> Normaliser:
    """The map of a scan whose zero is 0, from its definition."""
    foreground = data[data > 0.02 * float(data.max())]
    return Normaliser(0.0, float(np.percentile(foreground, 99.5)))


def by_slabs(data: NDArray[Any], without: bool = False) -> Normaliser:
    """The map that is found without holding the scan."""
    reader = MemoryPlanes(Volume(data, Geometry(data.shape, np.eye(4)), "MR"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "CHUNK_BYTES", 3 * 4 * data.shape[0] * data.shape[1])
        found = survey(reader, "scan")
        padding, found = find_padding(reader, found, "MR")
        assert (padding is not None) == without
        return MR.fit_values(PlaneValues(reader, found, padding and padding.value))


def padding_of(data: NDArray[Any]) -> Padding | None:
    source = MemoryPlanes(Volume(data, Geometry(data.shape, np.eye(4)), "MR"))
    return find_padding(source, survey(source, "scan"), "MR")[0]


def rippled(phantom: Float32Array) -> Float32Array:
    """Background of exactly 0, and ripples around it at the head's edge, as filters leave them."""
    head = np.where(phantom > 100, phantom, 0)
    edge = np.roll(head > 0, 1, axis=0) & (head == 0)
    return np.where(edge, -np.abs(np.sin(np.arange(head.size)).reshape(head.shape)) * 40, head)


@pytest.mark.parametrize(("factor", "offset"), AFFINES)
@pytest.mark.parametrize("kind", ["clipped noise", "rippled"])
def test_the_map_follows_the_values(
    phantom: Float32Array, factor: float, offset: float, kind: str
) -> None:
    base = (phantom if kind == "clipped noise" else rippled(phantom)).astype(np.float32)
    data = (base * np.float32(factor) + np.float32(offset)).astype(np.float32)
    expected, found = MR.fit(base), MR.fit(data)
    assert expected == of_a_magnitude(base)
    assert found.offset == pytest.approx(offset, abs=1e-5 * factor * expected.divisor)
    assert found.divisor == pytest.approx(factor * expected.divisor, rel=1e-4)
    again = by_slabs(data)
    assert again.offset == pytest.approx(found.offset, rel=1e-6)
    assert again.divisor == pytest.approx(found.divisor, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_integers_and_floats_have_one_zero(phantom: Float32Array, dtype: type) -> None:
    data = rippled(phantom).round().astype(dtype)
    shifted = (data - 3000).astype(dtype)
    assert MR.fit(data).offset == 0
    assert MR.fit(shifted) == by_slabs(shifted) == Normaliser(-3000.0, MR.fit(data).divisor)


def test_where_the_background_is_noise_zero_is_near(rng: np.random.Generator) -> None:
    signal = np.zeros((40, 40, 20))
    signal[10:30, 10:30] = rng.uniform(300, 1000, (20, 20, 20))
    noise = rng.normal(0, 15, (2, *signal.shape))
    base = np.hypot(signal + noise[0], noise[1])  # Rician
    for factor, offset in AFFINES:
        if (factor, offset) == (1e-3, 0.0):
            continue
        data = (factor * base + offset).astype(np.float32)
        found = MR.fit(data)
        assert abs(found.offset - offset) < 0.03 * factor * 1000
        assert found.divisor == pytest.approx(factor * MR.fit(base).divisor, rel=0.03)
        again = by_slabs(data)
        assert (again.offset, again.divisor) == pytest.approx((found.offset, found.divisor))


@pytest.mark.parametrize("low", [0, 30, 250, 600])
def test_a_crop_from_inside_tissue_keeps_its_map(rng: np.random.Generator, low: int) -> None:
    for dtype in (np.int16, np.float32):
        tissue = low + 40 * rng.gamma(4.0, 1.0, (14, 12, 10)) + rng.normal(60, 10, (14, 12, 10))
        data = np.maximum(tissue, 1).astype(dtype)
        assert MR.fit(data) == of_a_magnitude(data)
        assert by_slabs(data).offset == 0


def test_few_hot_voxels_do_not_hide_the_scan(phantom: Float32Array) -> None:
    clean = MR.fit(phantom)
    for hot in (1e6, 1e9):
        data = phantom.copy()
        data[20, 18, 16] = hot
        found = MR.fit(data)
        assert found.offset == 0
        assert found.divisor == pytest.approx(clean.divisor, rel=1e-3)
        assert by_slabs(data).divisor == pytest.approx(found.divisor, rel=1e-6)
    data[20, 18, 16] = -1e6
    assert MR.fit(data).divisor == pytest.approx(clean.divisor, rel=1e-3)


def test_sparse_signal_on_nothing_is_no_outlier() -> None:
    data = np.zeros((40, 40, 40), np.float32)
    data[20, 20, 20], data[3, 3, 3] = 1000.0, 40.0
    assert MR.fit(data) == of_a_magnitude(data)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_fill_far_below_is_padding_in_mr_too(phantom: Float32Array, dtype: type) -> None:
    clean = phantom.round().astype(dtype)
    data = clean.copy()
    data[:5] = -32768
    padding = padding_of(data)
    assert padding is not None
    assert (padding.value, padding.harmless) == (-32768, 0)
    fitted = MR.fit(data[~padding.mask(data)])
    assert fitted == of_a_magnitude(clean[5:])
    assert by_slabs(data, without=True).divisor == pytest.approx(fitted.divisor, rel=1e-6)


def test_zeros_around_a_mask_are_no_signal(phantom: Float32Array) -> None:
    mask = phantom > 100
    inside = phantom[mask]
    data = np.where(mask, (phantom - inside.mean()) / inside.std(), 0).astype(np.float32)
    padding = padding_of(data)
    assert padding is not None
    assert padding.value == 0
    found = MR.fit(data[~padding.mask(data)])
    assert found.offset < data.mean() - data.std()
    assert padding.harmless == pytest.approx(found.offset, abs=1e-3)
    again = by_slabs(data, without=True)
    assert (again.offset, again.divisor) == pytest.approx((found.offset, found.divisor))
    # Around ripples, and among values that 0 is a step of, a zero is as good as any other.
    for other in (rippled(phantom), data.round(2)):
        assert padding_of(other.astype(np.float32)) is None


@pytest.mark.parametrize("value", [0.0, -5.0, 7.0])
def test_a_constant_scan_has_a_map(value: float) -> None:
    found = MR.fit(np.full((5, 5, 5), value, np.float32))
    assert found.inverse(found.forward(np.float32(value))) == pytest.approx(value)

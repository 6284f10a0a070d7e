"""Compartments of a CT chest cut open, and tissue classes beside scikit-image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from skimage.filters import threshold_multiotsu

from medsr.evaluate.anatomy import ct_compartments, mr_body, mr_thresholds
from medsr.evaluate.metrics.regions import tissue_regions
from medsr.types import Float32Array


def make_chest(rng: np.random.Generator) -> tuple[Float32Array, dict[str, npt.NDArray[np.bool_]]]:
    """A CT of a trunk with two lungs, a spine, ribs and a table; the ends of z cut it open."""
    shape = (72, 60, 20)
    x, y, _ = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    body = ((x - 36) / 33.0) ** 2 + ((y - 26) / 24.0) ** 2 <= 1
    lung = ((x - 20) / 10.0) ** 2 + ((y - 26) / 14.0) ** 2 <= 1
    lung |= ((x - 52) / 10.0) ** 2 + ((y - 26) / 14.0) ** 2 <= 1
    bone = (np.abs(x - 36) < 5) & (np.abs(y - 42) < 5)
    table = (np.abs(y - 55) < 2) & (np.abs(x - 36) < 30)
    volume = np.full(shape, -1000.0)
    volume[table] = -300
    volume[body] = 40
    volume[lung] = -870
    volume[bone] = 600
    volume += rng.normal(0, 10, shape)
    return volume.astype(np.float32), {"body": body, "lung": lung, "bone": bone}


def test_a_chest_falls_into_its_compartments(rng: np.random.Generator) -> None:
    volume, known = make_chest(rng)
    found = ct_compartments(volume)
    np.testing.assert_array_equal(found.body, known["body"])
    np.testing.assert_array_equal(found.lung, known["lung"])
    np.testing.assert_array_equal(found.bone, known["bone"])
    np.testing.assert_array_equal(found.soft, known["body"] & ~known["lung"] & ~known["bone"])


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_any_axis_may_be_the_slice_axis(
    axes: tuple[int, int, int], rng: np.random.Generator
) -> None:
    volume, known = make_chest(rng)
    found = ct_compartments(np.ascontiguousarray(volume.transpose(axes)))
    np.testing.assert_array_equal(found.lung, known["lung"].transpose(axes))


def test_lungs_that_the_scan_cuts_open_stay_lungs(rng: np.random.Generator) -> None:
    volume, known = make_chest(rng)
    found = ct_compartments(volume[18:54])
    np.testing.assert_array_equal(found.lung, known["lung"][18:54])


def test_a_volume_of_air_or_tissue_alone(rng: np.random.Generator) -> None:
    air = ct_compartments(np.full((12, 12, 12), -1000, dtype=np.float32))
    assert not (air.body | air.lung | air.soft | air.bone).any()
    tissue = ct_compartments(np.full((12, 12, 12), 30, dtype=np.float32))
    assert tissue.body.all()
    assert tissue.soft.all()
    assert not tissue.lung.any()


def test_thresholds_equal_scikit_image(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.normal(mean, 30, 20000) for mean in (200, 500, 800)]).astype(
        np.float32
    )
    low, high = mr_thresholds(values)
    assert (low, high) == pytest.approx(tuple(threshold_multiotsu(values, classes=3)), abs=8)
    assert 300 < low < 400
    assert 600 < high < 700


def test_a_head_is_found_with_its_dark_cavities(phantom: Float32Array) -> None:
    head = np.pad(phantom, 6)
    cavity = tuple(size // 2 for size in head.shape)
    head[cavity[0] - 2 : cavity[0] + 2, cavity[1] - 2 : cavity[1] + 2, cavity[2]] = 0
    body = mr_body(head, (1.0, 1.0, 1.0))
    assert body[cavity]
    assert not body[:4].any()
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in phantom.shape), indexing="ij")
    known = np.pad((x / 0.88) ** 2 + (y / 0.92) ** 2 + (z / 0.90) ** 2 <= 1, 6)
    assert 2 * (body & known).sum() / (body.sum() + known.sum()) > 0.9
    with pytest.raises(ValueError, match="constant"):
        mr_body(np.ones((12, 12, 12), dtype=np.float32), (1.0, 1.0, 1.0))


def test_regions_of_a_truth_with_too_few_levels_are_empty() -> None:
    hr = np.full((12, 12, 12), 500, dtype=np.float32)
    found = tissue_regions(hr, "MR", np.ones(hr.shape, dtype=bool))
    assert set(found) == {"dark", "middle", "bright"}
    assert not any(region.any() for region in found.values())

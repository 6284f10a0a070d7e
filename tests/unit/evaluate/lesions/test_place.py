"""Where lesions are put: tissue, distances, seeds, and scans without room for them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from medsr.evaluate.lesions import Lesion, plan_lesions, settings
from medsr.evaluate.lesions.place import DIAMETERS_MM, EDGE_MM, GAP_MM, NODULE_HU
from medsr.evaluate.lesions.spheres import occupancy
from medsr.geometry import Geometry
from medsr.volume import Volume


@pytest.fixture(scope="module")
def chest() -> Volume:
    """Two lungs in soft tissue, noise as thin CT has it; 140 x 110 x 100 mm on voxels of 2 mm."""
    rng = np.random.default_rng(2)
    shape = (70, 55, 50)
    data = np.full(shape, 45.0)
    data[8:32, 10:45, 5:45] = -850.0
    data[:, :4] = -1000.0
    data[60:, 40:] = 600.0  # bone
    smooth = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    data += 60 * smooth
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    return Volume(data.astype(np.float32), Geometry(shape, affine), "CT", "HU")


@pytest.fixture(scope="module")
def head() -> Volume:
    """A head of two tissues, one of them uneven, on 1.5 x 1.5 x 2.5 mm."""
    rng = np.random.default_rng(4)
    shape = (90, 90, 52)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    data = np.where((x / 0.9) ** 2 + (y / 0.9) ** 2 + (z / 0.95) ** 2 < 1, 500.0, 5.0)
    uneven = (data > 100) & (x > 0)
    data += uneven * 150 * scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 1.5) * 5
    data = np.maximum(data + 5 * rng.standard_normal(shape), 0)
    geometry = Geometry(shape, np.diag([1.5, 1.5, 2.5, 1.0]))
    return Volume(data.astype(np.float32), geometry, "MR")


def _around(hr: Volume, lesion: Lesion) -> np.ndarray[Any, Any]:
    where, share = occupancy(hr.geometry, lesion.centre_mm, lesion.diameter_mm)
    return hr.data[where][share > 0]


def test_all_kinds_are_placed_apart_and_away_from_borders(chest: Volume, head: Volume) -> None:
    for hr, modality, kinds in ((chest, "CT", 5), (head, "MR", 4)):
        planned = plan_lesions(hr, modality, 3)  # type: ignore[arg-type]
        assert len({(p.diameter_mm, p.contrast) for p in planned}) == len(planned)
        assert len(planned) > 0.8 * kinds * len(DIAMETERS_MM)
        for a, b in itertools.combinations(planned, 2):
            apart = np.linalg.norm(np.subtract(a.centre_mm, b.centre_mm))
            assert apart >= (a.diameter_mm + b.diameter_mm) / 2 + GAP_MM
        for lesion in planned:
            index = hr.geometry.world_to_voxel(lesion.centre_mm)
            edges = np.minimum(index + 0.5, np.array(hr.shape) - 0.5 - index) * hr.spacing
            assert edges.min() >= lesion.diameter_mm / 2 + EDGE_MM


def test_ct_lesions_lie_in_their_tissue(chest: Volume) -> None:
    planned = plan_lesions(chest, "CT", 0)
    assert {lesion.tissue for lesion in planned} == {"soft", "lung"}
    for lesion in planned:
        around = _around(chest, lesion)
        if lesion.tissue == "lung":
            assert around.max() < -500
            assert around.mean() + lesion.contrast_native == pytest.approx(NODULE_HU, abs=25)
        else:
            assert around.min() > -200
            assert around.max() < 300
            assert lesion.contrast == f"{lesion.contrast_native:+g} HU"


def test_mr_lesions_are_shares_of_what_is_around_and_lie_in_even_tissue(head: Volume) -> None:
    planned = plan_lesions(head, "MR", 0)
    even = 0
    for lesion in planned:
        share = float(lesion.contrast.removesuffix(" %")) / 100
        level = _around(head, lesion).mean()
        assert level > 100
        assert lesion.contrast_native == pytest.approx(share * level, rel=0.1)
        even += head.geometry.world_to_voxel(lesion.centre_mm)[0] < head.shape[0] / 2
    assert even >= 0.9 * len(planned)


def test_the_same_seed_gives_the_same_and_another_seed_others(head: Volume) -> None:
    first = plan_lesions(head, "MR", 5)
    assert first == plan_lesions(head.replace(data=head.data.copy()), "MR", 5)
    assert first != plan_lesions(head, "MR", 6)
    phases = [head.geometry.world_to_voxel(lesion.centre_mm) % 1 for lesion in first]
    assert np.ptp(phases, axis=0).min() > 0.5  # at any offset from voxel centres


def test_a_scan_without_room_has_fewer_or_none(head: Volume) -> None:
    small = head.crop((30, 30, 20), (48, 48, 30))  # 27 x 27 x 25 mm
    planned = plan_lesions(small, "MR", 0)
    assert len(planned) < 4
    tiny = head.crop((30, 30, 20), (40, 40, 26))
    assert plan_lesions(tiny, "MR", 0) == ()


def test_settings_are_plain() -> None:
    assert settings("CT")["contrasts"]["soft"] == ["-100 HU", "-30 HU", "+30 HU", "+100 HU"]
    assert settings("MR")["diameters_mm"] == [3.0, 5.0, 8.0, 12.0]

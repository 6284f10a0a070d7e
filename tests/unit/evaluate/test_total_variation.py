"""Total variation minimises what it says, explains the slices, and beats interpolation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_tv_chambolle

from medsr.degrade import SliceProfile, build_degradation, degrade_volume
from medsr.evaluate.baselines import resample
from medsr.evaluate.total_variation import data_range, total_variation
from medsr.geometry import Geometry
from medsr.volume import Modality, Volume


def scan(data: npt.NDArray[np.float32], modality: Modality = "MR") -> Volume:
    units = "HU" if modality == "CT" else "arbitrary"
    return Volume(data, Geometry(data.shape, np.eye(4)), modality, units)


def energy(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32], weight: float) -> float:
    """½‖x − y‖² + weight · TV(x), forward differences, zero at the far border."""
    slopes = [np.diff(x, axis=i, append=np.take(x, [-1], axis=i)) for i in range(3)]
    total = np.sqrt(sum(slope.astype(float) ** 2 for slope in slopes)).sum()
    return float(0.5 * ((x - y) ** 2).sum() + weight * total)


def test_without_degradation_it_denoises_like_scikit_image(
    phantom: npt.NDArray[np.float32],
) -> None:
    noisy = scan(phantom[:20, :20, :20] + 0)
    span = data_range(noisy)
    weight = 0.05
    found = total_variation(
        noisy, noisy, SliceProfile(factor=(1, 1, 1)), weight=weight, iterations=600
    )
    y = noisy.data / span
    ours = energy(found.data / span, y, weight)
    theirs = energy(denoise_tv_chambolle(y, weight=weight, eps=1e-8, max_num_iter=2000), y, weight)
    assert ours == pytest.approx(theirs, rel=2e-3)
    assert ours < 0.9 * energy(y, y, weight)


@pytest.mark.parametrize(
    ("kind", "factor", "modality"),
    [
        ("slice_profile", (1, 1, 4), "MR"),
        ("kspace", (2, 2, 2), "MR"),
        ("ct_slab", (1, 1, 4), "CT"),
    ],
)
def test_sharper_than_interpolation_and_true_to_the_slices(
    phantom: npt.NDArray[np.float32],
    kind: str,
    factor: tuple[int, int, int],
    modality: Modality,
) -> None:
    truth = scan(phantom, modality)
    degradation = build_degradation(kind, factor)
    lr = degrade_volume(truth, degradation)
    start = resample(lr, truth.geometry, "bspline")
    found = total_variation(start, lr, degradation)

    def psnr(volume: Volume) -> float:
        return float(peak_signal_noise_ratio(phantom, volume.data, data_range=1000.0))

    def misfit(volume: Volume) -> float:
        again = degrade_volume(volume, degradation).data
        return float(np.sqrt(np.mean((again - lr.data) ** 2)))

    assert psnr(found) > psnr(start) + 0.5
    assert misfit(found) < 0.3 * misfit(start)
    assert found.data.dtype == np.float32
    assert found.geometry == truth.geometry


@pytest.mark.parametrize(
    ("kind", "factor", "tolerance"),
    [("slice_profile", (1, 1, 4), 1.0), ("kspace", (2, 2, 2), 15.0)],
)
def test_in_parts_equals_the_whole(
    rng: np.random.Generator, kind: str, factor: tuple[int, int, int], tolerance: float
) -> None:
    """Halos hide the cuts; a k-space crop reaches across the scan and is cut a little."""
    planes = np.arange(256).reshape(16, 16)
    waves = np.add.outer(np.sin(np.arange(130) / 3), np.cos(planes / 2))
    truth = scan((400 + 150 * waves + rng.normal(0, 10, (130, 16, 16))).astype(np.float32))
    degradation = build_degradation(kind, factor).for_patches()
    lr = degrade_volume(truth, degradation)
    start = resample(lr, truth.geometry, "bspline")
    whole = total_variation(start, lr, degradation)
    parts = total_variation(start, lr, degradation, most_voxels=70 * 256)
    assert np.abs(whole.data - parts.data).max() < tolerance
    assert not np.array_equal(whole.data, parts.data)


def test_a_remainder_beyond_the_last_slice_is_filled() -> None:
    shape = (12, 10, 11)
    truth = scan(np.broadcast_to(np.repeat([300, 400], 5)[:, None], shape).astype(np.float32))
    degradation = SliceProfile(factor=(1, 1, 4))
    lr = degrade_volume(truth, degradation)
    found = total_variation(resample(lr, truth.geometry, "bspline"), lr, degradation)
    assert found.shape == shape
    np.testing.assert_allclose(found.data, truth.data, atol=10.0)


def test_flat_and_empty_scans_come_back() -> None:
    for value in (0.0, 250.0):
        flat = scan(np.full((8, 8, 8), value, dtype=np.float32))
        lr = degrade_volume(flat, SliceProfile(factor=(1, 1, 4)))
        found = total_variation(flat, lr, SliceProfile(factor=(1, 1, 4)))
        np.testing.assert_array_equal(found.data, flat.data)


def test_the_weight_counts_in_units_of_the_range(phantom: npt.NDArray[np.float32]) -> None:
    """Of an MR scan in other units the result is the same in those units."""
    degradation = SliceProfile(factor=(1, 1, 4))
    results = []
    for gain in (1.0, 50.0):
        lr = degrade_volume(scan((gain * phantom).astype(np.float32)), degradation)
        start = resample(lr, scan(phantom).geometry, "bspline")
        results.append(total_variation(start, lr, degradation, weight=0.01).data / gain)
    np.testing.assert_allclose(results[0], results[1], atol=0.5)

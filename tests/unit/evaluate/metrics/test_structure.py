"""MS-SSIM equals MONAI and torchmetrics; HFEN equals a direct convolution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.metrics.regression import compute_ms_ssim
from scipy import ndimage, signal
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from medsr.evaluate.metrics import box, structure
from medsr.types import Float32Array

SHAPE = (50, 49, 54)


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Float32Array, Float32Array]:
    """A result and its truth, smooth and noisy."""
    hr = ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 1.5)
    hr = (400 + 2500 * hr).astype(np.float32)
    sr = ndimage.gaussian_filter(hr, 1.0) + rng.normal(0, 20, SHAPE)
    return sr.astype(np.float32), hr


def _interior(shape: tuple[int, ...], scales: int) -> list[npt.NDArray[np.bool_]]:
    """Where the whole window lies inside, at every scale: what the libraries average over."""
    masks = []
    for scale in range(scales):
        mask = np.zeros([size // 2**scale for size in shape], dtype=bool)
        mask[5:-5, 5:-5, 5:-5] = True
        masks.append(mask)
    return masks


@pytest.mark.parametrize("scales", [2, 3])
def test_ms_ssim_equals_monai_and_torchmetrics(
    pair: tuple[Float32Array, Float32Array], scales: int
) -> None:
    sr, hr = pair
    weights = np.asarray(structure.WEIGHTS[:scales])
    weights = tuple((weights / weights.sum()).tolist())
    tensors = [torch.from_numpy(each)[None, None] for each in pair]
    monai = float(compute_ms_ssim(*tensors, spatial_dims=3, data_range=900.0, weights=weights))
    lightning = float(
        multiscale_structural_similarity_index_measure(
            *tensors, data_range=900.0, betas=weights, sigma=1.5, kernel_size=11, normalize="relu"
        )
    )
    found = structure.MultiScaleSSIM(hr, _interior(SHAPE, scales), 900.0).score(sr)
    assert 0.2 < found < 0.98
    assert found == pytest.approx(monai, rel=3e-5)
    # torchmetrics averages the coarsest scale over mirrored borders, too.
    assert found == pytest.approx(lightning, rel=5e-3)


def test_ms_ssim_of_the_truth_is_one_and_falls_with_blur(
    pair: tuple[Float32Array, Float32Array],
) -> None:
    _, hr = pair
    masks = structure.mask_pyramid(hr > 300, 3)
    scorer = structure.MultiScaleSSIM(hr, masks, 900.0)
    blurred = [ndimage.gaussian_filter(hr, sigma) for sigma in (0.5, 1.0, 2.0)]
    scores = [scorer.score(each) for each in (hr, *blurred)]
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.9


def test_small_volumes_take_fewer_scales_or_none(rng: np.random.Generator) -> None:
    shapes = ((176, 200, 180), (175, 200, 180), (44, 50, 44), (22, 30, 30), (21, 99, 99))
    assert [structure.scales_for(shape) for shape in shapes] == [5, 4, 3, 2, 1]
    hr = rng.normal(100, 5, (21, 30, 30)).astype(np.float32)
    masks = structure.mask_pyramid(np.ones(hr.shape, dtype=bool), 1)
    assert np.isnan(structure.MultiScaleSSIM(hr, masks, 100.0).score(hr))
    empty = structure.mask_pyramid(np.zeros(hr.shape, dtype=bool), 2)
    assert np.isnan(structure.MultiScaleSSIM(hr, empty, 100.0).score(hr))


def test_halving_is_average_pooling(rng: np.random.Generator) -> None:
    volume = rng.normal(0, 1, (9, 12, 7)).astype(np.float32)
    expected = torch.nn.functional.avg_pool3d(torch.from_numpy(volume)[None, None], 2)[0, 0]
    np.testing.assert_allclose(structure.halve(volume), expected.numpy(), atol=1e-6)


def test_hfen_equals_a_direct_convolution(pair: tuple[Float32Array, Float32Array]) -> None:
    sr, hr = pair
    sigma, radius = structure.HFEN_SIGMA, structure.HFEN_RADIUS
    steps = np.arange(-radius, radius + 1)
    squared = sum(np.square(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"))))
    bell = np.exp(-squared / (2 * sigma**2))
    bell /= bell.sum()
    kernel = bell * (squared / sigma**4 - 3 / sigma**2)
    kernel -= kernel.mean()
    inside = np.zeros(SHAPE, dtype=bool)
    inside[8:-8, 9:-8, 8:-9] = True
    error, truth = (
        signal.fftconvolve(each.astype(np.float64), kernel, mode="same")[inside]
        for each in (sr - hr, hr)
    )
    expected = np.linalg.norm(error) / np.linalg.norm(truth)
    found = structure.HighFrequencyError(hr, inside).score(sr)
    assert found == pytest.approx(expected, rel=5e-3)


def test_hfen_runs_from_none_to_all_detail_lost(pair: tuple[Float32Array, Float32Array]) -> None:
    _, hr = pair
    mask = np.ones(SHAPE, dtype=bool)
    scorer = structure.HighFrequencyError(hr, mask)
    assert scorer.score(hr) == 0.0
    assert scorer.score(hr + np.float32(50)) == pytest.approx(0.0, abs=1e-4)
    assert scorer.score(np.full_like(hr, 7.0)) == pytest.approx(1.0, abs=1e-4)
    flat = np.zeros_like(hr)
    assert np.isnan(structure.HighFrequencyError(flat, mask).score(hr))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_slabs_change_no_digit(
    pair: tuple[Float32Array, Float32Array], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hr = pair
    monkeypatch.setattr(box, "WORKERS", workers)

    def blur(volume: Float32Array) -> Float32Array:
        return np.asarray(ndimage.gaussian_filter(volume, 1.5, radius=5))

    found = box.in_chunks(blur, hr, margin=5, shortest=8)
    np.testing.assert_array_equal(found, blur(hr))


def test_slabs_stay_small_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "SLAB_VOXELS", 1000)
    sizes: list[int] = []

    def look(volume: Float32Array) -> Float32Array:
        sizes.append(len(volume))
        return volume

    volume = np.arange(64 * 10 * 10, dtype=np.float32).reshape(64, 10, 10)
    np.testing.assert_array_equal(box.in_chunks(look, volume, margin=1, shortest=4), volume)
    assert max(sizes) <= 13


def test_a_box_holds_the_mask_and_its_margin_inside_the_volume() -> None:
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[3:5, 10, 18] = True
    assert box.bounding_box(mask, 5) == (slice(0, 10), slice(5, 16), slice(13, 20))
    with pytest.raises(ValueError, match="empty"):
        box.bounding_box(mask & False, 1)

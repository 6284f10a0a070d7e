"""The k-space crop against numpy's FFT and scipy's windows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from medsr.degrade import KSpaceCrop, KSpaceParams


def _fft_crop(image: np.ndarray, factor: int, window: np.ndarray | None = None) -> np.ndarray:
    """Crop the spectrum of the last axis and move the grid by its half-voxel phase.

    ``window`` has one weight per frequency -m/2 … m/2 (m even).
    """
    size = image.shape[-1]
    kept = size // factor
    spectrum = np.fft.fft(image, axis=-1)
    shift = (factor - 1) / 2  # fine voxels from fine voxel 0 to the centre of coarse voxel 0
    cropped = np.zeros((*image.shape[:-1], kept), dtype=complex)
    for k in range(-(kept // 2), kept // 2 + 1):
        weight = 1.0 if window is None else window[k + kept // 2]
        if kept % 2 == 0 and abs(k) == kept // 2:
            weight *= 0.5  # the two Nyquist lines fall onto one
        cropped[..., k % kept] += (
            weight * spectrum[..., k % size] * np.exp(2j * np.pi * k * shift / size)
        )
    result = np.fft.ifft(cropped, axis=-1) * kept / size
    assert np.abs(result.imag).max() < 1e-9
    return np.asarray(result.real)


def _image(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).random(shape)


@pytest.mark.parametrize(("size", "factor"), [(24, 2), (26, 2), (27, 3), (24, 4), (30, 5)])
def test_equals_the_fft_along_one_axis(size: int, factor: int) -> None:
    image = _image(2, 3, size)
    lr = KSpaceCrop(factor=(1, 1, factor)).apply(torch.from_numpy(image), KSpaceParams())
    assert lr.numpy() == pytest.approx(_fft_crop(image, factor), abs=1e-9)


def test_equals_the_fft_along_three_axes() -> None:
    image = _image(12, 14, 18)
    lr = KSpaceCrop(factor=(2, 2, 3)).apply(torch.from_numpy(image), KSpaceParams())
    expected = image
    for axis, factor in enumerate((2, 2, 3)):
        expected = np.moveaxis(_fft_crop(np.moveaxis(expected, axis, -1), factor), -1, axis)
    assert lr.shape == (6, 7, 6)
    assert lr.numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["hamming", "tukey"])
def test_window_equals_scipy(name: str) -> None:
    image = _image(2, 2, 32)
    kept = 16
    window = {
        "hamming": scipy.signal.windows.hamming(kept + 1),
        "tukey": scipy.signal.windows.tukey(kept + 1, alpha=0.5),
    }[name]
    lr = KSpaceCrop(factor=(1, 1, 2), window=name).apply(torch.from_numpy(image), KSpaceParams())
    expected = _fft_crop(image, 2, window)
    assert np.abs(expected - _fft_crop(image, 2)).max() > 0.01
    assert lr.numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("size", "factor"), [(24, 2), (27, 3)])
def test_mirror_equals_the_fft_of_the_mirrored_object(size: int, factor: int) -> None:
    image = _image(2, 2, size)
    lr = KSpaceCrop(factor=(1, 1, factor), mirror=True).apply(
        torch.from_numpy(image), KSpaceParams()
    )
    doubled = np.concatenate([image, image[..., ::-1]], axis=-1)
    expected = _fft_crop(doubled, factor)[..., : size // factor]
    assert lr.numpy() == pytest.approx(expected, abs=1e-9)


def test_patches_use_the_mirror_and_keep_everything_else() -> None:
    whole = KSpaceCrop(factor=(2, 1, 2), window="tukey", noise=(0.1, 0.2))
    patches = whole.for_patches()
    assert patches.mirror
    assert not whole.mirror
    assert (patches.factor, patches.window, patches.noise) == (
        whole.factor,
        whole.window,
        whole.noise,
    )


def test_remainder_is_dropped_before_the_transform() -> None:
    image = _image(1, 1, 25)
    degradation = KSpaceCrop(factor=(1, 1, 2))
    lr = degradation.apply(torch.from_numpy(image), KSpaceParams())
    assert lr.numpy() == pytest.approx(_fft_crop(image[..., :24], 2), abs=1e-9)


def test_impulse_is_the_sinc_of_the_coarse_voxel() -> None:
    # On a long axis the response of a cropped spectrum tends to a sinc with zeros at the
    # coarse voxels' distance.
    size, factor, k = 600, 4, 75
    impulses = torch.eye(size, dtype=torch.float64)[:, None, :]
    response = KSpaceCrop(factor=(1, 1, factor)).apply(impulses, KSpaceParams())[:, 0, k]
    distance = (np.arange(size) - (factor * k + (factor - 1) / 2)) / factor
    assert response.numpy() == pytest.approx(np.sinc(distance) / factor, abs=1e-3)

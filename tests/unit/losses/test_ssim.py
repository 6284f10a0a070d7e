"""SSIMLoss3D against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from medsr.errors import UsageError
from medsr.losses import SSIMLoss3D


def _pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    truth = 0.5 + 0.4 * np.sin(sum((k + 1) * axis for k, axis in enumerate(axes)))
    noisy = truth + 0.05 * random.standard_normal(shape)
    return noisy.astype(np.float32), truth.astype(np.float32)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)[None, None]


@pytest.mark.parametrize("shape", [(11, 11, 11), (20, 13, 16), (12, 31, 17)])
@pytest.mark.parametrize(("offset", "data_range"), [(0.0, 1.0), (-1000.0, 2048.0), (3.0, 0.5)])
def test_equals_scikit_image(shape: tuple[int, ...], offset: float, data_range: float) -> None:
    sr, hr = (data_range * array + offset for array in _pair(shape))
    expected = structural_similarity(
        sr.astype(np.float64),
        hr.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
    )
    loss = SSIMLoss3D(data_range=data_range)(
        _tensor(sr.astype(np.float32)), _tensor(hr.astype(np.float32))
    )
    assert 0.001 < expected < 0.999
    assert 1 - float(loss) == pytest.approx(expected, abs=1e-5)


def test_wider_sigma_equals_scikit_image() -> None:
    sr, hr = _pair((18, 17, 19))
    expected = structural_similarity(
        sr, hr, gaussian_weights=True, sigma=2.0, use_sample_covariance=False, data_range=1.0
    )
    loss = SSIMLoss3D(sigma=2.0, window=15)(_tensor(sr), _tensor(hr))
    assert 1 - float(loss) == pytest.approx(expected, abs=1e-5)


def test_batch_is_the_mean_of_its_volumes() -> None:
    first, second = _pair((14, 12, 13), seed=1), _pair((14, 12, 13), seed=2)
    sr = torch.cat([_tensor(first[0]), _tensor(0.5 * second[0])])
    hr = torch.cat([_tensor(first[1]), _tensor(second[1])])
    loss = SSIMLoss3D()
    single = [float(loss(sr[i : i + 1], hr[i : i + 1])) for i in range(2)]
    assert abs(single[0] - single[1]) > 0.01
    # The shift against cancellation depends on the batch; the value must not.
    assert float(loss(sr, hr)) == pytest.approx(sum(single) / 2, abs=1e-6)


def test_zero_for_equal_and_gradient_points_downhill() -> None:
    sr, hr = (_tensor(array) for array in _pair((13, 13, 13)))
    loss = SSIMLoss3D()
    assert float(loss(hr, hr)) == pytest.approx(0.0, abs=1e-6)
    sr.requires_grad_()
    before = loss(sr, hr)
    before.backward()
    assert sr.grad is not None
    with torch.no_grad():
        after = loss(sr - 0.1 * sr.grad / sr.grad.norm(), hr)
    assert float(after) < before.item()


def test_gradient_equals_finite_differences() -> None:
    sr, hr = (_tensor(array) for array in _pair((11, 11, 11)))
    loss = SSIMLoss3D()
    sr.requires_grad_()
    loss(sr, hr).backward()
    assert sr.grad is not None
    direction = sr.grad / sr.grad.norm()
    step = 0.05
    with torch.no_grad():
        slope = (loss(sr + step * direction, hr) - loss(sr - step * direction, hr)) / (2 * step)
    assert float(slope) == pytest.approx(float(sr.grad.norm()), rel=0.02)


def test_thin_patch_is_refused_or_takes_a_smaller_window() -> None:
    sr, hr = (_tensor(array) for array in _pair((16, 16, 8)))
    with pytest.raises(ValueError, match=r"\(16, 16, 8\).*thinner.*window"):
        SSIMLoss3D()(sr, hr)
    assert 0 < float(SSIMLoss3D(window=7)(sr, hr)) < 1
    assert 0 < float(SSIMLoss3D(window=(11, 11, 5))(sr, hr)) < 1


def test_window_of_one_voxel_along_an_axis_is_the_mean_of_slices() -> None:
    sr, hr = _pair((14, 15, 3))
    expected = np.mean(
        [
            structural_similarity(
                sr[..., k],
                hr[..., k],
                gaussian_weights=True,
                use_sample_covariance=False,
                data_range=1.0,
            )
            for k in range(3)
        ]
    )
    loss = SSIMLoss3D(window=(11, 11, 1))(_tensor(sr), _tensor(hr))
    assert 1 - float(loss) == pytest.approx(expected, abs=1e-5)


def test_autocast_changes_nothing() -> None:
    sr, hr = (_tensor(array) for array in _pair((12, 12, 12)))
    loss = SSIMLoss3D()
    expected = loss(sr, hr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(sr, hr)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, expected)


@pytest.mark.parametrize(
    "options", [{"window": 10}, {"window": (3, 3)}, {"data_range": 0.0}, {"sigma": -1.0}]
)
def test_refuses_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SSIMLoss3D(**options)  # type: ignore[arg-type]


def test_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        SSIMLoss3D()(torch.zeros(1, 1, 12, 12, 12), torch.zeros(1, 1, 12, 12, 13))

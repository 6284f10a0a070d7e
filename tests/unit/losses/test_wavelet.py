"""WaveletLoss against PyWavelets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from medsr.errors import UsageError
from medsr.losses import WaveletLoss, build_loss
from medsr.losses.wavelet import BANDS, haar

AXES = (2, 3, 4)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _theirs(band: str) -> str:
    """PyWavelets' name of a band: approximation and detail."""
    return band.replace("l", "a").replace("h", "d")


@pytest.mark.parametrize("shape", [(8, 6, 4), (7, 5, 9), (2, 3, 1)])
def test_bands_equal_pywavelets(shape: tuple[int, ...]) -> None:
    volume = _random(2, 1, *shape)
    expected = pywt.dwtn(volume.numpy(), "haar", mode="symmetric", axes=AXES)
    bands = haar(volume)
    assert tuple(bands) == BANDS
    for name, band in bands.items():
        np.testing.assert_allclose(band.numpy(), expected[_theirs(name)], atol=1e-5)


def test_energy_is_kept() -> None:
    volume = _random(1, 1, 8, 4, 6)
    energy = sum(band.square().sum().item() for band in haar(volume).values())
    assert energy == pytest.approx(volume.square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(8, 8, 16), (9, 6, 5)])
def test_loss_equals_pywavelets(levels: int, shape: tuple[int, ...]) -> None:
    sr, hr = _random(2, 1, *shape, seed=1), _random(2, 1, *shape, seed=2)
    weights = {"lll": 0.5, "llh": 2.0, "hhh": 1.0}
    low, errors = (sr - hr).double().numpy(), []
    for level in range(1, levels + 1):
        split = pywt.dwtn(low, "haar", mode="symmetric", axes=AXES)
        low = split["aaa"]
        for band, weight in weights.items():
            if band != "lll" or level == levels:
                errors.append((weight, np.abs(split[_theirs(band)]).mean()))
    expected = sum(w * e for w, e in errors) / sum(w for w, _ in errors)
    value = WaveletLoss(levels=levels, bands=weights)(sr, hr)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_all_bands_by_default_and_names_alone_weigh_one() -> None:
    sr, hr = _random(1, 1, 6, 6, 6, seed=1), _random(1, 1, 6, 6, 6, seed=2)
    expected = np.mean([band.abs().mean().item() for band in haar(sr - hr).values()])
    assert WaveletLoss()(sr, hr).item() == pytest.approx(expected, rel=1e-5)
    one = WaveletLoss(bands=["lhl"])(sr, hr).item()
    assert one == pytest.approx(haar(sr - hr)["lhl"].abs().mean().item(), rel=1e-5)


def test_a_slow_difference_leaves_detail_bands_alone() -> None:
    hr = _random(1, 1, 8, 8, 8)
    assert WaveletLoss()(hr, hr).item() == 0.0
    details = WaveletLoss(levels=2, bands=BANDS[1:])
    assert details(hr + 0.5, hr).item() == pytest.approx(0.0, abs=1e-6)
    assert WaveletLoss(bands=["lll"])(hr + 0.5, hr).item() == pytest.approx(0.5 * 8**0.5, rel=1e-5)


def test_gradient_and_autocast() -> None:
    sr, hr = _random(1, 1, 5, 6, 7, seed=1).requires_grad_(), _random(1, 1, 5, 6, 7, seed=2)
    loss = WaveletLoss(levels=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(sr, hr)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(sr, hr))
    inside.backward()
    assert sr.grad is not None
    assert torch.isfinite(sr.grad).all()
    assert (sr.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"levels": 0},
        {"bands": ["lx"]},
        {"bands": {"llh": -1.0}},
        {"bands": {"llh": 0.0}},
        {"bands": []},
    ],
)
def test_refuses_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="wavelet loss"):
        build_loss("wavelet", **options)


def test_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        WaveletLoss()(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 2))

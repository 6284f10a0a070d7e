"""FrequencyLoss against numpy.fft."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from medsr.errors import UsageError
from medsr.losses import FrequencyLoss, build_loss

SHAPES = [(8, 6, 4), (7, 5, 9), (4, 6, 1), (3, 2, 2)]


def _pair(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hr = torch.rand(shape, generator=generator)
    return hr + 0.2 * torch.randn(shape, generator=generator), hr


def _spectrum(volume: Tensor) -> npt.NDArray[np.complex128]:
    return np.fft.fftn(volume.double().numpy(), axes=(2, 3, 4), norm="ortho")


def _weights(shape: tuple[int, ...], emphasis: float) -> npt.NDArray[np.float64]:
    along = [np.fft.fftfreq(size) for size in shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*along, indexing="ij")))
    weights: npt.NDArray[np.float64] = radius**emphasis
    return weights / weights.mean()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("emphasis", [0.0, 1.0, 2.5])
def test_complex_form_equals_numpy(shape: tuple[int, ...], emphasis: float) -> None:
    sr, hr = _pair(2, 1, *shape)
    error = np.abs(_spectrum(sr) - _spectrum(hr)) * _weights(shape, emphasis)
    value = FrequencyLoss(emphasis=emphasis)(sr, hr)
    assert value.item() == pytest.approx(error.mean(), rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("emphasis", [0.0, 1.0])
def test_polar_form_equals_numpy(shape: tuple[int, ...], emphasis: float) -> None:
    sr, hr = _pair(2, 1, *shape, seed=3)
    ours, theirs = _spectrum(sr), _spectrum(hr)
    floor = 0.01 * np.sqrt((hr.double().numpy() ** 2).mean(axis=(2, 3, 4), keepdims=True))
    told = (np.abs(ours) > floor) & (np.abs(theirs) > floor)
    turn = np.angle(ours) - np.angle(theirs)
    turn = np.where(told, np.abs((turn + np.pi) % (2 * np.pi) - np.pi), 0.0)
    weights = _weights(shape, emphasis)
    magnitudes = (np.abs(np.abs(ours) - np.abs(theirs)) * weights).mean()
    phases = (turn * weights).mean()
    assert phases > 0.1
    value = FrequencyLoss("polar", phase=0.3, emphasis=emphasis)(sr, hr)
    assert value.item() == pytest.approx(magnitudes + 0.3 * phases, rel=1e-4)
    without = FrequencyLoss("polar", phase=0.0, emphasis=emphasis)(sr, hr)
    assert without.item() == pytest.approx(magnitudes, rel=1e-4)


@pytest.mark.parametrize("form", ["complex", "polar"])
def test_zero_for_equal_and_finite_gradients_everywhere(form: str) -> None:
    loss = FrequencyLoss(form, phase=1.0)
    _, hr = _pair(1, 1, 6, 6, 6)
    for sr in (hr.clone(), torch.zeros_like(hr), torch.full_like(hr, 0.5)):
        sr.requires_grad_()
        value = loss(sr, hr)
        value.backward()
        assert sr.grad is not None
        assert torch.isfinite(sr.grad).all()
        assert (value.item() < 1e-6) == torch.equal(sr, hr)


def test_a_shift_changes_phases_and_no_magnitude() -> None:
    _, hr = _pair(1, 1, 8, 8, 8)
    shifted = hr.roll(1, dims=2)
    assert FrequencyLoss("polar", phase=0.0)(shifted, hr).item() == pytest.approx(0.0, abs=1e-5)
    assert FrequencyLoss("polar", phase=1.0)(shifted, hr).item() > 0.5


def test_emphasis_favours_fine_detail() -> None:
    x = torch.arange(16.0)
    coarse, fine = (torch.cos(2 * torch.pi * k * x / 16) for k in (1, 7))
    zero = torch.zeros(1, 1, 16, 16, 16)
    values = {
        emphasis: [
            FrequencyLoss(emphasis=emphasis)(zero + wave[:, None, None], zero).item()
            for wave in (coarse, fine)
        ]
        for emphasis in (0.0, 1.0)
    }
    assert values[0.0][0] == pytest.approx(values[0.0][1], rel=1e-4)
    assert values[1.0][1] == pytest.approx(7 * values[1.0][0], rel=1e-4)


@pytest.mark.parametrize("form", ["complex", "polar"])
def test_autocast_changes_nothing(form: str) -> None:
    sr, hr = _pair(1, 1, 8, 8, 8)
    loss = FrequencyLoss(form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(sr, hr)
        half = loss(sr.bfloat16(), hr)
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, loss(sr, hr))
    assert half.item() == pytest.approx(inside.item(), rel=0.02)


@pytest.mark.parametrize(
    "options", [{"form": "sine"}, {"phase": -1.0}, {"emphasis": -0.5}, {"emphasis": float("nan")}]
)
def test_refuses_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="frequency loss"):
        build_loss("frequency", **options)


def test_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        FrequencyLoss()(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 5))

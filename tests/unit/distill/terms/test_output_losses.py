"""The terms that compare outputs by a loss: ssim, gradient, frequency, wavelet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pywt
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, build_term, terms
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D

NAMES = ["frequency", "gradient", "ssim", "wavelet"]
SHAPE = (1, 1, 12, 13, 14)


def _random(seed: int) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


def _value(name: str, ours: Tensor, theirs: Tensor, **options: Any) -> Tensor:
    batch = Batch(torch.zeros(1), torch.zeros(1))
    value: Tensor = build_term(name, **options)(Activations(ours), Activations(theirs), batch)
    return value


def _expected(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    if name == "ssim":
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        return float(1 - structural_similarity(ours, theirs, data_range=1.0, **settings))
    error = ours - theirs
    if name == "gradient":
        return float(np.mean([np.abs(np.diff(error, axis=axis)).mean() for axis in range(3)]))
    if name == "frequency":
        return float(np.abs(np.fft.fftn(error, norm="ortho")).mean())
    bands = pywt.dwtn(error, "haar", mode="symmetric")
    return float(np.mean([np.abs(band).mean() for band in bands.values()]))


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_other_library(name: str) -> None:
    ours, theirs = _random(1), _random(2)
    arrays = (volume[0, 0].double().numpy() for volume in (ours, theirs))
    value = _value(name, ours, theirs)
    assert value.item() == pytest.approx(_expected(name, *arrays), rel=1e-4)
    assert value.item() > 0.05


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("FrequencyTerm", "frequency"),
        ("GradientTerm", "gradient"),
        ("SSIMTerm", "ssim"),
        ("WaveletTerm", "wavelet"),
    ],
)
def test_the_classes_of_before_are_deprecated(old: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"build_term.'{name}'"):
        factory = getattr(terms, old)
    assert factory(views=2).name == name
    assert factory(views=2).teacher_views == 2


@pytest.mark.parametrize("name", NAMES)
def test_zero_when_student_equals_teacher(name: str) -> None:
    assert _value(name, _random(1), _random(1)).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_trains_the_student_alone_under_bf16(name: str) -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=1)
    teacher = ResNet3D((1, 1, 2), width=16, blocks=1)
    with torch.no_grad():
        for parameter in (*student.parameters(), *teacher.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
    term = build_term(name)
    assert not list(term.parameters())  # type: ignore[attr-defined]
    distiller = Distiller(student, teacher, [term])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lr = torch.rand(1, 1, 12, 12, 6)
        (loss,) = distiller(Batch(lr, torch.rand(1, 1, 12, 12, 12))).losses.values()
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters())
    assert student.head.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ssim", {"window": 5}),
        ("gradient", {"spacing": (1.0, 1.0, 4.0)}),
        ("frequency", {"form": "polar", "phase": 0.5}),
        ("frequency", {"emphasis": 2.0}),
        ("wavelet", {"levels": 2, "bands": {"llh": 1.0}}),
    ],
)
def test_options_reach_the_loss(name: str, options: dict[str, Any]) -> None:
    ours, theirs = _random(1), _random(2)
    plain = _value(name, ours, theirs).item()
    assert _value(name, ours, theirs, **options).item() != pytest.approx(plain, rel=1e-3)
    assert build_term(name, views=3, **options).teacher_views == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ssim", {"window": 4}),
        ("gradient", {"spacing": (0, 1, 1)}),
        ("frequency", {"form": "round"}),
        ("wavelet", {"bands": ["lh"]}),
        ("wavelet", {"views": 0}),
        ("gradient", {"levels": 2}),
    ],
)
def test_wrong_options_are_one_line(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        build_term(name, **options)
    assert "\n" not in str(caught.value)

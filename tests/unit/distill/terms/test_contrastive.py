"""Contrast: InfoNCE and the ratio of distances against numpy and scipy, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import skimage.measure
import torch
from torch import Tensor

from medsr.batch import Batch
from medsr.distill import Activations, Distiller, Tap, build_term
from medsr.errors import UsageError
from medsr.networks import RepPlain3D, ResNet3D

BATCH = Batch(torch.zeros(1), torch.zeros(1))
TAPS = {"student": "s", "teacher": "t"}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _activations(features: Tensor) -> Activations:
    return Activations(features[:, :1], {"s": features, "t": features})


def _patches(**options: Any) -> Any:
    torch.manual_seed(0)
    return build_term("contrastive", **TAPS, **options)


def test_equals_info_nce_of_scipy() -> None:
    ours, theirs = _random(2, 3, 2, 2, 2, seed=1), _random(2, 5, 2, 2, 2, seed=2)
    term = _patches(student_channels=3, teacher_channels=5, dimension=4, temperature=0.3)
    value = term(_activations(ours), _activations(theirs), BATCH)

    def vectors(features: Tensor, head: torch.nn.Conv3d) -> np.ndarray:
        rows = features.movedim(1, -1).reshape(16, -1).numpy()
        rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
        mapped = rows @ head.weight.detach().numpy()[:, :, 0, 0, 0].T
        return mapped / np.linalg.norm(mapped, axis=1, keepdims=True)

    cosines = vectors(ours, term.student_head) @ vectors(theirs, term.teacher_head).T
    chosen = np.diag(scipy.special.log_softmax(cosines / 0.3, axis=1))
    assert value.item() == pytest.approx(-chosen.mean() / math.log(16), rel=1e-4)


def test_equal_features_find_each_other_and_strangers_do_not() -> None:
    features = _random(2, 6, 4, 4, 4)
    term = _patches(student_channels=6, teacher_channels=6)
    equal = term(_activations(features), _activations(features), BATCH).item()
    strange = term(_activations(_random(2, 6, 4, 4, 4, seed=4)), _activations(features), BATCH)
    swapped = term(_activations(features.flip(0)), _activations(features), BATCH)
    assert equal < 0.4
    assert strange.item() > 1
    assert swapped.item() > 1


def test_a_blind_guess_is_one() -> None:
    flat = torch.ones(2, 3, 4, 4, 4)
    term = _patches(student_channels=3, teacher_channels=3, cells=8)
    value = term(_activations(flat), _activations(_random(2, 3, 4, 4, 4)), BATCH)
    assert value.item() == pytest.approx(1.0, rel=1e-5)


def test_blocks_are_means() -> None:
    fine = _random(1, 4, 4, 4, 4)
    coarse = torch.tensor(skimage.measure.block_reduce(fine.numpy(), (1, 1, 2, 2, 2), np.mean))
    term = _patches(student_channels=4, teacher_channels=4, cells=8)
    on_both = term(_activations(fine), _activations(coarse), BATCH).item()
    assert on_both == pytest.approx(
        term(_activations(coarse), _activations(coarse), BATCH).item(), rel=1e-5
    )


def test_student_and_heads_learn_also_under_bf16() -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=2)
    teacher = ResNet3D((1, 1, 2), width=32, blocks=1)
    term = build_term("contrastive", student="body.1", teacher="body.0", cells=8)
    assert term.needs == (Tap("body.1", "body.0"),)
    keys = set(student.state_dict())
    distiller = Distiller(student, teacher, [term])
    assert set(student.state_dict()) == keys
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = distiller(Batch(_random(2, 1, 6, 6, 4), _random(2, 1, 6, 6, 8))).losses
    losses["contrastive"].backward()
    assert torch.isfinite(losses["contrastive"])
    assert student.head.weight.grad.abs().sum() > 0
    shapes = {name: tuple(p.shape) for name, p in term.named_parameters()}
    assert shapes["student_head.weight"] == (64, 16, 1, 1, 1)
    assert shapes["teacher_head.weight"] == (64, 32, 1, 1, 1)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_input_form_equals_numpy() -> None:
    term = build_term("contrastive", negatives="input")
    assert term.needs == ()
    lr = _random(2, 1, 3, 4, 2)
    ours, theirs = _random(2, 1, 3, 4, 8, seed=1), _random(2, 1, 3, 4, 8, seed=2)
    value = term(Activations(ours), Activations(theirs), Batch(lr, theirs))
    smooth = np.stack(
        [
            scipy.ndimage.zoom(v, (1, 1, 4), order=1, mode="nearest", grid_mode=True)
            for v in lr[:, 0].numpy()
        ]
    )

    def distances(difference: np.ndarray) -> np.ndarray:
        half = skimage.measure.block_reduce(difference, (1, 2, 2, 2), np.nanmean, cval=np.nan)
        slopes = [
            sum(np.abs(np.diff(volume, axis=a)).mean() for a in (1, 2, 3))
            for volume in (difference, half)
        ]
        return np.array([np.abs(difference).mean(), *slopes])

    a, b = ours[:, 0].numpy(), theirs[:, 0].numpy()
    expected = distances(a - b) / (distances(a - smooth) + distances(b - smooth))
    assert value.item() == pytest.approx(expected.mean(), rel=1e-4)


def test_input_form_is_zero_at_the_teacher_and_one_at_the_interpolated_scan() -> None:
    term = build_term("contrastive", negatives="input")
    lr, theirs = _random(1, 1, 4, 4, 3), _random(1, 1, 4, 4, 6, seed=1)
    smooth = torch.nn.functional.interpolate(lr, scale_factor=(1.0, 1.0, 2.0), mode="trilinear")
    batch = Batch(lr, theirs)
    assert term(Activations(theirs), Activations(theirs), batch).item() == 0
    ours = smooth.clone().requires_grad_()
    value = term(Activations(ours), Activations(theirs), batch)
    value.backward()
    assert value.item() == pytest.approx(1.0, abs=1e-5)
    assert torch.isfinite(ours.grad).all()
    beyond = theirs + 3 * (theirs - smooth)
    assert 0.5 < term(Activations(beyond), Activations(theirs), batch).item() < 1
    air = torch.zeros(1, 1, 4, 4, 6, requires_grad=True)
    empty = term(Activations(air), Activations(0 * theirs), Batch(0 * lr, theirs))
    empty.backward()
    assert empty.item() == 0
    assert torch.isfinite(air.grad).all()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="'others' is none of patches, input"):
        _patches(negatives="others")
    with pytest.raises(UsageError, match="name the submodules"):
        build_term("contrastive")
    with pytest.raises(UsageError, match="neither for negatives: input"):
        _patches(negatives="input")
    with pytest.raises(UsageError, match="cells is 1"):
        _patches(cells=1)
    with pytest.raises(UsageError, match="temperature is -1; give a positive one"):
        _patches(temperature=-1)
    with pytest.raises(UsageError, match="give both"):
        _patches(student_channels=4)

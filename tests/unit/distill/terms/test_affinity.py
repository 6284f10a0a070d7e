"""Feature affinity: the value against numpy and scipy, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
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


def _cosines(features: Tensor) -> np.ndarray:
    rows = [sample.flatten(1).T.numpy() for sample in features]
    return np.stack([1 - scipy.spatial.distance.cdist(r, r, "cosine") for r in rows])


def test_equals_scipy() -> None:
    ours, theirs = _random(2, 5, 3, 2, 4, seed=1), _random(2, 7, 3, 2, 4, seed=2)
    value = build_term("affinity", **TAPS)(_activations(ours), _activations(theirs), BATCH)
    a, b = _cosines(ours), _cosines(theirs)
    spread = np.abs(b - b.mean(axis=(1, 2), keepdims=True)).mean()
    assert value.item() == pytest.approx(np.abs(a - b).mean() / spread, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_soft_max_form_equals_scipy(temperature: float) -> None:
    ours, theirs = _random(1, 5, 3, 2, 2, seed=1), _random(1, 7, 3, 2, 2, seed=2)
    term = build_term("affinity", **TAPS, temperature=temperature)
    value = term(_activations(ours), _activations(theirs), BATCH)
    ours_rows, theirs_rows = (
        scipy.special.softmax(_cosines(f)[0] / temperature, axis=1) for f in (ours, theirs)
    )
    even = np.full_like(theirs_rows, 1 / 12)
    divergence = scipy.stats.entropy(theirs_rows, ours_rows, axis=1).mean()
    expected = divergence / scipy.stats.entropy(theirs_rows, even, axis=1).mean()
    assert value.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_zero_for_equal_affinities_whatever_the_scale_and_rotation(
    temperature: float | None,
) -> None:
    features = _random(2, 4, 4, 3, 2)
    rotation = torch.linalg.qr(_random(4, 4, seed=3)).Q
    turned = 7 * torch.einsum("oi,bixyz->boxyz", rotation, features)
    term = build_term("affinity", **TAPS, temperature=temperature)
    value = term(_activations(turned), _activations(features), BATCH)
    assert value.item() == pytest.approx(0.0, abs=1e-5)
    other = term(_activations(_random(2, 9, 4, 3, 2, seed=5)), _activations(features), BATCH)
    assert 0.3 < other.item() < 10


def test_without_pattern_the_value_is_one() -> None:
    theirs = _random(1, 3, 4, 4, 4)
    even = torch.ones(1, 2, 4, 4, 4)
    soft = build_term("affinity", **TAPS, temperature=0.3)
    assert soft(_activations(even), _activations(theirs), BATCH).item() == pytest.approx(1, 1e-4)


def test_a_patch_of_air_does_not_explode() -> None:
    air = torch.full((1, 3, 4, 4, 4), 0.2)
    for temperature in (None, 0.1, 5.0):
        ours = _random(1, 3, 4, 4, 4).requires_grad_()
        term = build_term("affinity", **TAPS, temperature=temperature)
        value = term(_activations(ours), _activations(air), BATCH)
        value.backward()
        assert 0 < value.item() < 500
        assert ours.grad is not None
        assert torch.isfinite(ours.grad).all()


def test_grids_that_differ_meet_on_the_coarser_one_and_cells_are_few() -> None:
    fine = _random(1, 3, 8, 8, 4)
    coarse = torch.nn.functional.avg_pool3d(fine, (2, 2, 1))
    term = build_term("affinity", **TAPS, cells=64)
    assert term(_activations(fine), _activations(coarse), BATCH).item() < 1e-5
    assert term(_activations(coarse), _activations(fine), BATCH).item() < 1e-5
    # Within a cell voxels may change places: only their mean counts.
    shuffled = fine.reshape(1, 3, 4, 2, 4, 2, 4).flip([3, 5]).reshape(fine.shape)
    assert term(_activations(shuffled), _activations(fine), BATCH).item() < 1e-5


def test_only_the_student_learns_also_under_bf16() -> None:
    torch.manual_seed(0)
    student = RepPlain3D((1, 1, 2), width=16, depth=2)
    teacher = ResNet3D((1, 1, 2), width=32, blocks=1, fold=(2, 2, 1))
    term = build_term("affinity", student="body.1", teacher="body.0", cells=27)
    assert term.needs == (Tap("body.1", "body.0"),)
    distiller = Distiller(student, teacher, [term])
    assert list(term.parameters()) == []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distiller(Batch(_random(2, 1, 8, 6, 4), _random(2, 1, 8, 6, 8))).losses["affinity"]
    loss.backward()
    assert torch.isfinite(loss)
    assert student.head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="cells is 1; give 2 or more"):
        build_term("affinity", **TAPS, cells=1)
    with pytest.raises(UsageError, match="temperature is 0; it must be positive"):
        build_term("affinity", **TAPS, temperature=0)

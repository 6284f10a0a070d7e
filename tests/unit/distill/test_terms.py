"""Every term by itself, on made-up activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medsr.batch import Batch
from medsr.distill import Activations, FeatureTerm, OutputTerm, Tap, build_term
from medsr.errors import UsageError

BATCH = Batch(torch.zeros(1), torch.zeros(1))


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _activations(features: Tensor) -> Activations:
    return Activations(output=features[:, :1], features={"s": features, "t": features})


def _feature_term(**options: int) -> FeatureTerm:
    return FeatureTerm(student="s", teacher="t", **options)


@pytest.mark.parametrize("loss", ["l1", "l2", "charbonnier", "gradient"])
def test_output_term_is_the_loss_between_outputs(loss: str) -> None:
    ours, theirs = (_activations(_random(2, 1, 4, 4, 4, seed=seed)) for seed in (1, 2))
    term = OutputTerm(loss=loss)
    assert term(ours, ours, BATCH).item() == pytest.approx(0.0, abs=1e-8)
    expected = term.loss(ours.output, theirs.output)
    assert expected.item() > 0.1
    assert term(ours, theirs, BATCH).item() == expected.item()
    assert term.needs == ()


def test_output_term_passes_options_on_and_is_cheap_by_default() -> None:
    assert OutputTerm(loss="charbonnier", epsilon=0.5).loss.epsilon == 0.5
    assert OutputTerm().teacher_views == 1
    assert OutputTerm(views=5).teacher_views == 5
    with pytest.raises(UsageError, match="views is 0"):
        OutputTerm(views=0)


def test_feature_term_is_zero_when_student_equals_teacher() -> None:
    features = _random(2, 5, 4, 3, 6)
    term = _feature_term(student_channels=5, teacher_channels=5)
    assert term(_activations(features), _activations(features), BATCH).item() == 0.0
    changed = _activations(features + 0.1 * _random(2, 5, 4, 3, 6, seed=9))
    assert term(changed, _activations(features), BATCH).item() > 1e-3


def test_feature_term_equals_numpy() -> None:
    ours, theirs = _random(2, 3, 4, 3, 5, seed=1), 7 * _random(2, 4, 4, 3, 5, seed=2) + 2
    term = _feature_term(student_channels=3, teacher_channels=4)
    assert term.projection is not None
    weight = term.projection.weight.detach().numpy()[:, :, 0, 0, 0]

    def standardised(features: np.ndarray) -> np.ndarray:
        axes = (0, 2, 3, 4)
        centred = features - features.mean(axis=axes, keepdims=True)
        return centred / features.std(axis=axes, keepdims=True)

    projected = np.einsum("oi,bixyz->boxyz", weight, standardised(ours.numpy()))
    expected = ((projected - standardised(theirs.numpy())) ** 2).mean()
    value = term(_activations(ours), _activations(theirs), BATCH)
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_feature_term_does_not_depend_on_the_loudness_of_channels() -> None:
    ours, theirs = _random(1, 4, 5, 5, 5, seed=1), _random(1, 4, 5, 5, 5, seed=2)
    gain = torch.tensor([0.5, 1.0, 2.0, 4.0]).reshape(1, 4, 1, 1, 1)
    term = _feature_term(student_channels=4, teacher_channels=4)
    plain = term(_activations(ours), _activations(theirs), BATCH)
    loud = term(_activations(gain * ours), _activations(gain * theirs), BATCH)
    assert loud.item() == pytest.approx(plain.item(), rel=1e-4)


def test_feature_term_of_the_teachers_mean_is_one() -> None:
    theirs = _random(2, 4, 6, 6, 6) + 3
    mean = theirs.mean(dim=(0, 2, 3, 4), keepdim=True).expand_as(theirs)
    term = _feature_term(student_channels=4, teacher_channels=4)
    assert term(_activations(mean), _activations(theirs), BATCH).item() == pytest.approx(
        1.0, rel=1e-4
    )


def test_feature_term_starts_near_one_whatever_the_scales_are() -> None:
    torch.manual_seed(0)
    ours = 50 + 30 * _random(1, 32, 8, 8, 8, seed=1)
    theirs = 1 + 0.1 * _random(1, 64, 8, 8, 8, seed=2)
    term = _feature_term(student_channels=32, teacher_channels=64)
    assert 0.8 < term(_activations(ours), _activations(theirs), BATCH).item() < 2.0


def test_feature_term_survives_a_patch_of_air() -> None:
    flat = torch.full((1, 2, 4, 4, 4), 0.3)
    ours = (flat + 0.01).requires_grad_()
    term = _feature_term(student_channels=2, teacher_channels=2)
    value = term(_activations(ours), _activations(flat), BATCH)
    value.backward()
    assert 0 <= value.item() < 100
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()


@pytest.mark.parametrize("finer", ["student", "teacher"])
def test_feature_term_pools_the_finer_grid(finer: str) -> None:
    fine = _random(1, 3, 6, 4, 5)
    coarse = fine.reshape(1, 3, 3, 2, 2, 2, 5).mean(dim=(3, 5))
    assert coarse.shape == (1, 3, 3, 2, 5)
    ours, theirs = (fine, coarse) if finer == "student" else (coarse, fine)
    term = _feature_term(student_channels=3, teacher_channels=3)
    value = term(_activations(ours), _activations(theirs), BATCH)
    assert value.item() == pytest.approx(0.0, abs=1e-10)


def test_feature_term_refuses_grids_that_do_not_divide() -> None:
    term = _feature_term(student_channels=3, teacher_channels=3)
    with pytest.raises(ValueError, match=r"\(5, 4, 4\).*\(3, 4, 4\).*multiple"):
        term(_activations(_random(1, 3, 5, 4, 4)), _activations(_random(1, 3, 3, 4, 4)), BATCH)


def test_feature_term_setup_creates_the_projection_once() -> None:
    term = _feature_term()
    ours, theirs = _activations(_random(1, 3, 4, 4, 4)), _activations(_random(1, 6, 4, 4, 4))
    assert list(term.parameters()) == []
    with pytest.raises(RuntimeError, match="setup"):
        term(ours, theirs, BATCH)
    term.setup(ours, theirs)
    created = term.projection
    term.setup(ours, theirs)
    assert term.projection is created
    assert [tuple(p.shape) for p in term.parameters()] == [(6, 3, 1, 1, 1), (6,)]
    assert term.needs == (Tap(student="s", teacher="t"),)


def test_feature_gradients_reach_student_and_projection_only() -> None:
    ours, theirs = (_random(1, 3, 4, 4, 4, seed=s).requires_grad_() for s in (1, 2))
    term = _feature_term(student_channels=3, teacher_channels=3)
    term(_activations(ours), _activations(theirs), BATCH).backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    assert theirs.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in term.parameters())


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'outputs' is unknown; known are .*feature.*output"):
        build_term("outputs")
    with pytest.raises(UsageError, match="does not take these options"):
        build_term("feature", student="a", teacher="b", weight=1)
    with pytest.raises(UsageError, match="give both"):
        build_term("feature", student="a", teacher="b", student_channels=4)

"""What terms share: bringing features to one grid and to few cells."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.measure
import torch
from torch import Tensor

from medsr.distill import Activations, Tap
from medsr.distill.terms._features import paired, pool_to


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("sizes", "cells", "grid"),
    [
        ((24, 24, 12), 512, (8, 8, 6)),
        ((6, 4, 4), 96, (6, 4, 4)),
        ((5, 1, 3), 4, (2, 1, 2)),
        ((7, 7, 7), 1, (1, 1, 1)),
    ],
)
def test_pools_to_cells_as_cubic_as_can_be(
    sizes: tuple[int, int, int], cells: int, grid: tuple[int, int, int]
) -> None:
    assert tuple(pool_to(torch.zeros(1, 2, *sizes), cells).shape[2:]) == grid


def test_pooled_values_equal_scikit_image_and_a_smaller_last_cell_is_a_mean_too() -> None:
    features = _random(1, 1, 5, 4, 6)
    pooled = pool_to(features, 12)
    assert tuple(pooled.shape[2:]) == (2, 2, 3)
    # Padding with NaN lets scikit-image leave the missing voxels out.
    expected = skimage.measure.block_reduce(
        features[0, 0].numpy(), (3, 2, 2), np.nanmean, cval=np.nan
    )
    np.testing.assert_allclose(pooled[0, 0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_pairs_come_in_float32_on_one_grid_and_the_teachers_without_gradient() -> None:
    ours = _random(1, 3, 4, 4, 2).bfloat16().requires_grad_()
    theirs = _random(1, 5, 2, 2, 2, seed=1).requires_grad_()
    student = Activations(ours[:, :1], {"s": ours})
    teacher = Activations(theirs[:, :1], {"t": theirs})
    source, target = paired(student, teacher, Tap("s", "t"))
    assert source.shape == (1, 3, 2, 2, 2)
    assert source.dtype == torch.float32
    assert source.requires_grad
    assert torch.equal(target, theirs)
    assert not target.requires_grad

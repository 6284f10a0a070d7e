"""RCAN's local statistics: the window's mean, and what is left of the published global one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from medsr.errors import ModelError
from medsr.networks import build_network
from medsr.networks.rcan import LocalChannelAttention, local_mean


@pytest.mark.parametrize("window", [3, 7])
@pytest.mark.parametrize("shape", [(9, 8, 10), (5, 1, 2)], ids=str)
def test_local_mean_is_scipys_over_the_voxels_that_exist(
    window: int, shape: tuple[int, int, int]
) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    ours = local_mean(x, window).numpy()
    for item, channel in np.ndindex(2, 3):
        total = scipy.ndimage.uniform_filter(x[item, channel].numpy(), window, mode="constant")
        there = scipy.ndimage.uniform_filter(np.ones(shape), window, mode="constant")
        np.testing.assert_allclose(ours[item, channel], total / there, rtol=0, atol=1e-12)


def test_a_window_over_the_whole_scan_gives_the_published_attention() -> None:
    torch.manual_seed(0)
    attention = LocalChannelAttention(16, reduction=4, window=15)
    x = torch.randn(2, 16, 5, 6, 7) + torch.randn(2, 16, 1, 1, 1)
    with torch.no_grad():
        ours = attention(x)
        pooled = x.mean(dim=(2, 3, 4), keepdim=True)
        weights = torch.sigmoid(attention.excite(torch.relu(attention.squeeze(pooled))))
    assert weights.std() > 0.01
    torch.testing.assert_close(ours, x * weights, rtol=0, atol=1e-5)


def test_the_default_network_reaches_as_far_as_it_says() -> None:
    assert build_network("RCAN3D", (1, 1, 2)).halo == (66, 66, 66)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 4}, "window is 4; it must be odd"),
        ({"window": 1}, "window is 1"),
        ({"reduction": 3}, "reduction is 3"),
        ({"groups": 0}, "groups is 0"),
        ({"blocks": 0}, "blocks is 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_network("RCAN3D", (1, 1, 2), **options)

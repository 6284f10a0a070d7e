"""Batches of slices: where they lie, what is drawn, and that the truth is under them."""

from __future__ import annotations

import pytest
import torch

from medsr.data.slices import SliceStream
from medsr.data.transforms import PreparedScan
from medsr.degrade import Slices
from medsr.errors import CohortError
from medsr.recipe import PatchRecipe

PATCHES = PatchRecipe(
    size=(16, 16, 6), batch=3, foreground=1.0, intensity_jitter=0.0, flips=False, rotations=False
)


def _scan(shape: tuple[int, int, int], region: str = "brain", modality: str = "CT") -> PreparedScan:
    """Intensity rises linearly along the slice axis, so that every profile keeps it."""
    image = torch.arange(shape[2], dtype=torch.float32).expand(1, *shape).contiguous() / 100
    body = torch.arange(image.numel(), dtype=torch.int32)
    sample = {"image": image, "body_fg": body, "body_bg": body[:0]}
    return PreparedScan(
        sample, region, f"{region}_{shape}", 2, (1.0, 1.0, 2.0), 1, 0.0, f"{modality}/a", region
    )


@pytest.mark.parametrize("step", range(6))
def test_linear_knots_sampled_give_the_truth(step: int) -> None:
    stream = SliceStream([_scan((20, 24, 120))], Slices(factor=(1, 1, 9)), PATCHES, seed=1)
    batch = stream.batch(step)
    assert batch.sampling is not None
    count = batch.lr.shape[-1]
    lines = batch.lr[:, :, :1, :1]
    # The filter between profiles sees nothing beyond the ends, and bends the outer slices.
    step_between = (lines[..., -2:-1] - lines[..., 1:2]) / (count - 3)
    at = (torch.arange(9 * count) - 13) / 9
    knots = batch.lr[..., 1:2] + at * step_between
    found = knots @ batch.sampling.T
    inside = slice(8, -8)  # beyond the outermost knots they stay level
    assert (found - batch.hr)[..., inside].abs().max() < 0.002  # 0.2 fine voxels


def test_batches_follow_from_seed_step_and_rank() -> None:
    scans = [_scan((20, 24, 90), modality="MR"), _scan((40, 16, 110), "knee", "MR")]
    slices = Slices(factor=(1, 1, 9), noise=(0.0, 0.02))
    one, other = (SliceStream(scans, slices, PATCHES, seed=5) for _ in range(2))
    for step in (0, 7):
        first, second = one.batch(step), other.batch(step)
        assert torch.equal(first.lr, second.lr)
        torch.testing.assert_close(first.condition, second.condition, rtol=0, atol=0)
    assert not torch.equal(one.batch(0).hr, one.batch(1).hr)


def test_batches_hold_about_as_many_voxels_whatever_the_ratio() -> None:
    stream = SliceStream(
        [_scan((40, 40, 200)), _scan((40, 8, 200), "knee")],
        Slices(factor=(1, 1, 9)),
        PATCHES,
        seed=0,
    )
    wanted = 3 * 16 * 16 * 6
    sizes = [stream.batch(step).lr.numel() for step in range(20)]
    assert 0.6 * wanted < min(sizes) <= max(sizes) < 1.6 * wanted


def test_groups_of_many_scans_are_drawn_less_often_each() -> None:
    scans = [_scan((24, 24, 100)) for _ in range(9)] + [_scan((24, 24, 100), "knee")]
    stream = SliceStream(scans, Slices(factor=(1, 1, 9)), PATCHES, seed=0)
    shares = stream.weights / stream.weights.sum()
    assert shares[-1] == pytest.approx(3 * shares[0])
    assert shares[:9].sum() == pytest.approx(0.75)


def test_scans_that_are_too_small_are_refused() -> None:
    with pytest.raises(CohortError, match="no training scan has the 15 voxels"):
        SliceStream([_scan((20, 20, 12))], Slices(factor=(1, 1, 9)), PATCHES, seed=0)

"""The stream of patches: reproducible, apart from other streams, and true to the whole scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from monai.transforms.utility.array import FgBgToIndices
from torch import Tensor

from medsr.data.patches import PatchStream
from medsr.data.transforms import PreparedScan
from medsr.degrade import CTSlab, KSpaceCrop, SliceProfile
from medsr.errors import CohortError, UsageError
from medsr.recipe import PatchRecipe

PLAIN = PatchRecipe(
    size=(6, 6, 4), batch=3, foreground=0.9, intensity_jitter=0.0, flips=False, rotations=False
)
RICH = replace(PLAIN, intensity_jitter=0.2, flips=True, rotations=True)


def scan(image: Tensor, threshold: float = 0.5) -> PreparedScan:
    body, rest = FgBgToIndices()(image > threshold)
    sample = {"image": image, "body_fg": torch.as_tensor(body), "body_bg": torch.as_tensor(rest)}
    return PreparedScan(sample, "someone", "scan", 2, (1.0, 1.0, 1.0), 1, threshold)


def noise(shape: tuple[int, int, int] = (20, 20, 32), seed: int = 0) -> Tensor:
    return torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed))


def stream(recipe: PatchRecipe = RICH, seed: int = 0, rank: int = 0) -> PatchStream:
    scans = [scan(noise(seed=1)), scan(noise(seed=2))]
    return PatchStream(scans, SliceProfile((1, 1, 2), thickness=(0.9, 1.1)), recipe, seed, rank)


def test_shapes() -> None:
    batch = stream().batch(0)
    assert batch.lr.shape == (3, 1, 6, 6, 4)
    assert batch.hr.shape == (3, 1, 6, 6, 8)
    assert type(batch.lr) is Tensor
    assert type(batch.hr) is Tensor
    assert batch.hr.dtype == torch.float32


def test_a_step_gives_the_same_batch_whatever_was_drawn_before() -> None:
    fresh, used = stream(), stream()
    for step in (4, 1, 9):
        used.batch(step)
    torch.manual_seed(99)
    first, second = fresh.batch(5), used.batch(5)
    assert torch.equal(first.lr, second.lr)
    assert torch.equal(first.hr, second.hr)


def test_each_modality_has_a_degradation_of_its_own() -> None:
    image = noise((20, 20, 60))
    mr, ct = (replace(scan(image), domain=domain) for domain in ("MR/T1w", "CT"))
    # The slab needs no margin and the profile some: patches are cut with the larger one.
    both = {"MR": SliceProfile((1, 1, 2), thickness=1.3), "CT": CTSlab((1, 1, 2))}
    assert both["MR"].margin != both["CT"].margin
    patches = PatchStream([mr, ct], both, replace(PLAIN, batch=12), seed=3)
    batch = patches.batch(0)
    assert set(batch.domains) == {"MR/T1w", "CT"}
    slabs = batch.hr.unflatten(-1, (4, 2)).mean(dim=-1)
    for domain, lr, slab in zip(batch.domains, batch.lr, slabs, strict=True):
        assert torch.allclose(lr, slab, atol=1e-5) == (domain == "CT")
    with pytest.raises(UsageError, match="no degradation is given for PET scans, only MR, CT"):
        PatchStream([replace(mr, domain="PET")], both, PLAIN, seed=3).batch(0)


def test_drawing_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    stream().batch(0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("step", "seed", "rank"), [(6, 0, 0), (5, 1, 0), (5, 0, 1)], ids=["step", "seed", "rank"]
)
def test_other_steps_seeds_and_processes_see_other_patches(step: int, seed: int, rank: int) -> None:
    ours, other = stream().batch(5), stream(seed=seed, rank=rank).batch(step)
    assert not torch.equal(ours.hr, other.hr)
    assert not torch.equal(ours.lr, other.lr)


def test_patches_of_a_batch_differ() -> None:
    hr = stream().batch(0).hr
    assert not torch.equal(hr[0], hr[1])


def place(whole: Tensor, part: Tensor) -> tuple[int, ...]:
    """Return where ``part`` stands in ``whole``, both (X, Y, Z)."""
    hits = (whole == part[0, 0, 0]).nonzero()
    for x, y, z in hits.tolist():
        piece = whole[x : x + part.shape[0], y : y + part.shape[1], z : z + part.shape[2]]
        if torch.equal(piece, part):
            return (x, y, z)
    raise AssertionError("the patch is no part of the scan")


@pytest.mark.parametrize(
    "degradation",
    [
        SliceProfile((1, 1, 2), thickness=1.0),
        SliceProfile((1, 1, 4), thickness=1.3),
        CTSlab((1, 1, 2), thickness=1.0),
    ],
    ids=["profile2", "profile4", "slab"],
)
def test_lr_is_the_interior_of_the_degraded_scan(degradation: Any) -> None:
    """The margin is wide enough: cutting and degrading commute."""
    factor = degradation.factor
    image = noise((20, 20, 60))
    patches = PatchStream([scan(image)], degradation, PLAIN, seed=3)
    for step in range(3):
        batch = patches.batch(step)
        for lr, hr in zip(batch.lr, batch.hr, strict=True):
            start = place(image[0], hr[0])
            # A patch may start between two coarse voxels; shift the scan so that it does not.
            shifted = image[:, :, :, start[2] % factor[2] :]
            whole = degradation.apply(shifted, degradation.nominal())[0]
            cut = tuple(
                slice(s // f, s // f + n) for s, f, n in zip(start, factor, PLAIN.size, strict=True)
            )
            torch.testing.assert_close(lr[0], whole[cut], rtol=1e-5, atol=1e-6)


def test_k_space_patches_are_mirrored_at_their_borders() -> None:
    image = noise((40, 40, 40))
    patches = PatchStream([scan(image)], KSpaceCrop((2, 2, 2)), replace(PLAIN, size=(4,) * 3), 0)
    assert patches.degradation.mirror
    assert patches.batch(0).hr.shape == (3, 1, 8, 8, 8)


def test_flips_and_turns_keep_the_values() -> None:
    image = noise()
    batch = PatchStream(
        [scan(image)], SliceProfile((1, 1, 2)), replace(RICH, intensity_jitter=0.0, batch=8), 0
    ).batch(0)
    assert torch.isin(batch.hr, image).all()
    moved = 0
    for hr in batch.hr:
        try:
            place(image[0], hr[0])
        except AssertionError:
            moved += 1
    assert moved >= 4


def test_in_plane_turns_never_mix_in_the_slice_axis() -> None:
    ramp = torch.arange(32.0).expand(1, 20, 20, 32) / 32 + 1
    hr = PatchStream([scan(ramp)], SliceProfile((1, 1, 2)), replace(RICH, batch=8), 0).batch(0).hr
    assert (hr.std(dim=(2, 3)) < 1e-6).all()
    assert (hr.diff(dim=-1).abs() > 0.01).all()


def test_jitter_scales_both_sides_within_its_bounds() -> None:
    ones = torch.ones(1, 20, 20, 32)
    recipe = replace(PLAIN, intensity_jitter=0.2, batch=16)
    batch = PatchStream([scan(ones)], SliceProfile((1, 1, 2)), recipe, 0).batch(0)
    levels = batch.hr.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(batch.lr.mean(dim=(1, 2, 3, 4)), levels)
    assert ((levels - 1).abs() <= 0.2 + 1e-6).all()
    assert levels.std() > 0.05


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_patches_centre_on_the_body_by_the_foreground_share(share: float) -> None:
    image = torch.zeros(1, 40, 40, 60)
    image[:, 15:25, 15:25, 25:35] = 1
    patches = PatchStream(
        [scan(image)], SliceProfile((1, 1, 2)), replace(PLAIN, foreground=share, batch=60), seed=7
    )
    hr = patches.batch(0).hr
    centres = hr[:, 0, hr.shape[2] // 2, hr.shape[3] // 2, hr.shape[4] // 2]
    # Sixty draws: three standard deviations of the share are 0.17.
    assert centres.mean().item() == pytest.approx(share, abs=0.17 if 0 < share < 1 else 0)


def test_scans_without_body_or_without_background_can_be_cut() -> None:
    for value in (0.0, 1.0):
        empty = scan(torch.full((1, 20, 20, 32), value))
        assert (PatchStream([empty], SliceProfile((1, 1, 2)), PLAIN, 0).batch(0).hr == value).all()


def test_small_scans_are_left_out_and_none_left_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small, large = replace(scan(noise((20, 20, 8))), scan_id="thin"), scan(noise())
    degradation = SliceProfile((1, 1, 2), thickness=1.0)
    assert PatchStream([large], degradation, PLAIN, 0).scans == [large]
    assert not caplog.records
    assert PatchStream([small, large], degradation, PLAIN, 0).scans == [large]
    assert "6 x 6 x 16 voxels, and left out: scans thin;" in caplog.text
    caplog.clear()
    # The same scan seen along another axis is large enough.
    PatchStream([small, replace(large, scan_id="thin", axis=0)], degradation, PLAIN, 0)
    assert "seen along some of their axes only: scans thin;" in caplog.text
    caplog.clear()
    # Of several processes one says it.
    PatchStream([small, large], degradation, PLAIN, 0, rank=1)
    assert not caplog.records
    with pytest.raises(CohortError, match=r"patches\.size"):
        PatchStream([small], degradation, PLAIN, 0)


def test_a_scan_seen_along_three_axes_weighs_as_much_as_one_seen_along_one() -> None:
    image = noise()
    once = scan(image)
    thrice = [replace(scan(image), axis=axis, copies=3) for axis in range(3)]
    patches = PatchStream([once, *thrice], SliceProfile((1, 1, 2)), PLAIN, 0)
    assert patches.probabilities[1:].sum() == pytest.approx(patches.probabilities[0])
    assert patches.probabilities.sum() == pytest.approx(1)

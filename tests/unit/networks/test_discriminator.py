"""The discriminator: what it sees, that it is bounded, and that it can learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medsr.networks.discriminator import PatchDiscriminator3D


def _made(**options: int | bool) -> PatchDiscriminator3D:
    torch.manual_seed(0)
    return PatchDiscriminator3D(**{"width": 4, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "strides", "expected"),
    [((8, 8, 8), 2, (2, 2, 2)), ((9, 5, 1), 2, (3, 2, 1)), ((1, 2, 3), 3, (1, 1, 1))],
)
def test_takes_any_size(
    size: tuple[int, int, int], strides: int, expected: tuple[int, int, int]
) -> None:
    judged = _made(strides=strides)(torch.rand(2, 1, *size))
    assert judged.shape == (2, 1, *expected)


@pytest.mark.parametrize(("strides", "voxels"), [(2, 17), (3, 33)])
def test_a_judgement_sees_a_patch(strides: int, voxels: int) -> None:
    discriminator = _made(strides=strides, spectral=False, width=1).double()
    for parameter in discriminator.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    volume = torch.rand(1, 1, 72, 3, 3, dtype=torch.float64, requires_grad=True)
    middle = discriminator(volume)[0, 0, 36 // 2**strides]
    (slope,) = torch.autograd.grad(middle[0, 0], volume)
    seen = slope.abs().sum(dim=(0, 1, 3, 4)).nonzero().flatten()
    assert int(seen[-1] - seen[0]) + 1 == voxels


def test_kernels_have_spectral_norm_one() -> None:
    discriminator = _made()
    for _ in range(50):
        discriminator(torch.rand(1, 1, 4, 4, 4))
    discriminator.eval()
    for layer in discriminator.body:
        matrix = layer.weight.detach().flatten(1).numpy()
        assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1.0, rel=0.02)


def test_autocast_keeps_the_kernels_in_float32() -> None:
    discriminator = _made()
    volume = torch.rand(1, 1, 8, 8, 8)
    discriminator.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = discriminator(volume)
    assert half.dtype == torch.float32
    assert torch.allclose(half, discriminator(volume), atol=0.02)
    discriminator.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        discriminator(volume)
    assert all(buffer.dtype == torch.float32 for buffer in discriminator.buffers())


@pytest.mark.parametrize("option", ["channels", "width", "strides"])
def test_refuses_numbers_below_one(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 0"):
        PatchDiscriminator3D(**{option: 0})

"""Training pairs without scans: volumes of random shapes, textures and noise.

For distillation where no scan may leave the hospital but a trained teacher may: what the teacher
makes of such volumes is all that the student learns. They resemble no anatomy; they span what a
scan is made of locally (borders of any direction and sharpness, thin and round parts, textures of
any grain, noise), in the network's range.

The volumes of a step are a pure function of the seed, the process and the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsr.batch import Batch
from medsr.degrade import Degradation
from medsr.recipe import PatchRecipe, SyntheticRecipe
from medsr.types import Float64Array

ROUNDNESS = (1.0, 6.0)
"""Exponents of the shapes: 1 is an octahedron, 2 an ellipsoid, 6 nearly a box."""
RADII = (0.04, 0.6)
"""Half-axes of the shapes, as shares of the volume's longest side."""


class SyntheticStream:
    """Draws batches of synthetic volumes; stands in for :class:`medsr.data.patches.PatchStream`.

    Args:
        degradations: What makes the low resolution, by modality; patches take turns at random.
        patches: Patch size and batch size, and by how much intensities vary; there is nothing to
            flip or turn, since the shapes have every direction.
        recipe: What the volumes hold.
        seed: Seed of the whole stream.
        rank: Number of the process, so that processes see different volumes.

    Examples:
        >>> from medsr.data.synthetic import SyntheticStream
        >>> from medsr.degrade import SliceProfile
        >>> from medsr.recipe import PatchRecipe, SyntheticRecipe
        >>> patches = PatchRecipe(size=(8, 8, 4), batch=2)
        >>> degradations = {"MR": SliceProfile(factor=(1, 1, 4))}
        >>> stream = SyntheticStream(degradations, patches, SyntheticRecipe(), seed=0)
        >>> batch = stream.batch(step=0)
        >>> batch.lr.shape, batch.hr.shape, batch.domains
        (torch.Size([2, 1, 8, 8, 4]), torch.Size([2, 1, 8, 8, 16]), ('MR', 'MR'))
    """

    def __init__(
        self,
        degradations: dict[str, Degradation[Any]],
        patches: PatchRecipe,
        recipe: SyntheticRecipe,
        seed: int,
        rank: int = 0,
    ):
        self.degradations = {name: d.for_patches() for name, d in degradations.items()}
        self.patches = patches
        self.recipe = recipe
        self.seed = seed
        self.rank = rank

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, always the same for the same step."""
        rng = np.random.default_rng([self.seed, self.rank, step])
        pairs = [self._pair(rng) for _ in range(self.patches.batch)]
        lr, hr, domains = zip(*pairs, strict=True)
        return Batch(torch.stack(lr), torch.stack(hr), domains)

    def _pair(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, str]:
        domain = sorted(self.degradations)[int(rng.integers(len(self.degradations)))]
        degradation = self.degradations[domain]
        sizes = list(zip(self.patches.size, degradation.factor, degradation.margin, strict=True))
        volume = synthetic_volume([p * f + 2 * m for p, f, m in sizes], self.recipe, rng)
        jitter = 1 + self.patches.intensity_jitter * (2 * rng.random() - 1)
        hr = torch.from_numpy(volume * np.float32(jitter))[None]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        lr = degradation.apply(hr, degradation.sample(generator))
        inner_lr = tuple(slice(m // f, m // f + p) for p, f, m in sizes)
        inner_hr = tuple(slice(m, m + p * f) for p, f, m in sizes)
        return lr[(slice(None), *inner_lr)], hr[(slice(None), *inner_hr)], domain


def synthetic_volume(
    shape: Sequence[int], recipe: SyntheticRecipe, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Make one volume up.

    Shapes are painted one over the other with soft borders, as partial volumes are; what lies
    within them is textured; noise lies over all.

    Args:
        shape: Voxels along X, Y and Z.
        recipe: Ranges to draw from.
        rng: Decides everything.

    Returns:
        (X, Y, Z) float32; shapes lie in [0, 1] before texture and noise, air at 0.

    Source: Billot et al., "SynthSeg", Medical Image Analysis 2023, for learning from volumes that
        are random by design; shapes in place of label maps, so that no scan is needed, and their
        ranges are this implementation's.

    Examples:
        >>> import numpy as np
        >>> from medsr.data.synthetic import synthetic_volume
        >>> from medsr.recipe import SyntheticRecipe
        >>> recipe = SyntheticRecipe(noise=(0.0, 0.0), air=1.0)
        >>> volume = synthetic_volume((24, 24, 16), recipe, np.random.default_rng(0))
        >>> volume.shape, volume.dtype, bool(volume.min() >= 0)
        ((24, 24, 16), dtype('float32'), True)
    """
    airy = rng.random() < recipe.air
    volume = np.full(tuple(shape), 0.0 if airy else rng.random())
    body = np.zeros_like(volume) if airy else np.ones_like(volume)
    axes = (np.arange(n, dtype=np.float32) for n in shape)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    for _ in range(int(rng.integers(recipe.shapes[0], recipe.shapes[1] + 1))):
        cover = soft_shape(grid, rng.uniform(*recipe.softness), rng)
        volume += cover * (rng.random() - volume)
        body = np.maximum(body, cover)
    strength, slope = rng.uniform(*recipe.texture), rng.uniform(*recipe.slope)
    volume += strength * body * power_law_texture(shape, slope, rng)
    np.maximum(volume, 0, out=volume)  # nothing in a body is darker than air; noise may be
    volume += rng.uniform(*recipe.noise) * rng.standard_normal(volume.shape)
    return volume.astype(np.float32)


def soft_shape(
    grid: NDArray[np.float32], softness: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return how much of each voxel a random superellipsoid covers, in [0, 1].

    Args:
        grid: Indices of the voxels, (X, Y, Z, 3).
        softness: Scale of the border's logistic profile in voxels.
        rng: Decides place, half-axes, turn and roundness.

    Examples:
        >>> import numpy as np
        >>> from medsr.data.synthetic import soft_shape
        >>> axes = [np.arange(16, dtype=np.float32)] * 3
        >>> grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        >>> cover = soft_shape(grid, softness=1.0, rng=np.random.default_rng(0))
        >>> cover.shape, bool((cover >= 0).all() and (cover <= 1).all())
        ((16, 16, 16), True)
    """
    shape = np.array(grid.shape[:3])
    low, high = np.log(RADII)
    radii = shape.max() * np.exp(rng.uniform(low, high, size=3))
    centre = rng.uniform(0, 1, size=3) * (shape - 1)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    power = np.float32(np.exp(rng.uniform(*np.log(ROUNDNESS))))
    local = np.abs((grid - centre.astype(np.float32)) @ (turn / radii).astype(np.float32))
    distance = (local**power).sum(axis=-1) ** (1 / power)
    # Near the border (distance 1) one voxel changes the distance by about 1/radius.
    depth = (1 - distance) * np.float32(radii.min() / max(softness, 1e-3))
    return np.asarray(0.5 * (1 + np.tanh(0.5 * depth)), dtype=np.float32)


def power_law_texture(shape: Sequence[int], slope: float, rng: np.random.Generator) -> Float64Array:
    """Return a random field of mean 0 and variance 1 whose power falls as frequency^(-slope).

    Args:
        shape: Voxels along X, Y and Z.
        slope: 0 is white noise; images of natural things have about 2, smooth fields 4.
        rng: Decides the phases and amplitudes.

    Source: Field, "Relations between the statistics of natural images and the response properties
        of cortical cells", J. Opt. Soc. Am. A 1987.

    Examples:
        >>> import numpy as np
        >>> from medsr.data.synthetic import power_law_texture
        >>> smooth = power_law_texture((24, 24, 24), slope=4.0, rng=np.random.default_rng(0))
        >>> rough = power_law_texture((24, 24, 24), slope=0.0, rng=np.random.default_rng(0))
        >>> bool(np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean())
        True
    """
    spectrum = np.fft.rfftn(rng.standard_normal(tuple(shape)))
    axes = [np.fft.fftfreq(n) for n in shape[:2]] + [np.fft.rfftfreq(shape[2])]
    squares = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))
    squares = np.asarray(squares)
    squares[0, 0, 0] = np.inf  # the mean is left out
    field = np.fft.irfftn(spectrum * squares ** (-slope / 4), s=tuple(shape), axes=(0, 1, 2))
    spread = field.std()
    return np.asarray(field / spread if spread > 0 else field)

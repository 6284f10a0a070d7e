"""Training pairs of a network for slices of any kind: slices, the truth, where to sample knots.

Every step draws one ratio of the slices' distance to the fine grid, so that a batch has one shape.
Parts of the body and contrasts count, not files: scans of a large group are drawn less often each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from monai.transforms.compose import Compose
from torch import Tensor

from medsr.batch import Batch
from medsr.data.transforms import PreparedScan, random_patch_transform
from medsr.degrade.slices import REACH, SliceParams, Slices, sampling_rows
from medsr.errors import CohortError
from medsr.recipe import PatchRecipe
from medsr.types import BoolArray

__all__ = ["SliceStream"]

FEWEST = 6
"""Slices in a patch, at least."""
FINE_VOXELS = 4
"""A patch has about this many fine voxels along the slice axis for each of ``patches.size``."""
WHOLE = 0.3
"""Share of steps whose ratio is a whole number."""
GAMMA = (0.25, 0.5)
"""Share of MR patches whose contrast is bent, and by how much at most (logarithm of gamma)."""
_STEP = 8


@dataclass(frozen=True)
class _Grid:
    """Where the slices of a batch lie along the slice axis of its fine patches."""

    ratio: float
    count: int
    phase: float

    @property
    def window(self) -> int:
        """Fine voxels under the slices and what their profiles see around them."""
        return _window(self.ratio, self.count)

    @property
    def first(self) -> float:
        """Edge of the first slice."""
        return REACH * self.ratio + self.phase

    @property
    def centres(self) -> Tensor:
        """Centres of the slices in fine indices."""
        return self.first + (torch.arange(self.count, dtype=torch.float64) + 0.5) * self.ratio - 0.5

    @property
    def inside(self) -> slice:
        """The fine voxels under the slices."""
        end = self.first + self.count * self.ratio
        return slice(math.ceil(self.first - 0.25), math.floor(end - 0.75) + 1)

    def sampling(self, knots: int) -> Tensor:
        """Where those voxels sample the knots."""
        voxels = torch.arange(self.inside.start, self.inside.stop, dtype=torch.float64)
        return sampling_rows((voxels - self.centres[0]) / self.ratio, self.count, knots)


class SliceStream:
    """Draws batches of slices.

    Args:
        scans: Prepared training scans, one entry per scan and slice axis.
        slices: What slices are drawn.
        recipe: A batch holds about as many voxels as ``batch`` patches of ``size``; scans that are
            smaller in plane are cut smaller, and a patch has fewer slices the farther apart they
            are.
        seed: Seed of the whole stream.
        rank: Number of the process, so that processes see different patches.

    Raises:
        CohortError: If no scan is large enough.

    Examples:
        >>> import torch
        >>> from medsr.data.slices import SliceStream
        >>> from medsr.data.transforms import PreparedScan
        >>> from medsr.degrade import Slices
        >>> from medsr.recipe import PatchRecipe
        >>> voxels = torch.arange(32 * 32 * 96, dtype=torch.int32)
        >>> sample = {"image": torch.rand(1, 32, 32, 96), "body_fg": voxels, "body_bg": voxels[:0]}
        >>> scan = PreparedScan(sample, "p1", "p1_T1w", 2, (1.0, 1.0, 1.0), 1, 0.08, "MR/T1w")
        >>> patches = PatchRecipe(size=(16, 16, 6), batch=2, foreground=1.0)
        >>> stream = SliceStream([scan], Slices(factor=(1, 1, 9)), patches, seed=0)
        >>> batch = stream.batch(step=3)
        >>> batch.sampling.shape == (batch.hr.shape[-1], 9 * batch.lr.shape[-1])
        True
        >>> torch.equal(batch.lr, stream.batch(step=3).lr)  # a function of seed and step
        True
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        slices: Slices,
        recipe: PatchRecipe,
        seed: int,
        rank: int = 0,
    ):
        self.slices, self.recipe, self.seed, self.rank = slices, recipe, seed, rank
        self.knots = slices.factor[2]
        needed = _window(slices.ratio[0], FEWEST)
        self.scans = [s for s in scans if s.shape[2] >= needed and min(s.shape[:2]) >= _STEP]
        if not self.scans:
            raise CohortError(
                f"no training scan has the {needed} voxels along a sharp axis that {FEWEST} slices "
                f"{slices.ratio[0]:g} voxels apart need; lower degradation.options.ratio"
            )
        self._shapes = np.array([scan.shape for scan in self.scans])
        groups = Counter((scan.region, scan.domain) for scan in self.scans)
        self.weights = np.array(
            [
                math.sqrt(math.prod(s.shape) / groups[s.region, s.domain]) / s.copies
                for s in self.scans
            ]
        )
        self._transform = lru_cache(maxsize=256)(self._build)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, always the same for the same step."""
        rng = np.random.default_rng([self.seed, self.rank, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        grid = self._grid(rng, generator)
        fits = self._shapes[:, 2] >= grid.window
        first = self._draw(rng, fits)
        x, y, most = self.recipe.size
        width, height = self.scans[first].shape[:2]
        size = (min(width // _STEP * _STEP, x), min(height // _STEP * _STEP, y), grid.window)
        fits &= (self._shapes >= size).all(axis=1)
        voxels = x * y * most * self.recipe.batch
        number = max(1, round(voxels / (size[0] * size[1] * grid.count)))
        chosen = [first, *(self._draw(rng, fits) for _ in range(number - 1))]
        pairs = [self._pair(self.scans[one], size, grid, rng, generator) for one in chosen]
        lr, hr, conditions = (torch.stack(part) for part in zip(*pairs, strict=True))
        domains = tuple(self.scans[one].domain for one in chosen)
        return Batch(lr, hr, domains, condition=conditions, sampling=grid.sampling(self.knots))

    def _grid(self, rng: np.random.Generator, generator: torch.Generator) -> _Grid:
        """Draw where slices lie; as many as a patch should have and any scan holds."""
        ratio = self.slices.draw_ratio(generator)
        if rng.random() < WHOLE:
            ratio = min(max(float(round(ratio)), 2.0), max(2.0, math.floor(self.slices.ratio[1])))
        most = self.recipe.size[2]
        count = max(FEWEST, min(2 * most, round(FINE_VOXELS * most / ratio)))
        longest = int(self._shapes[:, 2].max())
        while count > 1 and _window(ratio, count) > longest:
            count -= 1
        return _Grid(ratio, count, float(rng.random()))

    def _pair(
        self,
        scan: PreparedScan,
        size: tuple[int, int, int],
        grid: _Grid,
        rng: np.random.Generator,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Slices, the truth under them, and what the network is told of the slices."""
        hr = self._patch(scan, size, rng)
        params = self.slices.sample(generator, ratio=grid.ratio)
        lr = self.slices.degrade(hr, grid.centres, params)
        known = self._known(scan, params, generator)
        return self.slices.canonical(lr, known), hr[..., grid.inside], known.condition()

    def _known(
        self, scan: PreparedScan, params: SliceParams, generator: torch.Generator
    ) -> SliceParams:
        x, y, z = scan.spacing_mm
        return replace(self.slices.told(params, generator), in_plane=math.sqrt(x * y) / z)

    def _patch(
        self, scan: PreparedScan, size: tuple[int, int, int], rng: np.random.Generator
    ) -> Tensor:
        transform = self._transform(size)
        transform.set_random_state(seed=int(rng.integers(2**31)))
        patch: Tensor = transform(scan.sample)[0]["image"].as_subclass(Tensor)
        patch = patch * (1 + self.recipe.intensity_jitter * (2 * rng.random() - 1))
        if scan.modality == "MR" and rng.random() < GAMMA[0]:
            gamma = math.exp(rng.uniform(-GAMMA[1], GAMMA[1]))
            patch = patch.sign() * patch.abs() ** gamma
        return patch

    def _build(self, size: tuple[int, int, int]) -> Compose:
        return random_patch_transform(size, self.recipe, planes=((0, 1),))

    def _draw(self, rng: np.random.Generator, fits: BoolArray) -> int:
        weights = self.weights * fits
        return int(rng.choice(len(self.scans), p=weights / weights.sum()))


def _window(ratio: float, count: int) -> int:
    return math.ceil((count + 2 * REACH) * ratio) + 1

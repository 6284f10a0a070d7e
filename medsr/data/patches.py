"""Training pairs: random high-resolution patches and their degraded counterparts.

The batch of a step is a pure function of the seed, the process and the step, so a resumed run sees
exactly the batches that an uninterrupted one would have seen, without any stored loader state.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medsr.batch import Batch
from medsr.data.reading import names_of
from medsr.data.transforms import PreparedScan, random_patch_transform
from medsr.degrade import Degradation, for_domain
from medsr.errors import CohortError
from medsr.recipe import PatchRecipe

logger = logging.getLogger(__name__)


class PatchStream:
    """Draws batches from prepared scans.

    Args:
        scans: Prepared training scans, one entry per scan and slice axis.
        degradation: What makes the low resolution: one for all scans, or one for each modality,
            all of one factor.
        recipe: Patch size, batch size, augmentation.
        seed: Seed of the whole stream.
        rank: Number of the process, so that processes see different patches.

    Raises:
        CohortError: If no scan is as large as a patch with its margin.

    Examples:
        >>> import torch
        >>> from medsr.data.patches import PatchStream
        >>> from medsr.data.transforms import PreparedScan
        >>> from medsr.degrade import SliceProfile
        >>> from medsr.recipe import PatchRecipe
        >>> voxels = torch.arange(32 * 32 * 48, dtype=torch.int32)
        >>> body, background = voxels[1000:], voxels[:1000]
        >>> sample = {"image": torch.rand(1, 32, 32, 48), "body_fg": body, "body_bg": background}
        >>> scan = PreparedScan(sample, "p1", "p1_T1w", 2, (1.0, 1.0, 1.0), 1, 0.08, "MR/T1w")
        >>> patches = PatchRecipe(size=(12, 12, 4), batch=2)
        >>> stream = PatchStream([scan], SliceProfile(factor=(1, 1, 4)), patches, seed=0)
        >>> batch = stream.batch(step=7)
        >>> batch.lr.shape, batch.hr.shape
        (torch.Size([2, 1, 12, 12, 4]), torch.Size([2, 1, 12, 12, 16]))
        >>> torch.equal(batch.lr, stream.batch(step=7).lr)  # a function of seed and step
        True
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        degradation: Degradation[Any] | Mapping[str, Degradation[Any]],
        recipe: PatchRecipe,
        seed: int,
        rank: int = 0,
    ):
        self.degradation: Degradation[Any] | dict[str, Degradation[Any]]
        if isinstance(degradation, Mapping):
            self.degradation = {name: d.for_patches() for name, d in degradation.items()}
            kinds = list(self.degradation.values())
        else:
            self.degradation = degradation.for_patches()
            kinds = [self.degradation]
        self.recipe = recipe
        self.seed = seed
        self.rank = rank
        factor = kinds[0].factor
        # The largest margin suits all; it is a multiple of the factor as each of them is.
        margin = tuple(max(sizes) for sizes in zip(*(d.margin for d in kinds), strict=True))
        self.factor, self.margin = factor, margin
        self.hr_size = tuple(
            p * f + 2 * m for p, f, m in zip(recipe.size, factor, margin, strict=True)
        )
        self.scans = [s for s in scans if _fits(s.shape, self.hr_size)]
        if not self.scans:
            raise CohortError(
                f"no training scan is as large as a patch with margin, {_text(self.hr_size)} "
                "voxels; lower patches.size"
            )
        if rank == 0:
            _tell_left_out(scans, self.hr_size)
        isotropic = len(set(factor)) == 1
        self.transform = random_patch_transform(
            self.hr_size, recipe, planes=((0, 1), (0, 2), (1, 2)) if isotropic else ((0, 1),)
        )
        # Scans weigh by the root of their size: large ones hold more to learn, none dominates.
        sizes = np.sqrt([float(np.prod(s.shape)) / s.copies**2 for s in self.scans])
        self.probabilities = sizes / sizes.sum()

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, always the same for the same step."""
        rng = np.random.default_rng([self.seed, self.rank, step])
        pairs = [self._pair(rng) for _ in range(self.recipe.batch)]
        lr, hr, domains = zip(*pairs, strict=True)
        return Batch(torch.stack(lr), torch.stack(hr), domains)

    def _pair(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, str]:
        scan = self.scans[int(rng.choice(len(self.scans), p=self.probabilities))]
        self.transform.set_random_state(seed=int(rng.integers(2**31)))
        patch = self.transform(scan.sample)[0]["image"].as_subclass(Tensor)
        jitter = 1 + self.recipe.intensity_jitter * (2 * rng.random() - 1)
        patch = patch * jitter
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        degradation = for_domain(self.degradation, scan.domain)
        lr = degradation.apply(patch, degradation.sample(generator))
        factor, margin = self.factor, self.margin
        inside_lr = tuple(
            slice(m // f, m // f + p)
            for p, f, m in zip(self.recipe.size, factor, margin, strict=True)
        )
        inside_hr = tuple(
            slice(m, m + p * f) for p, f, m in zip(self.recipe.size, factor, margin, strict=True)
        )
        return lr[(slice(None), *inside_lr)], patch[(slice(None), *inside_hr)], scan.domain


def _tell_left_out(scans: Sequence[PreparedScan], size: Sequence[int]) -> None:
    """Name what is smaller than a patch: whole scans, and scans as seen along some axes."""
    learnt_from = {scan.scan_id for scan in scans if _fits(scan.shape, size)}
    small = [scan.scan_id for scan in scans if not _fits(scan.shape, size)]
    for names, what in (
        ([name for name in small if name not in learnt_from], "left out"),
        ([name for name in small if name in learnt_from], "seen along some of their axes only"),
    ):
        if names:
            logger.warning(
                "smaller than a patch with margin, %s voxels, and %s: scans %s; lower "
                "patches.size to learn from all of them",
                _text(size),
                what,
                names_of(names),
            )


def _text(size: Sequence[int]) -> str:
    return " x ".join(str(n) for n in size)


def _fits(shape: Sequence[int], size: Sequence[int]) -> bool:
    return all(n >= s for n, s in zip(shape, size, strict=True))

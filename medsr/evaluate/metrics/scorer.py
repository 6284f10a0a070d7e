"""Everything that is measured of a result beside its truth, with the truth's share done once.

A :class:`Scorer` is made for a truth and then scores any number of results. The metrics themselves
are in the other modules here; what their names mean is in ``catalogue``.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medsr.evaluate.metrics import basic, edges, regions, resolution, structure
from medsr.evaluate.metrics.box import Box, bounding_box, in_chunks
from medsr.hu import AIR_HU
from medsr.types import BoolArray, Float32Array

if TYPE_CHECKING:
    from medsr.volume import Modality

"""What MS-SSIM takes for zero, so that its ratios of means have a meaning."""

_MARGIN = structure.HFEN_RADIUS
_FADE_VOXELS = 2.0


class Scorer:
    """Scores results beside one truth.

    Work is confined to the box around what counts, with a margin as wide as the filters, so that
    ``psnr``, ``ssim``, ``nrmse`` and ``mae`` equal :func:`medsr.evaluate.metrics.score` to the
    last digit.

    Args:
        hr: (X, Y, Z) truth in native units.
        modality: ``MR`` or ``CT``.
        spacing_mm: Voxel size along X, Y and Z.
        mask: (X, Y, Z) voxels that may count at all, for example the field of view that two scans
            share; None for all. Outside it a result is taken to equal the truth.

    Raises:
        ValueError: The truth has no foreground (in the mask), is smaller than SSIM's window of 11
            voxels, or holds values that are not finite.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import Scorer
        >>> hr = np.random.default_rng(0).uniform(200, 800, (24, 24, 24)).astype(np.float32)
        >>> scorer = Scorer(hr, "MR", spacing_mm=(1.0, 1.0, 1.0))  # made once for each truth
        >>> plain, noisy = scorer.score(hr + 5), scorer.score(hr + np.linspace(-5, 5, 24))
        >>> round(plain["bias"], 3), round(plain["mae"], 3), abs(round(noisy["bias"], 3))
        (5.0, 5.0, 0.0)
    """

    def __init__(
        self,
        hr: npt.NDArray[Any],
        modality: Modality,
        spacing_mm: tuple[float, float, float],
        *,
        mask: BoolArray | None = None,
    ) -> None:
        if min(hr.shape) < basic.SSIM_WINDOW:
            raise ValueError(
                f"shape {hr.shape} is smaller than the window of {basic.SSIM_WINDOW} voxels"
            )
        if not np.isfinite(hr).all():
            raise ValueError("the truth holds values that are not finite")
        self._modality = modality
        self._shape = hr.shape
        x_mm, y_mm, z_mm = (float(step) for step in spacing_mm)
        spacing = (x_mm, y_mm, z_mm)
        self._reference = _reference(hr, modality, mask)

        tissue = regions.tissue_regions(
            np.asarray(hr, dtype=np.float32), modality, self._reference.mask
        )
        if mask is not None:
            tissue = {name: region & mask for name, region in tissue.items()}
        everything = np.logical_or.reduce([self._reference.mask, *tissue.values()])
        self._box = _at_least(
            bounding_box(everything, _MARGIN), everything.shape, basic.SSIM_WINDOW
        )
        self._native = hr[self._box]
        self._hr = np.ascontiguousarray(self._native, dtype=np.float32)
        self._mask = np.ascontiguousarray(self._reference.mask[self._box])
        self._view = None if mask is None else np.ascontiguousarray(mask[self._box])

        parts = edges.gradients(self._hr, spacing)
        strong = edges.strong_edges(parts, self._mask)
        self._boxed = {"edges": strong}
        self._boxed |= {
            name: np.ascontiguousarray(region[self._box]) for name, region in tissue.items()
        }
        self._places = {
            name: np.flatnonzero(region)
            for name, region in self._boxed.items()
            if np.count_nonzero(region) >= regions.LEAST_VOXELS
        }
        self._widths = edges.EdgeWidths(
            self._hr, parts, strong, spacing, self._reference.data_range
        )
        self._shells = resolution.ShellCorrelation(self._hr, spacing, _fade(self._view))
        self._detail = structure.HighFrequencyError(self._hr, self._mask)
        scales = structure.scales_for(self._hr.shape)
        self._scales = structure.MultiScaleSSIM(
            self._hr - self._zero,
            structure.mask_pyramid(self._mask, scales),
            self._reference.data_range,
        )

    @property
    def reference(self) -> basic.Reference:
        """Mask and data range, as :func:`medsr.evaluate.metrics.reference_for` chooses them."""
        return self._reference

    @property
    def regions(self) -> Mapping[str, BoolArray]:
        """The regions with numbers of their own, (X, Y, Z) each, on the truth's grid."""
        whole = {}
        for name, region in self._boxed.items():
            whole[name] = np.zeros(self._shape, dtype=np.bool_)
            whole[name][self._box] = region
        return MappingProxyType(whole)

    def score(self, sr: npt.NDArray[Any]) -> dict[str, float]:
        """All metrics of one result; what the names mean: :func:`.catalogue.describe`.

        Args:
            sr: (X, Y, Z) result on the truth's grid, native units.

        Returns:
            Numbers by name; ``metric@region`` for those of a region. NaN where a number has no
            meaning for this truth (a region of fewer than 200 voxels, no clean edges, too few
            voxels for a spectrum or for two scales); infinite ``psnr`` of a perfect result.

        Raises:
            ValueError: The shape differs, or the result holds values that are not finite.
        """
        if sr.shape != self._shape:
            raise ValueError(f"shapes differ: restored {sr.shape}, truth {self._shape}")
        native = sr[self._box]
        if not np.isfinite(native).all():
            raise ValueError("the restored scan holds values that are not finite")
        if self._view is not None:
            native = np.where(self._view, native, self._native)
        single = np.ascontiguousarray(native, dtype=np.float32)

        with ThreadPoolExecutor(1) as aside:  # mostly one thread's work, beside filters of all
            later = aside.submit(self._one_by_one, native, single)
            ssim = self._ssim(native)
            ms_ssim = self._scales.score(single - self._zero)
            hfen = self._detail.score(single)
            whole, local, widths, sharp = later.result()
        return {
            "psnr": whole["psnr"],
            "ssim": ssim,
            "ms_ssim": ms_ssim,
            "nrmse": whole["nrmse"],
            "mae": whole["mae"],
            "bias": whole["bias"],
            "hfen": hfen,
            **{f"resolution_{axis}_mm": value for axis, value in zip("xyz", sharp, strict=True)},
            **{f"edge_width_{axis}_mm": value for axis, value in zip("xyz", widths, strict=True)},
            **local,
        }

    def conventions(self) -> dict[str, str | float]:
        """The conventions behind the numbers in words, for result files."""
        described = basic.conventions(self._modality)
        counts = self._widths.counts
        return {
            **described,
            "ms_ssim": (
                f"{self._scales.scales} scales (as many of five as keep 11 voxels in the box "
                "around the body, weights rescaled to a sum of one), window and constants of "
                "SSIM, maps averaged in the mask at each scale"
                + (f", {AIR_HU:g} HU taken for zero" if self._modality == "CT" else "")
            ),
            "bias": "mean of restored minus truth in the mask",
            "hfen": (
                f"Laplacian of Gaussian of sigma {structure.HFEN_SIGMA:g} voxels over "
                f"{2 * structure.HFEN_RADIUS + 1} voxels; norm of the error / norm of the truth, "
                "both in the mask"
            ),
            "resolution": (
                "half a period (it reads like a voxel size) at which the Fourier shell "
                f"correlation with the truth, within {resolution.CONE_DEGREES:g} degrees of the "
                f"axis, falls below {resolution.THRESHOLD:g}; never finer than the truth's voxel "
                f"(Nyquist); box around the body, Tukey window of {resolution.TAPER:g}; blind to "
                "blur that loses nothing"
            ),
            "edge_width": (
                "10 to 90 % rise of an error function fitted at clean steps of the truth, median "
                f"({', '.join(f'{n} along {axis}' for n, axis in zip(counts, 'xyz', strict=True))}"
                "); seed fixed"
            ),
            **{f"region_{name}": regions.WORDS[name] for name in self._boxed},
            "region_least_voxels": float(regions.LEAST_VOXELS),
        }

    @property
    def _zero(self) -> np.float32:
        return np.float32(AIR_HU if self._modality == "CT" else 0.0)

    def _ssim(self, native: npt.NDArray[Any]) -> float:
        similar = partial(basic.ssim_map, data_range=self._reference.data_range)
        local_ssim = in_chunks(similar, native, self._native, margin=basic.SSIM_WINDOW // 2)
        return float(np.mean(local_ssim[self._mask]))

    def _one_by_one(
        self, native: npt.NDArray[Any], single: Float32Array
    ) -> tuple[
        dict[str, float],
        dict[str, float],
        tuple[float, float, float],
        tuple[float, float, float],
    ]:
        """Errors in the mask and in regions, edge widths and resolution."""
        sr = np.asarray(native[self._mask], dtype=np.float64)
        whole = _errors(
            sr - np.asarray(self._native[self._mask], dtype=np.float64), self._reference.data_range
        )
        difference = (single - self._hr).reshape(-1)
        local: dict[str, float] = {}
        for name in self._boxed:
            inside = np.zeros(0)
            if name in self._places:
                inside = difference[self._places[name]].astype(np.float64)
            numbers = _errors(inside, self._reference.data_range)
            local |= {f"{metric}@{name}": numbers[metric] for metric in ("psnr", "mae", "bias")}
        return whole, local, self._widths.widths_mm(single), self._shells.resolution_mm(single)


def _errors(errors: npt.NDArray[np.float64], data_range: float) -> dict[str, float]:
    """The metrics that are functions of the errors alone; NaN for none."""
    if not errors.size:
        return dict.fromkeys(("psnr", "nrmse", "mae", "bias"), float("nan"))
    mse = float(np.mean(np.square(errors)))
    return {
        "psnr": float(10.0 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf"),
        "nrmse": float(np.sqrt(mse)) / data_range,
        "mae": float(np.mean(np.abs(errors))),
        "bias": float(np.mean(errors)),
    }


def _reference(hr: npt.NDArray[Any], modality: Modality, mask: BoolArray | None) -> basic.Reference:
    reference = basic.reference_for(hr, modality)
    if mask is None:
        return reference
    if mask.shape != hr.shape:
        raise ValueError(f"shapes differ: mask {mask.shape}, truth {hr.shape}")
    inside = reference.mask & mask
    if not inside.any():
        raise ValueError("the truth has no foreground in the mask to score")
    return basic.Reference(mask=inside, data_range=reference.data_range)


def _at_least(box: Box, shape: tuple[int, ...], voxels: int) -> Box:
    """A box widened to so many voxels along every axis."""
    wide = []
    for part, size in zip(box, shape, strict=True):
        start = max(min(part.start, size - voxels), 0)
        wide.append(slice(start, max(part.stop, start + voxels)))
    return wide[0], wide[1], wide[2]


def _fade(view: BoolArray | None) -> Float32Array | None:
    """Weights that fall to zero at the border of a field of view, from the inside."""
    if view is None or view.all():
        return None
    smooth = ndimage.gaussian_filter(view.astype(np.float32), _FADE_VOXELS, mode="nearest")
    return np.asarray(np.clip(2 * smooth - 1, 0, 1), dtype=np.float32)

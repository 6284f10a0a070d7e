"""The four basic metrics inside the body, in native units, with their mask and data range.

Here live PSNR, SSIM, NRMSE and MAE and the choice of mask and data range per modality, with the
conventions behind the numbers. All that is scored beside them is put together in ``scorer``.

Everything is computed in float64. PSNR, NRMSE and MAE use the masked voxels alone; SSIM is
computed on the full grid and its map is averaged in the mask, so that the window sees what
surrounds the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

if TYPE_CHECKING:
    from medsr.volume import Modality

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11
"""Voxels across the Gaussian window: scikit-image truncates at 3.5 sigma."""

MR_PERCENTILE = 99.5
MR_FOREGROUND = 0.02
MR_MASK = 0.08
CT_RANGE_HU = 2048.0
CT_BODY_HU = -500.0


@dataclass(frozen=True)
class Reference:
    """What a truth is scored with.

    Attributes:
        mask: (X, Y, Z), True where voxels count.
        data_range: The width that counts as the full range, native units, above zero.
    """

    mask: BoolArray
    data_range: float


@dataclass(frozen=True)
class Metrics:
    """The four numbers of one restored scan.

    Attributes:
        psnr: Peak signal-to-noise ratio, dB; infinite for a perfect restoration.
        ssim: Structural similarity, at most 1.
        nrmse: Root mean squared error as a fraction of the data range.
        mae: Mean absolute error, native units (HU for CT).
    """

    psnr: float
    ssim: float
    nrmse: float
    mae: float


def reference_for(hr: npt.NDArray[Any], modality: Modality) -> Reference:
    """Choose mask and data range from the truth alone, so that every method is scored alike.

    Args:
        hr: (X, Y, Z) truth in native units.
        modality: ``MR``: the range is the 99.5th percentile of voxels above 2 % of the maximum,
            and the mask is what exceeds 0.08 of that range. ``CT``: the range is 2048 HU and the
            mask is what exceeds -500 HU: tissue, without the air around and inside the body.

    Raises:
        ValueError: The truth has no foreground.
    """
    if modality == "CT":
        mask = hr > CT_BODY_HU
        data_range = CT_RANGE_HU
    else:
        foreground = hr[hr > MR_FOREGROUND * float(hr.max())]
        data_range = float(np.percentile(foreground, MR_PERCENTILE)) if foreground.size else 0.0
        mask = hr > MR_MASK * data_range
    if not (mask.any() and data_range > 0):
        raise ValueError("the truth has no foreground to score")
    return Reference(mask=np.asarray(mask, dtype=np.bool_), data_range=data_range)


def conventions(modality: Modality) -> dict[str, str | float]:
    """The conventions of :func:`reference_for` and :func:`score` in words, for result files."""
    if modality == "CT":
        data_range = f"{CT_RANGE_HU:g} HU"
        mask = (
            f"truth > {CT_BODY_HU:g} HU (tissue; air around and inside the body is left out, "
            "holes are not filled)"
        )
        units = "HU"
    else:
        data_range = (
            f"{MR_PERCENTILE:g}th percentile of the truth where it exceeds "
            f"{MR_FOREGROUND:g} of its maximum"
        )
        mask = f"truth > {MR_MASK:g} of the data range"
        units = "native units of the scan"
    return {
        "data_range": data_range,
        "mask": mask,
        "units": units,
        "grid": "the full grid of the truth, cropped at the far end to multiples of the factor",
        "psnr": "dB, 10 log10(range^2 / mean squared error in the mask)",
        "ssim": (
            f"scikit-image, 3D Gaussian window of sigma {SSIM_SIGMA:g} voxels, "
            "population covariance, map averaged in the mask"
        ),
        "nrmse": "root mean squared error in the mask / data range",
        "mae": "mean absolute error in the mask",
        "ssim_sigma_voxels": SSIM_SIGMA,
    }


def psnr(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray, data_range: float) -> float:
    """Peak signal-to-noise ratio in the mask.

    Args:
        sr: (X, Y, Z) restored scan, native units.
        hr: (X, Y, Z) truth, native units.
        mask: (X, Y, Z) voxels that count; at least one.
        data_range: Full range, native units, above zero.

    Returns:
        Decibels; infinity where the two are equal.

    Raises:
        ValueError: Shapes differ or the mask is empty.
    """
    mse = float(np.mean(np.square(_errors(sr, hr, mask))))
    return float(10.0 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf")


def nrmse(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray, data_range: float) -> float:
    """Root mean squared error in the mask over the data range; arguments as :func:`psnr`."""
    return float(np.sqrt(np.mean(np.square(_errors(sr, hr, mask))))) / data_range


def mae(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray) -> float:
    """Mean absolute error in the mask, native units; arguments as :func:`psnr`."""
    return float(np.mean(np.abs(_errors(sr, hr, mask))))


def ssim(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray, data_range: float) -> float:
    """Structural similarity with a 3D Gaussian window, averaged in the mask.

    Source: Wang et al. 2004, eq. 13, with the Gaussian window and population covariance of the
    paper, as scikit-image computes it.

    Args:
        sr: (X, Y, Z) restored scan, native units; at least 11 voxels along every axis.
        hr: (X, Y, Z) truth, native units.
        mask: (X, Y, Z) voxels that count; at least one.
        data_range: Full range, native units, above zero.

    Raises:
        ValueError: Shapes differ, the mask is empty, or the scan is smaller than the window.
    """
    _check(sr, hr, mask)
    if min(hr.shape) < SSIM_WINDOW:
        raise ValueError(f"shape {hr.shape} is smaller than the window of {SSIM_WINDOW} voxels")
    return float(np.mean(ssim_map(sr, hr, data_range)[mask]))


def ssim_map(
    sr: npt.NDArray[Any], hr: npt.NDArray[Any], data_range: float
) -> npt.NDArray[np.float64]:
    """Structural similarity at every voxel; arguments as :func:`ssim`."""
    similarity: Callable[..., Any] = structural_similarity
    _, values = similarity(
        np.asarray(hr, dtype=np.float64),
        np.asarray(sr, dtype=np.float64),
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(values, dtype=np.float64)


def score(sr: npt.NDArray[Any], hr: npt.NDArray[Any], reference: Reference) -> Metrics:
    """All four metrics of one restored scan.

    Args:
        sr: (X, Y, Z) restored scan, native units.
        hr: (X, Y, Z) truth, native units.
        reference: What :func:`reference_for` chose for this truth.

    Raises:
        ValueError: As :func:`ssim`.
    """
    mask, data_range = reference.mask, reference.data_range
    return Metrics(
        psnr=psnr(sr, hr, mask, data_range),
        ssim=ssim(sr, hr, mask, data_range),
        nrmse=nrmse(sr, hr, mask, data_range),
        mae=mae(sr, hr, mask),
    )


def _check(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray) -> None:
    if not sr.shape == hr.shape == mask.shape:
        raise ValueError(f"shapes differ: restored {sr.shape}, truth {hr.shape}, mask {mask.shape}")
    if not mask.any():
        raise ValueError("the mask is empty")


def _errors(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray) -> FloatArray:
    _check(sr, hr, mask)
    return np.asarray(sr[mask], dtype=np.float64) - np.asarray(hr[mask], dtype=np.float64)

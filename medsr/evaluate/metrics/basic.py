"""The four basic metrics inside the body, in native units, with their mask and data range.

PSNR, SSIM, NRMSE and MAE, the choice of mask and data range by modality, and the conventions
behind the numbers. ``scorer`` adds the other metrics.

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

from medsr.hu import BODY_HU, CT_RANGE_HU
from medsr.types import BoolArray, Float64Array

if TYPE_CHECKING:
    from medsr.volume import Modality

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11
"""Voxels across the Gaussian window: scikit-image truncates at 3.5 sigma."""

MR_PERCENTILE = 99.5
MR_FOREGROUND = 0.02
MR_MASK = 0.08


@dataclass(frozen=True)
class Reference:
    """What a truth is scored with.

    Attributes:
        mask: (X, Y, Z), True where voxels count.
        data_range: The width that counts as the full range, native units, above zero.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import Reference, psnr
        >>> hr = np.zeros((16, 16, 16))
        >>> body = Reference(mask=np.ones(hr.shape, dtype=bool), data_range=1000.0)
        >>> psnr(hr + 10.0, hr, body.mask, body.data_range)  # dB, of an error of 1 % everywhere
        40.0
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

    Examples:
        >>> from medsr.evaluate.metrics import Metrics
        >>> found = Metrics(psnr=34.2, ssim=0.94, nrmse=0.019, mae=11.5)
        >>> found.mae  # HU, of a CT
        11.5
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

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import reference_for
        >>> hu = np.full((16, 16, 16), -1000.0)
        >>> hu[4:12, 4:12, 4:12] = 40.0
        >>> body = reference_for(hu, "CT")
        >>> body.data_range, int(body.mask.sum())  # HU, voxels above -500 HU
        (2048.0, 512)
    """
    if modality == "CT":
        mask = hr > BODY_HU
        data_range = CT_RANGE_HU
    else:
        foreground = hr[hr > MR_FOREGROUND * float(hr.max())]
        data_range = float(np.percentile(foreground, MR_PERCENTILE)) if foreground.size else 0.0
        mask = hr > MR_MASK * data_range
    if not (mask.any() and data_range > 0):
        raise ValueError("the truth has no foreground to score")
    return Reference(mask=np.asarray(mask, dtype=np.bool_), data_range=data_range)


def conventions(modality: Modality) -> dict[str, str | float]:
    """The conventions of :func:`reference_for` and :func:`score` in words, for result files.

    Examples:
        >>> from medsr.evaluate.metrics import conventions
        >>> conventions("CT")["data_range"], conventions("MR")["mask"]
        ('2048 HU', 'truth > 0.08 of the data range')
    """
    if modality == "CT":
        data_range = f"{CT_RANGE_HU:g} HU"
        mask = (
            f"truth > {BODY_HU:g} HU (tissue; air around and inside the body is left out, "
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

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import psnr
        >>> hr = np.zeros((16, 16, 16))
        >>> inside = np.ones(hr.shape, dtype=bool)
        >>> psnr(hr + 20.48, hr, inside, data_range=2048.0)  # HU
        40.0
    """
    mse = float(np.mean(np.square(_errors(sr, hr, mask))))
    return float(10.0 * np.log10(data_range**2 / mse)) if mse > 0 else float("inf")


def nrmse(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray, data_range: float) -> float:
    """Root mean squared error in the mask over the data range; arguments as :func:`psnr`.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import nrmse
        >>> hr = np.zeros((16, 16, 16))
        >>> round(nrmse(hr + 20.48, hr, np.ones(hr.shape, dtype=bool), data_range=2048.0), 4)
        0.01
    """
    return float(np.sqrt(np.mean(np.square(_errors(sr, hr, mask))))) / data_range


def mae(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray) -> float:
    """Mean absolute error in the mask, native units; arguments as :func:`psnr`.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import mae
        >>> hr = np.zeros((16, 16, 16))
        >>> body = np.ones(hr.shape, dtype=bool)
        >>> body[8:] = False
        >>> sr = hr - 12.0
        >>> sr[8:] = 500.0  # outside the body nothing counts
        >>> mae(sr, hr, body)
        12.0
    """
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

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import ssim
        >>> hr = np.random.default_rng(0).uniform(0, 800, (16, 16, 16))
        >>> inside = np.ones(hr.shape, dtype=bool)
        >>> faint = hr.mean() + 0.5 * (hr - hr.mean())  # half the contrast
        >>> round(ssim(hr, hr, inside, 800.0), 3), round(ssim(faint, hr, inside, 800.0), 1)
        (1.0, 0.8)
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

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.metrics import reference_for, score
        >>> hr = np.random.default_rng(0).uniform(200, 800, (16, 16, 16))
        >>> found = score(hr + 8.0, hr, reference_for(hr, "MR"))
        >>> round(found.mae, 3), 0.9 < found.ssim <= 1.0
        (8.0, True)
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


def _errors(sr: npt.NDArray[Any], hr: npt.NDArray[Any], mask: BoolArray) -> Float64Array:
    _check(sr, hr, mask)
    return np.asarray(sr[mask], dtype=np.float64) - np.asarray(hr[mask], dtype=np.float64)

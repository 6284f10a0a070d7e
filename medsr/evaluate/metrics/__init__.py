"""What a restored scan is worth beside its truth, in native units, inside the body.

Arrays go in, on one grid; numbers come out. Which scans are scored, and how the low-resolution
input is made, lives in ``medsr.evaluate.cohort``.
"""

from __future__ import annotations

from medsr._aliases import moved_names
from medsr.evaluate.metrics.basic import (
    MR_FOREGROUND,
    MR_MASK,
    MR_PERCENTILE,
    SSIM_SIGMA,
    SSIM_WINDOW,
    Metrics,
    Reference,
    conventions,
    mae,
    nrmse,
    psnr,
    reference_for,
    score,
    ssim,
)
from medsr.evaluate.metrics.catalogue import MetricInfo, describe
from medsr.evaluate.metrics.scorer import Scorer

__all__ = [
    "MR_FOREGROUND",
    "MR_MASK",
    "MR_PERCENTILE",
    "SSIM_SIGMA",
    "SSIM_WINDOW",
    "MetricInfo",
    "Metrics",
    "Reference",
    "Scorer",
    "conventions",
    "describe",
    "mae",
    "nrmse",
    "psnr",
    "reference_for",
    "score",
    "ssim",
]

__getattr__ = moved_names(__name__)

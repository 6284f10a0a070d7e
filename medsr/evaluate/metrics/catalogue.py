"""What every metric's name means: label, unit, which way is better, and a sentence.

The names of ``scorer``, of ``medsr.evaluate.downstream`` and of the check of consistency are here,
so that tables and reports say the same of them. No metric is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from medsr.volume import Modality

Better = Literal["higher", "lower", "zero"]

NATIVE = "native units"
"""The unit of errors until the modality is known; HU for CT."""


@dataclass(frozen=True)
class MetricInfo:
    """What a metric's name means.

    Attributes:
        name: As in result files, ``metric`` or ``metric@region``.
        label: For tables and plots.
        unit: ``dB``, ``mm``, ``%``, ``HU``, ``native units`` or nothing.
        better: Whether higher or lower numbers are better, or those near zero.
        what: One sentence with the convention.

    Examples:
        >>> from medsr.evaluate.metrics import describe
        >>> info = describe("psnr")
        >>> info.label, info.unit, info.better
        ('PSNR', 'dB', 'higher')
    """

    name: str
    label: str
    unit: str
    better: Better
    what: str


def _info(name: str, label: str, unit: str, better: Better, what: str) -> tuple[str, MetricInfo]:
    return name, MetricInfo(name, label, unit, better, what)


METRICS: dict[str, MetricInfo] = dict(
    [
        _info("psnr", "PSNR", "dB", "higher", "Peak signal over the mean squared error."),
        _info("ssim", "SSIM", "", "higher", "Structural similarity, 3D Gaussian window."),
        _info("ms_ssim", "MS-SSIM", "", "higher", "Structural similarity over several scales."),
        _info("nrmse", "NRMSE", "", "lower", "Root mean squared error over the data range."),
        _info("mae", "MAE", NATIVE, "lower", "Mean absolute error."),
        _info("bias", "Bias", NATIVE, "zero", "Mean of restored minus truth."),
        _info(
            "hfen", "HFEN", "", "lower", "Error of fine detail (Laplacian of Gaussian): 1 is lost."
        ),
        *(
            _info(
                f"resolution_{axis}_mm",
                f"Resolution along {axis}",
                "mm",
                "lower",
                "Half a period at which the Fourier shell correlation with the truth near the "
                "axis falls below 0.5; never finer than the voxel.",
            )
            for axis in "xyz"
        ),
        *(
            _info(
                f"edge_width_{axis}_mm",
                f"Edge width along {axis}",
                "mm",
                "lower",
                "10 to 90 % rise at clean edges of the truth, median; the truth's own is the goal.",
            )
            for axis in "xyz"
        ),
        _info("dice", "Dice", "", "higher", "Overlap of segmentations of the result and truth."),
        _info(
            "volume_error",
            "Volume error",
            "%",
            "zero",
            "Segmented volume of the result against that of the truth.",
        ),
        _info(
            "consistency_rmse",
            "Consistency",
            NATIVE,
            "lower",
            "Root mean square of the result, degraded again, minus the scan it came from.",
        ),
        _info(
            "consistency_max",
            "Worst consistency",
            NATIVE,
            "lower",
            "Largest difference of the result, degraded again, from the scan it came from.",
        ),
        _info("seconds", "Time", "s", "lower", "Wall time of the restoration alone."),
        _info(
            "psnr_gain", "Gain over B-spline", "dB", "higher", "PSNR minus that of cubic B-spline."
        ),
    ]
)
"""All metrics by name, without regions."""

REGIONS: dict[str, str] = {
    "edges": "edges",
    "dark": "dark tissue",
    "middle": "middle tissue",
    "bright": "bright tissue",
    "lung": "lung",
    "soft": "soft tissue",
    "bone": "bone",
    "body": "the body",
}
"""Regions and segmented structures by name."""


def describe(name: str, modality: Modality | None = None) -> MetricInfo:
    """What a metric's name means; an unknown name stands for itself.

    Args:
        name: ``metric`` or ``metric@region``.
        modality: ``CT`` gives errors the unit HU.

    Examples:
        >>> from medsr.evaluate.metrics import describe
        >>> describe("mae@bone", "CT").label, describe("mae@bone", "CT").unit
        ('MAE, bone', 'HU')
    """
    base, _, region = name.partition("@")
    info = METRICS.get(base, MetricInfo(base, base, "", "higher", ""))
    if modality == "CT" and info.unit == NATIVE:
        info = replace(info, unit="HU")
    if not region:
        return replace(info, name=name)
    region_label = REGIONS.get(region, region)
    label = f"{info.label}, {region_label.removeprefix('the ')}"
    return replace(info, name=name, label=label, what=f"{info.what} In {region_label}.".strip())

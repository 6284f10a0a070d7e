"""What a reader of a result would measure: tissues segmented in it as in its truth.

The same classical method is given the truth and any result (thick, interpolated, restored), finds
its thresholds in each volume itself, and what it finds is compared. The method is in ``anatomy``;
errors of intensities are in ``metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.meandice import compute_dice
from scipy import ndimage

from medsr.evaluate.anatomy import MR_CLASSES, ct_compartments, mr_body, mr_thresholds

if TYPE_CHECKING:
    from medsr.volume import Modality

Labels = npt.NDArray[np.uint8]

CT_STRUCTURES = ("lung", "soft", "bone")
LEAST_VOXELS = 200
"""Of a structure in the truth, below which it is not scored."""

LEAST_PART_MM3 = 1000.0
"""Connected parts of lung and bone smaller than that (1 ml) are dropped."""

MR_SMOOTHING_MM = 0.5
CT_SMOOTHING_MM = 0.7


class Segmenter:
    """Segments volumes on one grid and compares them with the truth.

    ``MR``: the head or body (Otsu, largest part, cavities filled) is split into three classes of
    intensity by multi-Otsu after smoothing by 0.5 mm; what they are depends on the contrast, so
    they are called ``dark``, ``middle`` and ``bright``. No bias field is corrected.
    ``CT``: after smoothing by 0.7 mm, ``lung`` is below -500 HU inside the body, ``soft`` from
    -100 to 200 HU, ``bone`` above 200 HU; parts of lung and bone below 1 ml are dropped.

    Args:
        hr: (X, Y, Z) truth, native units.
        modality: ``MR`` or ``CT``.
        spacing_mm: Voxel size along each axis.

    Raises:
        ValueError: The truth is an MR scan in which nothing can be told apart.

    Examples:
        >>> import numpy as np
        >>> from medsr.evaluate.downstream import Segmenter
        >>> x, y, z = np.mgrid[-1:1:32j, -1:1:32j, -1:1:32j]
        >>> radius = np.sqrt(x**2 + y**2 + z**2)
        >>> head = np.select([radius < 0.4, radius < 0.6, radius < 0.8], [900.0, 600.0, 300.0], 0.0)
        >>> segmenter = Segmenter(head, "MR", spacing_mm=(1.0, 1.0, 1.0))
        >>> scores = segmenter.score(head)
        >>> scores["dice@bright"], scores["volume_error@bright"]
        (1.0, 0.0)
    """

    def __init__(
        self,
        hr: npt.NDArray[Any],
        modality: Modality,
        spacing_mm: tuple[float, float, float],
    ) -> None:
        self._modality = modality
        self._spacing = spacing_mm
        self._truth = self.segment(hr)
        self._counts = self._count(self._truth)

    @property
    def structures(self) -> Mapping[str, int]:
        """Labels by the structures' names."""
        names = CT_STRUCTURES if self._modality == "CT" else MR_CLASSES
        return {name: number for number, name in enumerate(names, start=1)}

    @property
    def truth(self) -> Labels:
        """(X, Y, Z) labels of the truth."""
        return self._truth

    def segment(self, volume: npt.NDArray[Any]) -> Labels:
        """Segment any volume by the method and thresholds of its own.

        Args:
            volume: (X, Y, Z), native units, of the truth's spacing.

        Returns:
            Labels, 0 for all else.

        Raises:
            ValueError: An MR volume in which no three classes can be told apart.
        """
        single = np.asarray(volume, dtype=np.float32)
        return self._ct(single) if self._modality == "CT" else self._mr(single)

    def score(self, sr: npt.NDArray[Any]) -> dict[str, float]:
        """Compare the segmentation of a result with that of the truth.

        Args:
            sr: (X, Y, Z) result on the truth's grid, native units.

        Returns:
            ``dice@NAME`` and ``volume_error@NAME`` (percent, above zero where the result has more)
            for every structure; NaN for those with fewer than 200 voxels in the truth. A result
            that cannot be segmented has none of the structures.

        Raises:
            ValueError: Shapes differ.
        """
        if sr.shape != self._truth.shape:
            raise ValueError(f"shapes differ: restored {sr.shape}, truth {self._truth.shape}")
        try:
            labels = self.segment(sr)
        except ValueError:
            labels = np.zeros_like(self._truth)
        counts = self._count(labels)
        scores: dict[str, float] = {}
        for name, label in self.structures.items():
            there = int(self._counts[label])
            usable = there >= LEAST_VOXELS
            overlap = _dice(labels == label, self._truth == label) if usable else float("nan")
            error = 100.0 * (int(counts[label]) - there) / there if usable else float("nan")
            scores[f"dice@{name}"] = overlap
            scores[f"volume_error@{name}"] = error
        return scores

    def conventions(self) -> dict[str, str]:
        """The method in words, for result files."""
        method = (
            f"smoothed by {MR_SMOOTHING_MM:g} mm; head or body by Otsu, largest part, cavities "
            "filled; three classes by multi-Otsu; no bias field correction"
        )
        if self._modality == "CT":
            method = (
                f"smoothed by {CT_SMOOTHING_MM:g} mm; lung below -500 HU inside the body, soft "
                "tissue -100 to 200 HU, bone above 200 HU; parts of lung and bone below 1 ml "
                "dropped"
            )
        return {
            "segmentation": f"{method}; thresholds found in each volume itself",
            "dice": "MONAI, overlap with the segmentation of the truth by the same method",
            "volume_error": "percent, segmented volume of the result against that of the truth",
        }

    def _count(self, labels: Labels) -> npt.NDArray[np.int64]:
        return np.bincount(labels.ravel(), minlength=4)

    def _smooth(self, volume: npt.NDArray[np.float32], sigma_mm: float) -> Any:
        sigma = [sigma_mm / step for step in self._spacing]
        return ndimage.gaussian_filter(volume, sigma, output=np.float32)

    def _mr(self, volume: npt.NDArray[np.float32]) -> Labels:
        body = mr_body(volume, self._spacing)
        smooth = self._smooth(volume, MR_SMOOTHING_MM)
        labels = np.zeros(volume.shape, dtype=np.uint8)
        values = smooth[body]
        labels[body] = 1 + np.digitize(values, mr_thresholds(values), right=True)
        return labels

    def _ct(self, volume: npt.NDArray[np.float32]) -> Labels:
        parts = ct_compartments(self._smooth(volume, CT_SMOOTHING_MM))
        least = LEAST_PART_MM3 / float(np.prod(self._spacing))
        labels = parts.soft.astype(np.uint8) * np.uint8(2)
        labels[_large_parts(parts.lung, least)] = 1
        labels[_large_parts(parts.bone, least)] = 3
        return labels


def _large_parts(mask: npt.NDArray[np.bool_], voxels: float) -> npt.NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel()) >= voxels
    keep[0] = False
    return np.asarray(keep[labels])


def _dice(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    mine, theirs = (torch.from_numpy(mask)[None, None] for mask in (found, truth))
    return float(compute_dice(mine, theirs, include_background=True))

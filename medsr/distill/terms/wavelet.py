"""Wavelets: the student's output is to have the teacher's Haar sub-bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medsr.distill.terms.output import OutputTerm


class WaveletTerm(OutputTerm):
    """Absolute error between the Haar sub-bands of the student's and the teacher's output.

    For through-plane work the bands with ``h`` last hold the detail that is missing in the scan.

    Args:
        levels: How often the low band is split again; at least 1.
        bands: Which of ``lll`` … ``hhh`` (low or high along X, Y, Z), or their weights; all alike
            where None.
        views: As for :class:`medsr.distill.terms.output.OutputTerm`.

    Raises:
        UsageError: If a band is unknown or a number out of its range.

    Source: Zhang et al., "Wavelet knowledge distillation: towards efficient image-to-image
        translation", CVPR 2022, section 3.2.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import WaveletTerm
        >>> lr, hr = torch.rand(1, 1, 8, 8, 4), torch.rand(1, 1, 8, 8, 16)
        >>> term = WaveletTerm(bands=["llh"])  # detail along the slice axis alone
        >>> round(float(term(Activations(hr + 0.1), Activations(hr), Batch(lr, hr))), 4)
        0.0
    """

    name = "wavelet"

    def __init__(
        self,
        levels: int = 1,
        bands: Sequence[str] | Mapping[str, float] | None = None,
        views: int = 1,
    ) -> None:
        super().__init__("wavelet", views, levels=levels, bands=bands)

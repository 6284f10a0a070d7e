"""Structural similarity: the student's output is to look like the teacher's, window by window."""

from __future__ import annotations

from collections.abc import Sequence

from medsr.distill.terms.output import OutputTerm


class SSIMTerm(OutputTerm):
    """One minus the structural similarity between the student's and the teacher's output.

    It asks for the teacher's local contrast and structure where a voxel-wise term asks for its
    values; use both.

    Args:
        data_range: Width of the normalised intensities; above zero.
        sigma: Standard deviation of the Gaussian window in voxels; above zero.
        window: Voxels of the window along each axis, odd; one number or three. The output must be
            at least as large.
        views: As for :class:`medsr.distill.terms.output.OutputTerm`.

    Raises:
        UsageError: If an argument is out of its range.

    Source: Wang et al., "Image quality assessment: from error visibility to structural
        similarity", IEEE TIP 13(4), 2004, equation 13, between student and teacher.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> from medsr.distill import Activations
        >>> from medsr.distill.terms import SSIMTerm
        >>> lr, hr = torch.rand(1, 1, 12, 12, 3), torch.rand(1, 1, 12, 12, 12)
        >>> term = SSIMTerm(window=(11, 11, 7))  # patches are thin along the slice axis
        >>> loss = term(Activations(hr), Activations(hr), Batch(lr, hr))
        >>> abs(round(float(loss), 4))
        0.0
    """

    name = "ssim"

    def __init__(
        self,
        data_range: float = 1.0,
        sigma: float = 1.5,
        window: int | Sequence[int] = 11,
        views: int = 1,
    ) -> None:
        super().__init__("ssim", views, data_range=data_range, sigma=sigma, window=window)

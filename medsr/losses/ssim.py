"""Structural similarity of volumes as a differentiable loss.

Equal to ``skimage.metrics.structural_similarity`` with ``gaussian_weights=True`` and
``use_sample_covariance=False``. Scores for reports are computed in ``medsr.evaluate``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.losses import LOSSES

_K1 = 0.01
_K2 = 0.03
_SPATIAL_AXES = (-3, -2, -1)


@LOSSES.register("ssim")
class SSIMLoss3D(nn.Module):
    """One minus the mean structural similarity under a Gaussian window.

    Local statistics are taken only where the window lies wholly inside the volume, which is what
    scikit-image averages over too. The defaults are its own: ``sigma`` 1.5 voxels cut at 3.5
    sigma, hence 11 voxels.

    Args:
        data_range: Difference between the largest and smallest value that the data can take, in
            the units of the tensors; > 0. 1 for normalised intensities.
        sigma: Standard deviation of the window in voxels; > 0.
        window: Voxels of the window along each axis, odd; one number for all axes or three for
            patches that are thin along one (the Gaussian is cut there and renormalised).

    Raises:
        UsageError: If an argument is out of its range.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", IEEE TIP 13(4), 2004, equation 13 with K1 = 0.01, K2 = 0.03.

    Examples:
        >>> import torch
        >>> from medsr.losses import SSIMLoss3D
        >>> hr = torch.rand(2, 1, 16, 16, 12, generator=torch.Generator().manual_seed(0))
        >>> faint = hr.mean() + 0.5 * (hr - hr.mean())  # half the contrast
        >>> loss = SSIMLoss3D(data_range=1.0)
        >>> [round(value, 2) for value in loss.similarity(faint, hr).tolist()]
        [0.8, 0.8]
        >>> round(float(loss(faint, hr)), 2)
        0.2
    """

    def __init__(
        self,
        data_range: float = 1.0,
        sigma: float = 1.5,
        window: int | Sequence[int] = 11,
    ) -> None:
        super().__init__()
        sizes = (window,) * 3 if isinstance(window, int) else tuple(window)
        if not data_range > 0 or not sigma > 0:
            raise UsageError(
                f"SSIM loss: data_range is {data_range} and sigma {sigma}; both must be above zero"
            )
        if len(sizes) != 3 or any(size < 1 or size % 2 == 0 for size in sizes):
            raise UsageError(f"SSIM loss: window is {window}; give one or three odd numbers")
        self.data_range = float(data_range)
        self.sigma = float(sigma)
        self.window: tuple[int, ...] = sizes

    def similarity(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Mean structural similarity of every volume of a batch.

        Args:
            sr: Restored volume, (B, C, X, Y, Z), at least ``window`` voxels along each axis.
            hr: True volume, same shape.

        Returns:
            Float32 tensor (B,), at most 1, and 1 when both are equal.

        Raises:
            ValueError: If the shapes differ, or the volume is thinner than the window.
        """
        shape = tuple(hr.shape)
        if tuple(sr.shape) != shape:
            raise ValueError(f"SSIM loss: shapes differ, sr {tuple(sr.shape)} and hr {shape}")
        if any(size < width for size, width in zip(shape[-3:], self.window, strict=True)):
            raise ValueError(
                f"SSIM loss: the volume is {shape[-3:]} voxels, thinner than the window "
                f"{self.window}; use larger patches or a smaller odd `window`"
            )
        with torch.autocast(device_type=hr.device.type, enabled=False):
            x, y = sr.float(), hr.float()
            # Variances do not change under a shift, and are free of cancellation around zero.
            offset = y.detach().mean()
            x, y = x - offset, y - offset
            moments = self._smooth(torch.stack((x, y, x * x, y * y, x * y)))
            mean_x, mean_y = moments[0], moments[1]
            variance_x = moments[2] - mean_x.square()
            variance_y = moments[3] - mean_y.square()
            covariance = moments[4] - mean_x * mean_y
            mean_x, mean_y = mean_x + offset, mean_y + offset
            c1 = (_K1 * self.data_range) ** 2
            c2 = (_K2 * self.data_range) ** 2
            luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
            structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
            return (luminance * structure).flatten(1).mean(dim=1)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare a restored volume with its truth.

        Args:
            sr: Restored volume, (B, C, X, Y, Z), at least ``window`` voxels along each axis.
            hr: True volume, same shape.

        Returns:
            A float32 scalar, ``1 - SSIM`` averaged over the batch; zero when both are equal.

        Raises:
            ValueError: If the shapes differ, or the volume is thinner than the window.
        """
        return 1 - self.similarity(sr, hr).mean()

    def _smooth(self, stacked: Tensor) -> Tensor:
        """Gaussian means along the three axes, where the window fits."""
        for axis, width in zip(_SPATIAL_AXES, self.window, strict=True):
            matrix = _band_matrix(stacked.shape[axis], width, self.sigma, stacked.device)
            # A product with a band matrix: on patches three times faster than a one-channel
            # convolution on a CPU, and on a GPU not rounded to TF32 by default.
            smoothed = torch.tensordot(stacked, matrix, dims=([axis], [0]))
            stacked = smoothed.movedim(-1, axis)
        return stacked


def _band_matrix(size: int, width: int, sigma: float, device: torch.device) -> Tensor:
    """Matrix (size, size - width + 1) whose columns are the window at its valid places."""
    taps = torch.arange(width, dtype=torch.float64) - width // 2
    window = torch.exp(-0.5 * (taps / sigma) ** 2)
    window = window / window.sum()
    matrix = torch.zeros(size, size - width + 1, dtype=torch.float64)
    for tap in range(width):
        matrix.diagonal(-tap).copy_(window[tap].expand(size - width + 1))
    return matrix.to(device=device, dtype=torch.float32)

"""Voxel-wise losses: mean absolute, mean squared and Charbonnier error.

Losses that look at neighbourhoods live in :mod:`medsr.losses.ssim` and
:mod:`medsr.losses.gradient`. Every loss computes in float32, also inside autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.losses import LOSSES


@LOSSES.register("l1")
class L1Loss(nn.Module):
    """Mean absolute error.

    Examples:
        >>> import torch
        >>> from medsr.losses import L1Loss
        >>> hr = torch.zeros(1, 1, 8, 8, 8)
        >>> float(L1Loss()(hr + 0.5, hr))
        0.5
    """

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare a restored volume with its truth.

        Args:
            sr: Restored volume, (B, C, X, Y, Z).
            hr: True volume, same shape.

        Returns:
            A float32 scalar, zero when both are equal.
        """
        return (sr.float() - hr.float()).abs().mean()


@LOSSES.register("l2")
class L2Loss(nn.Module):
    """Mean squared error.

    Examples:
        >>> import torch
        >>> from medsr.losses import L2Loss
        >>> hr = torch.zeros(1, 1, 8, 8, 8)
        >>> float(L2Loss()(hr + 0.5, hr))
        0.25
    """

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare a restored volume with its truth.

        Args:
            sr: Restored volume, (B, C, X, Y, Z).
            hr: True volume, same shape.

        Returns:
            A float32 scalar, zero when both are equal.
        """
        return (sr.float() - hr.float()).square().mean()


@LOSSES.register("charbonnier")
class CharbonnierLoss(nn.Module):
    """Smooth absolute error, ``mean(sqrt(d² + ε²) − ε)``.

    ``ε`` is taken off, so that the loss is zero for equal volumes whatever ``epsilon`` is.

    Args:
        epsilon: Width of the quadratic zone around zero, in normalised intensity; > 0.

    Raises:
        UsageError: If ``epsilon`` is not positive.

    Source: Charbonnier et al., "Two deterministic half-quadratic regularization algorithms for
        computed imaging", ICIP 1994; as a super-resolution loss: Lai et al., LapSRN, CVPR 2017.

    Examples:
        >>> import torch
        >>> from medsr.losses import CharbonnierLoss
        >>> hr = torch.zeros(1, 1, 8, 8, 8)
        >>> loss = CharbonnierLoss(epsilon=1e-3)
        >>> float(loss(hr, hr)), round(float(loss(hr + 0.5, hr)), 3)
        (0.0, 0.499)
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not epsilon > 0:
            raise UsageError(f"Charbonnier loss: epsilon is {epsilon}; give a number above zero")
        self.epsilon = float(epsilon)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare a restored volume with its truth.

        Args:
            sr: Restored volume, (B, C, X, Y, Z).
            hr: True volume, same shape.

        Returns:
            A float32 scalar, zero when both are equal.
        """
        difference = sr.float() - hr.float()
        return torch.sqrt(difference.square() + self.epsilon**2).mean() - self.epsilon

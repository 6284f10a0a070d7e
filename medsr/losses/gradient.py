"""Loss on the edges: absolute error of first differences along the three axes.

Voxel-wise losses live in :mod:`medsr.losses.pixel`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medsr.errors import UsageError
from medsr.losses import LOSSES

_SPATIAL_AXES = (-3, -2, -1)


@LOSSES.register("gradient")
class GradientLoss(nn.Module):
    """Mean absolute error between the forward differences of two volumes.

    The loss is the mean over the axes of the mean over the voxels. A constant offset between the
    volumes costs nothing, so combine it with a voxel-wise loss.

    Args:
        spacing: Voxel spacing along X, Y, Z in mm. If given, differences become slopes relative
            to the finest axis: each axis is weighted by ``min(spacing) / spacing``. Without it
            all axes count alike.

    Raises:
        UsageError: If a spacing is not positive.

    Examples:
        >>> import torch
        >>> from medsr.losses import GradientLoss
        >>> hr = torch.rand(1, 1, 16, 16, 8, generator=torch.Generator().manual_seed(0))
        >>> loss = GradientLoss(spacing=(1.0, 1.0, 4.0))  # mm
        >>> loss.weights
        (1.0, 1.0, 0.25)
        >>> round(float(loss(hr + 0.1, hr)), 4)  # an offset has no edges
        0.0
    """

    def __init__(self, spacing: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weights: tuple[float, ...] = (1.0, 1.0, 1.0)
        if spacing is not None:
            if len(spacing) != 3 or not all(value > 0 for value in spacing):
                raise UsageError(
                    f"gradient loss: spacing is {tuple(spacing)}; give three numbers above zero"
                )
            self.weights = tuple(min(spacing) / value for value in spacing)

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Compare the edges of a restored volume with those of its truth.

        Args:
            sr: Restored volume, (B, C, X, Y, Z); an axis of one voxel has no differences and is
                left out.
            hr: True volume, same shape.

        Returns:
            A float32 scalar, zero when both are equal up to a constant.

        Raises:
            ValueError: If every spatial axis has one voxel only.
        """
        # The difference operator is linear: one pass over sr - hr does for both volumes.
        error = sr.float() - hr.float()
        per_axis = [
            weight * torch.diff(error, dim=axis).abs().mean()
            for axis, weight in zip(_SPATIAL_AXES, self.weights, strict=True)
            if error.shape[axis] > 1
        ]
        if not per_axis:
            raise ValueError("gradient loss: the volume has one voxel along every axis")
        return torch.stack(per_axis).mean()

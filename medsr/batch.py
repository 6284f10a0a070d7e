"""``Batch``: what one training step sees, handed from the data to the losses and terms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """One step's training pairs.

    Attributes:
        lr: Normalised low-resolution patches, (B, 1, X, Y, Z).
        hr: True patches, (B, 1, X·sx, Y·sy, Z·sz).
        domains: What each patch shows, for example ``"MR/T1w"``; empty where nobody says.
        condition: What the network is told of each patch, (B, conditions); None for nothing.
        sampling: Where the network's last axis is sampled to give that of ``hr``, a matrix of
            (places, given); None where it gives just them.

    Examples:
        >>> import torch
        >>> from medsr.batch import Batch
        >>> lr, hr = torch.rand(2, 1, 16, 16, 4), torch.rand(2, 1, 16, 16, 16)
        >>> batch = Batch(lr, hr, domains=("MR/T1w", "CT"))
        >>> batch.to(torch.device("cpu")).lr.shape
        torch.Size([2, 1, 16, 16, 4])
    """

    lr: Tensor
    hr: Tensor
    domains: tuple[str, ...] = ()
    condition: Tensor | None = None
    sampling: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        condition = None if self.condition is None else self.condition.to(device)
        sampling = None if self.sampling is None else self.sampling.to(device)
        return Batch(self.lr.to(device), self.hr.to(device), self.domains, condition, sampling)

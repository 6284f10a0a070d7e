"""How far an arm's answer is from MONAI's, where MONAI's is the network's own.

A sliding window pads with zeros at its own edges, and blends the result into the volume: near
every window's edge MONAI's answer is not the network's, by more than any arithmetic could explain.
A largest difference over all voxels would tell of those seams and nothing of the arm. So it is
taken over the voxels that lie the network's halo away from every edge of every window that covers
them. Where a network sees so far that no such voxel is left, one window's block is enlarged by
itself, by MONAI in a single window, and compared whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from medsr.benchmark.inference_peer import SlidingWindow
from medsr.infer.engine.stream import subvoxels
from medsr.types import Shape

Run = Callable[[Tensor], Tensor]


class Reference:
    """MONAI's answer, and where it can be trusted.

    Args:
        peer: MONAI.
        lr: The volume ``(X, Y, Z)``.
        sr: MONAI's answer to it, ``(channels, X·sx, Y·sy, Z·sz)``.
    """

    def __init__(self, peer: SlidingWindow, lr: Tensor, sr: Tensor) -> None:
        x, y, z = lr.shape
        self.sr = sr
        self.scale: Shape = peer.network.scale  # type: ignore[assignment]
        self.trusted = peer.trusted((x, y, z)).to(sr.device)
        self.share = float(self.trusted.float().mean())
        self.block: Tensor | None = None
        if not self.trusted.any():
            self.block = lr[_central(lr, peer)]
            self.block_sr = peer(self.block)

    def differences(self, run: Run, sr: Tensor) -> tuple[float, float]:
        """Compare an arm with MONAI.

        Args:
            run: The arm.
            sr: Its answer to the whole volume.

        Returns:
            Largest absolute difference over the range of MONAI's answer: where that can be
            trusted, and over all voxels. Not a number where an answer holds what is none.
        """
        low, high = self.sr.aminmax()
        width = float(high - low) or 1.0
        worst = _worst(sr, self.sr, self.scale) / width
        everywhere = float(worst.max())
        if self.block is None:
            return float(worst[self.trusted].max()), everywhere
        single = _worst(run(self.block), self.block_sr, self.scale)
        low, high = self.block_sr.aminmax()
        return float(single.max()) / (float(high - low) or 1.0), everywhere

    def as_dict(self) -> dict[str, Any]:
        """Say what was compared, as plain data."""
        whole = self.block is None
        where = (
            "voxels that lie the network's halo away from every edge of every window that covers "
            "them, edges on the volume's faces excepted"
            if whole
            else "one window's block by itself: the network sees so far that no voxel of the "
            "volume is free of a window's edge"
        )
        return {
            "where": where,
            "share_of_voxels": self.share if whole else None,
            "relative_to": "range of MONAI's answer",
        }


def _worst(one: Tensor, other: Tensor, scale: Shape) -> Tensor:
    """Largest absolute difference within every low-resolution voxel, ``(X, Y, Z)``."""
    difference = (one.to(other.device) - other).abs_().amax(0)
    return subvoxels(difference, scale).amax((1, 3, 5))


def _central(lr: Tensor, peer: SlidingWindow) -> tuple[slice, slice, slice]:
    """Where a window in the middle of the volume lies, aligned to the network's folding."""
    multiple_of: Shape = peer.network.multiple_of  # type: ignore[assignment]
    parts = []
    for size, multiple in zip(lr.shape, multiple_of, strict=True):
        window = min(peer.window, size)
        start = (size - window) // 2 // multiple * multiple
        parts.append(slice(start, start + window))
    return (parts[0], parts[1], parts[2])

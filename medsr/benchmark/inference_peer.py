"""The way most take to run a network over a volume, MONAI's sliding window, as the peer to beat.

The one module of the benchmarks that knows MONAI. Besides running it, it says where its answer is
the network's own: a window ends where the volume does not, its padding there is made up, and
blending spreads that over the window's rim. What is measured against it is in ``inference``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from monai.inferers.inferer import SlidingWindowInferer
from torch import Tensor, nn

from medsr.types import Shape

WINDOW = 64
"""Voxels of a window along each axis."""

OVERLAPS = (0.25, 0.5)


@dataclass(frozen=True)
class SlidingWindow:
    """MONAI's ``SlidingWindowInferer`` with Gaussian weights, as its users set it up.

    Args:
        network: In evaluation mode.
        overlap: Share of a window that its neighbour covers too, 0 or more and below 1.
        window: Voxels of a window per axis; clipped to the volume, so that MONAI pads nothing.
        batch: Windows at a time. On a processor more than one gains nothing.
    """

    network: nn.Module
    overlap: float
    window: int = WINDOW
    batch: int = 1

    def __call__(self, lr: Tensor) -> Tensor:
        """Enlarge ``(X, Y, Z)`` to ``(channels, X·sx, Y·sy, Z·sz)``, float32."""
        with torch.inference_mode():
            sr: Tensor = self._inferer(lr, "gaussian")(lr[None, None], self.network)
        return sr[0]

    def trusted(self, shape: Shape) -> Tensor:
        """Say where the blended answer is made of answers that no window's edge has touched.

        Args:
            shape: Voxels of the volume.

        Returns:
            Truth values ``(X, Y, Z)`` in low-resolution voxels: whether the voxel lies at least
            ``network.halo`` away from every edge of every window that covers it, edges on the
            volume's faces excepted, since there the whole volume ends as well. Nothing of a window
            is trusted that starts where the network's folding does not.
        """
        mask = torch.ones(shape, dtype=torch.bool)
        halo: Shape = self.network.halo  # type: ignore[assignment]
        multiple_of: Shape = self.network.multiple_of  # type: ignore[assignment]
        for window in self._windows(shape):
            inside = mask[window]
            for axis, part in enumerate(window):
                length = part.stop - part.start
                if part.start % multiple_of[axis]:
                    inside.zero_()
                if part.start > 0:
                    inside.narrow(axis, 0, min(halo[axis], length)).zero_()
                if part.stop < shape[axis]:
                    reach = min(halo[axis], length)
                    inside.narrow(axis, length - reach, reach).zero_()
        return mask

    def _windows(self, shape: Shape) -> list[tuple[slice, slice, slice]]:
        """Where MONAI puts its windows, asked of MONAI."""
        boxes: list[tuple[slice, slice, slice]] = []

        def note(block: Tensor, places: list[list[slice]]) -> Tensor:
            boxes.extend((place[2], place[3], place[4]) for place in places)
            return block.clone()  # what is returned gets weighted in place

        volume = torch.zeros(1, 1, *shape)
        self._inferer(volume[0, 0], "constant", with_coord=True)(volume, note)
        return boxes

    def _inferer(self, lr: Tensor, mode: str, **options: Any) -> Callable[..., Any]:
        return SlidingWindowInferer(
            roi_size=[min(self.window, size) for size in lr.shape],
            sw_batch_size=self.batch,
            overlap=self.overlap,
            mode=mode,
            **options,
        )


def about(window: int, batch: int) -> dict[str, Any]:
    """Say how MONAI is set up, as plain data."""
    return {
        "library": "monai",
        "version": version("monai"),
        "inferer": "SlidingWindowInferer",
        "precision": "fp32",
        "window": window,
        "mode": "gaussian",
        "overlaps": list(OVERLAPS),
        "batch": batch,
    }

"""torch: the default and the reference, for every network, precision and device."""

from __future__ import annotations

import torch
from torch import nn

from medsr.infer.engine.backends.base import CPU, Runner, require
from medsr.infer.engine.backends.tile import TileRunner
from medsr.infer.engine.device import Precision
from medsr.types import Shape


class TorchBackend:
    """Runs a network as it is, under autocast where bf16 is asked for."""

    name = "torch"
    packages: tuple[str, ...] = ("torch",)
    extra = ""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def lacks(self, precision: Precision, device: torch.device) -> str | None:
        """Say what is missing: a CUDA device, if anything."""
        if device.type == "cuda" and not torch.cuda.is_available():
            return "torch finds no CUDA device; use device cpu"
        return None

    def prepare(
        self,
        network: nn.Module,
        tile_shape: Shape,
        *,
        precision: Precision = "fp32",
        device: torch.device = CPU,
        threads: int | None = None,
    ) -> Runner:
        """Make a network ready for tiles, see :class:`medsr.infer.engine.backends.base.Backend`."""
        require(self, precision, device)
        return TileRunner(network, tile_shape, precision == "bf16", device, threads)

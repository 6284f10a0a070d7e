"""The estimate of a tile's memory covers what is alive while the network runs, and not far more."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medsr.infer.engine.executors import working_bytes
from medsr.networks import build_network

CASES = {
    "RCAN3D": {"width": 32, "groups": 2, "blocks": 2},
    "RRDBNet3D": {"width": 32, "growth": 16, "blocks": 2},
    "SRResNet3D": {"width": 32, "blocks": 2},
    "UNet3D": {"width": 32, "levels": 3, "blocks": 1},
}


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make, and the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


@pytest.mark.parametrize("fold", [(1, 1, 1), (2, 2, 1)], ids=str)
@pytest.mark.parametrize("name", sorted(CASES))
def test_estimate_covers_what_is_alive(name: str, fold: tuple[int, int, int]) -> None:
    network = build_network(name, (1, 1, 4), **CASES[name], fold=fold).eval().merged()
    shape = (32, 16, 16)
    lr = torch.rand(1, 1, *shape)
    with torch.no_grad(), LiveBytes() as live:
        network(lr)
    estimate = working_bytes(network, shape, "fp32")
    assert live.peak < estimate < 4 * live.peak

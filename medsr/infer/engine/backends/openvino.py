"""OpenVINO: fp32 and bf16 on processors, and the int8 models that ``medsr quantise`` makes.

A network is converted in memory; nothing is written. The library is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medsr.compress.openvino_library import import_openvino, openvino_core, undisturbed
from medsr.errors import BackendError
from medsr.infer.engine.backends.base import CPU, Runner, require
from medsr.infer.engine.backends.tile import TileRunner, computed_by, conversion, delegate
from medsr.infer.engine.device import Precision
from medsr.types import Shape

HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Compiles a network for one tile size with OpenVINO's CPU plugin."""

    name = "openvino"
    packages: tuple[str, ...] = ("openvino",)
    extra = "openvino"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def lacks(self, precision: Precision, device: torch.device) -> str | None:
        """Say what is missing: bf16 on processors that emulate it, and every GPU."""
        if device.type != "cpu":
            return f"it is used on the processor only, not on {device}; use backend torch"
        if precision == "bf16" and "BF16" not in openvino_core().get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            return "this processor does not compute in bf16; use precision fp32"
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
        """Make a network ready for tiles, see :class:`medsr.infer.engine.backends.base.Backend`.

        int8 networks are OpenVINO's already and are run as they are.
        """
        require(self, precision, device)
        brings = computed_by(network)
        if brings == self.name:
            return TileRunner(network, tile_shape, threads=threads)
        if brings:
            raise BackendError(f"backend openvino: this network is computed by {brings}; use torch")
        count = torch.get_num_threads() if threads is None else threads
        with conversion(self.name, network), undisturbed():
            ready = delegate(
                network, tile_shape, lambda part, example: _compile(part, example, precision, count)
            )
        return TileRunner(ready, tile_shape, threads=threads)


def _compile(
    part: nn.Module, example: Tensor, precision: Precision, threads: int
) -> Callable[[Tensor], Tensor]:
    openvino = import_openvino()
    graph = openvino.convert_model(
        part, example_input=example, input=[openvino.PartialShape(list(example.shape))]
    )
    if len(graph.outputs) != 1:
        raise ValueError(f"it has {len(graph.outputs)} outputs in place of one")
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Several processes side by side would all be bound to the same first cores.
        "ENABLE_CPU_PINNING": False,
    }
    request: Any = openvino_core().compile_model(graph, "CPU", settings).create_infer_request()

    def run(block: Tensor) -> Tensor:
        # Both ends share memory with torch: the result holds until the next run.
        outputs = request.infer([block.numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(outputs[0])

    return run

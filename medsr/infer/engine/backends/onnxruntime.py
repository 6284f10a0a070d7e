"""ONNX Runtime: fp32 on processors, and on CUDA devices where its GPU build is installed.

A network is exported in memory by torch's exporter; nothing is written. The libraries are imported
when they are used.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medsr.errors import BackendError
from medsr.infer.engine.backends.base import CPU, Runner, require
from medsr.infer.engine.backends.tile import TileRunner, computed_by, conversion, delegate
from medsr.infer.engine.device import Precision
from medsr.logs import LogSuppressor
from medsr.types import Shape

CUDA = "CUDAExecutionProvider"

# The exporter warns of libraries that no network here needs.
_exporting = LogSuppressor("torch.onnx", level=logging.ERROR)


class OnnxRuntimeBackend:
    """Exports a network for one tile size and runs it with ONNX Runtime."""

    name = "onnxruntime"
    packages: tuple[str, ...] = ("onnxruntime", "onnx", "onnxscript")
    extra = "onnx"
    precisions: tuple[Precision, ...] = ("fp32",)

    def lacks(self, precision: Precision, device: torch.device) -> str | None:
        """Say what is missing: bf16 always, CUDA where the CPU build is installed."""
        if precision not in self.precisions:
            return f"it computes these networks in fp32 only, not in {precision}"
        if device.type == "cuda" and CUDA not in _library().get_available_providers():
            return f"the installed onnxruntime has no {CUDA}; use device cpu or backend torch"
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
        brings = computed_by(network)
        if brings:
            raise BackendError(
                f"backend onnxruntime: this int8 network is computed by {brings}; "
                f"use backend {brings}"
            )
        count = torch.get_num_threads() if threads is None else threads
        if device.type == "cuda":
            # Its own copies go to the GPU; what stays in torch works on the processor.
            network = copy.deepcopy(network).to(CPU)
        with conversion(self.name, network), _exporting:
            ready = delegate(
                network, tile_shape, lambda part, example: _compile(part, example, device, count)
            )
        return TileRunner(ready, tile_shape, threads=threads)


def _compile(
    part: nn.Module, example: Tensor, device: torch.device, threads: int
) -> Callable[[Tensor], Tensor]:
    ort = _library()
    program = torch.onnx.export(
        part, (example,), dynamo=True, external_data=False, verbose=False, optimize=True
    )
    if program is None:
        raise ValueError("the exporter gave nothing")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers.insert(0, (CUDA, {"device_id": device.index or 0}))
    session = ort.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=providers
    )
    if device.type == "cuda" and CUDA not in session.get_providers():
        raise ValueError(f"{CUDA} did not start")
    if len(session.get_outputs()) != 1:
        raise ValueError(f"it has {len(session.get_outputs())} outputs in place of one")
    name = session.get_inputs()[0].name

    def run(block: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: block.numpy()})[0])

    return run


def _library() -> Any:
    """ONNX Runtime, told not to report its use (its builds for Windows would)."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime

"""int8 by NNCF and OpenVINO: integer ranges chosen on patches, kernels with VNNI or AMX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medsr.compress.openvino_library import import_openvino, openvino_core, undisturbed
from medsr.errors import MissingExtraError, ModelFileError
from medsr.networks import SRNetwork

GRAPH_FILE = "int8.xml"
WEIGHTS_FILE = "int8.bin"


class OpenVinoRunner:
    """A quantised graph, compiled for this processor when it is first run.

    Args:
        graph: OpenVINO model with one input ``(B, C, X, Y, Z)`` of any size.
    """

    def __init__(self, graph: Any):
        self.graph = graph
        self._request: Any = None

    def __call__(self, folded: Tensor) -> Tensor:
        """Map ``(B, in_channels, X, Y, Z)`` to ``(B, out_channels, …)``, float32 on the CPU."""
        if self._request is None:
            self._request = self._compile()
        outputs = self._request.infer([folded.numpy()], share_inputs=True)
        return torch.from_numpy(outputs[0])

    def save(self, folder: Path) -> None:
        """Write graph and weights."""
        openvino = import_openvino()
        openvino.save_model(self.graph, folder / GRAPH_FILE, compress_to_fp16=False)

    def _compile(self) -> Any:
        settings = {
            # For the layers that stay in float: the same numbers on every processor.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        return openvino_core().compile_model(self.graph, "CPU", settings).create_infer_request()


class OpenVinoBackend:
    """Quantises with NNCF and runs with OpenVINO, on the CPU."""

    files: tuple[str, ...] = (GRAPH_FILE, WEIGHTS_FILE)

    def quantise(
        self, network: SRNetwork, inputs: Sequence[Tensor], keep_float: Sequence[str]
    ) -> OpenVinoRunner:
        """Quantise ``residual``; activations asymmetric, since what a ReLU leaves is positive.

        Args:
            network: Merged network in evaluation mode.
            inputs: Folded patches ``(1, in_channels, X, Y, Z)``.
            keep_float: Submodules whose layers are left alone.

        Raises:
            MissingExtraError: The extra ``compress`` is not installed.
        """
        openvino, nncf = _libraries()
        with undisturbed():
            graph = openvino.convert_model(
                _Residual(network),
                example_input=inputs[0],
                input=[openvino.PartialShape([-1, network.in_channels, -1, -1, -1])],
            )
            quantised = nncf.quantize(
                graph,
                nncf.Dataset([i.numpy() for i in inputs]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(inputs),
                ignored_scope=nncf.IgnoredScope(
                    patterns=[rf".*\.network\.{name}[./].*" for name in keep_float],
                    validate=False,
                ),
            )
        return OpenVinoRunner(quantised)

    def load(self, folder: Path) -> OpenVinoRunner:
        """Read graph and weights.

        Raises:
            MissingExtraError: The extra ``openvino`` is not installed.
            ModelFileError: The files are damaged.
        """
        core = openvino_core()
        try:
            # From memory: a mapped file could not be replaced while it is in use.
            graph = (folder / GRAPH_FILE).read_bytes()
            weights = (folder / WEIGHTS_FILE).read_bytes()
            return OpenVinoRunner(core.read_model(graph, weights))
        except RuntimeError as error:
            raise ModelFileError(
                f"{folder / GRAPH_FILE}: damaged int8 model; copy it again or quantise once more"
            ) from error


BACKEND = OpenVinoBackend()


class _Residual(nn.Module):
    """A network's ``residual`` as the forward pass of a module, for tracing."""

    def __init__(self, network: SRNetwork):
        super().__init__()
        self.network = network

    def forward(self, folded: Tensor) -> Tensor:
        return self.network.residual(folded)


def _libraries() -> tuple[Any, Any]:
    """OpenVINO and NNCF."""
    try:
        with undisturbed():
            import nncf
            import openvino
    except ImportError as error:
        raise MissingExtraError(
            "int8 needs openvino and nncf, which are not installed; pip install 'medsr[compress]'"
        ) from error
    return openvino, nncf

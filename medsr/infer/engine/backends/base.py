"""What a backend is, and how it is told that one cannot be used.

No library is loaded here: whether a package is installed is asked of the import system alone.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor, nn

from medsr.errors import BackendError, MissingExtraError
from medsr.infer.engine.device import Precision
from medsr.types import Shape

CPU = torch.device("cpu")


class Runner(Protocol):
    """A network made ready for blocks of one size.

    Examples:
        >>> import torch
        >>> from medsr.infer.engine.backends import BACKENDS, Runner
        >>> from medsr.networks import build_network
        >>> network = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2).eval()
        >>> run: Runner = BACKENDS["torch"].prepare(network, (8, 8, 4))
        >>> run(torch.rand(1, 1, 8, 8, 4)).shape
        torch.Size([1, 1, 8, 8, 16])
    """

    def __call__(self, block: Tensor) -> Tensor:
        """Enlarge one block.

        Args:
            block: Normalised voxels ``(1, 1, X, Y, Z)`` float32 of exactly the size that the
                runner was made for.

        Returns:
            ``(1, channels, X·sx, Y·sy, Z·sz)`` float32 on the device of ``block``, without
            gradients.

        Raises:
            ValueError: The block has another size.
        """
        ...


class Backend(Protocol):
    """A library that runs networks.

    Attributes:
        name: What the user calls it.
        packages: Modules that must be importable.
        extra: The extra of medsr that installs them; empty where nothing is to be installed.
        precisions: In which it can compute, given the right machine.

    Examples:
        >>> from medsr.infer.engine.backends import BACKENDS, Backend
        >>> backend: Backend = BACKENDS["openvino"]
        >>> backend.extra, "bf16" in backend.precisions
        ('openvino', True)
    """

    name: str
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[Precision, ...]

    def lacks(self, precision: Precision, device: torch.device) -> str | None:
        """Say what is missing for a precision on a device of this machine; None if nothing.

        Asked only where the packages are installed.
        """
        ...

    def prepare(
        self,
        network: nn.Module,
        tile_shape: Shape,
        *,
        precision: Precision = "fp32",
        device: torch.device = CPU,
        threads: int | None = None,
    ) -> Runner:
        """Make a network ready for blocks of one size.

        Args:
            network: In evaluation mode, with its parameters on ``device``; it is left as it was,
                and must be until the runner is done with.
            tile_shape: Low-resolution voxels of the padded tile along X, Y and Z.
            precision: What the convolutions are computed in; input and output are float32.
            device: Where.
            threads: Processor threads; torch's own number if None.

        Raises:
            BackendError: The backend cannot do this on this machine, or not with this network.
            MissingExtraError: Its packages are not installed.
        """
        ...


def missing_packages(backend: Backend) -> list[str]:
    """Return the packages of a backend that are not installed.

    Examples:
        >>> from medsr.infer.engine.backends import BACKENDS, missing_packages
        >>> missing_packages(BACKENDS["torch"])
        []
    """
    return [package for package in backend.packages if find_spec(package) is None]


def why_not(
    backend: Backend, precision: Precision = "fp32", device: torch.device = CPU
) -> str | None:
    """Say in one line why a backend cannot be used here; None where it can.

    Examples:
        >>> from medsr.infer.engine.backends import BACKENDS, why_not
        >>> why_not(BACKENDS["torch"]) is None
        True
        >>> why_not(BACKENDS["onnxruntime"], precision="bf16") is None
        False
    """
    missing = missing_packages(backend)
    if missing:
        return (
            f"{' and '.join(missing)} not installed; "
            f'install with: pip install "medsr[{backend.extra}]"'
        )
    return backend.lacks(precision, device)


def require(backend: Backend, precision: Precision = "fp32", device: torch.device = CPU) -> None:
    """Refuse a backend that cannot be used here.

    Raises:
        BackendError: It lacks the precision or the device.
        MissingExtraError: Its packages are not installed.

    Examples:
        >>> from medsr.errors import MedsrError
        >>> from medsr.infer.engine.backends import BACKENDS, require
        >>> try:
        ...     require(BACKENDS["onnxruntime"], precision="bf16")
        ... except MedsrError:
        ...     print("ONNX Runtime computes in fp32 only")
        ONNX Runtime computes in fp32 only
    """
    reason = why_not(backend, precision, device)
    if reason is not None:
        family = MissingExtraError if missing_packages(backend) else BackendError
        raise family(f"backend {backend.name}: {reason}")

"""What backends share: running one tile, and handing a network's inner work to another library.

In a network of ``medsr.networks`` the convolutions are one method, ``residual``. A library other
than torch gets that alone; folding, voxel shuffle, the head and the interpolated scan that the
result is added to stay in torch and float32, so a backend in bf16 rounds the detail and never the
scan, as torch's autocast does. Any other network is handed over whole.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medsr.errors import BackendError
from medsr.infer.engine.backends.base import CPU
from medsr.networks import SRNetwork
from medsr.networks.blocks import pad_to_multiple, voxel_unshuffle
from medsr.networks.heads import MeanAndSigma
from medsr.types import Shape

Compile = Callable[[nn.Module, Tensor], Callable[[Tensor], Tensor]]
"""Takes a module with one input and one output and an example of the input, and returns what
computes the same for inputs of that very size: contiguous float32 in, float32 out."""


@dataclass(frozen=True)
class TileRunner:
    """Runs a module on blocks of one size; the ``Runner`` of every backend.

    Args:
        network: Maps a block to its enlarged form.
        tile_shape: Size of the blocks, low-resolution voxels.
        autocast: Whether torch computes in bfloat16 what it can.
        device: Where the module works.
        threads: Threads of torch while it runs; as they are if None.
    """

    network: nn.Module
    tile_shape: Shape
    autocast: bool = False
    device: torch.device = CPU
    threads: int | None = None

    def __call__(self, block: Tensor) -> Tensor:
        """Enlarge ``(1, 1, X, Y, Z)``, see :class:`medsr.infer.engine.backends.base.Runner`."""
        if tuple(block.shape) != (1, 1, *self.tile_shape):
            raise ValueError(
                f"the block has shape {tuple(block.shape)}; this runner takes "
                f"{(1, 1, *self.tile_shape)}"
            )
        cast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast)
        with torch.no_grad(), cast, torch_threads(self.threads):
            sr: Tensor = self.network(block.to(self.device, memory_format=torch.channels_last_3d))
        return sr.float().to(block.device)


class _Residual(nn.Module):
    """A network's ``residual`` as the forward pass of a module."""

    def __init__(self, network: SRNetwork):
        super().__init__()
        self.network = network

    def forward(self, folded: Tensor) -> Tensor:
        return self.network.residual(folded)


class _Elsewhere(nn.Module):
    """A function of another library as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, block: Tensor) -> Tensor:
        # The library may write its next result where this one lies.
        return self.function(block).clone()


def delegate(network: nn.Module, tile_shape: Shape, compile_part: Compile) -> nn.Module:
    """Return a network whose work on tiles of one size is done by another library.

    Args:
        network: Left as it was; the result shares its parameters.
        tile_shape: Low-resolution voxels of a tile.
        compile_part: The library's side.
    """
    if isinstance(network, MeanAndSigma):
        return MeanAndSigma(_delegate_residual(network.network, tile_shape, compile_part))
    if isinstance(network, SRNetwork) and _is_standard(network):
        return _delegate_residual(network, tile_shape, compile_part)
    return _Elsewhere(compile_part(network, torch.zeros(1, 1, *tile_shape)))


def _is_standard(network: SRNetwork) -> bool:
    """Whether all that the network adds to the common skeleton is in ``residual``."""
    own: Callable[..., Tensor] = type(network).forward
    return own is SRNetwork.forward


def _delegate_residual(network: SRNetwork, tile_shape: Shape, compile_part: Compile) -> SRNetwork:
    merged = network.merged()
    block = pad_to_multiple(torch.zeros(1, 1, *tile_shape), merged.multiple_of)
    compiled = compile_part(_Residual(merged), voxel_unshuffle(block, merged.fold).contiguous())

    def residual(folded: Tensor) -> Tensor:
        return compiled(folded.contiguous())

    # The twin shares the parameters; what an instance is given hides the method of its class.
    twin = copy.copy(merged)
    twin.residual = residual  # type: ignore[method-assign]
    return twin


def computed_by(network: nn.Module) -> str:
    """Return the name of the library that a network brings along; empty where torch computes it.

    int8 networks of ``medsr.compress`` say so by an attribute ``computed_by``.
    """
    inner = network.network if isinstance(network, MeanAndSigma) else network
    return str(getattr(inner, "computed_by", ""))


@contextlib.contextmanager
def conversion(backend: str, network: nn.Module) -> Iterator[None]:
    """Keep a conversion quiet, and turn what a library raises into one line.

    Raises:
        BackendError: The library cannot take the network.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # the libraries have no common family
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackendError(
            f"backend {backend}: {type(network).__name__} cannot be converted ({reason}); "
            "use backend torch"
        ) from error


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use another number of threads for a while; None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""The engine: runs a network over a volume, tile by tile, as if it had seen it whole.

:class:`TiledInferer` is a MONAI inferer, so it serves validation inside MONAI code as well as
``medsr.upscale``. Here also live the choice of device and precision and the estimate of memory.
Not here: where tiles lie (``medsr.infer.plan``), and scans (``medsr.infer.prepare``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from torch import Tensor, nn

from medsr.errors import DeviceError, MemoryLimitError, UsageError
from medsr.geometry import Geometry
from medsr.infer.plan import Shape, Tile, choose_core, plan_tiles

Precision = Literal["fp32", "bf16"]
Progress = Callable[[int, int], None]

DEFAULT_WORKING_BYTES = 2 * 2**30
"""Memory that one tile may take where no limit is given."""


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    Raises:
        DeviceError: The name is none of these, or there is no such GPU.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device {device!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device} is not there ({torch.cuda.device_count()} CUDA GPUs found); use cpu"
        )
    if found.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {device} is not supported; use auto, cpu, cuda or cuda:N")
    return found


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Turn ``auto`` into ``bf16`` where the device computes it natively, ``fp32`` elsewhere.

    Args:
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        device: Where the network runs.

    Raises:
        UsageError: The precision is none of the three.
    """
    if precision == "fp32":
        return "fp32"
    if precision == "bf16":
        return "bf16"
    if precision != "auto":
        raise UsageError(f"precision {precision!r} is unknown; use auto, fp32 or bf16")
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Processors without the instruction emulate bf16, far slower than fp32.
    query = getattr(torch.cpu, "get_capabilities", None)
    capabilities: dict[str, Any] = query() if query else {}
    native = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bf16" if native else "fp32"


def working_bytes(network: nn.Module, tile: Shape, precision: Precision) -> int:
    """Estimate the memory that one forward pass over a tile takes, weights not counted.

    Args:
        network: The network; its ``live_channels``, or else its widest convolution, tell how many
            channels are alive at once.
        tile: Low-resolution voxels of the padded tile, per axis.
        precision: Type of the activations.

    Returns:
        Bytes, meant to err on the high side: the widest convolution's input and output, twice
        (library copies in other memory formats), and what the tail says of the enlarged output in
        float32, four times (shuffle, residual, sum, crop).
    """
    fold = math.prod(getattr(network, "fold", (1, 1, 1)))
    gain = math.prod(getattr(network, "scale", (1, 1, 1)))
    gain *= getattr(network, "values_per_voxel", 1)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    widest = max((m.in_channels + m.out_channels for m in convolutions), default=2)
    live = getattr(network, "live_channels", None) or 2 * widest
    element = 2 if precision == "bf16" else 4
    per_voxel = live * element / fold + 4.0 * 4 * gain + 3.0 * 4
    return math.ceil(math.prod(tile) * per_voxel)


class TiledInferer(Inferer):
    """Sliding-window inference that equals the whole-volume result to float tolerance.

    Tiles carry the network's receptive field as halo and are cut back to their cores, so nothing
    is blended and no window size shows. Every tile is written straight into one float32 array.

    Args:
        core: Largest core of a tile in low-resolution voxels, per axis or one number for all; by
            default chosen from the halo and the memory allowed.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        max_memory_bytes: Limit for the output array and one tile's activations together.
        device: Where tiles are run; by default where the network's parameters are.
        progress: Called with (tiles done, tiles in all) at the start and after every tile.

    The network must carry ``scale``, ``halo`` and ``multiple_of`` (all of ``medsr.networks`` do),
    and ``channels`` where its output has more than one.
    """

    def __init__(
        self,
        core: int | Shape | None = None,
        *,
        precision: str = "auto",
        max_memory_bytes: int | None = None,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.core: Shape | None = (core, core, core) if isinstance(core, int) else core
        self.precision = precision
        self.max_memory_bytes = max_memory_bytes
        self.device = None if device is None else resolve_device(device)
        self.progress = progress

    def plan(self, shape: Shape, network: nn.Module, device: torch.device) -> tuple[Tile, ...]:
        """Plan the tiles of a volume of ``shape`` (batch and channel left out) for ``network``.

        Raises:
            MemoryLimitError: Not even the smallest tile fits into ``max_memory_bytes``.
            UsageError: The network does not say its scale, halo and alignment.
        """
        _, halo, multiple_of = _traits(network)
        core = self.core
        if core is None:
            precision = resolve_precision(self.precision, device)
            core = choose_core(
                shape,
                halo,
                multiple_of,
                working_bytes=lambda tile: working_bytes(network, tile, precision),
                limit_bytes=self._tile_limit(shape, network, device),
                strict=self.max_memory_bytes is not None,
            )
        return plan_tiles(shape, halo, multiple_of, core)

    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Enlarge a batch of volumes.

        Args:
            inputs: Normalised volumes ``(B, 1, X, Y, Z)``; a MONAI ``MetaTensor`` comes back as
                one, on the grid that keeps its physical extent.
            network: An ``SRNetwork`` or a module with the same attributes, in evaluation mode.
            *args: Further arguments of the network.
            **kwargs: Further keyword arguments of the network.

        Returns:
            ``(B, channels, X·sx, Y·sy, Z·sz)`` float32 on the device of ``inputs``, without
            gradients; one channel unless the network has more.

        Raises:
            MemoryLimitError: Not even the smallest tile fits into the memory allowed.
            UsageError: ``inputs`` is not 5D, or the network lacks scale, halo or alignment.
        """
        if inputs.ndim != 5:
            raise UsageError(f"inputs have shape {tuple(inputs.shape)}; (B, 1, X, Y, Z) is needed")
        if not isinstance(network, nn.Module):
            raise UsageError("the network must be a torch module with scale, halo and multiple_of")
        scale, _, _ = _traits(network)
        plain: Tensor = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        parameter = next(network.parameters(), None)
        home = plain.device if parameter is None else parameter.device
        device = self.device or home
        x, y, z = plain.shape[2:]
        tiles = self.plan((x, y, z), network, device)
        outputs = torch.empty(
            (plain.shape[0], _channels(network), x * scale[0], y * scale[1], z * scale[2]),
            dtype=torch.float32,
            device=plain.device,
        )
        self._run(plain, outputs, tiles, network, device, args, kwargs)
        return _with_affine(outputs, inputs) if isinstance(inputs, MetaTensor) else outputs

    def _run(
        self,
        inputs: Tensor,
        outputs: Tensor,
        tiles: tuple[Tile, ...],
        network: nn.Module,
        device: torch.device,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        scale, _, _ = _traits(network)
        reduced = resolve_precision(self.precision, device) == "bf16"
        autocast = torch.autocast(device.type, dtype=torch.bfloat16) if reduced else nullcontext()
        total = len(tiles) * inputs.shape[0]
        done = 0
        if self.progress is not None:
            self.progress(done, total)
        with torch.no_grad(), autocast:
            for item in range(inputs.shape[0]):
                for tile in tiles:
                    block = inputs[(slice(item, item + 1), slice(None), *tile.input_slices)]
                    try:
                        sr = network(block.to(device), *args, **kwargs)
                    except torch.OutOfMemoryError as error:
                        raise MemoryLimitError(
                            f"a tile of {tile.shape} voxels does not fit on {device}; "
                            "lower the memory limit so that tiles get smaller, or use the cpu"
                        ) from error
                    target = outputs[
                        (slice(item, item + 1), slice(None), *tile.output_slices(scale))
                    ]
                    target.copy_(sr[(slice(None), slice(None), *tile.crop_slices(scale))])
                    done += 1
                    if self.progress is not None:
                        self.progress(done, total)

    def _tile_limit(self, shape: Shape, network: nn.Module, device: torch.device) -> int:
        """Bytes that one tile may take."""
        scale, _, _ = _traits(network)
        output_bytes = 4 * math.prod(shape) * math.prod(scale) * _channels(network)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            limit = int(0.6 * free)
            return limit if self.max_memory_bytes is None else min(limit, self.max_memory_bytes)
        if self.max_memory_bytes is None:
            return DEFAULT_WORKING_BYTES
        return self.max_memory_bytes - output_bytes


def _traits(network: nn.Module) -> tuple[Shape, Shape, Shape]:
    """Scale, halo and alignment that the network states."""
    values = [getattr(network, name, None) for name in ("scale", "halo", "multiple_of")]
    if any(not isinstance(value, tuple) or len(value) != 3 for value in values):
        raise UsageError(
            f"{type(network).__name__} does not state scale, halo and multiple_of as triples; "
            "take a network of medsr.networks or give yours these attributes"
        )
    scale, halo, multiple_of = values
    return scale, halo, multiple_of  # type: ignore[return-value]


def _channels(network: nn.Module) -> int:
    """Channels of the network's output."""
    return int(getattr(network, "channels", 1))


def _with_affine(outputs: Tensor, inputs: MetaTensor) -> MetaTensor:
    """Attach the affines that keep each input's physical extent."""
    x, y, z = inputs.shape[2:]
    fine = (outputs.shape[2], outputs.shape[3], outputs.shape[4])
    affines = np.asarray(inputs.affine.cpu(), dtype=np.float64)
    stack = affines if affines.ndim == 3 else affines[np.newaxis]
    refined = np.stack([Geometry((x, y, z), affine).resize(fine).affine for affine in stack])
    affine = torch.as_tensor(refined if affines.ndim == 3 else refined[0])
    meta = {key: value for key, value in inputs.meta.items() if key != "affine"}
    result = MetaTensor(outputs, affine=affine, meta=meta)
    result.is_batch = inputs.is_batch
    return result

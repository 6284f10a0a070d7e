"""The engine: runs a network over a volume in blocks, as if it had seen it whole.

It asks the planner for blocks that suit the machine and the memory, leaves out background, lets an
executor run every block and writes its core straight into one float32 array. Where a GPU's memory
does not suffice after all, blocks get smaller, and in the end the processor takes over.

Not here: where blocks lie (``medsr.infer.engine.tiles``), how one is run
(``medsr.infer.engine.executors``), MONAI (``medsr.infer.monai_inferer``), scans
(``medsr.infer.upscaler``).
"""

from __future__ import annotations

import copy
import logging
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from medsr.errors import MemoryLimitError, UsageError
from medsr.infer.engine.backends import BACKENDS, DEFAULT_BACKEND, precision_for, resolve_backend
from medsr.infer.engine.backends.choose import fastest
from medsr.infer.engine.background import TOLERANCE, Background, find_background, shrink
from medsr.infer.engine.device import Precision, resolve_device
from medsr.infer.engine.executors import Executor, Runner, StreamExecutor, TileExecutor
from medsr.infer.engine.speed import USUAL, Way, rates
from medsr.infer.engine.stream import chain_of, subvoxels
from medsr.infer.engine.tiles import Tile, choose_core, even_out, plan_tiles
from medsr.types import CountProgress, Shape

__all__ = ["Engine", "Plan"]

logger = logging.getLogger(__name__)

FREE_SHARE = 0.4
"""Of the memory that is free, blocks may take this much where no limit is given."""

GPU_SHARE = 0.6
"""The same of a GPU's memory, which few other programs want."""

FEW_PLANES = 4
"""A streamed step of fewer planes takes several times as long a plane: convolutions get too thin
for the fast kernels."""

WORTH_MEASURING = 2**20
"""Voxels from which on a plan is worth the measurement of a machine not known yet."""


@dataclass(frozen=True)
class Plan:
    """How a volume is run.

    Args:
        shape: Its voxels.
        tiles: What is run, in order.
        executor: What runs it.
        device: Where.
        backend: By which library.
        background_voxels: Voxels left to interpolation.
        background: Where they are, if any.

    Examples:
        >>> from medsr.infer.engine.engine import Engine
        >>> from medsr.networks import build_network
        >>> network = build_network("ResNet3D", (1, 1, 4), width=16, blocks=1).eval()
        >>> plan = Engine(network, precision="fp32", core=16).plan((32, 32, 16))
        >>> len(plan.tiles), plan.as_dict()["streamed"]
        (4, False)
    """

    shape: Shape
    tiles: tuple[Tile, ...]
    executor: Executor
    device: torch.device
    backend: str
    background_voxels: int = 0
    background: Background | None = None

    @property
    def background_share(self) -> float:
        """Share of the volume that is left to interpolation."""
        return self.background_voxels / math.prod(self.shape)

    @property
    def is_cramped(self) -> bool:
        """Whether blocks are streamed in steps of so few planes that they take far longer."""
        executor = self.executor
        return isinstance(executor, StreamExecutor) and any(
            executor.step_for(tile.shape) < min(FEW_PLANES, max(tile.shape)) for tile in self.tiles
        )

    @property
    def seconds(self) -> float:
        """Time that it takes by the executor's estimate."""
        return sum(self.executor.seconds(tile.shape) for tile in self.tiles)

    @property
    def steps(self) -> int:
        """Steps of progress in all."""
        return sum(self.executor.steps(tile.shape) for tile in self.tiles)

    def as_dict(self) -> dict[str, Any]:
        """Return what a report says of the plan, as plain data."""
        largest = max((tile.shape for tile in self.tiles), key=math.prod, default=(0, 0, 0))
        return {
            "count": len(self.tiles),
            "largest_shape": list(largest),
            "streamed": isinstance(self.executor, StreamExecutor),
            "backend": self.backend,
            "air_share": round(self.background_share, 4),
            "air_tolerance": TOLERANCE,
        }


class Engine:
    """Runs a network over volumes of any size.

    Chains of plain convolutions (``RepPlain3D``, all shipped models) are streamed plane by plane;
    other networks run in tiles that carry the receptive field as halo and are cut back to their
    cores. Either gives the network's result on the whole volume to float tolerance: nothing is
    blended, and no window shows.

    Args:
        network: In evaluation mode, with ``scale``, ``halo`` and ``multiple_of`` (all of
            ``medsr.networks`` have them), and ``channels`` where its output has more than one.
        device: Where it runs; by default where its parameters are.
        precision: ``"auto"``, ``"fp32"`` or ``"bf16"``.
        backend: Name in ``medsr.infer.engine.backends.BACKENDS``, or ``"auto"``: torch for chains,
            which it streams, else the one that is fastest on the first volume planned with
            :meth:`plan_for`.
        max_memory_bytes: Limit for the output and what a block takes, together; by default a
            share of what is free.
        core: Largest core of a block in voxels, per axis or one number for all; chosen by the
            planner when not given.
        step: Planes that a streamed block answers at a time; chosen when not given.
        skip_background: Whether blocks in which the network changes nothing are left to
            interpolation.
        progress: Called with (steps done, steps in all) at the start and after every step.

    Raises:
        BackendError: The backend lacks the precision or the device.
        DeviceError: There is no such device.
        MissingExtraError: The backend's packages are not installed.
        UsageError: The network does not say its scale, halo and alignment, or a name is unknown.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from medsr.infer.engine.engine import Engine
        >>> from medsr.networks import build_network
        >>> network = build_network("RepPlain3D", (1, 1, 4), width=16, depth=2).merged().eval()
        >>> engine = Engine(network, precision="fp32")
        >>> engine.streams  # a chain of plain convolutions, fed plane by plane
        True
        >>> lr = torch.rand(24, 24, 10)  # normalised, (X, Y, Z)
        >>> sr = engine.run(lr)
        >>> with torch.no_grad():
        ...     whole = network(lr[None, None])
        >>> np.allclose(sr, whole.numpy(), atol=1e-5)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str | torch.device | None = None,
        precision: str = "auto",
        backend: str = "torch",
        max_memory_bytes: int | None = None,
        core: int | Shape | None = None,
        step: int | None = None,
        skip_background: bool = True,
        progress: CountProgress | None = None,
    ) -> None:
        self.scale, self.halo, self.multiple_of = _traits(network)
        self.channels = int(getattr(network, "channels", 1))
        self.network = network
        parameter = next(network.parameters(), None)
        home = torch.device("cpu") if parameter is None else parameter.device
        self.device = home if device is None else resolve_device(device)
        self.precision: Precision = precision_for(backend, precision, self.device)
        self._to_be_chosen = backend == "auto"
        first = DEFAULT_BACKEND if self._to_be_chosen else backend
        self.backend = resolve_backend(first, self.precision, self.device)
        self.max_memory_bytes = max_memory_bytes
        self.core: Shape | None = (core, core, core) if isinstance(core, int) else core
        self.step = step
        self.skip_background = skip_background
        self.progress = progress
        self._runner_for = lru_cache(maxsize=64)(self._prepare)
        self._network_on = lru_cache(maxsize=None)(self._copied)

    @property
    def streams(self) -> bool:
        """Whether the network is run plane by plane."""
        return self.backend.name == "torch" and chain_of(self.network) is not None

    def plan(self, shape: Shape) -> Plan:
        """Plan a volume of which nothing but the shape is known.

        Raises:
            MemoryLimitError: Not even the smallest block fits into ``max_memory_bytes``.
        """
        return self._plan(shape, self.device, self._limit(shape, self.device))

    def plan_for(self, lr: Tensor, *, offset: float = 0.0, divisor: float = 1.0) -> Plan:
        """Plan a volume, its background left out.

        Args:
            lr: Native values ``(X, Y, Z)``.
            offset: Native value that is 0 to the network.
            divisor: Native width that is 1 to the network.

        Raises:
            MemoryLimitError: Not even the smallest block fits into ``max_memory_bytes``.
        """
        plan = self._without_air(self.plan(_shape(lr)), lr, offset, divisor)
        if not self._to_be_chosen or self.streams:
            return plan  # others go by tiles, which streaming is ahead of
        self._to_be_chosen = False
        self.backend = BACKENDS[fastest(self, plan, lr, offset=offset, divisor=divisor).name]
        if self.backend.name == plan.backend:
            return plan
        return self.plan_for(lr, offset=offset, divisor=divisor)

    def with_backend(self, name: str) -> Engine:
        """Return an engine of the same network and settings by another backend."""
        return Engine(
            self.network,
            device=self.device,
            precision=self.precision,
            backend=name,
            max_memory_bytes=self.max_memory_bytes,
            core=self.core,
            skip_background=self.skip_background,
        )

    def run(
        self,
        lr: Tensor,
        *,
        offset: float = 0.0,
        divisor: float = 1.0,
        out: Tensor | None = None,
        plan: Plan | None = None,
    ) -> Tensor:
        """Enlarge a volume.

        Args:
            lr: ``(X, Y, Z)`` native values.
            offset: Native value that is 0 to the network.
            divisor: Native width that is 1 to the network.
            out: Written and returned, where given: ``(channels, X·sx, Y·sy, Z·sz)`` float32.
            plan: One of :meth:`plan_for` for this very volume; made when not given.

        Returns:
            ``(channels, X·sx, Y·sy, Z·sz)`` float32 native values on the device of ``lr``.

        Raises:
            BackendError: The backend cannot take this network.
            MemoryLimitError: Not even the smallest block fits into the memory there is.
        """
        lr = lr.float()
        if out is None:
            fine = [n * s for n, s in zip(_shape(lr), self.scale, strict=True)]
            out = torch.empty(self.channels, *fine, dtype=torch.float32, device=lr.device)
        with torch.inference_mode():
            plan = plan or self.plan_for(lr, offset=offset, divisor=divisor)
            while True:
                try:
                    self._run(plan, lr, out, offset, divisor)
                    return out
                except torch.OutOfMemoryError as error:
                    # The frames of its traceback hold the memory that is wanted back.
                    problem = error.with_traceback(None)
                plan = self._without_air(self._smaller_plan(plan, problem), lr, offset, divisor)

    def _run(self, plan: Plan, lr: Tensor, out: Tensor, offset: float, divisor: float) -> None:
        done, total = 0, plan.steps

        def tick() -> None:
            nonlocal done
            done += 1
            if self.progress is not None:
                self.progress(done, total)

        if self.progress is not None:
            self.progress(done, total)
        if plan.background is not None:
            _interpolate(lr, out, self.scale)
            plan.background.complete(out[0], divisor)
        for tile in plan.tiles:
            plan.executor.run(
                lr[tile.input_slices],
                out[(slice(None), *tile.output_slices(self.scale))],
                tile.crop_slices((1, 1, 1)),
                offset=offset,
                divisor=divisor,
                tick=tick,
            )

    def _plan(self, shape: Shape, device: torch.device, limit_bytes: int) -> Plan:
        executor = self._executor(shape, device, limit_bytes)
        core = self.core or choose_core(
            shape,
            self.halo,
            self.multiple_of,
            seconds=executor.seconds,
            working_bytes=executor.working_bytes,
            limit_bytes=limit_bytes,
            strict=self.max_memory_bytes is not None,
            whole=executor.whole,
        )
        tiles = plan_tiles(shape, self.halo, self.multiple_of, core)
        if executor.even:
            tiles = even_out(tiles, shape, self.multiple_of)
        return Plan(shape, tiles, executor, device, self.backend.name)

    def _without_air(self, plan: Plan, lr: Tensor, offset: float, divisor: float) -> Plan:
        """Leave out what interpolation restores as well."""
        asked = self.skip_background and self.channels == 1 and self.multiple_of == (1, 1, 1)
        if not asked or plan.executor.even:
            return plan
        try:
            background = find_background(lr, self.halo, self._ask, offset=offset, divisor=divisor)
        except torch.OutOfMemoryError:
            # A block of the plan may not fit either; what to do then is decided by its run.
            background = None
        if background is None:
            return plan
        tiles, left_out = shrink(plan.tiles, background, self.halo)
        return (
            replace(plan, tiles=tiles, background_voxels=left_out, background=background)
            if left_out
            else plan
        )

    def _ask(self, block: Tensor) -> Tensor:
        parameter = next(self.network.parameters(), block)
        answer: Tensor = self.network(block.to(parameter.device))
        return answer

    def _executor(self, shape: Shape, device: torch.device, limit_bytes: int) -> Executor:
        measured = math.prod(shape) >= WORTH_MEASURING and self.core is None
        way: Way = "stream" if self.streams else "tile"
        measurements = (
            rates(way, self.precision, device.type) if measured else USUAL[self.precision]
        )
        if self.streams:
            return StreamExecutor(
                self.network, shape, self.precision, device, measurements, limit_bytes, self.step
            )
        return TileExecutor(
            self.network,
            lambda tile: self._runner_for(tile, device),
            self.precision,
            measurements,
            even=self.backend.name != "torch",
        )

    def _prepare(self, tile: Shape, device: torch.device) -> Runner:
        network = self._network_on(device)
        return self.backend.prepare(network, tile, precision=self.precision, device=device)

    def _copied(self, device: torch.device) -> nn.Module:
        """Return the network, or a copy where it is elsewhere: a caller may be training it."""
        homes = {parameter.device for parameter in self.network.parameters()}
        if all(h.type == device.type and device.index in (None, h.index) for h in homes):
            return self.network
        return copy.deepcopy(self.network).to(device)

    def _limit(self, shape: Shape, device: torch.device) -> int:
        """Bytes that one block may take."""
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            # What torch holds and does not use is free as well.
            held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            share = int(GPU_SHARE * (free + held))
            return share if self.max_memory_bytes is None else min(share, self.max_memory_bytes)
        if self.max_memory_bytes is None:
            return int(FREE_SHARE * psutil.virtual_memory().available)
        output = 4 * math.prod(shape) * math.prod(self.scale) * self.channels
        return self.max_memory_bytes - output

    def _smaller_plan(self, plan: Plan, error: Exception) -> Plan:
        """Return a plan of blocks half as large, in the end one for the processor.

        Raises:
            MemoryLimitError: There is nothing left to try.
        """
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
        largest = max(plan.executor.working_bytes(tile.shape) for tile in plan.tiles)
        with suppress(MemoryLimitError):
            smaller = self._plan(plan.shape, plan.device, largest // 2)
            fits = max(smaller.executor.working_bytes(tile.shape) for tile in smaller.tiles)
            if fits < largest:
                self._warn_once("memory of %s does not suffice; going on in smaller blocks", plan)
                return smaller
        if plan.device.type == "cuda":
            self._warn_once("memory of %s does not suffice; going on on the processor", plan)
            # What comes after is no smaller, such as further chunks of the same volume.
            self.device = torch.device("cpu")
            return self.plan(plan.shape)
        raise MemoryLimitError(
            f"a block of {plan.tiles[0].shape} voxels does not fit into the memory there is; "
            "close other programs or take a smaller model"
        ) from error

    def _warn_once(self, message: str, plan: Plan) -> None:
        if not getattr(self, "_warned", False):
            logger.warning(message, plan.device)
        self._warned = True


def _interpolate(lr: Tensor, out: Tensor, scale: Shape) -> None:
    """Write the nearest voxel everywhere."""
    target = subvoxels(out[0], scale)
    target.copy_(lr[:, None, :, None, :, None].expand(target.shape))


def _traits(network: nn.Module) -> tuple[Shape, Shape, Shape]:
    """Scale, halo and alignment that the network states."""
    if not isinstance(network, nn.Module):
        raise UsageError("the network must be a torch module with scale, halo and multiple_of")
    values = [getattr(network, name, None) for name in ("scale", "halo", "multiple_of")]
    if any(not isinstance(value, tuple) or len(value) != 3 for value in values):
        raise UsageError(
            f"{type(network).__name__} does not state scale, halo and multiple_of as triples; "
            "take a network of medsr.networks or give yours these attributes"
        )
    scale, halo, multiple_of = values
    return scale, halo, multiple_of  # type: ignore[return-value]


def _shape(lr: Tensor) -> Shape:
    x, y, z = lr.shape
    return (x, y, z)
